"""Tables that stay small: the entry set longest ago makes room for the newest. No state."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put(table: dict[K, V], key: K, value: V, bound: int) -> K | None:
    """Set the newest entry; above `bound` drop the one set longest ago and give its key."""
    table.pop(key, None)
    table[key] = value
    if len(table) <= bound:
        return None
    oldest = next(iter(table))
    del table[oldest]
    return oldest
