"""Who has which row: the entities that each track has in view, and who came when.

Owns names, rows and the newest sample of each entity as far as it decides on the next one: of a
source of 200 Hz three samples in four are left out by the time grid, before anything is stored
of them. The rows' contents belong to `paths` and `totals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.analyser import Track

Rows = NDArray[np.intp]

_ROWS_LEAST = 64


class Mark(NamedTuple):
    """The newest sample of an entity.

    Attributes:
        cell: The cell of the time grid that it is in.
        t_ms: Its event time.
        since: The lowest offset that its use depends on.
    """

    cell: float
    t_ms: int
    since: int


@dataclass(slots=True, eq=False)
class Crew:
    """The entities of one track.

    Attributes:
        number: Of the track among all.
        rows: Row by entity, for all of whom anything is held.
        marks: Newest sample by entity, for all whose path is open.
        cell: The highest cell that any sample was in.
        reach_ms: Highest time of frames without samples since the last with some.
        closing: Starts of its windows that are over and not worked out yet, milliseconds.
    """

    number: int
    rows: dict[str, int] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    cell: float = -np.inf
    reach_ms: int | None = None
    closing: list[int] = field(default_factory=list)

    def fresh(self, names: Sequence[str], cell: float) -> list[int] | None:
        """Give the places in `names` of those without a sample in this cell or a later one.

        Returns:
            None for all of them.
        """
        if cell > self.cell:
            return None
        marks = self.marks
        fresh = [
            place
            for place, name in enumerate(names)
            if (mark := marks.get(name)) is None or mark.cell < cell
        ]
        return None if len(fresh) == len(names) else fresh

    def mark(self, names: Sequence[str], mark: Mark) -> None:
        """Note the newest sample of some entities."""
        self.marks.update(dict.fromkeys(names, mark))
        if mark.cell > self.cell:
            self.cell = mark.cell

    def overtaken(self, names: Iterable[str], t_ms: int, *, offset: int) -> int:
        """Give the lowest offset of samples newer than `t_ms`; `offset` if none is lower."""
        found = (self.marks.get(name) for name in names)
        return min(
            [offset, *(mark.since for mark in found if mark is not None and mark.t_ms > t_ms)]
        )

    def row_array(self) -> Rows:
        """Give all its rows, in the order in which they were taken."""
        return np.fromiter(self.rows.values(), dtype=np.intp, count=len(self.rows))


class Crews:
    """The crews of all tracks, and the rows that are free.

    Attributes:
        track_of: The number of the track of every row, (capacity,) intp.
    """

    def __init__(self) -> None:
        self._crews: dict[Track, Crew] = {}
        self._by_number: list[Crew | None] = []
        self._numbers: list[int] = []
        self._names: list[str] = []
        self._free: list[int] = []
        self.track_of: Rows = np.zeros(0, dtype=np.intp)

    def __getitem__(self, track: Track) -> Crew:
        """Give the crew of a track that has one."""
        return self._crews[track]

    @property
    def capacity(self) -> int:
        """Give how many rows there are."""
        return len(self._names)

    def of(self, track: Track) -> Crew:
        """Give the crew of a track, made if need be."""
        crew = self._crews.get(track)
        if crew is None:
            if not self._numbers:
                self._numbers.append(len(self._by_number))
                self._by_number.append(None)
            crew = self._crews[track] = Crew(self._numbers.pop())
            self._by_number[crew.number] = crew
        return crew

    def rows_of(self, crew: Crew, names: Sequence[str]) -> list[int]:
        """Give the row of each name, taken if need be; `capacity` may have grown then."""
        known = crew.rows
        try:
            return [known[name] for name in names]
        except KeyError:
            for name in names:
                if name not in known:
                    known[name] = self._take_row(name, crew.number)
            return [known[name] for name in names]

    def unmark(self, rows: Rows) -> None:
        """Learn that the paths of rows have ended: their next sample begins anew."""
        for row in rows.tolist():
            crew = self._by_number[self.track_of[row]]
            if crew is not None:
                crew.marks.pop(self._names[row], None)

    def release(self, crew: Crew, rows: Rows) -> None:
        """Give rows away of whom nothing is held any more."""
        for row in rows.tolist():
            del crew.rows[self._names[row]]
            self._free.append(row)

    def forget(self, track: Track) -> None:
        """Forget a track, of whom nothing is held any more."""
        crew = self._crews.pop(track)
        self.release(crew, crew.row_array())
        self._by_number[crew.number] = None
        self._numbers.append(crew.number)

    def _take_row(self, name: str, number: int) -> int:
        if not self._free:
            count = len(self._names)
            capacity = max(2 * count, _ROWS_LEAST)
            self._names += [""] * (capacity - count)
            self.track_of = np.concatenate(
                (self.track_of, np.zeros(capacity - count, dtype=np.intp))
            )
            self._free = [*range(capacity - 1, count - 1, -1)]
        row = self._free.pop()
        self._names[row] = name
        self.track_of[row] = number
        return row
