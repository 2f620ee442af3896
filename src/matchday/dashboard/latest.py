"""Latest values by key, and which of them are news: what one table of the board is.

Owns coalescing and the bound. Does not own what a value is, nor the lock of its board.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from matchday.dashboard.bounded import put

K = TypeVar("K")
V = TypeVar("V")


class Latest(Generic[K, V]):
    """A table of at most `size_max` values; above it the one set longest ago is forgotten.

    So is, with it, that it was news: while nobody asks for news, no more is kept of them than
    of values.
    """

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._values: dict[K, V] = {}
        self._news: set[K] = set()

    def get(self, key: K) -> V | None:
        """Give the latest value, None where there is none."""
        return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Set a value, which is news then."""
        gone = put(self._values, key, value, self._size_max)
        self._news.add(key)
        if gone is not None:
            self._news.discard(gone)

    def take_news(self) -> list[V]:
        """Give the values set since the last call, in any order."""
        news, self._news = self._news, set()
        return [self._values[key] for key in news]

    def values(self) -> list[V]:
        """Give all values, the one set longest ago first."""
        return list(self._values.values())
