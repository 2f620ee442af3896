"""Speed and distance of many moving entities at once, from columns of positions; numerics.

Velocity is the slope of a straight line fitted by least squares to the samples within
`half_width_s` before and after, which on evenly spaced samples is the first-derivative
filter of Savitzky & Golay (1964) of order 1 and 2 (15 points at 25 Hz and 0.28 s). At least
the two neighbours are used, so that at 1 Hz it becomes the central difference. A speed is
therefore given *late*: when a sample at least 0.30 s newer has come (0.32 s at 25 Hz, one
sample at slow rates), or when the entity has gone.

Artefacts of tracking: one sample that jumps away and back faster than `speed_mps_max` is
left out; a jump that stays starts a new path. Where more than `LEAPS_MAX` samples in a row jump
away and back, as where two entities share an id, each one is a jump and none is left out. No
speed and no distance is ever taken across a gap or a jump.

State is a ring of the last samples per entity, which has a row in all arrays. A result is the
same, to the last bit, however the samples are split over calls: every sum runs over the samples
of one entity, in an order that only they decide.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.players.slopes import LEAPS_MAX, REACH, RING, Ring, Settled, speeds

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Offsets = NDArray[np.int64]
Flags = NDArray[np.bool_]

NEVER = int(np.iinfo(np.int64).max)
"""The offset of nothing: greater than every other."""

DEPTH = 1 + REACH + LEAPS_MAX + 1
"""So many samples before it a step can depend on: 1 for the way, `REACH` for the filter there,
and those by which the artefacts among these are told: a row of leaps, and one before it."""

_NO_RING = -1
_RINGS_LEAST = 64
# Samples that can wait for their step on the time grid: 0.30 s of 20 ms, both ends, the newest.
_WAIT = 20
# As many of a row at once leave, in the ring, room for those that wait and what they reach back.
_ROUND = RING - _WAIT - max(DEPTH, REACH + 1)


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

    @property
    def lag_s(self) -> float:
        """Give how much newer a sample must be for a speed to be final."""
        return self.half_width_s + self.min_step_s


class Samples(NamedTuple):
    """Positions of entities, n each, sorted by row and then by time, which rises in each row.

    Attributes:
        row: The entity, (n,) intp.
        t_ms: Event time, (n,) float64, whole milliseconds.
        x: Metres along the pitch, (n,) float64, venue frame.
        y: Metres across the pitch, (n,) float64, venue frame.
        since: The lowest offset that the use of the sample depends on, (n,) int64.
        reach_ms: The highest time that its track has seen since the row's sample before, up
            to this sample's own, (n,) float64: by it a path may have ended in between.
    """

    row: Rows
    t_ms: Floats
    x: Floats
    y: Floats
    since: Offsets
    reach_ms: Floats


class Steps(NamedTuple):
    """What samples add, once their speed is known; of each row in order of time.

    Attributes:
        row: The entity, (n,) intp.
        t_ms: Time of the sample, event time, (n,) float64.
        distance_m: Way since the entity's sample before, along the smoothed path, (n,) float64.
        time_s: Time since the sample before; 0 where a new path begins, (n,) float64.
        speed_mps: Speed at the sample; NaN for a path of a single sample, (n,) float64.
        since: The lowest offset that this step was computed from, (n,) int64.
    """

    row: Rows
    t_ms: Floats
    distance_m: Floats
    time_s: Floats
    speed_mps: Floats
    since: Offsets


class Paths:
    """The paths of all entities.

    An entity has a row for as long as the caller wants. While its path is open it has a ring as
    well, which is where the memory goes: just under 4 KiB.
    """

    def __init__(self, policy: MotionPolicy) -> None:
        self._gap_ms = policy.gap_s * 1000.0
        self._half_ms = policy.half_width_s * 1000.0 + 1e-6
        self._lag_ms = policy.lag_s * 1000.0
        self._limit_mps = policy.speed_mps_max
        self._ring_of = np.zeros(0, dtype=np.intp)
        self._row_of = np.zeros(0, dtype=np.intp)
        self._free: list[int] = []
        # What follows has a place per ring. How many samples it has had, has settled, and the
        # first one of its open path; as many as it has had where none is open.
        self._ring = Ring.empty(0)
        self._pushed = np.zeros(0, dtype=np.int64)
        self._settled = np.zeros(0, dtype=np.int64)
        self._begun = np.zeros(0, dtype=np.int64)
        self._needed = np.zeros(0, dtype=np.int64)

    @property
    def capacity(self) -> int:
        """Give how many rows there are."""
        return len(self._ring_of)

    def grow(self, capacity: int) -> None:
        """Make room for so many rows."""
        more = np.full(capacity - self.capacity, _NO_RING)
        self._ring_of = np.concatenate((self._ring_of, more))

    def are_open(self) -> Flags:
        """Tell of every row whether a path is open, (capacity,) bool."""
        return np.asarray(self._ring_of != _NO_RING)

    def gone(self, reach_ms: Floats) -> Rows:
        """Give the rows whose open path ended, as their track saw `reach_ms` since, (capacity,)."""
        rows = np.flatnonzero(self.are_open())
        rings = self._ring_of[rows]
        latest = self._ring.t_ms[_at(rings, self._pushed[rings] - 1)]
        return rows[latest < reach_ms[rows] - self._gap_ms]

    def since(self) -> int:
        """Give the lowest offset that steps yet to come depend on, `NEVER` for none."""
        return int(self._needed.min(initial=NEVER))

    def depend(self, rows: Rows, offset: int) -> None:
        """Make all that is held of rows depend on an offset: without it they were ended by now."""
        rings = self._open_rings(rows)
        since = self._ring.since.reshape(-1, RING)
        since[rings] = np.minimum(since[rings], offset)
        self._needed[rings] = self._oldest(rings)

    def advance(self, samples: Samples) -> list[Steps]:
        """Take samples; give the steps that are final with them, in parts."""
        if not len(samples.row):
            return []
        rank = _rank(samples.row)
        self._give_rings(samples.row[rank == 0])
        samples = samples._replace(row=self._ring_of[samples.row])
        most = int(rank.max()) + 1
        if most <= _ROUND:
            return [self._round(samples, rank)]
        parts = []
        for begin in range(0, most, _ROUND):
            is_in = (rank >= begin) & (rank < begin + _ROUND)
            part = Samples._make(column[is_in] for column in samples)
            parts.append(self._round(part, rank[is_in] - begin))
        return parts

    def finish(self, rows: Rows) -> Steps:
        """End the open paths of rows, each given once; give the steps that waited for a newer one.

        The newest sample has no follower to tell a spike: a jump at the end is left out.
        """
        rings = self._open_rings(rows)
        ring, newest = self._ring, self._pushed[rings] - 1
        before = np.where(ring.is_good[_at(rings, newest - 1)], newest - 1, newest - 2)
        into = ring.speed_between(_at(rings, before), _at(rings, newest))
        is_jump = (before >= self._begun[rings]) & (into > self._limit_mps)
        ring.path[_at(rings[is_jump], newest[is_jump])] += 1
        steps = self._settle(rings, self._pushed[rings])
        self._begun[rings] = self._pushed[rings]
        self._needed[rings] = NEVER
        self._ring_of[self._row_of[rings]] = _NO_RING
        self._free += rings.tolist()
        return steps

    def _open_rings(self, rows: Rows) -> Rows:
        rings = self._ring_of[rows]
        return np.asarray(rings[rings != _NO_RING])

    def _give_rings(self, rows: Rows) -> None:
        """Give a ring to each of these rows, each given once, that has none."""
        rows = rows[self._ring_of[rows] == _NO_RING]
        count = len(self._pushed)
        missing = len(rows) - len(self._free)
        if missing > 0:
            more = max(missing, count, _RINGS_LEAST)
            self._ring = self._ring.grown(count + more)
            zeros = np.zeros(more, dtype=np.int64)
            self._pushed = np.concatenate((self._pushed, zeros))
            self._settled = np.concatenate((self._settled, zeros))
            self._begun = np.concatenate((self._begun, zeros))
            self._needed = np.concatenate((self._needed, np.full(more, NEVER)))
            self._row_of = np.concatenate((self._row_of, zeros))
            self._free += range(count + more - 1, count - 1, -1)
        rings = [self._free.pop() for _ in range(len(rows))]
        self._ring_of[rows] = rings
        self._row_of[rings] = rows

    def _round(self, new: Samples, rank: NDArray[np.int64]) -> Steps:
        """Take at most `_ROUND` samples of each ring; from here on a row is that of the rings."""
        first = np.flatnonzero(rank == 0)
        last = np.append(first[1:], len(rank)) - 1
        rows, index = new.row[first], self._pushed[new.row] + rank
        begins, begun = self._push(new, index, first)
        # What the samples before are judged by: where their own path began.
        begun_before = np.concatenate(([0], begun[:-1]))
        begun_before[first] = self._begun[rows]
        self._judge(_Pushed(new.row, index, rank, begins, begun_before))
        self._pushed[rows] = index[last] + 1
        self._begun[rows] = begun[last]
        back = index[last][:, None] - np.arange(_WAIT)
        times = self._ring.t_ms[_at(rows[:, None], back)]
        is_waiting = times > (new.t_ms[last] - self._lag_ms)[:, None]
        is_waiting &= back >= begun[last][:, None]
        ready = self._pushed[rows] - is_waiting.sum(axis=1)
        steps = self._settle(rows, np.maximum(ready, self._settled[rows]))
        self._needed[rows] = self._oldest(rows)
        return steps

    def _push(self, new: Samples, index: Offsets, first: Rows) -> tuple[Flags, Offsets]:
        """Put samples into the ring; tell which begin a path, and where the path of each began."""
        ring, rows, at = self._ring, new.row[first], _at(new.row, index)
        latest = np.concatenate(([0.0], new.t_ms[:-1]))
        latest[first] = ring.t_ms[_at(rows, index[first] - 1)]
        begins = latest < new.reach_ms - self._gap_ms
        begins[first] |= self._begun[rows] == self._pushed[rows]
        place = np.arange(len(index))
        is_mark = begins.copy()
        is_mark[first] = True
        begun = np.where(begins, index, self._begun[new.row])
        begun = begun[np.maximum.accumulate(np.where(is_mark, place, 0))]
        ring.t_ms[at], ring.x[at], ring.y[at] = new.t_ms, new.x, new.y
        ring.is_good[at], ring.leaps[at] = True, 0
        ring.begun[at], ring.since[at] = begun, new.since
        before = np.concatenate(([0], new.since[:-1]))
        before[first] = ring.since[_at(rows, index[first] - 1)]
        is_lower = ~begins & (new.since < before)
        if is_lower.any():
            self._lower(new, np.unique(new.row[is_lower]))
        return begins, begun

    def _lower(self, new: Samples, rows: Rows) -> None:
        """Let offsets in a row never fall: whoever is needed first stands for all after it."""
        lowest = np.full(len(self._pushed), NEVER)
        np.minimum.at(lowest, new.row, new.since)
        since = self._ring.since.reshape(-1, RING)
        since[rows] = np.minimum(since[rows], lowest[rows][:, None])

    def _judge(self, new: _Pushed) -> None:
        """Number the paths and judge each sample before a new one by its neighbours."""
        ring, row, index, begins = self._ring, new.row, new.number, new.begins
        into = ring.speed_between(_at(row, index - 2), _at(row, index - 1))
        is_fast = (index - 2 >= new.begun_before) & (into > self._limit_mps)
        count = np.cumsum(begins)
        first = np.flatnonzero(new.rank == 0)
        base = ring.path[_at(row[first], index[first] - 1)] - count[first] + begins[first]
        ring.path[_at(row, index)] = count + base[np.cumsum(new.rank == 0) - 1]
        if not is_fast.any():
            return
        is_rough = np.zeros(len(self._pushed), dtype=np.bool_)
        is_rough[row[is_fast]] = True
        places = np.flatnonzero(is_rough[row])
        ranks = new.rank[places]
        order = np.argsort(ranks, kind="stable")
        ends = np.searchsorted(ranks[order], np.arange(ranks.max() + 2))
        # Whether a sample is good depends on the judgement of the one before it.
        for begin, end in itertools.pairwise(ends.tolist()):
            self._judge_one(new.part(places[order[begin:end]]))

    def _judge_one(self, new: _Pushed) -> None:
        """Judge with one new sample for each row."""
        ring, row, index = self._ring, new.row, new.number
        before, judged, newest = (_at(row, index - back) for back in (2, 1, 0))
        is_fast = ring.speed_between(before, judged) > self._limit_mps
        is_fast &= index - 2 >= new.begun_before
        is_leap = is_fast & ~new.begins
        is_leap &= ring.speed_between(judged, newest) > self._limit_mps
        is_leap &= ring.speed_between(before, newest) <= self._limit_mps
        leaps = np.where(is_leap, np.minimum(ring.leaps[before], LEAPS_MAX) + 1, 0)
        # The neighbour of an artefact is none: it lies close to the one before that.
        is_fast &= ring.is_good[before]
        is_spike = is_fast & is_leap & (leaps <= LEAPS_MAX)
        ring.leaps[judged] = leaps
        ring.is_good[judged[is_spike]] = False
        ring.path[judged[is_fast & ~is_spike]] += 1
        ring.path[newest] = ring.path[judged] + new.begins

    def _settle(self, rows: Rows, until: Offsets) -> Steps:
        """Give the steps of the samples of each row that have none yet, up to `until`."""
        ring, counts = self._ring, until - self._settled[rows]
        row = np.repeat(rows, counts)
        ends = np.cumsum(counts)
        index = np.arange(len(row)) + np.repeat(until - ends, counts)
        at, before = _at(row, index), _at(row, index - 1)
        self._settled[rows] = until
        t_ms, path = ring.t_ms[at], ring.path[at]
        speed = speeds(
            ring,
            Settled(row, index, self._pushed[row]),
            half_ms=self._half_ms,
            lag_ms=self._lag_ms,
        )
        ring.speed[at] = speed
        time_s = np.where(path == ring.path[before], (t_ms - ring.t_ms[before]) / 1000.0, 0.0)
        distance_m = 0.5 * (speed + ring.speed[before]) * time_s
        is_known = np.isfinite(distance_m)
        oldest = _at(row, np.maximum(ring.begun[at], index - DEPTH))
        return Steps(
            self._row_of[row],
            t_ms,
            np.where(is_known, distance_m, 0.0),
            np.where(is_known, time_s, 0.0),
            speed,
            ring.since[oldest],
        )

    def _oldest(self, rows: Rows) -> Offsets:
        """Give the lowest offset that the next step of each row depends on."""
        index = np.maximum(self._begun[rows], self._settled[rows] - DEPTH)
        return self._ring.since[_at(rows, index)]


class _Pushed(NamedTuple):
    """New samples as their judge sees them; `begun_before`: where the path before began."""

    row: Rows
    number: Offsets
    rank: NDArray[np.int64]
    begins: Flags
    begun_before: Offsets

    def part(self, places: Rows) -> _Pushed:
        """Give those at some places."""
        return _Pushed._make(column[places] for column in self)


def _at(row: Rows, index: Offsets) -> Rows:
    """Give the flat place of sample number `index` of a row."""
    return row * RING + (index % RING)


def _rank(row: Rows) -> NDArray[np.int64]:
    """Number the samples of each row, rows sorted, from 0."""
    place = np.arange(len(row))
    is_first = np.ones(len(row), dtype=np.bool_)
    is_first[1:] = row[1:] != row[:-1]
    return place - np.maximum.accumulate(np.where(is_first, place, 0))
