"""A proxy before a Kafka broker that can take the brokers out of what it says of its cluster.

A real broker names no broker, not even itself, for a moment after it was started or woken,
and no test can hold that moment. Here it lasts as long as a test wants. Knows just enough of
the protocol to find answers about the cluster and the list of brokers in them.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Final

from servers.lone_broker import Endpoint, frame
from servers.process import LOOPBACK

METADATA: Final = 3
FLEXIBLE_VERSION: Final = 9
"""From this version of the question on, lengths are variable and fields may be added."""

HEADER_BYTES: Final = 4 + 1 + 4
"""Before the brokers: number of the question, added fields (none), throttling in ms."""

NO_BROKERS: Final = b"\1"
NO_CONTROLLER: Final = struct.pack(">i", -1)


class HidingProxy(Endpoint):
    """Passes connections on to `target_port`.

    Attributes:
        is_hiding: Answers about the cluster name no broker.
        hidden_count: How many answers went out like that.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(self._serve, name="hiding-proxy")
        self.is_hiding = False
        self.hidden_count = 0
        self._clients: set[socket.socket] = set()
        self._target_port = target_port

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        with socket.create_connection((LOOPBACK, self._target_port)) as server:
            asked: set[int] = set()
            answers = threading.Thread(target=self._answer, args=(server, client, asked))
            answers.start()
            self._clients.add(client)
            _ask(client, server, asked)
            self._clients.discard(client)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answer(self, server: socket.socket, client: socket.socket, asked: set[int]) -> None:
        """Pass answers on; `asked` holds the numbers of questions about the cluster."""
        with suppress(OSError):
            while answer := frame(server):
                (number,) = struct.unpack_from(">i", answer)
                if number in asked:
                    asked.discard(number)
                    if self.is_hiding:
                        answer = without_brokers(answer)
                        self.hidden_count += 1
                client.sendall(struct.pack(">i", len(answer)) + answer)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def without_brokers(answer: bytes) -> bytes:
    """Give an answer about the cluster, of `FLEXIBLE_VERSION` or newer, without its brokers."""
    count, at = _varint(answer, HEADER_BYTES)
    for _ in range(count - 1):
        # Id; host; port; rack; added fields.
        at = _after_text(answer, at + 4)
        at = _after_text(answer, at + 4)
        assert answer[at] == 0, "added fields of a broker are not known here"
        at += 1
    after_name = _after_text(answer, at)
    name = answer[at:after_name]
    return answer[:HEADER_BYTES] + NO_BROKERS + name + NO_CONTROLLER + answer[after_name + 4 :]


def _ask(client: socket.socket, server: socket.socket, asked: set[int]) -> None:
    with suppress(OSError):
        while request := frame(client):
            key, version, number = struct.unpack_from(">hhi", request)
            if key == METADATA:
                assert version >= FLEXIBLE_VERSION, version
                asked.add(number)
            server.sendall(struct.pack(">i", len(request)) + request)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Give a number of variable length and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _after_text(data: bytes, at: int) -> int:
    """Give where a text ends; its length is one more than its bytes, 0 for none."""
    length, at = _varint(data, at)
    return at + max(length - 1, 0)
