"""The `Feed` contract, on the embedded endpoint and behind a real Mosquitto.

Publishers are paho-mqtt with MQTT 3.1.1 and 5, and mosquitto_pub where it is installed.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest

from matchday.clock import SystemClock
from matchday.mqtt.address import parse_address
from matchday.mqtt.codes import V5, V311
from matchday.mqtt.endpoint import EndpointFeed
from matchday.mqtt.session import BrokerFeed
from matchday.mqtt.settings import BrokerSettings, EndpointSettings
from matchday.ports import Deliveries
from servers.ports import free_port
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mosquitto import Mosquitto

CLOCK = SystemClock()
NUMBERS = count(1)
BOTH_VERSIONS = pytest.mark.parametrize(
    "protocol", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"]
)


@dataclass
class Rig:
    """One kind of feed, with everything a test needs to talk to it.

    `root` is a topic prefix of the test's own, since all tests share one broker.
    """

    kind: str
    root: str
    port: int
    make: Callable[..., BrokerFeed | EndpointFeed]
    feeds: list[BrokerFeed | EndpointFeed] = field(default_factory=list)

    def feed(self, **options: Any) -> BrokerFeed | EndpointFeed:
        """Open a feed on the rig's port; it is closed at the end of the test."""
        feed = self.make(**options)
        self.feeds.append(feed)
        if isinstance(feed, BrokerFeed):
            up(feed)
        return feed


def up(feed: BrokerFeed | EndpointFeed) -> None:
    """Wait until the feed has its link; messages must not come yet."""

    def is_up() -> bool:
        assert feed.receive(timeout_s=0.02) == []
        return feed.link().is_up

    wait_until(is_up, what=f"link is up: {feed.link()}", timeout_s=15)


@pytest.fixture(params=["endpoint", "broker"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    number = next(NUMBERS)
    if request.param == "endpoint":
        port = free_port()

        def make(**options: Any) -> EndpointFeed:
            if "receive_max" in options:
                options["client_receive_max"] = options["receive_max"]
            settings = EndpointSettings(port=port, **options)
            return EndpointFeed(settings, clock=CLOCK, rng=random.Random(1))

        rig = Rig("endpoint", f"t{number}", port, make)
    else:
        server: Mosquitto = request.getfixturevalue("mosquitto")

        def make(**options: Any) -> BrokerFeed:  # type: ignore[misc]
            return broker_feed(server.url, f"t{number}", **options)

        rig = Rig("broker", f"t{number}", server.port, make)
    yield rig
    for feed in rig.feeds:
        feed.close()


def broker_feed(url: str, root: str, **options: Any) -> BrokerFeed:
    options = {"client_id": f"ingest-{root}", "filters": (f"{root}/#",), **options}
    settings = BrokerSettings(address=parse_address(url), **options)
    return BrokerFeed(settings, clock=CLOCK, rng=random.Random(1))


@contextmanager
def publisher(rig: Rig, protocol: int, name: str = "sensor") -> Iterator[paho.Client]:
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, client_id=f"{rig.root}-{name}", protocol=protocol
    )
    client.reconnect_delay_set(1, 1)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", rig.port, keepalive=30)
    client.loop_start()
    try:
        wait_until(client.is_connected, what="publisher is connected", timeout_s=10)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def gather(
    feed: BrokerFeed | EndpointFeed, number: int, *, acknowledge: bool = True
) -> list[Deliveries]:
    """Receive until that many messages are there."""
    got: list[Deliveries] = []

    def has_all() -> bool:
        for deliveries in feed.receive(timeout_s=0.2):
            got.append(deliveries)
            if acknowledge:
                feed.acknowledge(deliveries)
        return sum(map(len, got)) >= number

    wait_until(has_all, what=f"{number} messages have arrived", timeout_s=20)
    return got


def payloads(got: list[Deliveries]) -> list[bytes]:
    return [payload for deliveries in got for payload in deliveries.payloads]


def numbered(number: int) -> list[bytes]:
    return [b"%d" % index for index in range(number)]


@BOTH_VERSIONS
def test_messages_of_a_publisher_arrive_in_order_and_once(rig: Rig, protocol: int) -> None:
    feed = rig.feed()
    with publisher(rig, protocol) as sensor:
        for payload in numbered(3000):
            sensor.publish(f"{rig.root}/a", payload, qos=1)
        got = gather(feed, 3000)
        assert payloads(got) == numbered(3000)
        assert feed.receive(timeout_s=0.1) == []
    assert {topic for one in got for topic in one.topics} == {f"{rig.root}/a"}
    assert all(packet_id for one in got for packet_id in one.packet_ids)
    expected = f"{rig.root}-sensor" if rig.kind == "endpoint" else ""
    assert {one.origin for one in got} == {expected}


@BOTH_VERSIONS
def test_qos_0_has_packet_id_0(rig: Rig, protocol: int) -> None:
    feed = rig.feed()
    with publisher(rig, protocol) as sensor:
        sensor.publish(f"{rig.root}/a", b"x", qos=0)
        [deliveries] = gather(feed, 1)
    assert list(deliveries.packet_ids) == [0]


def test_each_publisher_keeps_its_order(rig: Rig) -> None:
    feed = rig.feed()
    with publisher(rig, paho.MQTTv5, "a") as first, publisher(rig, paho.MQTTv311, "b") as second:
        for payload in numbered(300):
            first.publish(f"{rig.root}/a", payload, qos=1)
            second.publish(f"{rig.root}/b", payload, qos=1)
        got = gather(feed, 600)
    for name in ("a", "b"):
        topic = f"{rig.root}/{name}"
        pairs = [pair for one in got for pair in zip(one.topics, one.payloads, strict=True)]
        assert [payload for place, payload in pairs if place == topic] == numbered(300)


@BOTH_VERSIONS
def test_nothing_more_arrives_at_receive_max_until_acknowledged(rig: Rig, protocol: int) -> None:
    feed = rig.feed(receive_max=10)
    sent = [b"%d " % index + bytes(100_000) for index in range(50)]
    with publisher(rig, protocol) as sensor:
        for payload in sent:
            sensor.publish(f"{rig.root}/a", payload, qos=1)
        held = gather(feed, 10, acknowledge=False)
        held += feed.receive(timeout_s=0.2)
        assert feed.receive(timeout_s=0.3) == []
        # The endpoint may overshoot by what one read of 256 KiB completes.
        assert 10 <= len(payloads(held)) <= (13 if rig.kind == "endpoint" else 10)
        for deliveries in held:
            feed.acknowledge(deliveries)
        assert payloads(held + gather(feed, 50 - len(payloads(held)))) == sent


def test_receive_gives_nothing_after_its_time_out(rig: Rig) -> None:
    feed = rig.feed()
    begun_s = CLOCK.monotonic_s()
    assert feed.receive(timeout_s=0.05) == []
    assert 0.04 <= CLOCK.monotonic_s() - begun_s < 2.0


def test_receive_without_time_gives_what_is_there(rig: Rig) -> None:
    feed = rig.feed()
    with publisher(rig, paho.MQTTv5) as sensor:
        sensor.publish(f"{rig.root}/a", b"x", qos=1)
        wait_until(lambda: feed.receive(timeout_s=0) != [], what="message is there", timeout_s=5)


@BOTH_VERSIONS
def test_ten_megabytes_pass(rig: Rig, protocol: int) -> None:
    feed = rig.feed()
    big = random.Random(3).randbytes(10 * 2**20)
    with publisher(rig, protocol) as sensor:
        sensor.publish(f"{rig.root}/a", big, qos=1)
        sensor.publish(f"{rig.root}/a", b"small", qos=1)
        assert payloads(gather(feed, 2)) == [big, b"small"]


@BOTH_VERSIONS
def test_what_the_owner_did_not_acknowledge_comes_to_the_next_owner(
    rig: Rig, protocol: int
) -> None:
    first = rig.feed()
    with publisher(rig, protocol) as sensor:
        for payload in numbered(100):
            sensor.publish(f"{rig.root}/a", payload, qos=1)
        early = gather(first, 100, acknowledge=False)
        done = early[0]
        first.acknowledge(done)
        first.close()
        second = rig.make()
        rig.feeds.append(second)
        again = payloads(gather(second, 100 - len(done)))
    assert again == numbered(100)[len(done) :]


def test_acknowledgements_of_a_connection_that_is_gone_are_dropped(rig: Rig) -> None:
    feed = rig.feed()
    with publisher(rig, paho.MQTTv5) as sensor:
        sensor.publish(f"{rig.root}/a", b"x", qos=1)
        [deliveries] = gather(feed, 1, acknowledge=False)
    feed.close()
    feed.acknowledge(deliveries)
    assert feed.receive(timeout_s=0) == []


def test_close_is_safe_twice_and_takes_the_link_down(rig: Rig) -> None:
    feed = rig.feed()
    assert feed.link().is_up
    assert feed.link().name == "mqtt"
    feed.close()
    feed.close()
    assert not feed.link().is_up


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_pub_is_served(rig: Rig, version: str) -> None:
    program = shutil.which("mosquitto_pub")
    if program is None:
        pytest.skip("mosquitto_pub is not installed (package mosquitto-clients)")
    feed = rig.feed()
    address = ["-h", "127.0.0.1", "-p", str(rig.port), "-V", version]
    message = ["-t", f"{rig.root}/a", "-m", "hello", "-q", "1"]
    with subprocess.Popen([program, *address, *message]) as child:
        got = gather(feed, 1)
        assert child.wait(10) == 0
    assert payloads(got) == [b"hello"]


# --- the endpoint alone ---------------------------------------------------------------------


@pytest.fixture
def endpoint() -> Iterator[Rig]:
    port = free_port()

    def make(**options: Any) -> EndpointFeed:
        settings = EndpointSettings(port=port, **options)
        return EndpointFeed(settings, clock=CLOCK, rng=random.Random(1))

    rig = Rig("endpoint", "e", port, make)
    yield rig
    for feed in rig.feeds:
        feed.close()


@BOTH_VERSIONS
def test_sensor_sees_its_puback_only_after_acknowledge(endpoint: Rig, protocol: int) -> None:
    feed = endpoint.feed()
    with publisher(endpoint, protocol) as sensor:
        sent = [sensor.publish("e/a", payload, qos=1) for payload in numbered(20)]
        held = gather(feed, 20, acknowledge=False)
        assert feed.receive(timeout_s=0.2) == []
        assert not any(one.is_published() for one in sent)
        for deliveries in held:
            feed.acknowledge(deliveries)
        wait_until(
            lambda: all(one.is_published() for one in sent), what="PUBACKs are there", timeout_s=5
        )


@pytest.mark.parametrize(
    ("protocol", "code"), [(paho.MQTTv311, 0x80), (paho.MQTTv5, 0x83)], ids=["3.1.1", "5"]
)
def test_subscriber_to_the_endpoint_is_told_by_reason_code(
    endpoint: Rig, protocol: int, code: int
) -> None:
    endpoint.feed()
    answers: list[tuple[int, str]] = []

    def on_subscribe(_: Any, __: Any, ___: Any, codes: Any, properties: Any) -> None:
        answers.append((codes[0].value, getattr(properties, "ReasonString", "")))

    with publisher(endpoint, protocol) as client:
        client.on_subscribe = on_subscribe
        client.subscribe("#", qos=1)
        wait_until(lambda: bool(answers), what="SUBACK is there", timeout_s=5)
    [(given, reason)] = answers
    assert given == code
    assert protocol != paho.MQTTv5 or "not a broker" in reason


def test_closing_endpoint_says_that_it_shuts_down(endpoint: Rig) -> None:
    feed = endpoint.feed()
    reasons: list[int] = []
    with publisher(endpoint, paho.MQTTv5) as client:
        client.on_disconnect = lambda *parts: reasons.append(parts[3].value)
        feed.close()
        wait_until(lambda: bool(reasons), what="client was told", timeout_s=5)
    assert reasons[0] == 0x8B


# --- the broker alone -----------------------------------------------------------------------


def test_session_goes_on_after_the_broker_restarts(
    fresh_mosquitto: Callable[..., Mosquitto],
) -> None:
    server = fresh_mosquitto()
    feed = broker_feed(server.url, "r", retry_s_min=0.05, retry_s_max=0.2)
    rig = Rig("broker", "r", server.port, lambda: feed)
    try:
        up(feed)
        with publisher(rig, paho.MQTTv5) as sensor:
            for payload in numbered(10):
                sensor.publish("r/a", payload, qos=1).wait_for_publish(5)
        held = gather(feed, 10, acknowledge=False)
        since_ms = feed.link().since_ms
        server.stop()
        wait_until(
            lambda: feed.receive(timeout_s=0.05) == [] and not feed.link().is_up,
            what="loss is noticed",
        )
        feed.acknowledge(held[0])
        server.start()
        again = gather(feed, 10)
        with publisher(rig, paho.MQTTv5) as sensor:
            sensor.publish("r/a", b"new", qos=1).wait_for_publish(5)
        got = payloads(again + gather(feed, 1))
    finally:
        feed.close()
    assert got == [*numbered(10), b"new"]
    assert {one.connection for one in again}.isdisjoint(one.connection for one in held)
    assert feed.link().since_ms >= since_ms


@pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "lost"])
def test_owner_is_told_whether_the_broker_had_kept_the_session(
    fresh_mosquitto: Callable[..., Mosquitto],
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    is_kept: bool,
) -> None:
    # Mosquitto cannot be told to refuse version 5, so it is not asked for it.
    monkeypatch.setattr("matchday.mqtt.dial.V5", version)
    server = fresh_mosquitto()
    feed = broker_feed(server.url, "k", retry_s_min=0.05, retry_s_max=0.2)
    rig = Rig("broker", "k", server.port, lambda: feed)
    try:
        up(feed)
        assert f"MQTT {'5' if version == V5 else '3.1.1'}" in feed.link().detail
        with publisher(rig, paho.MQTTv5) as sensor:
            sensor.publish("k/a", b"1", qos=1).wait_for_publish(5)
        [new] = gather(feed, 1)
        server.stop()
        wait_until(
            lambda: feed.receive(timeout_s=0.05) == [] and not feed.link().is_up,
            what="loss is noticed",
        )
        if not is_kept:
            shutil.rmtree(server.data_dir)
        server.start()
        up(feed)
        with publisher(rig, paho.MQTTv5) as sensor:
            sensor.publish("k/a", b"2", qos=1).wait_for_publish(5)
        [later] = gather(feed, 1)
    finally:
        feed.close()
    assert (new.is_resumed, later.is_resumed) == (False, is_kept)
    assert later.payloads == [b"2"]


def test_messages_published_while_the_owner_is_away_are_kept(mosquitto: Mosquitto) -> None:
    first = broker_feed(mosquitto.url, "away")
    up(first)
    first.close()
    rig = Rig("broker", "away", mosquitto.port, lambda: first)
    with publisher(rig, paho.MQTTv311) as sensor:
        for payload in numbered(50):
            sensor.publish("away/a", payload, qos=1).wait_for_publish(5)
    second = broker_feed(mosquitto.url, "away")
    try:
        assert payloads(gather(second, 50)) == numbered(50)
    finally:
        second.close()


def test_next_owner_gets_what_an_owner_that_fell_silent_did_not_acknowledge(
    mosquitto: Mosquitto,
) -> None:
    silent, following = broker_feed(mosquitto.url, "s"), broker_feed(mosquitto.url, "s")
    try:
        up(silent)
        rig = Rig("broker", "s", mosquitto.port, lambda: following)
        with publisher(rig, paho.MQTTv5) as sensor:
            for payload in numbered(100):
                sensor.publish("s/a", payload, qos=1)
            gather(silent, 100, acknowledge=False)
            assert payloads(gather(following, 100)) == numbered(100)
    finally:
        silent.close()
        following.close()


def test_retained_message_does_not_come_again_on_reconnecting(mosquitto: Mosquitto) -> None:
    first = broker_feed(mosquitto.url, "ret")
    up(first)
    rig = Rig("broker", "ret", mosquitto.port, lambda: first)
    with publisher(rig, paho.MQTTv5) as sensor:
        sensor.publish("ret/a", b"kept", qos=1, retain=True)
        assert payloads(gather(first, 1)) == [b"kept"]
    first.close()
    second = broker_feed(mosquitto.url, "ret")
    try:
        up(second)
        assert second.receive(timeout_s=0.2) == []
    finally:
        second.close()
