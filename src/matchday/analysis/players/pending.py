"""Positions taken and not yet worked through: columns that grow by appending.

Owns the order in which samples go to the paths, and what each of them means for paths that may
have ended meanwhile: a path ends when its track reaches a time more than the gap after the
path's newest sample, whoever is seen then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.players.paths import Samples

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_NO_TIME_MS = -np.inf


class Gathered(NamedTuple):
    """What was pending.

    Attributes:
        samples: Sorted by row; see `Samples`.
        reach_ms: Per row, the highest time its track has seen since the row's newest sample,
            (capacity,) float64, -inf where it has seen nothing.
    """

    samples: Samples
    reach_ms: Floats


class Pending:
    """Frames of all tracks in the order of their coming; a frame may be without samples."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._tracks: list[int] = []
        self._times_ms: list[int] = []
        self._since: list[int] = []
        self._counts: list[int] = []
        self._rows: list[int] = []
        self._x: list[float] = []
        self._y: list[float] = []
        self._is_rising = True

    def __len__(self) -> int:
        return len(self._rows) + len(self._tracks)

    def add(
        self,
        track: int,
        t_ms: int,
        *,
        since: int,
        rows: Sequence[int],
        x: Sequence[float],
        y: Sequence[float],
    ) -> None:
        """Add a frame of a track.

        Args:
            track: Number of the track.
            t_ms: Event time.
            since: The lowest offset that the use of the frame depends on.
            rows: Whose samples it has, each once.
            x: Where they are, metres, venue frame.
            y: The same.
        """
        self._tracks.append(track)
        self._times_ms.append(t_ms)
        self._since.append(since)
        self._counts.append(len(rows))
        self._rows += rows
        self._x += x
        self._y += y

    def break_order(self) -> None:
        """Learn that the next frame is older than the newest of its track."""
        self._is_rising = False

    def take(self, track_of: Rows) -> Gathered:
        """Give what is pending, and begin anew.

        Args:
            track_of: The track of every row, (capacity,) intp.
        """
        rows = np.array(self._rows, dtype=np.intp)
        # Sorting 16-bit numbers takes time in proportion to their count.
        small = rows.astype(np.uint16) if len(track_of) <= 2**16 else rows
        order = np.argsort(small, kind="stable")
        counts = np.array(self._counts, dtype=np.intp)
        frame = np.repeat(np.arange(len(counts)), counts)[order]
        times_ms = np.array(self._times_ms, dtype=np.float64)
        tracks = np.array(self._tracks, dtype=np.intp)
        rows, t_ms = rows[order], times_ms[frame]
        reached = np.full(
            max(int(tracks.max(initial=-1)), int(track_of.max(initial=0))) + 1, -np.inf
        )
        np.maximum.at(reached, tracks, times_ms)
        samples = Samples(
            rows,
            t_ms,
            np.array(self._x)[order],
            np.array(self._y)[order],
            np.array(self._since, dtype=np.int64)[frame],
            t_ms,
        )
        reach_ms = reached[track_of]
        if len(rows) and not self._is_rising:
            frames = _Frames(tracks, times_ms, frame)
            samples = samples._replace(reach_ms=frames.before(rows))
            last = np.flatnonzero(np.append(rows[1:] != rows[:-1], True))
            reach_ms[rows[last]] = frames.after(last)
        self._clear()
        return Gathered(samples, reach_ms)


class _Frames:
    """The times of the frames of each track in the order of their coming, which may fall.

    Args:
        tracks: The track of every frame.
        times_ms: Their event times.
        frame: The frame of every sample; samples sorted by row.
    """

    def __init__(self, tracks: Rows, times_ms: Floats, frame: Rows) -> None:
        order = np.argsort(tracks, kind="stable")
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        self._times_ms = np.append(times_ms[order], _NO_TIME_MS)
        self._place = place[frame]
        of_sample = tracks[frame]
        self._begin = np.searchsorted(tracks[order], of_sample, side="left")
        self._end = np.searchsorted(tracks[order], of_sample, side="right")

    def before(self, rows: Rows) -> Floats:
        """Give the highest time from behind the row's sample before up to each sample's own."""
        begin = self._begin.copy()
        is_same = rows[1:] == rows[:-1]
        begin[1:][is_same] = self._place[:-1][is_same] + 1
        return self._highest(begin, self._place + 1)

    def after(self, samples: Rows) -> Floats:
        """Give the highest time behind these samples, -inf for none."""
        begin, end = self._place[samples] + 1, self._end[samples]
        return np.where(begin < end, self._highest(begin, end), _NO_TIME_MS)

    def _highest(self, begin: Rows, end: Rows) -> Floats:
        bounds = np.stack((begin, end), axis=1).ravel()
        return np.asarray(np.maximum.reduceat(self._times_ms, bounds)[::2])
