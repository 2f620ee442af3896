"""Every number that steers the analysis, with its unit and its bound.

Owns the policy only; state lives in the analysers, the choice of analysers in `plan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from matchday.errors import ConfigError

KMH_PER_MPS = 3.6


@dataclass(frozen=True)
class AnalysisPolicy:
    """How windows, forecasts, player and crowd metrics are computed.

    Event-time spans are measured on the readings' own clock; `idle_s`, `forget_s` and
    `baseline_forget_s` on the stream's record times.

    Attributes:
        lateness_s: The watermark trails a track's highest event time by this much.
        idle_s: A track silent for this long has its open windows closed.
        forget_s: A track silent for this long loses its watermark too: a reading that
            comes after it opens windows anew. With `rest_records_max` it bounds what a restart
            must read again.
        window_s: Length of a window.
        baseline_season_s: The season of the baseline; None infers it from the cadence.
        baseline_seasons: How many seasons of readings the baseline keeps, at least 2.
        baseline_points_max: The most readings one season may have; a season with more
            does not fit and is not used.
        baseline_coverage_ratio: The share of readings that the band is to contain.
        baseline_forget_s: A series silent for this long starts learning again.
        baseline_series_max: Beyond so many series in a partition those silent for longest are
            forgotten; it bounds the memory of sources that never come back.
        rewind_records_max: The baseline forgets readings more than this many records back,
            which bounds how much a restart must read again.
        rest_records_max: A track silent for `idle_s` and this many records is forgotten, though
            `forget_s` is not over: a restart would have to read them all again. So is a
            series, where `baseline_forget_s` is over or records come too fast for any forecast.
        gap_s: A player unseen for longer than this starts a new path; no distance across.
        min_step_s: Samples of one player that follow closer than this are skipped.
        filter_half_width_s: Half the width of the speed filter; 0.28 s is 15 samples at
            25 Hz.
        speed_mps_max: A step faster than this is an artefact of tracking, not running.
        hsr_kmh: High-speed running begins here (soccer; AFL literature: 14.4 to 18).
        sprint_kmh: Sprinting begins here (soccer; AFL literature: 23 to 25).
        ball_ids: Entities that are a ball.
        pitch_margin_m: How far off the pitch an entity without a team is still a player.
        count_units: Scalars in these units are counts: never negative, noise as sqrt.
    """

    lateness_s: float = 2.0
    idle_s: float = 30.0
    forget_s: float = 300.0
    window_s: float = 10.0
    baseline_season_s: float | None = None
    baseline_seasons: int = 2
    baseline_points_max: int = 400
    baseline_coverage_ratio: float = 0.8
    baseline_forget_s: float = 3 * 86_400.0
    baseline_series_max: int = 100_000
    rewind_records_max: int = 1_000_000
    rest_records_max: int = 100_000
    gap_s: float = 1.0
    min_step_s: float = 0.02
    filter_half_width_s: float = 0.28
    speed_mps_max: float = 12.0
    hsr_kmh: float = 19.8
    sprint_kmh: float = 25.2
    ball_ids: tuple[str, ...] = ("ball",)
    pitch_margin_m: float = 5.0
    count_units: tuple[str, ...] = ("persons", "people", "count", "1/h")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)):
                least = 0.0 if item.name in ("lateness_s", "pitch_margin_m") else 1e-3
                _check(math.isfinite(value) and value >= least, item.name, value, f">= {least:g}")
        _check(self.forget_s >= self.idle_s, "forget_s", self.forget_s, f">= idle_s {self.idle_s}")
        _check(self.baseline_seasons >= 2, "baseline_seasons", self.baseline_seasons, ">= 2")
        _check(
            self.baseline_coverage_ratio < 1.0,
            "baseline_coverage_ratio",
            self.baseline_coverage_ratio,
            "< 1",
        )
        # The last speed of a path is known at the latest when its entity was not seen for `gap_s`
        # and the filter's reach: a window that closed earlier would lose the end of a path.
        settled_s = self.gap_s + self.filter_half_width_s + self.min_step_s
        is_settled = ms(self.lateness_s) >= ms(settled_s)
        _check(is_settled, "lateness_s", self.lateness_s, f">= {settled_s:g}")
        _check(
            self.gap_s >= self.min_step_s, "gap_s", self.gap_s, f">= min_step_s {self.min_step_s}"
        )
        samples = self.filter_half_width_s / self.min_step_s
        _check(samples <= 14.5, "filter_half_width_s", self.filter_half_width_s, "<= 14 min_step_s")

    @property
    def hsr_mps(self) -> float:
        """Give the high-speed running threshold in metres per second."""
        return self.hsr_kmh / KMH_PER_MPS

    @property
    def sprint_mps(self) -> float:
        """Give the sprint threshold in metres per second."""
        return self.sprint_kmh / KMH_PER_MPS


def _check(is_met: bool, name: str, value: object, bound: str) -> None:
    if not is_met:
        raise ConfigError(f"checking analysis.{name}: {value} must be {bound}")


def ms(seconds: float) -> int:
    """Give a span in whole milliseconds."""
    return round(seconds * 1000)
