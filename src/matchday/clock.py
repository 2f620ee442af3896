"""The only reader of time.

Three clocks exist in the product and are never mixed: *event* time (when a thing was
observed, integer milliseconds UTC, `*_ms`, carried by the data), *arrival* time (the wall
clock here, integer milliseconds UTC) and the *monotonic* clock (seconds, for deadlines and
durations). This module gives the last two; the first comes with the reading.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A source of wall time, monotonic time and pauses; safe to share between threads."""

    def wall_ms(self) -> int:
        """Give the wall clock, integer milliseconds since 1970 UTC; it may jump."""

    def monotonic_s(self) -> float:
        """Give seconds from an arbitrary origin that never go backwards."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set or `timeout_s` of this clock passed; tell whether it is set."""


class SystemClock:
    """The clocks of the machine."""

    def wall_ms(self) -> int:
        """Give the machine's wall clock in milliseconds UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Give the machine's monotonic clock in seconds."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait on the event, at most `timeout_s` seconds."""
        return event.wait(timeout_s)


class ManualClock:
    """A clock that moves only when told, so that an hour's test runs at once.

    `wait` advances the clock by the whole time-out instead of pausing, unless the
    event is set already.
    """

    def __init__(self, *, wall_ms: int = 1_700_000_000_000, monotonic_s: float = 1_000.0) -> None:
        self._lock = threading.Lock()
        self._wall_ms = wall_ms
        self._monotonic_s = monotonic_s

    def wall_ms(self) -> int:
        """Give the wall time set so far, milliseconds UTC."""
        with self._lock:
            return self._wall_ms

    def monotonic_s(self) -> float:
        """Give the monotonic time set so far, seconds."""
        with self._lock:
            return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward by `seconds`."""
        with self._lock:
            self._wall_ms += round(seconds * 1000)
            self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Move only the wall clock, forwards or backwards, as a clock correction does."""
        with self._lock:
            self._wall_ms += round(seconds * 1000)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Advance by `timeout_s` unless the event is set; tell whether it is set."""
        if event.is_set():
            return True
        self.advance(timeout_s)
        return event.is_set()
