"""How far persist is behind the stream, and how seldom it asks the stream for that.

Owns the last answer and its age. Does not own where persist stands (`protocols.confirming`).
"""

from __future__ import annotations

from typing import Final

from matchday.clock import Clock
from matchday.observe import metrics
from matchday.ports import Consumer
from matchday.protocols.confirming import Positions

REFRESH_S: Final = 0.5
# What comes is noticed by reading it; asking for the ends takes six questions meanwhile.
IDLE_REFRESH_S: Final = 5.0
BUSY_REFRESH_S: Final = 2.0


class Lag:
    """Looks at the stream's ends now and then; what it saw may be asked from any thread.

    Args:
        clock: Tells how old the last look is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count: int | None = None
        self._seen_s = float("-inf")
        self._is_asked = False

    def publish(self) -> None:
        """Make it a metric."""
        metrics.gauge(
            "matchday_persist_lag_records",
            "Offsets not stored yet, -1 while unknown",
            lambda: float(-1 if self._count is None else self._count),
        )

    def count(self) -> int | None:
        """Give how many offsets were not stored yet at the last look; None while unknown."""
        return self._count

    def is_zero(self) -> bool:
        """Tell whether all was stored `REFRESH_S` ago; no, where it must look first."""
        is_fresh = self._clock.monotonic_s() < self._seen_s + REFRESH_S
        self._is_asked = not is_fresh
        return is_fresh and self._count == 0

    def forget(self) -> None:
        """Hold it for unknown until the next look."""
        self._count = None

    def look(
        self, consumer: Consumer, positions: Positions, *, is_idle: bool, is_in_hand: bool
    ) -> None:
        """Ask for the stream's ends if the last answer is too old.

        Args:
            consumer: Whom to ask.
            positions: Where persist stands.
            is_idle: Nothing came just now.
            is_in_hand: Something is waiting to be written.

        Raises:
            UnavailableError: The stream does not answer.
        """
        now_s = self._clock.monotonic_s()
        calm_s = IDLE_REFRESH_S if is_idle and self._count == 0 else BUSY_REFRESH_S
        refresh_s = REFRESH_S if self._is_asked else calm_s
        is_end_near = is_idle and self._count != 0 and not is_in_hand
        is_stale = is_end_near or now_s >= self._seen_s + refresh_s
        if positions and is_stale:
            self._count = positions.lag(consumer.ends())
            self._seen_s = now_s
