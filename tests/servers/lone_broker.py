"""A Kafka broker that names no broker, not even itself, as real ones do for a moment.

A node that has just been started, or woken after the controller gave it up, already answers
and is not counted among the brokers yet. On a real node that moment is short and cannot be
held; clients that were there before know the broker still. Owns just enough of the protocol
for clients to connect and ask what there is.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from servers.ports import LOOPBACK

API_VERSIONS: Final = 18
METADATA: Final = 3
METADATA_VERSION: Final = 4
UNSUPPORTED_VERSION: Final = 35
UNKNOWN_TOPIC: Final = 3
BROKER_ID: Final = 1
NAME: Final = b"lone"


class Endpoint:
    """Takes connections at `port` from entry to exit, each in a thread of its own.

    Args:
        serve: Given each connection, until it returns.
        name: Of the thread that listens.

    Attributes:
        port: On loopback.
    """

    def __init__(self, serve: Callable[[socket.socket], None], *, name: str) -> None:
        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    serve(self.request)

        self._server = socketserver.ThreadingTCPServer((LOOPBACK, 0), Connection)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name=name)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening; connections end with their clients."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class LoneBroker(Endpoint):
    """A broker that can be alone in the world.

    Attributes:
        is_counted: It names itself; False makes it alone.
        asked_count: How often it was asked which brokers there are.
    """

    def __init__(self) -> None:
        super().__init__(self._serve, name="lone-broker")
        self.is_counted = True
        self.asked_count = 0

    def _serve(self, client: socket.socket) -> None:
        while request := frame(client):
            key, version, number = struct.unpack_from(">hhi", request)
            said = struct.pack(">i", number) + self._answer(key, version, request)
            client.sendall(struct.pack(">i", len(said)) + said)

    def _answer(self, key: int, version: int, request: bytes) -> bytes:
        if key == API_VERSIONS:
            # Whoever asks in a newer form is told what is known, and asks again.
            code = UNSUPPORTED_VERSION if version > 0 else 0
            known = ((METADATA, METADATA_VERSION), (API_VERSIONS, 0))
            rows = b"".join(struct.pack(">hhh", one, 0, highest) for one, highest in known)
            return struct.pack(">hi", code, len(known)) + rows
        assert key == METADATA, key
        self.asked_count += 1
        (name_length,) = struct.unpack_from(">h", request, 8)
        topics = _names(request[10 + name_length :])
        host = LOOPBACK.encode()
        itself = struct.pack(">ih", BROKER_ID, len(host)) + host + struct.pack(">ih", self.port, -1)
        brokers = [itself] if self.is_counted else []
        controller = BROKER_ID if self.is_counted else -1
        rows = b"".join(
            struct.pack(">hh", UNKNOWN_TOPIC, len(name)) + name + struct.pack(">?i", False, 0)
            for name in topics
        )
        # Throttled by 0 ms; the brokers; the cluster's name and controller; the topics.
        return (
            struct.pack(">ii", 0, len(brokers))
            + b"".join(brokers)
            + struct.pack(f">h{len(NAME)}sii", len(NAME), NAME, controller, len(topics))
            + rows
        )


def frame(source: socket.socket) -> bytes:
    """Read one message of Kafka's protocol, without its length; nothing at the end."""
    head = _exactly(source, 4)
    return _exactly(source, struct.unpack(">i", head)[0]) if head else b""


def _exactly(source: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        chunk = source.recv(count - len(found))
        if not chunk:
            return b""
        found += chunk
    return bytes(found)


def _names(body: bytes) -> list[bytes]:
    """Give the topics asked for; all of them, asked for by -1, are none."""
    (count,) = struct.unpack_from(">i", body)
    names, at = [], 4
    for _ in range(max(count, 0)):
        (length,) = struct.unpack_from(">h", body, at)
        names.append(body[at + 2 : at + 2 + length])
        at += 2 + length
    return names
