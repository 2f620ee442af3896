"""When the next tick of ingest is due: soon after a silence, later the more there is to take.

Pure; the caller says what time it is. Does not own how a tick is filled (`bridge`).
"""

from __future__ import annotations

from typing import Final

STRETCH_PER_S: Final = 5000.0
STRETCH_MAX: Final = 2.0
"""A transaction costs Kafka as much as thousands of messages, however few are in it. Above
`STRETCH_PER_S` messages a second the tick grows with the rate, up to so many times."""

BUSY_SHARE: Final = 4
"""After a tick of a quarter of the window the next may be full before it is due."""


class Pace:
    """The pace of one bridge.

    Args:
        tick_s: Least time between two ticks, seconds.
        window: How many messages may be unacknowledged.

    Attributes:
        due_s: Monotonic second at which the next tick is due.
        until_s: Monotonic second until which a busy one may go on being filled.
        is_busy: Whether the window may be full before the next tick is due.
    """

    def __init__(self, *, tick_s: float, window: int) -> None:
        self._tick_s = tick_s
        self._window = window
        self._filled_s = 0.0
        self.due_s = self.until_s = 0.0
        self.is_busy = False

    def filled(self, size: int, now_s: float) -> None:
        """Take note of a tick that was filled at this monotonic second with `size` messages.

        After an empty one the next is due at once: who comes after a silence does not wait.
        """
        if not size:
            self.is_busy = False
            return
        rate_per_s = size / max(now_s - self._filled_s, 1e-3)
        stretch = min(STRETCH_MAX, max(1.0, rate_per_s / STRETCH_PER_S))
        self.is_busy = size * BUSY_SHARE >= self._window
        self.due_s = now_s + self._tick_s * stretch
        self.until_s = self.due_s + self._tick_s
        self._filled_s = now_s
