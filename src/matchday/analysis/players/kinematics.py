"""Speed and distance of moving entities from a stream of positions; pure numerics.

Velocity is the slope of a straight line fitted by least squares to the samples within
`half_width_s` before and after, which on evenly spaced samples is the first-derivative
filter of Savitzky & Golay (1964) of order 1 and 2 (15 points at 25 Hz and 0.28 s). At least
the two neighbours are used, so that at 1 Hz it becomes the central difference. A speed is
therefore given *late*: when a sample at least 0.30 s newer has come (0.32 s at 25 Hz, one
sample at slow rates), or when the entity has gone.

Artefacts of tracking: one sample that jumps away and back faster than `speed_mps_max` is
left out; a jump that stays starts a new path. No speed and no distance is ever taken across
a gap or a jump.

All entities of one frame are computed at once in arrays. State is a ring of the last
`RING` samples per entity, so its reach is bounded and a restart can rebuild it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Places = Floats | Sequence[tuple[float, float]]

# The filter reaches 14 steps to either side at the highest rate it takes (50 Hz); the
# judgement of artefacts needs 3 more before and 1 after, the lag 1 more.
RING = 40
_LAG_S = 0.02
# Time of an empty place in a ring; finite, so that arithmetic on it stays quiet.
_EMPTY_MS = -1e18
_T, _X, _Y, _PATH, _GOOD, _OFFSET = range(6)


@dataclass(frozen=True)
class MotionPolicy:
    """How positions become speeds.

    Attributes:
        half_width_s: Half the width of the filter, seconds.
        gap_s: A longer gap between two samples ends the path, seconds.
        min_step_s: Only the first sample in each cell of this time grid is used, seconds.
        speed_mps_max: Faster steps are artefacts, metres per second.
    """

    half_width_s: float = 0.28
    gap_s: float = 1.0
    min_step_s: float = 0.02
    speed_mps_max: float = 12.0


class Step(NamedTuple):
    """What one sample adds, once its speed is known.

    Attributes:
        entity: Who moved.
        t_ms: Time of the sample, event time.
        distance_m: Way since the entity's sample before, along the smoothed path.
        time_s: Time since the sample before; 0 where a new path begins.
        speed_mps: Speed at the sample; NaN for a path of a single sample.
        since: The lowest offset that this step was computed from.
    """

    entity: str
    t_ms: int
    distance_m: float
    time_s: float
    speed_mps: float
    since: int


class Motion:
    """The paths of all entities that one source tracks in one session."""

    def __init__(self, policy: MotionPolicy) -> None:
        self._gap_ms = policy.gap_s * 1000.0
        self._half_ms = policy.half_width_s * 1000.0 + 1e-6
        self._lag_ms = (policy.half_width_s + _LAG_S) * 1000.0
        self._grid_ms = policy.min_step_s * 1000.0
        self._limit_mps = policy.speed_mps_max
        self._row_of: dict[str, int] = {}
        self._names: list[str | None] = []
        self._free: list[int] = []
        self._ring: Floats = np.empty((6, 0, RING))
        # Per entity the last settled sample: its time, speed and path.
        self._last: Floats = np.empty((3, 0))
        self._cells: dict[str, float] = {}
        """Per entity the cell of the time grid that its latest sample is in."""
        self._latest_min_ms = np.inf
        """No entity's latest sample is older: before that plus the gap none is gone."""
        self._grow(32)

    def frame(
        self, t_ms: int, entities: Sequence[str], positions: Places, *, offset: int
    ) -> list[Step]:
        """Take the positions of some entities at one instant; give the steps now settled.

        Samples that are not newer than the entity's last are ignored.

        Args:
            t_ms: Event time.
            entities: Who was seen, each once.
            positions: Where, n pairs or (n, 2) float64, metres, venue frame.
            offset: The lowest offset that the use of this reading depends on, mostly its
                own.
        """
        steps = self._end_paths(t_ms)
        cell, known = t_ms // self._grid_ms, self._cells
        fresh = [at for at, one in enumerate(entities) if known.get(one, _EMPTY_MS) < cell]
        # Before any array is made: of a source of 200 Hz three messages in four end here.
        if not fresh:
            return steps
        if len(fresh) < len(entities):
            entities = [entities[at] for at in fresh]
            positions = [positions[at] for at in fresh]
        known.update(dict.fromkeys(entities, cell))
        places = np.asarray(positions)
        rows = np.fromiter(map(self._row, entities), dtype=np.intp, count=len(entities))
        ring = self._ring
        ring[:, rows, :-1] = ring[:, rows, 1:]
        ring[_T, rows, -1] = t_ms
        ring[_X, rows, -1] = places[:, 0]
        ring[_Y, rows, -1] = places[:, 1]
        ring[_GOOD, rows, -1] = 1.0
        ring[_OFFSET, rows, -1] = offset
        self._latest_min_ms = min(self._latest_min_ms, t_ms)
        self._judge(rows)
        return steps + self._settle(rows, t_ms - self._lag_ms)

    def end(self) -> list[Step]:
        """End every path; give the steps still open."""
        return self._finish(np.fromiter(self._row_of.values(), dtype=np.intp))

    def overtaken(self, t_ms: int, entities: Sequence[str]) -> float:
        """Give the lowest offset of the samples because of which a frame counts for nothing.

        Args:
            t_ms: Event time of the frame.
            entities: Who was seen in it.

        Returns:
            The offset, infinity where no entity has a newer sample.
        """
        row_of, ring = self._row_of, self._ring
        rows = [row_of[one] for one in entities if one in row_of]
        latest = ring[:, rows, -1]
        return float(latest[_OFFSET, latest[_T] > t_ms].min(initial=np.inf))

    def depend(self, offset: int) -> None:
        """Make all samples held depend on an offset: without it they were settled by now."""
        held = self._ring[_T] > _EMPTY_MS
        self._ring[_OFFSET, held] = np.minimum(self._ring[_OFFSET, held], offset)

    def since(self) -> float:
        """Give the lowest offset that the rings hold, infinity for none."""
        return float(self._ring[_OFFSET].min())

    def _row(self, entity: str) -> int:
        row = self._row_of.get(entity)
        if row is None:
            if not self._free:
                self._grow(2 * len(self._names))
            row = self._free.pop()
            self._row_of[entity] = row
            self._names[row] = entity
        return row

    def _grow(self, capacity: int) -> None:
        count = len(self._names)
        ring = np.zeros((6, capacity, RING))
        ring[_T], ring[_OFFSET] = _EMPTY_MS, np.inf
        last = np.full((3, capacity), np.nan)
        last[0] = _EMPTY_MS
        ring[:, :count], last[:, :count] = self._ring, self._last
        self._ring, self._last = ring, last
        self._names += [None] * (capacity - count)
        self._free = [*range(capacity - 1, count - 1, -1)]

    def _end_paths(self, t_ms: int) -> list[Step]:
        if t_ms - self._gap_ms <= self._latest_min_ms:
            return []
        latest = self._ring[_T, :, -1]
        is_known = latest > _EMPTY_MS
        is_gone = (latest < t_ms - self._gap_ms) & is_known
        self._latest_min_ms = latest[is_known & ~is_gone].min(initial=np.inf)
        gone = np.flatnonzero(is_gone)
        return self._finish(gone) if len(gone) else []

    def _finish(self, rows: Rows) -> list[Step]:
        # The newest sample has no follower to tell a spike: a jump at the end is left out.
        block = self._ring[:, rows, -3:]
        into = _speed(block, _before(block, 2), 2)
        self._ring[_PATH, rows[into > self._limit_mps], -1] += 1.0
        steps = self._settle(rows, np.inf)
        for row in rows:
            name = self._names[row]
            assert name is not None
            del self._row_of[name], self._cells[name]
            self._names[row] = None
            self._free.append(int(row))
        self._ring[:, rows] = 0.0
        self._ring[_T, rows], self._ring[_OFFSET, rows] = _EMPTY_MS, np.inf
        self._last[:, rows] = np.nan
        self._last[0, rows] = _EMPTY_MS
        return steps

    def _judge(self, rows: Rows) -> None:
        """Judge the last but one sample of each row by its neighbours."""
        block = self._ring[:, rows, -4:]
        before = _before(block, 2)
        into = _speed(block, before, 2)
        if not (into > self._limit_mps).any():
            return
        out = _speed(block, np.full(len(rows), 2), 3)
        across = _speed(block, before, 3)
        is_fast = into > self._limit_mps
        is_spike = is_fast & (out > self._limit_mps) & (across <= self._limit_mps)
        self._ring[_GOOD, rows[is_spike], -2] = 0.0
        self._ring[_PATH, rows[is_fast & ~is_spike], -2:] += 1.0

    def _settle(self, rows: Rows, limit_ms: float) -> list[Step]:
        """Give the steps of all samples up to `limit_ms` that have none yet, oldest first."""
        steps: list[Step] = []
        times = self._ring[_T, rows]
        first = (times <= self._last[0, rows][:, None]).sum(axis=1)
        while True:
            at = times[np.arange(len(rows)), np.minimum(first, RING - 1)]
            is_ready = (first < RING) & (at <= limit_ms)
            if not is_ready.any():
                return steps
            if not is_ready.all():
                rows, first, times = rows[is_ready], first[is_ready], times[is_ready]
            steps += self._steps(rows, first)
            # Times rise from place to place: what is settled next stands right behind.
            first = first + 1

    def _steps(self, rows: Rows, column: Rows) -> list[Step]:
        ring = self._ring[:, rows]
        index = np.arange(len(rows))
        t, path = ring[_T, index, column], ring[_PATH, index, column]
        speed = self._slopes(ring, column)
        last_t, last_speed, last_path = self._last[:, rows]
        time_s = np.where(path == last_path, (t - last_t) / 1000.0, 0.0)
        distance = 0.5 * (speed + last_speed) * time_s
        is_known = np.isfinite(distance)
        time_s = np.where(is_known, time_s, 0.0)
        distance = np.where(is_known, distance, 0.0)
        self._last[0, rows], self._last[1, rows], self._last[2, rows] = t, speed, path
        names = [self._names[row] for row in rows]
        since = ring[_OFFSET].min(axis=1)
        return [
            Step(name or "", int(at), way, span, rate, int(oldest))
            for name, at, way, span, rate, oldest in zip(
                names,
                t.tolist(),
                distance.tolist(),
                time_s.tolist(),
                speed.tolist(),
                since.tolist(),
                strict=True,
            )
        ]

    def _slopes(self, ring: Floats, column: Rows) -> Floats:
        """Give the speed at one column of each row by the local line fit, (n,), m/s."""
        index = np.arange(ring.shape[1])
        centre = ring[:, index, column]
        tau = ring[_T] - centre[_T][:, None]
        is_near = np.abs(tau) <= self._half_ms
        is_near |= np.abs(np.arange(RING) - column[:, None]) <= 1
        mask = is_near & (ring[_GOOD] > 0.0) & (ring[_PATH] == centre[_PATH][:, None])
        count = mask.sum(axis=1)
        seconds = np.where(mask, tau, 0.0) / 1000.0
        mean = seconds.sum(axis=1) / np.maximum(count, 1)
        lever = np.where(mask, seconds - mean[:, None], 0.0)
        moment = (lever * lever).sum(axis=1)
        moment = np.where((count >= 2) & (moment > 0.0), moment, np.nan)
        slope_x = (lever * (ring[_X] - centre[_X][:, None])).sum(axis=1) / moment
        slope_y = (lever * (ring[_Y] - centre[_Y][:, None])).sum(axis=1) / moment
        return np.asarray(np.hypot(slope_x, slope_y))


def _before(block: Floats, column: int) -> Rows:
    """Give the column of the last good sample before `column`, per row."""
    return np.where(block[_GOOD, :, column - 1] > 0.0, column - 1, column - 2)


def _speed(block: Floats, begin: Rows, end: int) -> Floats:
    """Give the straight speed between two columns, m/s, about 0 where the first is empty."""
    index = np.arange(block.shape[1])
    span_s = (block[_T, :, end] - block[_T, index, begin]) / 1000.0
    way = np.hypot(
        block[_X, :, end] - block[_X, index, begin], block[_Y, :, end] - block[_Y, index, begin]
    )
    # Both empty (the first sample of a path): no time, no way.
    return np.asarray(way / np.maximum(span_s, 1e-3))
