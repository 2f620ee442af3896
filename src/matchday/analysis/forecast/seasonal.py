"""The analyser that forecasts every scalar and count by its seasonal baseline.

Owns which readings of a series are remembered, so that a restart finds the same ones; the
arithmetic is `baseline`. A series of a source starts anew with its session, after a long
silence, and when its clock jumps back by more than a day (a replay that began again).

Series are kept in the order in which they were last heard of. Beyond `baseline_series_max` the one
silent for longest is forgotten: a series is, whenever so many others were heard of after it, which
whoever has read its last reading finds out as well.

A series that falls silent where the stream is fast would have a restart read all that came since.
It is forgotten `rest_records_max` offsets later, or up to a tenth more, if records came so fast
that the readings of a season and a half, the least that a forecast needs, cannot be within
`rewind_records_max`. That is judged where a block of offsets ends, and by the last reading heard
alone, learnt or not: of the others whoever began to read later may know fewer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from matchday.analysis.forecast.baseline import (
    CADENCE_SPAN,
    DAY_MS,
    Band,
    cadence_of,
    forecast,
    is_too_frequent,
    season_of,
)
from matchday.analysis.needs import Needs
from matchday.analysis.policy import AnalysisPolicy, ms
from matchday.analysis.series import Sample, samples_of
from matchday.analysis.windows import NEVER_MS, REST_BLOCKS
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading

MODEL = "seasonal-baseline/1"
# Kept beyond the silence that ends a series, so that a correction of the stream's clock
# cannot make the sweep drop what the next reading would still find alive.
_SWEEP_MARGIN_MS = 3_600_000

_Key: TypeAlias = tuple[str, str | None, str]

State = Literal["learning", "no_season", "forecasting"]


@dataclass(frozen=True)
class SeriesStatus:
    """How far the baseline of a series has come, for the live view.

    Attributes:
        subject: Name of the series.
        state: Still "learning"; "no_season": it comes too often for a day's readings to
            fit the bound; or "forecasting".
        season_s: The season in use, seconds; None before it is known.
        points: How many readings are remembered.
    """

    subject: str
    state: State
    season_s: float | None
    points: int


@dataclass(slots=True, eq=False)
class _Series:
    session: str | None
    seen_ms: int
    seen_offset: int = -1
    state: State = "learning"
    season_ms: int | None = None
    times_ms: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    anchor: int | None = None
    is_queued: bool = False

    @property
    def since(self) -> int | None:
        """Give the lowest offset it needs, None for none."""
        # The anchor came before all that is learnt.
        if self.anchor is not None:
            return self.anchor
        return self.offsets[0] if self.offsets else None


class SeasonalForecast:
    """Forecasts every reading from the last two seasons of its own series.

    A reading not newer than the series' newest has no forecast and is not learnt from.

    Args:
        policy: All numbers.
        skips: Tells which readings are forecast by something else.
    """

    deadline_ms = NEVER_MS

    def __init__(
        self, policy: AnalysisPolicy, *, skips: Callable[[Reading], bool] | None = None
    ) -> None:
        self._policy = policy
        declared_s = policy.baseline_season_s
        self._declared_ms = None if declared_s is None else ms(declared_s)
        self._forget_ms = ms(policy.baseline_forget_s)
        self._skips = skips
        self._least_ms = 3 * (self._declared_ms or DAY_MS) // 2
        self._block_records = max(-(-policy.rest_records_max // REST_BLOCKS), 1)
        self._block = 0
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        self._needs: Needs[_Series] = Needs()

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Forecast the reading's numbers from earlier ones, then learn them."""
        if self._skips is not None and self._skips(reading):
            return ()
        block = offset // self._block_records
        if block != self._block:
            self._block = block
            self._forget_at_rest(offset, stream_ms)
        findings: list[Finding] = []
        for sample in samples_of(reading, self._policy):
            series = self._series_for(sample.subject, reading, offset, stream_ms)
            if series.times_ms and reading.t_ms <= series.times_ms[-1]:
                continue
            band = self._forecast(series, sample, reading.t_ms)
            if band is not None:
                findings.append(_finding(reading, sample, band))
            series.times_ms.append(reading.t_ms)
            series.values.append(sample.value)
            series.offsets.append(offset)
            self._needs.add(series, offset)
        return findings

    def settle(self) -> None:
        """Do nothing: no finding is promised."""

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Do nothing: forecasts wait for no watermark."""
        return ()

    def finish(self) -> Sequence[Finding]:
        """Forget everything; nothing is left to emit."""
        self._series.clear()
        self._needs.clear()
        return ()

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the offset of the oldest remembered reading that will be used again."""
        self._sweep(stream_ms)
        oldest = next_offset - self._policy.rewind_records_max

        def needed(series: _Series) -> int | None:
            """Give the offset of the oldest reading that this series will use again, or None."""
            _drop_before(series, oldest)
            return series.since

        since = self._needs.lowest(needed)
        return next_offset if since is None else min(since, next_offset)

    def provisional(self) -> Sequence[Finding]:
        """Give nothing: a forecast is final when it is made."""
        return ()

    def take_late(self) -> dict[str, int]:
        """Give nothing: the windows count the late readings."""
        return {}

    def statuses(self) -> list[SeriesStatus]:
        """Tell of every series how far its baseline has come, sorted by subject."""
        found = [
            SeriesStatus(
                key[2],
                series.state,
                None if series.season_ms is None else series.season_ms / 1000,
                len(series.times_ms),
            )
            for key, series in self._series.items()
        ]
        return sorted(found, key=lambda status: status.subject)

    def _sweep(self, stream_ms: int) -> None:
        """Forget the series that have been silent for so long that they begin anew anyway."""
        while self._series:
            key, series = next(iter(self._series.items()))
            if stream_ms <= series.seen_ms + self._forget_ms + _SWEEP_MARGIN_MS:
                return
            self._drop(key)

    def _forget_at_rest(self, offset: int, stream_ms: int) -> None:
        """Forget the series that are silent since long, at a rate that leaves no forecast."""
        rest_offset = (self._block - REST_BLOCKS) * self._block_records
        at_rest = []
        for key, series in self._series.items():
            if series.seen_offset >= rest_offset:
                break
            reached = self._policy.rewind_records_max * (stream_ms - series.seen_ms)
            if (offset - series.seen_offset) * self._least_ms > reached:
                at_rest.append(key)
        for key in at_rest:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        series = self._series.pop(key)
        _keep_last(series, 0)
        series.anchor = None

    def _series_for(self, subject: str, reading: Reading, offset: int, stream_ms: int) -> _Series:
        key = (reading.source, reading.venue, subject)
        known = series = self._series.get(key)
        if series is not None:
            _drop_before(series, offset - self._policy.rewind_records_max)
            silent_ms = stream_ms - series.seen_ms
            if series.session != reading.session or silent_ms > self._forget_ms:
                series = None
            elif series.times_ms and reading.t_ms < series.times_ms[-1] - DAY_MS:
                # Only with the reading before the jump can a restart see that it was one.
                anchor = series.offsets[-1]
                series = _Series(reading.session, stream_ms, anchor=anchor)
                self._needs.add(series, anchor)
        if series is None:
            series = _Series(reading.session, stream_ms)
        if known is series:
            self._series.move_to_end(key)
        else:
            if known is not None:
                self._drop(key)
            self._series[key] = series
            if len(self._series) > self._policy.baseline_series_max:
                self._drop(next(iter(self._series)))
        series.seen_ms, series.seen_offset = stream_ms, offset
        return series

    def _forecast(self, series: _Series, sample: Sample, t_ms: int) -> Band | None:
        policy = self._policy
        points_max = policy.baseline_points_max
        if is_too_frequent(series.times_ms, points_max=points_max, declared_ms=self._declared_ms):
            series.season_ms, series.state = None, "no_season"
            _keep_last(series, CADENCE_SPAN + 1)
            return None
        cadence_ms = cadence_of(series.times_ms)
        if cadence_ms is None:
            return None
        season_ms = season_of(cadence_ms, points_max=points_max, declared_ms=self._declared_ms)
        series.season_ms = season_ms
        if season_ms is None:
            series.state = "no_season"
            _keep_last(series, CADENCE_SPAN + 1)
            return None
        reach_ms = policy.baseline_seasons * season_ms + cadence_ms // 2
        _drop_older(series, t_ms - reach_ms)
        _keep_last(series, policy.baseline_seasons * points_max)
        band = None
        if len(series.times_ms) > 1:
            band = forecast(
                series.times_ms,
                series.values,
                t_ms=t_ms,
                season_ms=season_ms,
                cadence_ms=cadence_ms,
                is_count=sample.is_count,
                coverage_ratio=policy.baseline_coverage_ratio,
            )
        series.state = "learning" if band is None else "forecasting"
        return band


def _cut(series: _Series, count: int) -> None:
    if count > 0:
        del series.times_ms[:count], series.values[:count], series.offsets[:count]
        series.anchor = None


def _keep_last(series: _Series, count: int) -> None:
    _cut(series, len(series.times_ms) - count)


def _drop_older(series: _Series, t_ms: int) -> None:
    _cut(series, bisect_left(series.times_ms, t_ms))


def _drop_before(series: _Series, offset: int) -> None:
    # Offsets rise; nearly always there is nothing to drop.
    if series.offsets and series.offsets[0] < offset:
        _cut(series, bisect_left(series.offsets, offset))


def _finding(reading: Reading, sample: Sample, band: Band) -> Finding:
    return Finding(
        subject=sample.subject,
        kind="forecast",
        span_start_ms=reading.t_ms,
        span_end_ms=reading.t_ms,
        model=MODEL,
        values={
            "yhat": band.yhat,
            "yhat_lower": band.lower,
            "yhat_upper": band.upper,
            "y": sample.value,
        },
        sensor=reading.source,
        venue=reading.venue,
        session=reading.session,
    )
