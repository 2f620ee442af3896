"""Readings of one numbering that are in no window of it, remembered one by one.

Owns for how long. Does not own which readings these are (`runs`).
"""

from __future__ import annotations

from typing import Final

_NEVER_MS: Final = -(2**63)


class Strays:
    """Readings outside of all windows, for a window at least and two at most."""

    __slots__ = ("_highest", "_latest_ms", "_lowest", "_older", "_older_latest_ms", "_pairs")

    def __init__(self) -> None:
        self._pairs: set[int] | None = None
        self._older: set[int] | None = None
        self._lowest = self._highest = 0
        self._latest_ms = self._older_latest_ms = _NEVER_MS

    def __len__(self) -> int:
        return len(self._pairs or ()) + len(self._older or ())

    def add(self, seq: int, t_ms: int) -> None:
        """Remember a reading."""
        self._lowest = min(self._lowest, seq) if self else seq
        self._highest = max(self._highest, seq) if self else seq
        if self._pairs is None:
            self._pairs = set()
        self._latest_ms = max(self._latest_ms, t_ms)
        self._pairs.add(_pair(seq, t_ms))

    def has(self, seq: int, t_ms: int) -> bool:
        """Tell whether a reading is remembered."""
        if self._pairs is None and self._older is None:
            return False
        pair = _pair(seq, t_ms)
        return pair in (self._pairs or ()) or pair in (self._older or ())

    def may_be_between(self, lower: int, upper: int) -> bool:
        """Tell whether there may be numbers above one and below another."""
        return len(self) > 0 and self._lowest < upper and self._highest > lower

    @property
    def latest_ms(self) -> int:
        """Give the latest event time of those remembered; before all times where there are none."""
        return max(self._latest_ms, self._older_latest_ms)

    def age(self) -> None:
        """Forget what was there at the call before."""
        self._older, self._pairs = self._pairs, None
        self._older_latest_ms, self._latest_ms = self._latest_ms, _NEVER_MS


def _pair(seq: int, t_ms: int) -> int:
    """Give number and time as one integer; numbers are below 2**62."""
    return t_ms << 62 | seq
