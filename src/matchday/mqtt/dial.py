"""Opening an MQTT connection to a server in steps that never block.

Owns name resolution, TCP, TLS, CONNECT and CONNACK, and the fall-back from MQTT 5 to
3.1.1. Does not wait: `dial` is a generator that gives what it waits for, and its caller
polls, keeps the deadline and decides when to try again. Resolving the host name is the
exception: the system's resolver blocks.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

from matchday.errors import UnavailableError
from matchday.mqtt.address import Address
from matchday.mqtt.channel import Channel, translated
from matchday.mqtt.codes import V5, V311, Code, ProtocolError, code_text
from matchday.mqtt.fields import Property
from matchday.mqtt.layouts import decode, encode
from matchday.mqtt.packets import Connack, Connect
from matchday.mqtt.publish import Batch, Decoder

SESSION_NEVER_EXPIRES: int = 0xFFFF_FFFF


class Waiting(NamedTuple):
    """What a step waits for: a poll event on a file descriptor."""

    fileno: int
    events: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection on which the server has accepted CONNECT.

    Attributes:
        channel: The connection.
        decoder: Its decoder, which may hold the beginning of the next packet.
        batch: What came right behind CONNACK.
        version: The protocol level agreed on.
        connack: The server's answer.
    """

    channel: Channel
    decoder: Decoder
    batch: Batch
    version: int
    connack: Connack


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """How a client introduces itself; the session is persistent and never expires.

    Attributes:
        client_id: Names the session.
        keep_alive_s: The longest silence the server has to accept, seconds.
        receive_max: Unacknowledged messages at most; MQTT 5 only.
        packet_bytes_max: The largest packet taken, in bytes.
    """

    client_id: str
    keep_alive_s: int
    receive_max: int
    packet_bytes_max: int

    def connect(self, address: Address, *, version: int) -> Connect:
        """Give the CONNECT packet."""
        password = address.password
        return Connect(
            client_id=self.client_id,
            version=version,
            clean_start=False,
            keep_alive_s=self.keep_alive_s,
            username=address.username,
            password=None if password is None else password.encode(),
            properties={
                Property.SESSION_EXPIRY_S: SESSION_NEVER_EXPIRES,
                Property.RECEIVE_MAX: self.receive_max,
                Property.PACKET_BYTES_MAX: self.packet_bytes_max,
                Property.TOPIC_ALIAS_MAX: 0,
            },
        )


class _Refused(UnavailableError):
    """The server does not speak this version, or hung up instead of answering."""


def dial(
    address: Address, greeting: Greeting, *, tls: ssl.SSLContext | None
) -> Generator[Waiting, None, Opened]:
    """Open a connection, with MQTT 5 first and 3.1.1 where the server refuses that.

    Closing the generator closes what it had opened.

    Raises:
        UnavailableError: No connection came about; the text says at which step.
    """
    try:
        return (yield from _greet(address, greeting, tls=tls, version=V5))
    except _Refused:
        return (yield from _greet(address, greeting, tls=tls, version=V311))


def _greet(
    address: Address, greeting: Greeting, *, tls: ssl.SSLContext | None, version: int
) -> Generator[Waiting, None, Opened]:
    sock = yield from _connect(address)
    channel = Channel(sock, peer=str(address))
    try:
        if tls is not None:
            wrapped = tls.wrap_socket(
                sock, server_hostname=address.host, do_handshake_on_connect=False
            )
            channel = Channel(wrapped, peer=str(address))
            while events := channel.handshake():
                yield Waiting(channel.fileno(), events)
        channel.write(encode(greeting.connect(address, version=version)))
        while not channel.flush():
            yield Waiting(channel.fileno(), select.POLLOUT)
        decoder = Decoder(version=version, packet_bytes_max=greeting.packet_bytes_max)
        batch = yield from _first_packets(channel, decoder)
        return _accepted(channel, decoder, batch, version=version)
    except BaseException:
        channel.close()
        raise


def _first_packets(channel: Channel, decoder: Decoder) -> Generator[Waiting, None, Batch]:
    batch = Batch()
    while not batch.others:
        try:
            chunk = channel.read()
        except UnavailableError as error:
            # Servers without version 5 may close without a word (3.1.1 section 3.1.2.2).
            raise _Refused(f"waiting for CONNACK: {error}") from error
        if chunk is None:
            yield Waiting(channel.fileno(), select.POLLIN)
            continue
        decoder.decode(chunk, batch)
        if batch.error is not None:
            raise batch.error
    return batch


def _accepted(channel: Channel, decoder: Decoder, batch: Batch, *, version: int) -> Opened:
    head, body = batch.others.pop(0)
    connack = decode(head, body, version=version)
    if not isinstance(connack, Connack):
        raise ProtocolError(
            f"connecting to {channel.peer}: answered by packet type {head >> 4}, not CONNACK",
            code=Code.PROTOCOL_ERROR,
        )
    if connack.code == Code.SUCCESS:
        return Opened(channel, decoder, batch, version, connack)
    reason = connack.properties.get(Property.REASON_STRING, "")
    text = f"connecting to {channel.peer}: refused, {code_text(connack.code)} {reason}".rstrip()
    if connack.code == Code.UNSUPPORTED_VERSION:
        raise _Refused(text)
    raise UnavailableError(text)


def _connect(address: Address) -> Generator[Waiting, None, socket.socket]:
    """Try every address of the host in the resolver's order; raise the last one's error."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise translated("resolving", str(address), error) from error
    failure = UnavailableError(f"resolving {address}: no address")
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(target)
            if code == errno.EINPROGRESS:
                yield Waiting(sock.fileno(), select.POLLOUT)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except BaseException:
            sock.close()
            raise
        if code == 0:
            return sock
        sock.close()
        refusal = OSError(code, os.strerror(code))
        failure = translated("connecting to", str(address), refusal)
    raise failure
