"""How often something happens, over the last few seconds of the monotonic clock."""

from __future__ import annotations

WINDOW_S = 4


class Rate:
    """Counts events in one-second buckets; used by one thread at a time."""

    __slots__ = ("_buckets", "_first_s", "_newest")

    def __init__(self) -> None:
        self._buckets = [0] * (WINDOW_S + 1)
        self._first_s: float | None = None
        self._newest = 0

    def add(self, count: int, *, at_s: float) -> None:
        """Count `count` events at `at_s`, monotonic seconds."""
        if self._first_s is None:
            self._first_s = at_s
            self._newest = int(at_s)
        self._roll(int(at_s))
        self._buckets[self._newest % len(self._buckets)] += count

    def per_s(self, at_s: float) -> float:
        """Give events per second over the last full seconds before `at_s`."""
        if self._first_s is None:
            return 0.0
        self._roll(int(at_s))
        length = len(self._buckets)
        past = sum(self._buckets[(self._newest - age) % length] for age in range(1, length))
        # Until the window has filled, what was seen is divided by the time it took.
        span_s = min(float(WINDOW_S), int(at_s) - self._first_s)
        if span_s < 0.5:
            return float(past + self._buckets[self._newest % length])
        return past / span_s

    def _roll(self, second: int) -> None:
        length = len(self._buckets)
        for step in range(self._newest + 1, min(second, self._newest + length) + 1):
            self._buckets[step % length] = 0
        if second > self._newest + length:
            self._buckets = [0] * length
        self._newest = max(self._newest, second)
