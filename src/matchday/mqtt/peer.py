"""One client of the endpoint: its greeting, its packets and the answers to them.

Owns the MQTT state of one connection on the server's side; bytes go through its channel and
nothing here waits. Does not own the selector, the bounds over all clients, or what happens
to messages (`listener`).

What a client meets: no session is kept, so "session present" is always 0 and a client
sends again by itself what it got no PUBACK for; the will and the retain flag are ignored;
every subscription is refused (0x83 and a reason string; 0x80 with MQTT 3.1.1), because this
is an ingest endpoint and not a broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from matchday.mqtt.channel import Channel
from matchday.mqtt.codes import V5, V311, Code, ProtocolError
from matchday.mqtt.fields import Property
from matchday.mqtt.layouts import PINGREQ, PINGRESP, decode, encode
from matchday.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from matchday.mqtt.publish import Batch, Decoder, pack_pubacks
from matchday.mqtt.settings import EndpointSettings

NOT_A_BROKER: Final = "ingest endpoint, not a broker: subscriptions are not served here"

GREETING_BYTES_MAX: Final = 2**18
"""Room for a CONNECT with a will of the largest kind."""

CLIENT_ID_BYTES_MAX: Final = 256
"""The ledger keeps a client id with every message that a crash would bring again."""

UNSENT_BYTES_MAX: Final = 2**20
"""A client that asks on and on without reading the answers is ended here."""

# A client may announce that it takes only small packets; the text is then left out.
_EXPLAINED_PACKET_BYTES: Final = 256


class Peer:
    """A connected client; used by the endpoint's thread only.

    Attributes:
        channel: The connection.
        number: Number of the connection.
        seen_s: Monotonic second at which it last sent something.
        client_id: From CONNECT or assigned; "" before.
        is_greeted: CONNECT was accepted.
        has_left: It said good-bye, or was ended.
        has_more: What came in one piece with CONNECT has not been looked at yet.
        events: What it is watched for, messages apart (`watch`).
        is_sender: It is watched for messages.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        number: int,
        now_s: float,
        settings: EndpointSettings,
        assigned_id: str,
    ) -> None:
        """Take a new connection over; `assigned_id` is for clients without an id."""
        self.channel = channel
        self.number = number
        self.seen_s = now_s
        self.client_id = ""
        self.is_greeted = False
        self.is_secured = not channel.is_tls
        self.has_left = False
        self.has_more = False
        self.events = 0
        self.is_sender = False
        self._settings = settings
        self._assigned_id = assigned_id
        self._decoder = Decoder(version=None, packet_bytes_max=GREETING_BYTES_MAX)
        self._keep_alive_s = 0
        self._open_count = 0
        self._may_explain = True

    @property
    def is_between_packets(self) -> bool:
        """Tell whether the next byte to read begins a packet."""
        return self._decoder.is_between_packets

    @property
    def is_full(self) -> bool:
        """Tell whether so much of it is unacknowledged that nothing more is to be read.

        The receive-maximum tells MQTT 5 clients to stop by themselves. Those that do not
        listen (paho 2.2 sends on) are held back like those of 3.1.1, not ended.
        """
        return self._open_count >= self._settings.client_receive_max

    def take(self, chunk: bytes) -> Batch:
        """Decode what came, answer what needs an answer, and give the messages.

        Of a new client that is CONNECT alone: what came in one piece with it is left for the
        next call, which may have nothing more to give (`has_more`). The messages before a
        fault are given too; the fault is in `Batch.error`.
        """
        was_greeted = self.is_greeted
        batch = self._decoder.decode(chunk)
        try:
            self._answer(batch)
        except ProtocolError as error:
            batch.error = error
        self.has_more = self.is_greeted and not (was_greeted or self.is_between_packets)
        self._open_count += sum(map(bool, batch.packet_ids))
        return batch

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Write the PUBACKs of messages that are safe now."""
        pubacks = pack_pubacks(packet_ids)
        self._open_count -= len(pubacks) // 4
        self.channel.write(pubacks)

    def look(self, now_s: float) -> None:
        """Answer a ping and note a sign of life without taking a message.

        For a client that is held back; what is unsent is left to the caller to send.

        Raises:
            UnavailableError: It closed, or the connection broke.
        """
        if self.channel.is_tls or not self.is_between_packets:
            self.seen_s = now_s  # Cannot be looked at; it is not its fault.
            return
        waiting = self.channel.peek(len(PINGREQ))
        while waiting == PINGREQ:
            self.channel.read(len(PINGREQ))
            self.channel.write(PINGRESP)
            self.seen_s = now_s
            waiting = self.channel.peek(len(PINGREQ))
        if waiting:
            self.seen_s = now_s

    def check(self, now_s: float) -> None:
        """Judge its silence and its appetite.

        Raises:
            ProtocolError: It kept silent for 1.5 times its keep-alive (section 3.1.2.10),
                did not greet in time, or does not read what it is sent.
        """
        silent_s = now_s - self.seen_s
        if not self.is_greeted and silent_s > self._settings.greeting_s:
            raise ProtocolError(
                f"waiting for CONNECT: none within {self._settings.greeting_s:g} s",
                code=Code.KEEP_ALIVE_TIMEOUT,
            )
        if self._keep_alive_s and silent_s > 1.5 * self._keep_alive_s:
            raise ProtocolError(
                f"keep-alive of {self.client_id}: silent for {silent_s:.0f} s, "
                f"announced {self._keep_alive_s} s",
                code=Code.KEEP_ALIVE_TIMEOUT,
            )
        if self.channel.unsent_bytes > UNSENT_BYTES_MAX:
            raise ProtocolError(
                f"answering {self.client_id}: {self.channel.unsent_bytes} bytes unread",
                code=Code.QUOTA_EXCEEDED,
            )

    def say_goodbye(self, code: int) -> None:
        """Write the last packet that tells why, where the client's version has one.

        Nothing is written to a peer of which not even the version is known, except that
        an MQTT client of another version is told so.
        """
        self.has_left = True
        self.has_more = False
        version = self._decoder.version
        if self.is_greeted:
            if version == V5:
                self.channel.write(encode(Disconnect(code=code), version=V5))
        elif version is not None:
            self.channel.write(encode(Connack(code=code), version=version))
        elif code == Code.UNSUPPORTED_VERSION:
            self.channel.write(encode(Connack(code=code), version=V311))

    def _answer(self, batch: Batch) -> None:
        others, batch.others = batch.others, []
        for head, body in others:
            self._on_packet(decode(head, body, version=self._decoder.version))

    def _on_packet(self, packet: Packet) -> None:
        if isinstance(packet, Connect) and not self.is_greeted:
            self._greet(packet)
        elif isinstance(packet, Pingreq):
            self.channel.write(PINGRESP)
        elif isinstance(packet, Disconnect):
            self.has_left = True
        elif isinstance(packet, Subscribe):
            refusals = tuple(Code.IMPLEMENTATION_SPECIFIC for _ in packet.subscriptions)
            self._write(
                Suback(packet_id=packet.packet_id, codes=refusals, properties=self._explanation())
            )
        elif isinstance(packet, Unsubscribe):
            absent = tuple(Code.NO_SUBSCRIPTION_EXISTED for _ in packet.topic_filters)
            self._write(Unsuback(packet_id=packet.packet_id, codes=absent))
        else:
            raise ProtocolError(
                f"receiving from {self.client_id}: unexpected {type(packet).__name__}",
                code=Code.PROTOCOL_ERROR,
            )

    def _greet(self, packet: Connect) -> None:
        self._decoder.version = packet.version
        self._decoder.packet_bytes_max = self._settings.packet_bytes_max
        _check_connect(packet, self._settings)
        self._may_explain = (
            packet.properties.get(Property.REQUEST_PROBLEM, 1) == 1
            and packet.properties.get(Property.PACKET_BYTES_MAX, _EXPLAINED_PACKET_BYTES)
            >= _EXPLAINED_PACKET_BYTES
        )
        self._keep_alive_s = packet.keep_alive_s
        self.client_id = packet.client_id or self._assigned_id
        self.is_greeted = True
        # That wildcard subscriptions are not available is left unsaid: a client would then
        # not even ask, and miss the reason given in SUBACK.
        properties: dict[Property, Any] = {
            Property.RECEIVE_MAX: self._settings.client_receive_max,
            Property.QOS_MAX: 1,
            Property.PACKET_BYTES_MAX: self._settings.packet_bytes_max,
            Property.TOPIC_ALIAS_MAX: 0,
        }
        if packet.properties.get(Property.SESSION_EXPIRY_S):
            properties[Property.SESSION_EXPIRY_S] = 0
        if not packet.client_id:
            properties[Property.ASSIGNED_CLIENT_ID] = self.client_id
        self._write(Connack(properties=properties))

    def _explanation(self) -> dict[Property, Any]:
        return {Property.REASON_STRING: NOT_A_BROKER} if self._may_explain else {}

    def _write(self, packet: Packet) -> None:
        self.channel.write(encode(packet, version=self._decoder.version or V311))


def _check_connect(packet: Connect, settings: EndpointSettings) -> None:
    if (size := len(packet.client_id.encode())) > CLIENT_ID_BYTES_MAX:
        raise ProtocolError(
            f"greeting: client id of {size} bytes, above {CLIENT_ID_BYTES_MAX}",
            code=Code.CLIENT_ID_NOT_VALID,
        )
    if not packet.client_id and packet.version == V311 and not packet.clean_start:
        raise ProtocolError(
            "greeting: empty client id without clean session",
            code=Code.CLIENT_ID_NOT_VALID,
        )
    if Property.AUTHENTICATION_METHOD in packet.properties:
        raise ProtocolError(
            "greeting: enhanced authentication is not offered",
            code=Code.BAD_AUTHENTICATION_METHOD,
        )
    if packet.version == V5 and packet.will is not None and packet.will.qos > 1:
        raise ProtocolError(
            "greeting: a will of QoS 2, where at most 1 is taken", code=Code.QOS_NOT_SUPPORTED
        )
    if settings.authenticate is None:
        return
    try:
        password = (packet.password or b"").decode()
    except UnicodeDecodeError:
        password = ""
    username = packet.username or ""
    if not (username and password and settings.authenticate(username, password)):
        raise ProtocolError(
            f"greeting: user {username[:64]!r} or the password is wrong",
            code=Code.BAD_CREDENTIALS,
        )
