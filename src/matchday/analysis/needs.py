"""The lowest offset that any of many holders of state still needs, without asking them all.

A worker asks with every commit, and a partition may hold a hundred thousand series. What one of
them needs only ever rises, so a bound that was right once stays one: holders wait in a heap by
such bounds, and only those that come to its top are asked again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Holder(Protocol):
    """What may need records again.

    Attributes:
        is_queued: It waits in a `Needs`; changed by that only.
    """

    is_queued: bool


H = TypeVar("H", bound=Holder)


class Needs(Generic[H]):
    """The holders that need something; one that needs nothing any more drops out by itself."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, H]] = []
        # Of equal bounds the holder that came first is asked first; holders have no order.
        self._numbers = itertools.count()

    def add(self, holder: H, offset: int) -> None:
        """Let a holder wait, once; it will never need an offset below this."""
        if not holder.is_queued:
            heapq.heappush(self._heap, (offset, next(self._numbers), holder))
            holder.is_queued = True

    def lowest(self, needed: Callable[[H], int | None]) -> int | None:
        """Give the lowest offset that is needed, None where none is.

        Args:
            needed: Gives what a holder needs now, None for nothing.
        """
        heap = self._heap
        while heap:
            bound, number, holder = heap[0]
            offset = needed(holder)
            if offset is None:
                heapq.heappop(heap)
                holder.is_queued = False
            elif offset > bound:
                heapq.heapreplace(heap, (offset, number, holder))
            else:
                return offset
        return None

    def clear(self) -> None:
        """Let nobody wait any more."""
        for _, _, holder in self._heap:
            holder.is_queued = False
        self._heap.clear()
