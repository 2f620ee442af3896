"""`matchday up` as a newcomer runs it: killed in the middle, and fed with rubbish."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from matchday.store.embedded_query import EmbeddedQuery
from servers.load import Load
from servers.ports import free_port
from servers.process import wait_until
from servers.services import MatchdayService, ask

SOURCES = [f"tag-{number}" for number in range(20)]
NOW_MS = 1_700_000_000_000

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def settings(tmp_path: Path) -> Mapping[str, str]:
    """Give the settings of an embedded deployment in a folder of its own."""
    return {
        "MATCHDAY_DATA_DIR": str(tmp_path / "data"),
        "MATCHDAY_MQTT__PORT": str(free_port()),
    }


@pytest.fixture
def up(settings: Mapping[str, str], tmp_path: Path) -> Iterator[MatchdayService]:
    """Give a running `matchday up` that takes messages."""
    service = MatchdayService(tmp_path, ("up",), settings)
    service.start()
    await_ready(service)
    yield service
    service.kill()


def await_ready(service: MatchdayService) -> None:
    wait_until(lambda: service.links().get("mqtt", False), what="messages are taken", timeout_s=60)


def account(settings: Mapping[str, str], received: int) -> dict[str, Any]:
    """Give the account once so many readings have arrived and nothing is pending."""
    found: dict[str, Any] = {}

    def is_settled() -> bool:
        found.update(ask(settings, "ledger"))
        totals = found["totals"]
        return totals["pending"] == 0 and totals["received"] - totals["duplicate"] >= received

    wait_until(is_settled, what=f"{received} readings are settled", timeout_s=90)
    return found


def test_killing_it_again_and_again_loses_nothing_and_stores_nothing_twice(settings, up):
    port = int(settings["MATCHDAY_MQTT__PORT"])
    load = Load(port, rate_per_s=1000, sources=SOURCES)
    for _ in range(4):
        target = len(load.acknowledged) + 2000
        wait_until(
            lambda target=target: len(load.acknowledged) >= target,
            what="load flows",
            timeout_s=60,
        )
        up.kill()
        # Right after the crash, with nobody running, the account is there and adds up.
        found = ask(settings, "ledger")
        assert found["exit"] == 0, found
        up.start()
    load.stop()
    wait_until(lambda: load.open_count == 0, what="all is acknowledged", timeout_s=60)
    load.close()
    settled = account(settings, len(load.acknowledged))
    query = EmbeddedQuery(Path(settings["MATCHDAY_DATA_DIR"]))
    stored = Counter(
        (item["metadata"]["sensor_id"], item["seq"])
        for item in query.newest("sensors", limit=1_000_000)
    )
    query.close()
    assert not load.acknowledged - set(stored)
    assert not [key for key, count in stored.items() if count > 1]
    assert settled["adds_up"]
    assert settled["totals"]["missing"] == 0
    assert ask(settings, "ledger", "--verify")["exit"] == 0


RUBBISH: list[tuple[str, bytes, str]] = [
    ("matchday/v/scalar/bad", b"not json", "not_json"),
    ("matchday/v/scalar/bad", b"\xff\xfe\x00", "not_utf8"),
    ("matchday/v/scalar/bad", b"[1, 2, 3]", "wrong_type"),
    ("matchday/v/scalar/bad", b'{"quantity":"q","value":NaN}', "not_finite"),
    ("matchday/v/scalar/bad", b'{"quantity":"q","value":Infinity}', "not_finite"),
    ("matchday/v/scalar/bad", b'{"quantity":"q"}', "missing_field"),
    ("matchday/v/scalar/bad", b'{"quantity":"q","value":1,"t":"1970-06-01"}', "wrong_type"),
    (
        "matchday/v/scalar/bad",
        b'{"quantity":"q","value":1,"t":"1970-06-01T00:00:00Z"}',
        "time_before_1971",
    ),
    (
        "matchday/v/scalar/bad",
        b'{"quantity":"q","value":1,"t":"2999-01-01T00:00:00Z"}',
        "time_ahead",
    ),
    ("nobody/knows/this", b"hello", "unknown_topic"),
    ("matchday/v/positions/big", b"x" * 10_000_000, "not_json"),
    ("matchday/v/scalar/deep", b'{"quantity":"q","value":1,"x":' + b"[" * 50_000, "too_deep"),
]


def test_rubbish_is_kept_whole_with_its_reason_and_good_sources_are_not_delayed(settings, up):
    port = int(settings["MATCHDAY_MQTT__PORT"])
    load = Load(port, rate_per_s=200, sources=["good"], client_id="good")
    client = Client(CallbackAPIVersion.VERSION2, client_id="rubbish")
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish(topic, payload, qos=1) for topic, payload, _ in RUBBISH]
    for message in sent:
        message.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()
    load.stop()
    wait_until(lambda: load.open_count == 0, what="good readings are acknowledged", timeout_s=10)
    load.close()
    settled = account(settings, len(load.acknowledged) + len(RUBBISH))
    assert settled["adds_up"]
    assert settled["totals"]["refused"] == len(RUBBISH)
    letters = ask(settings, "deadletter", "list", "--limit", "100")
    found = [(row["topic"], row["reason"], row["bytes"]) for row in reversed(letters)]
    assert found == [(topic, reason, len(payload)) for topic, payload, reason in RUBBISH]
    for row, (_, payload, _) in zip(reversed(letters), RUBBISH, strict=True):
        shown = ask(settings, "deadletter", "show", row["id"])
        assert shown["text"] == payload[:65536].decode(errors="backslashreplace")


def test_stopping_it_drains_and_exits_cleanly(settings, up):
    load = Load(int(settings["MATCHDAY_MQTT__PORT"]), rate_per_s=500, sources=SOURCES)
    wait_until(lambda: len(load.acknowledged) >= 1000, what="load flows")
    load.close()
    assert up.stop()
    assert ask(settings, "ledger")["totals"]["pending"] == 0


def test_second_process_on_the_same_folder_is_told_who_owns_it(settings, up, tmp_path):
    other = {**settings, "MATCHDAY_MQTT__PORT": str(free_port())}
    second = MatchdayService(tmp_path, ("up",), other)
    with pytest.raises(Exception, match=f"process {up.pid} owns it"):
        second.start()


def test_port_in_use_is_named_with_its_flag(settings, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = MatchdayService(tmp_path, ("up",), {**settings, "MATCHDAY_MQTT__PORT": str(port)})
        with pytest.raises(Exception, match=rf"(?s)exit code 1 .*{port}.*--mqtt-port"):
            service.start()
