"""The seasonal baseline as pure arithmetic: from the last readings to the next one's forecast.

Forecast: the reading one season ago, corrected by how far the latest reading was off from
its own partner one season ago (a first-order autoregression of the seasonal difference; Box
& Jenkins 1970). Band: split conformal quantile of the errors that this same rule made on the
readings at hand (Vovk, Gammerman & Shafer 2005). Counts are treated as square roots, where
the noise of a count does not grow with it (Bartlett 1936), and never fall below zero.

Everything is a function of the readings passed in: nothing is remembered between calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

# Only series slow enough to have a season come so far; without one there is no numpy.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

DAY_MS = 86_400_000
SEASONS_MS = (DAY_MS, 7 * DAY_MS)
CADENCE_SPAN = 16
# Stay below 1: an error must fade, or one outlier would shift all that follows.
PHI_MAX = 0.95


class Band(NamedTuple):
    """A forecast with the band that contains the stated share of readings."""

    yhat: float
    lower: float
    upper: float


def cadence_of(times_ms: Sequence[int]) -> int | None:
    """Give the median step of the last 16 readings in milliseconds; None before 17."""
    if len(times_ms) <= CADENCE_SPAN:
        return None
    last = times_ms[-CADENCE_SPAN - 1 :]
    steps = sorted(after - before for before, after in itertools.pairwise(last))
    return steps[CADENCE_SPAN // 2]


def is_too_frequent(times_ms: Sequence[int], *, points_max: int, declared_ms: int | None) -> bool:
    """Tell at a glance that `season_of` will find no season, as for every fast series.

    At least 8 of the 16 steps are as long as their median or longer, so the cadence is at
    most an eighth of the time they span: no sorting is needed to know that it is too short.
    """
    if len(times_ms) <= CADENCE_SPAN:
        return False
    span_ms = times_ms[-1] - times_ms[-CADENCE_SPAN - 1]
    shortest_ms = SEASONS_MS[0] if declared_ms is None else declared_ms
    return points_max * span_ms < CADENCE_SPAN // 2 * shortest_ms


def season_of(cadence_ms: int, *, points_max: int, declared_ms: int | None) -> int | None:
    """Choose the season: the longest of a day and a week that has few enough readings.

    Args:
        cadence_ms: Step between readings.
        points_max: The most readings a season may have.
        declared_ms: The season a person declared; only checked against the bound.

    Returns:
        The season in milliseconds, or None where none fits.
    """
    candidates = SEASONS_MS if declared_ms is None else (declared_ms,)
    fitting = [season for season in candidates if season <= points_max * cadence_ms]
    return max(fitting, default=None)


def forecast(
    times_ms: Sequence[int],
    values: Sequence[float],
    *,
    t_ms: int,
    season_ms: int,
    cadence_ms: int,
    is_count: bool,
    coverage_ratio: float,
) -> Band | None:
    """Forecast the reading at `t_ms` from earlier ones.

    Args:
        times_ms: Event times in any order, no two the same, all before `t_ms`.
        values: The readings at these times.
        t_ms: The instant to forecast.
        season_ms: Length of the season.
        cadence_ms: Usual step; a partner may be off by half of it.
        is_count: Work on square roots and stay above zero.
        coverage_ratio: Nominal share of readings inside the band.

    Returns:
        None while there is too little to judge by: fewer than half a season of readings
        with a partner one season before, or no partner for `t_ms` itself.
    """
    import numpy as np

    times = np.asarray(times_ms, dtype=np.int64)
    levels = np.asarray(values, dtype=np.float64)
    if is_count:
        levels = np.sqrt(np.maximum(levels, 0.0))
    tolerance_ms = cadence_ms // 2
    if (times[1:] < times[:-1]).any():
        order = np.argsort(times, kind="stable")
        times, levels = times[order], levels[order]
    differences = levels - _partners(times, levels, times - season_ms, tolerance_ms)
    now = np.array([t_ms - season_ms, t_ms - 2 * season_ms], dtype=np.int64)
    candidates = _partners(times, levels, now, tolerance_ms)
    base = candidates[0] if math.isfinite(candidates[0]) else candidates[1]
    before, after = differences[:-1], differences[1:]
    is_pair = np.isfinite(before) & np.isfinite(after) & (np.diff(times) <= 2 * cadence_ms)
    before, after = before[is_pair], after[is_pair]
    if not math.isfinite(base) or len(after) * cadence_ms < season_ms // 2 or len(after) < 8:
        return None
    power = float(before @ before)
    phi = min(max(float(before @ after) / power, 0.0), PHI_MAX) if power > 0.0 else 0.0
    errors = np.sort(np.abs(after - phi * before))
    rank = min(len(errors), math.ceil((len(errors) + 1) * coverage_ratio))
    reach = float(errors[rank - 1])
    latest = float(differences[-1])
    if not math.isfinite(latest) or t_ms - times[-1] > 2 * cadence_ms:
        latest = 0.0
    centre = float(base) + phi * latest
    band = Band(centre, centre - reach, centre + reach)
    return Band(*(max(level, 0.0) ** 2 for level in band)) if is_count else band


def _partners(
    times: NDArray[np.int64], levels: Floats, wanted: NDArray[np.int64], tolerance_ms: int
) -> Floats:
    """Give the level at the reading nearest to each wanted time, NaN where none is near."""
    import numpy as np

    after = np.searchsorted(times, wanted)
    right = np.minimum(after, len(times) - 1)
    left = np.maximum(after - 1, 0)
    nearest = np.where(wanted - times[left] < times[right] - wanted, left, right)
    off = np.abs(times[nearest] - wanted)
    return np.where(off <= tolerance_ms, levels[nearest], np.nan)
