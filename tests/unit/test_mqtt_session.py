"""The session with a broker in situations that a real one does not produce on demand."""

from __future__ import annotations

import fcntl
import random
import re
import socket
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from matchday.clock import Clock, ManualClock, SystemClock
from matchday.errors import ConfigError, FencedError
from matchday.mqtt.address import Address
from matchday.mqtt.codes import V5, V311, Code, ProtocolError
from matchday.mqtt.fields import Property
from matchday.mqtt.layouts import PINGRESP, decode, encode
from matchday.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Suback,
    Subscribe,
)
from matchday.mqtt.publish import Decoder
from matchday.mqtt.session import THROWN_OUT_MAX, BrokerFeed
from matchday.mqtt.settings import BrokerSettings
from matchday.observe.metrics import PROCESS
from matchday.ports import Deliveries
from mqtt_packing import pack_publish
from servers.ports import free_port
from servers.process import wait_until

Answer = Callable[["Line", Packet], None]


class Line:
    """The broker's end of one connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.socket = sock
        self.number = number
        self.version = V5

    def send(self, *pieces: bytes | Packet) -> None:
        for piece in pieces:
            whole = piece if isinstance(piece, bytes) else encode(piece, version=self.version)
            self.socket.sendall(whole)


class ScriptedBroker:
    """A broker that does what a test says; `seen` holds every packet it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[tuple[int, Packet]] = []
        self.lines: list[Line] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._server.getsockname()[1], False, "u", "hidden")
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._threads[0].join(5)
        for line in self.lines:
            with suppress(OSError):
                line.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for line in self.lines:
            line.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            line = Line(sock, len(self.lines) + 1)
            self.lines.append(line)
            self._threads.append(threading.Thread(target=self._serve, args=(line,)))
            self._threads[-1].start()

    def _serve(self, line: Line) -> None:
        decoder = Decoder(version=None, packet_bytes_max=2**20)
        with suppress(OSError, ProtocolError):
            while chunk := line.socket.recv(65_536):
                for other in decoder.decode(chunk).others:
                    packet = decode(*other, version=decoder.version)
                    if isinstance(packet, Connect):
                        line.version = decoder.version = packet.version
                    self.seen.append((line.number, packet))
                    self.answer(line, packet)

    def packets(self, kind: type) -> list[Any]:
        return [packet for _, packet in self.seen if isinstance(packet, kind)]


def serve(line: Line, packet: Packet) -> None:
    """Answer as a plain broker does."""
    if isinstance(packet, Connect):
        line.send(Connack())
    elif isinstance(packet, Subscribe):
        line.send(Suback(packet_id=packet.packet_id, codes=(1,) * len(packet.subscriptions)))
    elif isinstance(packet, Disconnect):
        line.socket.shutdown(socket.SHUT_RDWR)


class Lab:
    """Makes brokers and feeds, and closes them in the right order."""

    def __init__(self) -> None:
        self.brokers: list[ScriptedBroker] = []
        self.feeds: list[BrokerFeed] = []

    def broker(self, answer: Answer = serve) -> ScriptedBroker:
        self.brokers.append(ScriptedBroker(answer))
        return self.brokers[-1]

    def feed(self, address: Address, *, clock: Clock | None = None, **options: Any) -> BrokerFeed:
        options = {"retry_s_min": 0.01, "retry_s_max": 0.05, "filters": ("t/#",), **options}
        settings = BrokerSettings(address=address, client_id="c", **options)
        feed = BrokerFeed(settings, clock=clock or SystemClock(), rng=random.Random(1))
        self.feeds.append(feed)
        return feed


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    for feed in lab.feeds:
        feed.close(drain_s=0)
    for broker in lab.brokers:
        broker.close()


def up(feed: BrokerFeed) -> None:
    def is_up() -> bool:
        feed.receive(timeout_s=0.02)
        return feed.link().is_up

    wait_until(is_up, what=f"link is up: {feed.link()}", timeout_s=10)


def first(feed: BrokerFeed) -> Deliveries:
    got: list[Deliveries] = []

    def has_one() -> bool:
        got.extend(feed.receive(timeout_s=0.05))
        return bool(got)

    wait_until(has_one, what=f"a message has arrived: {feed.link()}", timeout_s=10)
    return got[0]


# --- versions and greeting ------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [b"\x20\x03\x00\x84\x00", b"\x20\x02\x00\x01", b""],
    ids=["0x84", "0x01 of 3.1.1", "closes"],
)
def test_broker_without_version_5_is_served_with_3_1_1(lab: Lab, refusal: bytes) -> None:
    def answer(line: Line, packet: Packet) -> None:
        if line.version == V5:
            line.send(refusal)
            line.socket.shutdown(socket.SHUT_RDWR)
        else:
            serve(line, packet)
            if isinstance(packet, Subscribe):
                line.send(pack_publish("t/a", b"x", packet_id=5, version=V311))

    broker = lab.broker(answer)
    feed = lab.feed(broker.address)
    deliveries = first(feed)
    assert (deliveries.topics, deliveries.packet_ids) == (["t/a"], [5])
    assert "MQTT 3.1.1" in feed.link().detail
    feed.acknowledge(deliveries)
    wait_until(lambda: broker.packets(Puback) == [Puback(packet_id=5)], what="PUBACK came")


def test_greeting_asks_for_a_session_that_never_expires(lab: Lab) -> None:
    broker = lab.broker()
    up(lab.feed(broker.address, receive_max=123))
    [connect] = broker.packets(Connect)
    assert not connect.clean_start
    assert (connect.username, connect.password) == ("u", b"hidden")
    assert connect.properties == {
        Property.SESSION_EXPIRY_S: 0xFFFF_FFFF,
        Property.RECEIVE_MAX: 123,
        Property.PACKET_BYTES_MAX: 16 * 2**20,
        Property.TOPIC_ALIAS_MAX: 0,
    }
    [subscribe] = broker.packets(Subscribe)
    assert [(one.qos, one.retain_handling) for one in subscribe.subscriptions] == [(1, 2)]


def test_session_of_3_1_1_is_subscribed_once_a_process(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        if isinstance(packet, Connect):
            is_refused = line.version == V5
            line.send(Connack(code=0x84 if is_refused else 0, is_session_present=not is_refused))
        else:
            serve(line, packet)

    broker = lab.broker(answer)
    feed = lab.feed(broker.address)
    up(feed)
    broker.lines[-1].socket.shutdown(socket.SHUT_RDWR)
    wait_until(
        lambda: feed.receive(timeout_s=0.02) == [] and len(broker.packets(Connect)) == 4,
        what="feed has connected again",
    )
    up(feed)
    assert len(broker.packets(Subscribe)) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Connack(code=Code.BAD_CREDENTIALS), "refused, 0x86 bad credentials"),
        (Connack(properties={Property.QOS_MAX: 0}), "only QoS 0"),
        (Connack(properties={Property.WILDCARD_AVAILABLE: 0}), "no wildcard"),
        (Suback(packet_id=1, codes=(0x87,)), "subscribing to t/# .*0x87 not authorized"),
        (Suback(packet_id=1, codes=(0,)), "QoS 0 granted"),
        (Suback(packet_id=1, codes=(1, 1)), "2 answers to 1 filters"),
        (Puback(packet_id=1), "Puback is not for a subscriber"),
    ],
)
def test_broker_that_cannot_serve_us_is_named_in_the_link(
    lab: Lab, answer: Packet, words: str
) -> None:
    def refuse(line: Line, packet: Packet) -> None:
        if isinstance(packet, Connect):
            line.send(answer if isinstance(answer, Connack) else Connack())
        elif isinstance(packet, Subscribe):
            line.send(answer)

    feed = lab.feed(lab.broker(refuse).address)
    pattern = re.compile(words)

    def is_told() -> bool:
        assert feed.receive(timeout_s=0.01) == []
        return bool(pattern.search(feed.link().detail))

    wait_until(is_told, what=f"link says {words}", timeout_s=10)
    assert not feed.link().is_up
    assert "hidden" not in feed.link().detail


# --- endings --------------------------------------------------------------------------------


def test_session_taken_over_stops_the_feed_after_its_last_messages(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        serve(line, packet)
        if isinstance(packet, Subscribe):
            line.send(
                pack_publish("t/a", b"last", packet_id=1)
                + encode(Disconnect(code=Code.SESSION_TAKEN_OVER))
            )

    feed = lab.feed(lab.broker(answer).address)
    assert first(feed).payloads == [b"last"]
    with pytest.raises(FencedError, match="0x8E session taken over"):
        wait_until(lambda: feed.receive(timeout_s=0.1) != [], what="fenced")
    with pytest.raises(FencedError):
        feed.receive(timeout_s=0)


def test_session_closed_again_and_again_soon_after_it_was_up_is_somebody_elses(lab: Lab) -> None:
    def throw_out(line: Line, packet: Packet) -> None:
        serve(line, packet)
        if isinstance(packet, Subscribe):
            line.socket.shutdown(socket.SHUT_RDWR)

    broker = lab.broker(throw_out)
    feed = lab.feed(broker.address, retry_s_max=10)
    with pytest.raises(FencedError, match="does another program use the client id c"):
        wait_until(lambda: feed.receive(timeout_s=0.1) != [], what="fenced")
    assert len(broker.packets(Subscribe)) == THROWN_OUT_MAX


def test_broker_that_refuses_in_between_has_not_given_the_session_to_somebody_else(
    lab: Lab,
) -> None:
    def crash(line: Line, packet: Packet) -> None:
        if isinstance(packet, Connect) and line.number % 4 == 0:
            line.send(Connack(code=Code.SERVER_UNAVAILABLE))
            return
        serve(line, packet)
        if isinstance(packet, Subscribe):
            line.socket.shutdown(socket.SHUT_RDWR)

    broker = lab.broker(crash)
    feed = lab.feed(broker.address, retry_s_max=0.5)

    def is_tried_often() -> bool:
        assert feed.receive(timeout_s=0.1) == []
        return len(broker.packets(Subscribe)) > 2 * THROWN_OUT_MAX

    wait_until(is_tried_often, what="the broker was tried often")


def test_malformed_packet_ends_the_connection_with_its_code(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        serve(line, packet)
        if isinstance(packet, Subscribe):
            number = line.number
            line.send(b"\x36\x00" if number == 1 else pack_publish("t/a", b"x", packet_id=1))

    broker = lab.broker(answer)
    feed = lab.feed(broker.address)
    assert first(feed).connection == 2
    wait_until(
        lambda: Disconnect(code=Code.MALFORMED_PACKET) in broker.packets(Disconnect),
        what="broker was told",
    )


def test_loss_is_told_once_however_often_the_broker_is_tried(lab: Lab) -> None:
    clock = ManualClock()
    feed = lab.feed(Address("127.0.0.1", free_port()), clock=clock)
    before = PROCESS.value("matchday_link_losses_total", link="mqtt.c")
    for _ in range(20):
        assert feed.receive(timeout_s=1) == []
    assert PROCESS.value("matchday_link_losses_total", link="mqtt.c") == before + 1
    assert "connection refused" in feed.link().detail


def test_pauses_between_attempts_grow_to_the_bound(lab: Lab) -> None:
    def hang_up(line: Line, packet: Packet) -> None:
        line.send(Connack(code=Code.SERVER_UNAVAILABLE))

    clock = ManualClock()
    broker = lab.broker(hang_up)
    feed = lab.feed(broker.address, clock=clock, retry_s_min=1, retry_s_max=8)
    moments_s: list[float] = []
    while len(moments_s) < 8:
        seen = len(broker.packets(Connect))
        assert feed.receive(timeout_s=0.25) == []
        if len(broker.packets(Connect)) > seen:
            moments_s.append(clock.monotonic_s())
    pauses_s = [later - sooner for sooner, later in pairwise(moments_s)]
    bounds_s = [1, 2, 4, 8, 8, 8, 8]
    assert all(
        bound_s / 2 - 0.3 <= pause_s <= bound_s + 0.6
        for pause_s, bound_s in zip(pauses_s, bounds_s, strict=True)
    ), pauses_s


def test_broker_that_never_answers_is_given_up(lab: Lab) -> None:
    clock = ManualClock()
    feed = lab.feed(lab.broker(lambda line, packet: None).address, clock=clock, io_timeout_s=5)
    assert feed.receive(timeout_s=0.2) == []
    clock.advance(6)
    feed.receive(timeout_s=0)
    assert "no answer within 5 s" in feed.link().detail


# --- keep-alive -----------------------------------------------------------------------------


def test_ping_is_sent_by_keep_alive_while_the_owner_waits(lab: Lab) -> None:
    clock = ManualClock()
    broker = lab.broker()
    feed = lab.feed(broker.address, clock=clock, keep_alive_s=60)
    up(feed)
    clock.advance(19)
    feed.keep_alive()
    assert not broker.packets(Pingreq)
    clock.advance(2)
    feed.keep_alive()
    wait_until(lambda: len(broker.packets(Pingreq)) == 1, what="ping came")


def test_keep_alive_of_the_broker_goes_first(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        if isinstance(packet, Connect):
            line.send(Connack(properties={Property.SERVER_KEEP_ALIVE_S: 6}))
        else:
            serve(line, packet)

    clock = ManualClock()
    broker = lab.broker(answer)
    feed = lab.feed(broker.address, clock=clock)
    up(feed)
    clock.advance(2.5)
    feed.keep_alive()
    wait_until(lambda: len(broker.packets(Pingreq)) == 1, what="ping came")


def test_unanswered_ping_ends_the_connection_and_an_answered_one_does_not(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        serve(line, packet)
        if isinstance(packet, Pingreq) and len(broker.packets(Pingreq)) == 1:
            line.send(PINGRESP)

    clock = ManualClock()
    broker = lab.broker(answer)
    feed = lab.feed(broker.address, clock=clock, keep_alive_s=60, io_timeout_s=10)
    up(feed)
    for number in (1, 2):
        clock.advance(21)
        feed.keep_alive()
        wait_until(lambda: len(broker.packets(Pingreq)) == number, what="ping came")  # noqa: B023
        feed.receive(timeout_s=0.2)
        assert feed.link().is_up
    clock.advance(11)
    feed.receive(timeout_s=0)
    assert not feed.link().is_up
    assert "no answer within 10 s" in feed.link().detail


class Pings:
    """A broker that answers pings while it is alive, and whose messages are sent by hand."""

    def __init__(self, lab: Lab) -> None:
        self.is_alive = True
        self.answered_count = 0
        self.asked_count = 0
        self.broker = lab.broker(self._answer)

    def _answer(self, line: Line, packet: Packet) -> None:
        serve(line, packet)
        if isinstance(packet, Pingreq):
            if self.is_alive:
                line.send(PINGRESP)
                self.answered_count += 1
            self.asked_count += 1

    def send(self, *payloads: bytes) -> None:
        for number, payload in enumerate(payloads, start=1):
            self.broker.lines[-1].send(pack_publish("t/a", payload, packet_id=number))

    def is_delivered(self) -> bool:
        """Tell whether our side has everything, read or not."""
        unsent = fcntl.ioctl(self.broker.lines[-1].socket, termios.TIOCOUTQ, bytes(4))
        return not any(unsent)


def keep_busy(feed: BrokerFeed, clock: ManualClock, pings: Pings, *, until_s: int) -> int:
    """Only keep the connection alive, as while the stream is away; give the seconds it is up."""
    pinged = pings.asked_count
    for second in range(until_s):
        if not feed.link().is_up:
            return second
        clock.advance(1)
        feed.keep_alive()
        if second % 20 == 19 and feed.link().is_up:
            pinged += 1
            wait_until(lambda: pings.asked_count >= pinged, what="ping came")  # noqa: B023
            if pings.is_alive:
                wait_until(pings.is_delivered, what="answer has arrived")
    return until_s


def test_broker_that_answers_stays_connected_while_nobody_receives(lab: Lab) -> None:
    clock, pings = ManualClock(), Pings(lab)
    feed = lab.feed(pings.broker.address, clock=clock, keep_alive_s=60, io_timeout_s=10)
    up(feed)
    begun = feed.link()
    pings.send(b"1", b"2")
    wait_until(pings.is_delivered, what="messages have arrived")
    assert keep_busy(feed, clock, pings, until_s=200) == 200
    assert pings.answered_count == 10
    assert feed.link() == begun
    pings.send(b"3")
    got: list[bytes] = []
    while len(got) < 3:
        got += first(feed).payloads
    assert got == [b"1", b"2", b"3"]


def test_broker_that_died_is_found_out_while_nobody_receives(lab: Lab) -> None:
    clock, pings = ManualClock(), Pings(lab)
    feed = lab.feed(pings.broker.address, clock=clock, keep_alive_s=60, io_timeout_s=10)
    up(feed)
    pings.send(b"sent long ago")
    wait_until(pings.is_delivered, what="message has arrived")
    pings.is_alive = False
    assert keep_busy(feed, clock, pings, until_s=100) == 30
    assert "no answer within 10 s" in feed.link().detail
    # It may say who has the session now: what had come is looked at before all is given up.
    assert first(feed).payloads == [b"sent long ago"]
    assert feed.receive(timeout_s=0) == []
    assert not feed.link().is_up


@pytest.mark.parametrize("bound", [{"receive_max": 2}, {"receive_bytes_max": 150_000}])
def test_no_more_is_read_than_may_be_in_hand_while_nobody_receives(
    lab: Lab, bound: dict[str, int]
) -> None:
    clock, pings = ManualClock(), Pings(lab)
    feed = lab.feed(pings.broker.address, clock=clock, keep_alive_s=60, io_timeout_s=10, **bound)
    up(feed)
    pings.send(*[bytes(100_000)] * 6)
    # At the bound no answer could be seen, so none is waited for.
    pings.is_alive = False
    assert keep_busy(feed, clock, pings, until_s=100) == 100
    assert 2 <= len(first(feed)) <= 3


def test_session_that_began_without_a_message_is_new_when_the_first_one_comes(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        if isinstance(packet, Connect):
            line.send(Connack(is_session_present=line.number != 2))
            return
        serve(line, packet)
        if isinstance(packet, Subscribe):
            if line.number != 2:
                line.send(pack_publish("t/a", b"%d" % line.number, packet_id=1))
            if line.number < 4:
                line.socket.shutdown(socket.SHUT_RDWR)

    feed = lab.feed(lab.broker(answer).address)
    got = [first(feed) for _ in range(3)]
    assert [(one.payloads, one.is_resumed) for one in got] == [
        ([b"1"], True),
        ([b"3"], False),
        ([b"4"], True),
    ]


# --- flow -----------------------------------------------------------------------------------


def test_first_message_after_a_pause_is_given_at_once_and_the_next_lingers(lab: Lab) -> None:
    clock = ManualClock()
    broker = lab.broker()
    feed = lab.feed(broker.address, clock=clock, linger_s=0.02)
    up(feed)
    clock.advance(1)
    broker.lines[-1].send(pack_publish("t/a", b"1", packet_id=1))
    begun_s = clock.monotonic_s()
    assert len(feed.receive(timeout_s=10)) == 1
    assert clock.monotonic_s() == begun_s
    broker.lines[-1].send(pack_publish("t/a", b"2", packet_id=2))
    assert len(feed.receive(timeout_s=10)) == 1
    assert clock.monotonic_s() == pytest.approx(begun_s + 0.02)


def test_without_version_5_nothing_is_read_beyond_receive_max(lab: Lab) -> None:
    def answer(line: Line, packet: Packet) -> None:
        if line.version == V5:
            line.send(Connack(code=0x84))
            return
        serve(line, packet)
        if isinstance(packet, Subscribe):
            for number in range(1, 101):
                line.send(pack_publish("t/a", bytes(10**5), packet_id=number, version=V311))

    feed = lab.feed(lab.broker(answer).address, receive_max=10, linger_s=0)
    held: list[Deliveries] = []

    def is_full() -> bool:
        held.extend(feed.receive(timeout_s=0.05))
        return sum(map(len, held)) >= 10

    wait_until(is_full, what="feed is full")
    assert feed.receive(timeout_s=0.2) == []
    assert sum(map(len, held)) <= 13
    for deliveries in held:
        feed.acknowledge(deliveries)
    assert len(first(feed)) > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("receive_max", 0),
        ("keep_alive_s", 1),
        ("filters", ()),
        ("filters", ("a#",)),
        ("client_id", ""),
    ],
)
def test_settings_that_cannot_be_are_refused(name: str, value: object) -> None:
    options: dict[str, Any] = {"client_id": "c", "filters": ("#",), name: value}
    with pytest.raises(ConfigError, match="reading MQTT settings"):
        BrokerSettings(address=Address("h"), **options)
