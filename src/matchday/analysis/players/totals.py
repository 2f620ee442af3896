"""What players did per window: sums of steps, in one cell per row of a path and window.

Owns the cells; whose a row is and when a window is over belongs to `metrics`. Steps are added one
by one in order of time, so that sums come out the same however steps are split over calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.players.paths import NEVER, Steps
from matchday.analysis.policy import AnalysisPolicy, ms

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]

VALUES = (
    "distance_m",
    "time_in_view_s",
    "speed_max_mps",
    "hsr_distance_m",
    "sprint_distance_m",
)
"""The sums of a cell, in the order of their columns."""

_DISTANCE, _TIME, _SPEED, _HSR, _SPRINT = range(5)


class Totals:
    """The cells of all rows. A row has a cell for each window that may be open at once."""

    def __init__(self, policy: AnalysisPolicy) -> None:
        self._width_ms = ms(policy.window_s)
        # From the window that the watermark is in to the one that the highest time is in.
        self._windows = ms(policy.lateness_s) // self._width_ms + 3
        self._hsr_mps, self._sprint_mps = policy.hsr_mps, policy.sprint_mps
        self._sums = np.zeros((5, 0))
        self._since = np.zeros(0, dtype=np.int64)
        # That a step has no speed depends on others as well.
        self._unknown_since = np.zeros(0, dtype=np.int64)

    def grow(self, rows: int) -> None:
        """Make room for so many rows."""
        more = rows * self._windows - len(self._since)
        self._sums = np.concatenate((self._sums, np.zeros((5, more))), axis=1)
        self._since = np.concatenate((self._since, np.full(more, NEVER)))
        self._unknown_since = np.concatenate((self._unknown_since, np.full(more, NEVER)))

    def share_cells(self, t_ms: int, starts_ms: Sequence[int]) -> bool:
        """Tell whether the window of an instant has its cells in common with any of others."""
        window = t_ms // self._width_ms
        return any(
            (window - start_ms // self._width_ms) % self._windows == 0 for start_ms in starts_ms
        )

    def add(self, steps: Steps) -> None:
        """Add steps to the windows of their times; those without a speed count for nothing."""
        window = steps.t_ms.astype(np.int64) // self._width_ms
        cell = steps.row * self._windows + window % self._windows
        is_known = np.isfinite(steps.speed_mps)
        if not is_known.all():
            np.minimum.at(self._unknown_since, cell[~is_known], steps.since[~is_known])
            steps = Steps._make(column[is_known] for column in steps)
            cell = cell[is_known]
        if not len(cell):
            return
        # `ufunc.at` adds one by one, where `reduceat` would add in pairs.
        np.add.at(self._sums[_DISTANCE], cell, steps.distance_m)
        np.add.at(self._sums[_TIME], cell, steps.time_s)
        for column, threshold_mps in ((_HSR, self._hsr_mps), (_SPRINT, self._sprint_mps)):
            is_fast = steps.speed_mps >= threshold_mps
            if is_fast.any():
                np.add.at(self._sums[column], cell[is_fast], steps.distance_m[is_fast])
        np.maximum.at(self._sums[_SPEED], cell, steps.speed_mps)
        np.minimum.at(self._since, cell, steps.since)

    def of(self, rows: Rows, start_ms: int) -> tuple[Rows, Floats]:
        """Give what rows did in a window.

        Args:
            rows: The rows asked for.
            start_ms: Start of the window, which is open or was just closed.

        Returns:
            The places in `rows` of those that were seen in it, (n,), and their sums, (5, n)
            float64, as named by `VALUES`.
        """
        cells = self._cells(rows, start_ms)
        seen = np.flatnonzero(self._since[cells] < NEVER)
        return seen, self._sums[:, cells[seen]]

    def clear(self, rows: Rows, start_ms: int) -> None:
        """Forget what rows did in a window."""
        cells = self._cells(rows, start_ms)
        self._sums[:, cells] = 0.0
        self._since[cells] = self._unknown_since[cells] = NEVER

    def are_empty(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell of rows whether nothing is held of them in any window."""
        held = np.minimum(self._since, self._unknown_since).reshape(-1, self._windows)[rows]
        return np.asarray((held == NEVER).all(axis=1))

    def since(self) -> int:
        """Give the lowest offset that any cell was made from, `NEVER` for none."""
        return int(min(self._since.min(initial=NEVER), self._unknown_since.min(initial=NEVER)))

    def _cells(self, rows: Rows, start_ms: int) -> Rows:
        return rows * self._windows + start_ms // self._width_ms % self._windows
