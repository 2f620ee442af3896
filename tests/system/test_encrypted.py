"""The links to real servers by TLS: with the right authority they work, without it they do not.

Owns the claims about `mqtts://` and `kafkas://`. Users and rights are in `test_setup`.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("confluent_kafka")

from matchday.clock import SystemClock
from matchday.errors import UnavailableError
from matchday.mqtt.address import parse_address
from matchday.mqtt.session import BrokerFeed
from matchday.mqtt.settings import BrokerSettings
from matchday.stream.kafka import KafkaStream
from servers.keys import Keys, make_keys, openssl_refusal
from servers.process import wait_until
from servers.secured import secured_kafka, secured_mosquitto

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(openssl_refusal()), reason=openssl_refusal()),
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Make an authority and a key for loopback."""
    return make_keys(tmp_path_factory.mktemp("keys"))


def test_kafkas_works_with_the_authority_and_not_without(
    keys: Keys, need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
):
    need_server("kafka")
    folder = servers_dir("kafka")
    shutil.copy(keys.authority, folder / "ca.pem")
    with secured_kafka(folder, encrypted=keys.of_kafka) as server:
        url = server.url_of("admin").replace("kafka://", "kafkas://")
        trusting = KafkaStream(f"{url}?ca={quote(str(keys.authority))}", clock=SystemClock())
        trusting.prepare()
        assert trusting.check() == []
        trusting.close()
        doubting = KafkaStream(url, clock=SystemClock(), io_timeout_s=2.0)
        with pytest.raises(UnavailableError):
            doubting.prepare()
        doubting.close()
        plain = KafkaStream(server.url_of("admin"), clock=SystemClock(), io_timeout_s=2.0)
        with pytest.raises(UnavailableError):
            plain.prepare()
        plain.close()


@pytest.fixture
def feed_of(
    keys: Keys, need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Callable[[Path | None], BrokerFeed]]:
    """Give a function that connects to a TLS broker, trusting that authority."""
    need_server("mosquitto")
    made: list[BrokerFeed] = []
    with secured_mosquitto(servers_dir("mosquitto"), encrypted=keys.of_mosquitto) as server:
        url = server.url_of("ingest").replace("mqtt://", "mqtts://")

        def connect(authority: Path | None) -> BrokerFeed:
            settings = BrokerSettings(
                address=parse_address(url),
                client_id=f"tls-{len(made)}",
                filters=("#",),
                ca_file=authority,
            )
            made.append(BrokerFeed(settings, clock=SystemClock(), rng=random.Random(1)))
            return made[-1]

        yield connect
        for feed in made:
            feed.close()


def test_mqtts_works_with_the_authority_and_not_without(
    keys: Keys, feed_of: Callable[[Path | None], BrokerFeed]
):
    trusting = feed_of(keys.authority)

    def is_up() -> bool:
        trusting.receive(timeout_s=0.1)
        return trusting.link().is_up

    wait_until(is_up, what="the session stands")
    doubting = feed_of(None)

    def is_refused() -> bool:
        doubting.receive(timeout_s=0.1)
        return "certificate" in doubting.link().detail.lower()

    wait_until(is_refused, what="the certificate is refused")
    assert not doubting.link().is_up
