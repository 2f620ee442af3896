"""A proxy before a Kafka broker that moves the offsets which batches say they begin at.

A turned bit there is the one damage of a batch that its checksum does not show, and no network
turns the bit that a test wants. Knows just enough of the protocol to find batches in answers.
"""

from __future__ import annotations

import struct
from typing import Final

from servers.answer_proxy import AnswerProxy

FETCH: Final = 1
MAGIC: Final = 2
_BATCH: Final = struct.Struct(">qiibIhi")
"""First offset, length, epoch of the leader, magic, checksum, attributes, last offset's delta."""
_COUNT: Final = struct.Struct(">i")
_COUNT_AT: Final = 57
_LENGTH_FROM: Final = 12
"""A batch's length counts what follows it."""


class ShiftingProxy(AnswerProxy):
    """Passes connections on to `target_port`.

    Attributes:
        shifts: By the offset that a batch begins at, by how much it is moved; each once.
        passed: The offsets that batches began at, of answers passed on, as the broker gave them.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port, question=FETCH, name="shifting-proxy")
        self.shifts: dict[int, int] = {}
        self.passed: list[int] = []

    def changed(self, answer: bytes) -> bytes:
        """Move the offsets of batches that `shifts` names."""
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
