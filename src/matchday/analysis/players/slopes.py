"""The rings that hold the last samples of every entity, and the line fits over them.

Owns the layout of the rings and the arithmetic of one speed; which samples are in a ring, which
are good and when a speed is due belongs to `paths`. Everything is a column with one place per
sample: sample number `index` of a row is at place `row * RING + index % RING`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Offsets = NDArray[np.int64]
Flags = NDArray[np.bool_]

RING = 64
REACH = 15
"""So many samples to either side the filter reaches at most: 0.29 s on a grid of 20 ms."""
LEAPS_MAX = 7
"""In a longer row of leaps none is taken for an artefact. Every other one is, in a shorter row:
which ones hangs on where the row began, and a restart looks back no further than this."""


class Ring(NamedTuple):
    """The rings of all rows, one flat column per field, `rows * RING` long.

    Attributes:
        t_ms: Event time; rises from sample to sample of one path.
        x: Metres, venue frame.
        y: Metres, venue frame.
        speed: Metres per second, once it is known.
        path: Number of the path; never falls in a row, so each path has its own.
        begun: Number of the sample with which its path began.
        since: The lowest offset that it and all newer ones in its row depend on.
        is_good: It is no artefact of a single sample.
        leaps: How many samples in a row, up to this one, lie away from both their neighbours,
            which lie close together; counted up to `LEAPS_MAX` + 1.
    """

    t_ms: Floats
    x: Floats
    y: Floats
    speed: Floats
    path: Offsets
    begun: Offsets
    since: Offsets
    is_good: Flags
    leaps: NDArray[np.int8]

    @classmethod
    def empty(cls, rows: int) -> Ring:
        """Make the rings of so many rows."""
        floats = [np.zeros(rows * RING) for _ in range(4)]
        numbers = [np.zeros(rows * RING, dtype=np.int64) for _ in range(3)]
        is_good = np.zeros(rows * RING, dtype=np.bool_)
        return cls._make((*floats, *numbers, is_good, np.zeros(rows * RING, dtype=np.int8)))

    def grown(self, rows: int) -> Ring:
        """Give rings of `rows` rows, the first of which are these."""
        more = Ring.empty(rows - len(self.t_ms) // RING)
        names = Ring._fields
        return Ring._make(np.concatenate((getattr(self, one), getattr(more, one))) for one in names)

    def speed_between(self, begin: Rows, end: Rows) -> Floats:
        """Give the straight speed between samples at these places, (n,), m/s."""
        span_s = (self.t_ms[end] - self.t_ms[begin]) / 1000.0
        way = np.hypot(self.x[end] - self.x[begin], self.y[end] - self.y[begin])
        return np.asarray(way / np.maximum(span_s, 1e-3))


class Settled(NamedTuple):
    """Samples whose speed is due: their rows, their numbers, and how many their row has."""

    row: Rows
    number: Offsets
    pushed: Offsets


class _Sums:
    """Sums over the samples of one fit, relative to its centre; seconds and metres."""

    def __init__(self, ring: Ring, centre: Rows) -> None:
        self._ring = ring
        self._t_ms, self._x, self._y = ring.t_ms[centre], ring.x[centre], ring.y[centre]
        self.count = ring.is_good[centre].astype(np.float64)
        self.t, self.tt = np.zeros(len(centre)), np.zeros(len(centre))
        self.x, self.tx = np.zeros(len(centre)), np.zeros(len(centre))
        self.y, self.ty = np.zeros(len(centre)), np.zeros(len(centre))

    def add(self, at: Rows, tau_ms: Floats, is_used: Flags) -> None:
        """Add the samples at `at`, `tau_ms` after the centres, where they are used."""
        ring = self._ring
        t = np.where(is_used, tau_ms, 0.0) / 1000.0
        x = np.where(is_used, ring.x[at] - self._x, 0.0)
        y = np.where(is_used, ring.y[at] - self._y, 0.0)
        self.count += is_used
        self.t += t
        self.tt += t * t
        self.x += x
        self.tx += t * x
        self.y += y
        self.ty += t * y

    def speeds(self) -> Floats:
        """Give the length of the slope; NaN with fewer than two samples."""
        count = np.where(self.count >= 2.0, self.count, np.nan)
        moment = self.tt - self.t * self.t / count
        slope_x = (self.tx - self.t * self.x / count) / moment
        slope_y = (self.ty - self.t * self.y / count) / moment
        return np.asarray(np.hypot(slope_x, slope_y))


def speeds(ring: Ring, due: Settled, *, half_ms: float, lag_ms: float) -> Floats:
    """Give the speed at samples by the local line fit, (n,), m/s.

    Samples are added from the centre outwards, first the newer ones: in an order that does not
    depend on which other speeds are worked out together with this one.

    Args:
        ring: The samples.
        due: Those whose speed is wanted.
        half_ms: Half the width of the filter.
        lag_ms: How much newer a sample must be to make a speed final.
    """
    row, index = due.row * RING, due.number
    centre = row + index % RING
    t_ms, path = ring.t_ms[centre], ring.path[centre]
    sums = _Sums(ring, centre)
    for step in (1, -1):
        for far in range(step, (REACH + 1) * step, step):
            at = row + (index + far) % RING
            tau_ms = ring.t_ms[at] - t_ms
            # What stands behind the newest sample is older than the centre.
            is_near = (ring.path[at] == path) & (step * tau_ms > 0.0)
            if far not in (1, -1):
                is_near &= step * tau_ms <= half_ms
            is_used = is_near & ring.is_good[at]
            if far == 1:
                # A speed made final by the very next sample took that as it came: at slow rates
                # a jump is known one sample later.
                is_next = (index + 1 < due.pushed) & (ring.begun[at] == ring.begun[centre])
                is_used |= is_next & (t_ms <= ring.t_ms[at] - lag_ms)
            if not is_near.any() and not is_used.any():
                break
            sums.add(at, tau_ms, is_used)
    return sums.speeds()
