"""A proxy before a Kafka broker that moves the offsets which batches say they begin at.

A turned bit there is the one damage of a batch that its checksum does not show, and no network
turns the bit that a test wants. Knows just enough of the protocol to find batches in answers.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Final

from servers.lone_broker import Endpoint, frame
from servers.process import LOOPBACK

FETCH: Final = 1
MAGIC: Final = 2
_BATCH: Final = struct.Struct(">qiibIhi")
"""First offset, length, epoch of the leader, magic, checksum, attributes, last offset's delta."""
_COUNT: Final = struct.Struct(">i")
_COUNT_AT: Final = 57
_LENGTH_FROM: Final = 12
"""A batch's length counts what follows it."""


class ShiftingProxy(Endpoint):
    """Passes connections on to `target_port`.

    Attributes:
        shifts: By the offset that a batch begins at, by how much it is moved; each once.
        passed: The offsets that batches began at, of answers passed on, as the broker gave them.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(self._serve, name="shifting-proxy")
        self.shifts: dict[int, int] = {}
        self.passed: list[int] = []
        self._target_port = target_port

    def _serve(self, client: socket.socket) -> None:
        with socket.create_connection((LOOPBACK, self._target_port)) as server:
            asked: set[int] = set()
            answers = threading.Thread(target=self._answer, args=(server, client, asked))
            answers.start()
            with suppress(OSError):
                while request := frame(client):
                    key, _, number = struct.unpack_from(">hhi", request)
                    if key == FETCH:
                        asked.add(number)
                    server.sendall(struct.pack(">i", len(request)) + request)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answer(self, server: socket.socket, client: socket.socket, asked: set[int]) -> None:
        """Pass answers on; `asked` holds the numbers of questions for records."""
        with suppress(OSError):
            while answer := frame(server):
                (number,) = struct.unpack_from(">i", answer)
                if number in asked:
                    asked.discard(number)
                    answer = self._shifted(answer)
                client.sendall(struct.pack(">i", len(answer)) + answer)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _shifted(self, answer: bytes) -> bytes:
        found = bytearray(answer)
        for at, first in batches(answer):
            self.passed.append(first)
            struct.pack_into(">q", found, at, first + self.shifts.pop(first, 0))
        return bytes(found)


def batches(answer: bytes) -> list[tuple[int, int]]:
    """Give where whole batches lie in an answer, and the offsets that they begin at."""
    found: list[tuple[int, int]] = []
    at = 0
    while at + _COUNT_AT + _COUNT.size <= len(answer):
        first, length, _, magic, _, _, delta = _BATCH.unpack_from(answer, at)
        (count,) = _COUNT.unpack_from(answer, at + _COUNT_AT)
        end = at + _LENGTH_FROM + length
        is_batch = magic == MAGIC and length > _COUNT_AT and end <= len(answer)
        if is_batch and 0 <= first < 2**40 and 0 <= delta == count - 1:
            found.append((at, first))
            at = end
        else:
            at += 1
    return found
