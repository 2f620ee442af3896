"""Statistics of scalars and counts per window: count, mean, minimum, maximum, deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matchday.analysis.analyser import Track
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.series import samples_of
from matchday.analysis.windows import Closed, Windows
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading

MODEL = "window-statistics/1"


class Moments:
    """Count, mean and spread of numbers seen one by one.

    Welford's recurrence (Welford 1962): exact to rounding also for values far from zero,
    where sums of squares lose every digit.
    """

    __slots__ = ("count", "greatest", "least", "mean", "squares")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.least = math.inf
        self.greatest = -math.inf

    def add(self, value: float) -> None:
        """Take one more number into account."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)
        if value < self.least:
            self.least = value
        if value > self.greatest:
            self.greatest = value

    def values(self) -> dict[str, float]:
        """Give the statistics; `std` is the sample's (n - 1), 0 for a single number."""
        spread = math.sqrt(max(self.squares, 0.0) / (self.count - 1)) if self.count > 1 else 0.0
        return {
            "count": float(self.count),
            "mean": self.mean,
            "min": self.least,
            "max": self.greatest,
            "std": spread,
        }


class WindowStatistics:
    """The analyser that makes a `sensor_metric` per series and window."""

    def __init__(self, policy: AnalysisPolicy) -> None:
        self._policy = policy
        self._windows: Windows[Moments] = Windows.by(policy, Moments)

    @property
    def deadline_ms(self) -> int:
        """Give a stream time before which no track can be silent."""
        return self._windows.deadline_ms

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Add the reading's numbers to their windows; see `Analyser.feed`."""
        windows = self._windows
        track = Track(reading.source, reading.session, reading.venue)
        lane = windows.lane(track, stream_ms=stream_ms, offset=offset)
        if windows.is_late(lane, reading.t_ms):
            windows.count_late(lane)
        else:
            for sample in samples_of(reading, self._policy):
                held = windows.held(lane, sample.subject, reading.t_ms)
                if held is None:
                    held = windows.open(lane, sample.subject, reading.t_ms, since=offset)
                held.totals.add(sample.value)
        closed = windows.observe(lane, reading.t_ms, offset=offset)
        return [_finding(item) for item in closed] if closed else ()

    def settle(self) -> None:
        """Do nothing: no finding is promised."""

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Close the windows of silent tracks; see `Analyser.pass_time`."""
        closed, _ = self._windows.pass_time(stream_ms)
        return [_finding(item) for item in closed]

    def finish(self) -> Sequence[Finding]:
        """Close every window."""
        return [_finding(item) for item in self._windows.finish()]

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the lowest offset still needed; see `Analyser.rewind`."""
        return self._windows.rewind(next_offset)

    def provisional(self) -> Sequence[Finding]:
        """Give the statistics of the open windows so far."""
        return [_finding(item) for item in self._windows.provisional()]

    def take_late(self) -> dict[str, int]:
        """Give the late readings per source since the last call."""
        return self._windows.take_late()


def _finding(item: Closed[Moments]) -> Finding:
    return Finding(
        subject=item.subject,
        kind="sensor_metric",
        span_start_ms=item.start_ms,
        span_end_ms=item.end_ms,
        model=MODEL,
        values=item.totals.values(),
        sensor=item.track.source,
        venue=item.track.venue,
        session=item.track.session,
    )
