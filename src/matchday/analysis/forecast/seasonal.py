"""The analyser that forecasts every scalar and count by its seasonal baseline.

Owns which readings of a series are remembered; the arithmetic is `baseline`. A series of a source
starts anew with its session, after a long silence, and when its clock jumps back by more than a
day from one reading to the next (a replay that began again).

A restart equals no restart because of one rule: *every reading is remembered as it is heard, and
forgotten only for what was heard after it*. That is another of the same time; so many records that
it is out of reach; so many or so much newer readings of its series, judged by the pace of the last
17 of them; a new start of the series; its silence. So of the readings from any offset on, the same
ones are remembered by all who began to read there or before. Who begins at or below the oldest that
is remembered, which is the rewind offset, remembers all of them and no others: what came before is
forgotten for reasons that this one has read as well. Forecasts follow from what is remembered.

A reading that came behind a newer one can therefore not be passed over: to one who began in between
it is the first. It gets no forecast, but others learn from it, in the order of event time.

Series are kept in the order in which they were last heard of. Beyond `baseline_series_max` the one
silent for longest is forgotten: a series is, whenever so many others were heard of after it, which
whoever has read its last reading finds out as well.

A silent series would have a restart read all that came since. It is looked at `rest_records_max`
offsets later, where a block of a tenth as many ends, by its last reading alone. It is forgotten if
it would begin anew, if it is out of reach, or if records came so fast that the readings of a season
and a half, the least that a forecast needs, cannot be within `rewind_records_max`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import lt
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
# What tells the pace; the readings before it are judged by it.
_PACE_COUNT = CADENCE_SPAN + 1

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
    # In the order heard; no two of one time.
    times_ms: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    is_rising: bool = True
    is_queued: bool = False

    @property
    def since(self) -> int | None:
        """Give the lowest offset it needs, None for none."""
        return self.offsets[0] if self.offsets else None

    def is_newer(self, t_ms: int) -> bool:
        """Tell whether a time is newer than all that is remembered."""
        times_ms = self.times_ms
        return not times_ms or t_ms > (times_ms[-1] if self.is_rising else max(times_ms))

    def pace_ms(self) -> list[int]:
        """Give the times by which its pace is judged, rising; the last of them at least."""
        return self.times_ms if self.is_rising else sorted(self.times_ms[-_PACE_COUNT:])

    def learn(self, t_ms: int, value: float, offset: int) -> None:
        """Remember a reading; of equal times the last counts."""
        if not self.is_newer(t_ms):
            if t_ms in self.times_ms:
                at = self.times_ms.index(t_ms)
                del self.times_ms[at], self.values[at], self.offsets[at]
            self.is_rising = not self.times_ms or (self.is_rising and t_ms > self.times_ms[-1])
        self.times_ms.append(t_ms)
        self.values.append(value)
        self.offsets.append(offset)

    def cut(self, count: int) -> None:
        """Forget the first so many."""
        if count > 0:
            del self.times_ms[:count], self.values[:count], self.offsets[:count]
            self._note_order()

    def cut_older(self, t_ms: int) -> None:
        """Forget what is older than a time, but not what tells the pace."""
        spare = len(self.times_ms) - _PACE_COUNT
        if self.is_rising:
            self.cut(min(bisect_left(self.times_ms, t_ms), spare))
            return
        kept = [at for at, time_ms in enumerate(self.times_ms) if at >= spare or time_ms >= t_ms]
        if len(kept) < len(self.times_ms):
            self.times_ms = [self.times_ms[at] for at in kept]
            self.values = [self.values[at] for at in kept]
            self.offsets = [self.offsets[at] for at in kept]
            self._note_order()

    def cut_before(self, offset: int) -> None:
        """Forget what was heard before an offset."""
        # Offsets rise; nearly always there is nothing to forget.
        if self.offsets and self.offsets[0] < offset:
            self.cut(bisect_left(self.offsets, offset))

    def _note_order(self) -> None:
        if not self.is_rising:
            self.is_rising = all(map(lt, self.times_ms, self.times_ms[1:]))


class SeasonalForecast:
    """Forecasts every reading from the last two seasons of its own series.

    A reading not newer than the newest that is remembered of its series has no forecast.

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
        self._next_offset = 0
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
        self._next_offset = offset + 1
        findings: list[Finding] = []
        for sample in samples_of(reading, self._policy):
            series = self._series_for(sample.subject, reading, offset, stream_ms)
            band = self._forecast(series, sample, reading.t_ms)
            if band is not None:
                findings.append(_finding(reading, sample, band))
            series.learn(reading.t_ms, sample.value, offset)
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
        oldest = next_offset - self._policy.rewind_records_max

        def needed(series: _Series) -> int | None:
            """Give the offset of the oldest reading that this series will use again, or None."""
            series.cut_before(oldest)
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
        """Tell of every series within reach how far its baseline has come, sorted by subject."""
        oldest = self._next_offset - self._policy.rewind_records_max
        found = []
        for (_, _, subject), series in self._series.items():
            points = len(series.offsets) - bisect_left(series.offsets, oldest)
            season_s = None if series.season_ms is None else series.season_ms / 1000
            if points:
                found.append(SeriesStatus(subject, series.state, season_s, points))
        return sorted(found, key=lambda status: status.subject)

    def _forget_at_rest(self, offset: int, stream_ms: int) -> None:
        """Forget the series that are silent since long, if no forecast is to come of them."""
        rest_offset = (self._block - REST_BLOCKS) * self._block_records
        reach_records = self._policy.rewind_records_max
        at_rest = []
        for key, series in self._series.items():
            if series.seen_offset >= rest_offset:
                break
            silent_ms, silent_records = stream_ms - series.seen_ms, offset - series.seen_offset
            is_fast = silent_records * self._least_ms > reach_records * silent_ms
            if is_fast or silent_ms > self._forget_ms or silent_records > reach_records:
                at_rest.append(key)
        for key in at_rest:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        series = self._series.pop(key)
        series.cut(len(series.offsets))

    def _series_for(self, subject: str, reading: Reading, offset: int, stream_ms: int) -> _Series:
        key = (reading.source, reading.venue, subject)
        known = series = self._series.get(key)
        if series is not None:
            series.cut_before(offset - self._policy.rewind_records_max)
            is_new = series.session != reading.session
            is_new = is_new or stream_ms - series.seen_ms > self._forget_ms
            # By the reading just before: to one who did not read it, this is the first.
            if is_new or (series.times_ms and reading.t_ms < series.times_ms[-1] - DAY_MS):
                series = None
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
        """Forecast what is about to be learnt, and forget what is no longer looked back on."""
        policy = self._policy
        points_max, pace_ms = policy.baseline_points_max, series.pace_ms()
        season_ms = cadence_ms = None
        if not is_too_frequent(pace_ms, points_max=points_max, declared_ms=self._declared_ms):
            cadence_ms = cadence_of(pace_ms)
            if cadence_ms is None:
                series.season_ms, series.state = None, "learning"
                return None
            season_ms = season_of(cadence_ms, points_max=points_max, declared_ms=self._declared_ms)
        series.season_ms = season_ms
        if season_ms is None or cadence_ms is None:
            series.state = "no_season"
            series.cut(len(series.times_ms) - _PACE_COUNT)
            return None
        series.cut_older(t_ms - policy.baseline_seasons * season_ms - cadence_ms // 2)
        count_max = max(policy.baseline_seasons * points_max, _PACE_COUNT)
        series.cut(len(series.times_ms) - count_max)
        if not series.is_newer(t_ms):
            return None
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
