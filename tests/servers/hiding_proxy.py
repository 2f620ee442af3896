"""A proxy before a Kafka broker that can take the brokers out of what it says of its cluster.

A real broker names no broker, not even itself, for a moment after it was started or woken,
and no test can hold that moment. Here it lasts as long as a test wants. Knows just enough of
the protocol to find answers about the cluster and the list of brokers in them.
"""

from __future__ import annotations

import struct
from typing import Final

from servers.answer_proxy import AnswerProxy

METADATA: Final = 3
FLEXIBLE_VERSION: Final = 9
"""From this version of the question on, lengths are variable and fields may be added."""

HEADER_BYTES: Final = 4 + 1 + 4
"""Before the brokers: number of the question, added fields (none), throttling in ms."""

NO_BROKERS: Final = b"\1"
NO_CONTROLLER: Final = struct.pack(">i", -1)


class HidingProxy(AnswerProxy):
    """Passes connections on to `target_port`.

    Attributes:
        is_hiding: Answers about the cluster name no broker.
        hidden_count: How many answers went out like that.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port, question=METADATA, name="hiding-proxy")
        self.is_hiding = False
        self.hidden_count = 0

    def check(self, version: int) -> None:
        """Refuse questions whose answers have fixed lengths."""
        assert version >= FLEXIBLE_VERSION, version

    def changed(self, answer: bytes) -> bytes:
        """Take the brokers out while hiding."""
        if not self.is_hiding:
            return answer
        self.hidden_count += 1
        return without_brokers(answer)


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
