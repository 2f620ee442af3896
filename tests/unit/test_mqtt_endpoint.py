"""What clients of the embedded endpoint meet, seen through a raw socket."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from matchday.clock import Clock, ManualClock, SystemClock
from matchday.errors import ConfigError
from matchday.mqtt.address import parse_address
from matchday.mqtt.channel import READ_BYTES
from matchday.mqtt.codes import V5, V311, Code
from matchday.mqtt.endpoint import EndpointFeed
from matchday.mqtt.fields import Property
from matchday.mqtt.layouts import PINGREQ, decode, encode
from matchday.mqtt.listener import CALM_MESSAGES_MAX, ROUND_BYTES
from matchday.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Unsuback,
    Unsubscribe,
    Will,
)
from matchday.mqtt.peer import CLIENT_ID_BYTES_MAX
from matchday.mqtt.publish import Decoder
from matchday.mqtt.session import BrokerFeed
from matchday.mqtt.settings import BrokerSettings, EndpointSettings
from matchday.observe.metrics import PROCESS
from matchday.ports import Deliveries
from mqtt_packing import pack_publish
from servers.process import wait_until

Open = Callable[..., EndpointFeed]


@pytest.fixture
def open_feed() -> Iterator[Open]:
    feeds: list[EndpointFeed] = []

    def make(clock: Clock | None = None, **options: Any) -> EndpointFeed:
        settings = EndpointSettings(**{"port": 0, **options})
        feed = EndpointFeed(settings, clock=clock or SystemClock(), rng=random.Random(1))
        feeds.append(feed)
        return feed

    yield make
    for feed in feeds:
        feed.close()


class RawClient:
    """A client that sends exactly what it is told."""

    def __init__(self, feed: EndpointFeed, *, version: int = V5) -> None:
        self.socket = socket.create_connection(("127.0.0.1", feed.address.port), timeout=10)
        self.version = version
        self._decoder = Decoder(version=version, packet_bytes_max=2**20)
        self._packets: list[Packet] = []

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes | Packet) -> None:
        data = [
            piece if isinstance(piece, bytes) else encode(piece, version=self.version)
            for piece in pieces
        ]
        self.socket.sendall(b"".join(data))

    def packet(self) -> Packet | None:
        """Give the next packet, None at the end of the connection."""
        while not self._packets:
            try:
                chunk = self.socket.recv(65_536)
            except ConnectionError:
                return None
            if not chunk:
                return None
            others = self._decoder.decode(chunk).others
            self._packets += [decode(*other, version=self.version) for other in others]
        return self._packets.pop(0)

    def greet(self, client_id: str = "c", **options: Any) -> Connack:
        self.send(Connect(client_id=client_id, version=self.version, **options))
        answer = self.packet()
        assert isinstance(answer, Connack)
        return answer


def gather(feed: EndpointFeed, number: int) -> list[Deliveries]:
    got: list[Deliveries] = []

    def has_all() -> bool:
        got.extend(feed.receive(timeout_s=0.1))
        return sum(map(len, got)) >= number

    wait_until(has_all, what=f"{number} messages have arrived", timeout_s=20)
    return got


# --- greeting -------------------------------------------------------------------------------


def test_greeting_announces_what_the_endpoint_can_do(open_feed: Open) -> None:
    feed = open_feed(client_receive_max=77)
    with RawClient(feed) as client:
        answer = client.greet(properties={Property.SESSION_EXPIRY_S: 60})
    assert answer.code == Code.SUCCESS
    assert not answer.is_session_present
    assert answer.properties[Property.RECEIVE_MAX] == 77
    assert answer.properties[Property.QOS_MAX] == 1
    assert answer.properties[Property.TOPIC_ALIAS_MAX] == 0
    assert answer.properties[Property.SESSION_EXPIRY_S] == 0


def test_client_without_an_id_is_given_one(open_feed: Open) -> None:
    feed = open_feed()
    with RawClient(feed) as first, RawClient(feed) as second:
        names = {
            client.greet("").properties[Property.ASSIGNED_CLIENT_ID] for client in (first, second)
        }
    assert len(names) == 2


@pytest.mark.parametrize(
    ("version", "connect", "code"),
    [
        (V311, Connect(client_id="", version=V311), Code.CLIENT_ID_NOT_VALID),
        (
            V5,
            Connect(client_id="c", properties={Property.AUTHENTICATION_METHOD: "x"}),
            Code.BAD_AUTHENTICATION_METHOD,
        ),
        (
            V5,
            Connect(client_id="c", will=Will(topic="w", payload=b"", qos=2)),
            Code.QOS_NOT_SUPPORTED,
        ),
    ],
    ids=["empty id", "enhanced authentication", "will of qos 2"],
)
def test_greeting_that_cannot_be_served_is_refused(
    open_feed: Open, version: int, connect: Connect, code: Code
) -> None:
    with RawClient(open_feed(), version=version) as client:
        client.send(connect)
        answer = client.packet()
        assert isinstance(answer, Connack)
        assert answer.code == code
        assert client.packet() is None


@pytest.mark.parametrize(
    ("version", "refusal"),
    [(V311, bytes.fromhex("20020002")), (V5, bytes.fromhex("2003008500"))],
    ids=["3.1.1", "5"],
)
@pytest.mark.parametrize("letter", ["c", "é"])
def test_client_id_too_long_for_the_ledger_is_refused(
    open_feed: Open, version: int, refusal: bytes, letter: str
) -> None:
    feed = open_feed()
    longest = letter * (CLIENT_ID_BYTES_MAX // len(letter.encode()))
    with RawClient(feed, version=version) as client:
        assert client.greet(longest, clean_start=True).code == Code.SUCCESS
    with RawClient(feed, version=version) as client:
        client.send(Connect(client_id=longest + letter, version=version, clean_start=True))
        client.socket.settimeout(10)
        assert client.socket.recv(100) == refusal
        assert client.packet() is None


def test_client_of_mqtt_3_1_is_told_that_its_version_is_not_served(open_feed: Open) -> None:
    with RawClient(open_feed(), version=V311) as client:
        client.send(bytes.fromhex("100f00064d514973647003 02 000a 0001 61".replace(" ", "")))
        assert client.packet() == Connack(code=Code.UNSUPPORTED_VERSION)


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", bytes(50)])
def test_other_protocols_are_closed_and_counted(open_feed: Open, rubbish: bytes) -> None:
    feed = open_feed()
    before = PROCESS.value("matchday_mqtt_refusals_total", reason="protocol_error")
    with RawClient(feed) as client:
        client.send(rubbish)
        assert client.packet() is None
    assert PROCESS.value("matchday_mqtt_refusals_total", reason="protocol_error") == before + 1


@pytest.mark.parametrize(
    ("version", "code"), [(V5, Code.BAD_CREDENTIALS), (V311, Code.NOT_AUTHORIZED)]
)
@pytest.mark.parametrize("password", [b"wrong-secret", b"\xff", None])
def test_wrong_password_is_refused_and_never_shown(
    open_feed: Open,
    capsys: pytest.CaptureFixture[str],
    version: int,
    code: Code,
    password: bytes | None,
) -> None:
    feed = open_feed(authenticate=lambda user, given: (user, given) == ("u", "right"))
    with RawClient(feed, version=version) as client:
        assert client.greet(username="u", password=password).code == code
        assert client.packet() is None
    with RawClient(feed, version=version) as client:
        assert client.greet(username="u", password=b"right").code == Code.SUCCESS
    feed.close()
    shown = "".join(capsys.readouterr())
    assert "wrong-secret" not in shown
    assert "greeting: user 'u'" in shown


def test_second_connection_of_a_client_id_takes_over(open_feed: Open) -> None:
    feed = open_feed()
    with RawClient(feed) as first, RawClient(feed) as second:
        first.greet("same")
        second.greet("same")
        assert first.packet() == Disconnect(code=Code.SESSION_TAKEN_OVER)
        assert first.packet() is None
        second.send(pack_publish("t", b"p", packet_id=1))
        [deliveries] = gather(feed, 1)
        feed.acknowledge(deliveries)
        assert second.packet() == Puback(packet_id=1)


def test_connections_beyond_the_bound_are_closed(open_feed: Open) -> None:
    feed = open_feed(connections_max=1)
    with RawClient(feed) as first, RawClient(feed) as second:
        first.greet("a")
        assert second.packet() is None


def test_port_in_use_names_port_and_flag(open_feed: Open) -> None:
    port = open_feed().address.port
    with pytest.raises(ConfigError, match=rf"port {port}: address already in use.*--mqtt-port"):
        open_feed(port=port)


# --- messages -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V311, V5])
def test_messages_sent_together_with_connect_arrive(open_feed: Open, version: int) -> None:
    feed = open_feed()
    with RawClient(feed, version=version) as client:
        client.send(
            Connect(client_id="c", version=version),
            pack_publish("t", b"1", packet_id=1, version=version),
            pack_publish("t", b"2", version=version, is_retained=True),
            Disconnect(),
        )
        [deliveries] = gather(feed, 2)
    assert (deliveries.origin, deliveries.topics) == ("c", ["t", "t"])
    assert deliveries.packet_ids == [1, 0]


def test_acknowledgement_for_a_client_that_has_left_is_dropped(open_feed: Open) -> None:
    feed = open_feed(receive_max=1)
    with RawClient(feed) as client:
        client.greet("a")
        client.send(pack_publish("t", b"1", packet_id=1), Disconnect())
        assert client.packet() is None
    [deliveries] = gather(feed, 1)
    feed.acknowledge(deliveries)
    with RawClient(feed) as client:
        client.greet("b")
        client.send(pack_publish("t", b"2", packet_id=1))
        assert gather(feed, 1)[0].payloads == [b"2"]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (bytes.fromhex("3407 0001 74 0001 00 70".replace(" ", "")), Code.QOS_NOT_SUPPORTED),
        (bytes.fromhex("30ffffff7f"), Code.PACKET_TOO_LARGE),
        (bytes.fromhex("3004 0001 2b 00".replace(" ", "")), Code.TOPIC_NAME_INVALID),
        (encode(Connect(client_id="again")), Code.PROTOCOL_ERROR),
        (encode(Pingresp()), Code.PROTOCOL_ERROR),
    ],
    ids=["qos 2", "too large", "wildcard", "second connect", "server's packet"],
)
@pytest.mark.parametrize("version", [V5, V311])
def test_client_that_breaks_the_protocol_is_ended_and_told_by_code(
    open_feed: Open, wrong: bytes, code: Code, version: int
) -> None:
    if version == V311 and code == Code.QOS_NOT_SUPPORTED:
        wrong = bytes.fromhex("34060001740001" + "70")
    feed = open_feed()
    with RawClient(feed, version=version) as client:
        client.greet()
        client.send(pack_publish("t", b"good", packet_id=1, version=version), wrong)
        if version == V5:
            assert client.packet() == Disconnect(code=code)
        assert client.packet() is None
    assert gather(feed, 1)[0].payloads == [b"good"]


def test_unsubscribe_is_answered(open_feed: Open) -> None:
    with RawClient(open_feed()) as client:
        client.greet()
        client.send(Unsubscribe(packet_id=9, topic_filters=("a", "b")))
        assert client.packet() == Unsuback(packet_id=9, codes=(0x11, 0x11))


def test_nothing_is_dropped_when_the_owner_is_slow(open_feed: Open) -> None:
    feed = open_feed(receive_max=100, receive_bytes_max=50_000)
    sent = [b"%d" % index for index in range(20_000)]
    with RawClient(feed) as client:
        client.greet()
        data = b"".join(pack_publish("t", payload) for payload in sent)
        thread = threading.Thread(target=client.send, args=(data,))
        thread.start()
        got: list[bytes] = []
        while len(got) < len(sent):
            for deliveries in gather(feed, 1):
                got += deliveries.payloads
                feed.acknowledge(deliveries)
        thread.join(10)
    assert got == sent


def test_held_back_client_is_still_answered_its_ping(open_feed: Open) -> None:
    feed = open_feed(receive_max=1)
    with RawClient(feed) as client, RawClient(feed) as other:
        client.greet("a")
        client.send(pack_publish("t", b"1", packet_id=1))
        [held] = gather(feed, 1)
        client.send(PINGREQ, pack_publish("t", b"2", packet_id=2))
        assert client.packet() == Pingresp()
        assert other.greet("b").code == Code.SUCCESS
        assert feed.receive(timeout_s=0.1) == []
        feed.acknowledge(held)
        assert client.packet() == Puback(packet_id=1)
        assert gather(feed, 1)[0].payloads == [b"2"]


@pytest.mark.parametrize("version", [V311, V5])
def test_messages_sent_together_with_connect_wait_while_all_are_held_back(
    open_feed: Open, version: int
) -> None:
    feed = open_feed(receive_max=1)
    with RawClient(feed) as full, RawClient(feed, version=version) as client:
        full.greet("full")
        full.send(pack_publish("t", b"1", packet_id=1))
        [held] = gather(feed, 1)
        client.send(
            Connect(client_id="new", version=version),
            pack_publish("t", b"2", packet_id=7, version=version),
            pack_publish("t", b"3", version=version),
        )
        assert isinstance(client.packet(), Connack)
        assert feed.receive(timeout_s=0) == []
        feed.acknowledge(held)
        [deliveries] = gather(feed, 2)
        assert (deliveries.origin, deliveries.payloads) == ("new", [b"2", b"3"])
        feed.acknowledge(deliveries)
        assert client.packet() == Puback(packet_id=7)


def test_messages_of_a_client_that_left_while_all_were_held_back_are_taken(open_feed: Open) -> None:
    feed = open_feed(receive_max=1)
    with RawClient(feed) as full:
        full.greet("full")
        full.send(pack_publish("t", b"1", packet_id=1))
        [held] = gather(feed, 1)
        with RawClient(feed) as client:
            client.send(Connect(client_id="new"), pack_publish("t", b"2"), Disconnect())
            assert isinstance(client.packet(), Connack)
        feed.acknowledge(held)
        assert gather(feed, 1)[0].payloads == [b"2"]


def test_client_that_comes_again_while_all_are_held_back_adds_up_to_one(open_feed: Open) -> None:
    feed = open_feed(receive_max=1)
    with ExitStack() as stack:
        full = stack.enter_context(RawClient(feed))
        full.greet("full")
        full.send(pack_publish("t", b"1", packet_id=1))
        [held] = gather(feed, 1)
        for number in (1, 2, 3):
            client = stack.enter_context(RawClient(feed))
            client.send(Connect(client_id="again"), pack_publish("t", b"2", packet_id=number))
            assert isinstance(client.packet(), Connack)
        assert feed.receive(timeout_s=0) == []
        feed.acknowledge(held)
        [deliveries] = gather(feed, 1)
        assert deliveries.packet_ids == [3]
        feed.acknowledge(deliveries)
        assert client.packet() == Puback(packet_id=3)
        assert feed.receive(timeout_s=0) == []


def rounds_after_a_pause(
    feed: EndpointFeed, clients: list[RawClient], data: bytes
) -> Iterator[list[Deliveries]]:
    """Hold all clients back, let each of them send `data`, and give what every round reads.

    Needs `receive_max=1`: a round that reads anything is then the last until its messages are
    acknowledged, which is done before the next is given.
    """
    clients[0].send(pack_publish("first", b"", packet_id=1))
    held = gather(feed, 1)
    for client in clients:
        client.send(data)
    while True:
        for deliveries in held:
            feed.acknowledge(deliveries)
        held = gather(feed, 1)
        with RawClient(feed) as late:
            late.greet("late")  # is answered in a round of its own, so the other has ended
        held += feed.receive(timeout_s=0)
        yield held


def test_round_after_a_pause_reads_no_more_of_many_clients_than_of_few(open_feed: Open) -> None:
    feed = open_feed(receive_max=1)
    message = pack_publish("t", bytes(1000))
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(feed)) for _ in range(100)]
        names = {f"client-{number}" for number, _ in enumerate(clients)}
        for number, client in enumerate(clients):
            client.greet(f"client-{number}")
        rounds = rounds_after_a_pause(feed, clients, 40 * message)
        first, second = next(rounds), next(rounds)
        for got in (first, second):
            count = sum(map(len, got))
            assert count * len(message) <= ROUND_BYTES + READ_BYTES
        # Whose turn did not come in the first is read before the others come again.
        assert {one.origin for one in first} | {one.origin for one in second} == names
        missing = 100 * 40 - sum(map(len, first + second))
        while missing:
            missing -= sum(map(len, next(rounds)))


# --- time -----------------------------------------------------------------------------------


def test_silence_beyond_one_and_a_half_keep_alives_ends_the_connection(open_feed: Open) -> None:
    clock = ManualClock()
    with RawClient(open_feed(clock)) as client:
        client.greet(keep_alive_s=10)
        clock.advance(14)
        client.send(PINGREQ)
        assert client.packet() == Pingresp()
        clock.advance(14)
        client.send(PINGREQ)
        assert client.packet() == Pingresp()
        clock.advance(16)
        assert client.packet() == Disconnect(code=Code.KEEP_ALIVE_TIMEOUT)


def test_connection_that_never_greets_is_closed(open_feed: Open) -> None:
    clock = ManualClock()
    feed = open_feed(clock, greeting_s=10)
    with RawClient(feed) as client, RawClient(feed) as other:
        other.greet(keep_alive_s=0)  # who came before it is there as well then
        clock.advance(11)
        assert client.packet() is None
        other.send(PINGREQ)
        assert other.packet() == Pingresp()


def test_messages_far_apart_keep_their_own_arrival_times(open_feed: Open) -> None:
    clock = ManualClock()
    feed = open_feed(clock, linger_s=0)
    with RawClient(feed) as client:
        client.greet()
        client.send(pack_publish("t", b"1"), PINGREQ)
        assert client.packet() == Pingresp()
        clock.advance(5)
        client.send(pack_publish("t", b"2"), PINGREQ)
        assert client.packet() == Pingresp()
    got = feed.receive(timeout_s=5)
    assert [one.payloads for one in got] == [[b"1"], [b"2"]]
    assert got[1].arrived_ms - got[0].arrived_ms == 5000


class Lingers(ManualClock):
    """A clock that keeps the pauses it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.pauses_s.append(timeout_s)
        return super().wait(event, timeout_s)


def test_sensors_that_sent_little_are_read_half_as_often(open_feed: Open) -> None:
    clock = Lingers()
    with RawClient(open_feed(clock, linger_s=0.005)) as client:
        client.greet(keep_alive_s=0)
        for rounds, count in enumerate((1, CALM_MESSAGES_MAX + 1, 1), start=1):
            client.send(pack_publish("t", b"1") * count)
            wait_until(lambda: len(clock.pauses_s) >= rounds, what="a linger")  # noqa: B023
    assert clock.pauses_s == pytest.approx([0.01, 0.005, 0.01])


def test_close_waits_for_acknowledgements_of_another_thread(open_feed: Open) -> None:
    feed = open_feed()
    with RawClient(feed) as client:
        client.greet()
        client.send(pack_publish("t", b"1", packet_id=1))
        [deliveries] = gather(feed, 1)
        closing = threading.Thread(target=feed.close, kwargs={"drain_s": 20.0})
        closing.start()
        wait_until(lambda: not feed.link().is_up, what="endpoint is closing")
        feed.acknowledge(deliveries)
        assert client.packet() == Puback(packet_id=1)
        assert client.packet() == Disconnect(code=Code.SERVER_SHUTTING_DOWN)
        closing.join(5)
        assert not closing.is_alive()


# --- TLS ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """Give a self-signed certificate for localhost and a server's context with it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so there is no certificate to serve with")
    directory = tmp_path_factory.mktemp("tls")
    key, path = directory / "key.pem", directory / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(path)]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key)
    return path, context


def test_endpoint_speaks_tls(open_feed: Open, certificate: tuple[Path, ssl.SSLContext]) -> None:
    path, context = certificate
    feed = open_feed(tls=context)
    assert str(feed.address).startswith("mqtts://")
    trust = ssl.create_default_context(cafile=str(path))
    with RawClient(feed) as client, RawClient(feed) as plain:
        client.socket = trust.wrap_socket(client.socket, server_hostname="localhost")
        client.greet()
        big = bytes(3_000_000)
        client.send(pack_publish("t", big, packet_id=1))
        [deliveries] = gather(feed, 1)
        assert deliveries.payloads == [big]
        feed.acknowledge(deliveries)
        assert client.packet() == Puback(packet_id=1)
        plain.send(Connect(client_id="plain"))
        assert plain.packet() is None


@pytest.mark.parametrize(
    ("is_trusted", "words"), [(True, "ingest endpoint, not a broker"), (False, "certificate")]
)
def test_session_with_a_broker_checks_the_certificate(
    open_feed: Open,
    certificate: tuple[Path, ssl.SSLContext],
    is_trusted: bool,
    words: str,
) -> None:
    # The endpoint grants no subscription, but how far the session got shows in its link.
    path, context = certificate
    port = open_feed(tls=context).address.port
    settings = BrokerSettings(
        address=parse_address(f"mqtts://localhost:{port}"),
        client_id="c",
        filters=("#",),
        ca_file=path if is_trusted else None,
    )
    session = BrokerFeed(settings, clock=SystemClock(), rng=random.Random(1))

    def is_told() -> bool:
        assert session.receive(timeout_s=0.05) == []
        return words in session.link().detail

    try:
        wait_until(is_told, what=f"link says {words}", timeout_s=10)
    finally:
        session.close()


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings = BrokerSettings(
        address=parse_address("mqtts://localhost"),
        client_id="c",
        filters=("#",),
        ca_file=tmp_path / "absent.pem",
    )
    with pytest.raises(ConfigError, match=r"absent\.pem: .*o such file"):
        BrokerFeed(settings, clock=SystemClock(), rng=random.Random(1))
