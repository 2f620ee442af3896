"""The window of one source's own numbering: event times by number, in one small array.

Owns what one window holds and how it ages. Does not own several windows of one numbering
(`runs`), which source has which, nor bounds over all of them (`identity`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final

HOLE: Final = -(2**62)
"""Stands for the event time of a number that was left out."""

_UNTOLD: Final = -1

# Places in the array: the number that place 0 would have; the last number that was written
# down; the mark; from here on event times, one for each number.
_BASE: Final = 0
_TOLD: Final = 1
_MARK: Final = 2
_FIRST: Final = 3

_HOLES: Final = tuple(array("q", [HOLE] * count) for count in (1024, 128, 16))


class Verdict(Enum):
    """What a numbered reading is in relation to those before it.

    New, known by its number and time, or new and where the source begins its numbers anew.
    """

    NEW = "new"
    DUPLICATE = "duplicate"
    RENUMBERED = "renumbered"


if TYPE_CHECKING:
    _Row = array[int]
else:
    _Row = array


class Numbering(_Row):
    """The window of one numbering. Make one with `begun`.

    With a million of them the processor waits for memory, not for Python, so all of a window is
    one object and its buffer. Numbers that follow one another cost eight bytes each. Its mark is
    how many of them there were when it last aged, or, below 0, how often it has aged with
    nothing new.
    """

    __slots__ = ()

    @property
    def last(self) -> tuple[int, int]:
        """Give the highest number seen and its event time."""
        return self[_BASE] + len(self) - 1, self[-1]

    @property
    def is_told(self) -> bool:
        """Tell whether its owner has written the last number down, by `tell`."""
        return self[_TOLD] == self[_BASE] + len(self) - 1

    @property
    def quiet_turns(self) -> int:
        """Give how often it has aged since its last reading."""
        return max(0, -self[_MARK]) if len(self) == _FIRST + 1 else 0

    def tell(self) -> tuple[int, int]:
        """Give the last number and its event time, to be written down now."""
        last = self.last
        self[_TOLD] = last[0]
        return last

    def append_next(self, seq: int, t_ms: int) -> bool:
        """Take the reading in if it is the one after the last; tell whether it was."""
        if seq - self[_BASE] != len(self):
            return False
        self.append(t_ms)
        return True

    def skipped_before(self, seq: int) -> int:
        """Give how many numbers this one leaves out after the last; negative if it is not after."""
        return seq - self[_BASE] - len(self)

    def leap(self, t_ms: int, gap: int) -> None:
        """Take in a reading after so many numbers that may still come."""
        self.extend([HOLE] * gap)
        self.append(t_ms)

    def has(self, seq: int, t_ms: int) -> bool:
        """Tell whether the reading with this number and event time is in the window."""
        place = seq - self[_BASE]
        return _FIRST <= place < len(self) and self[place] == t_ms

    def at(self, seq: int) -> int | None:
        """Give the event time that this number has, `HOLE`, or nothing outside the window."""
        place = seq - self[_BASE]
        return self[place] if _FIRST <= place < len(self) else None

    def above_gap(self, seq: int) -> tuple[int, int]:
        """Give how many numbers are lacking from this lacking one on, and the next one's time."""
        begin = place = seq - self[_BASE]
        if self[place + 1] != HOLE:
            return 1, self[place + 1]
        for holes in _HOLES if self[place + 2] == HOLE else ():
            while self[place : place + len(holes)] == holes:
                place += len(holes)
        while self[place] == HOLE:
            place += 1
        return place - begin, self[place]

    def fill(self, seq: int, t_ms: int) -> bool:
        """Take in a reading whose number is lacking; tell whether it stays for a whole window.

        It does not where the numbers about it are dropped when the window ages next.
        """
        place = seq - self[_BASE]
        self[place] = t_ms
        return place - _FIRST >= self._dropped_next

    def fill_late(self, seq: int, t_ms: int) -> bool:
        """Take in a reading that was left out; tell whether it was.

        Not one that is later than what came after its gap, nor one that would not stay for a
        whole window: those need a closer look.
        """
        place = seq - self[_BASE]
        if not _FIRST + self._dropped_next <= place < len(self) or self[place] != HOLE:
            return False
        if self[place + 1] == HOLE and t_ms > self.above_gap(seq)[1]:
            return False
        self[place] = t_ms
        return True

    def part(self, seq: int, t_ms: int, lacking: int) -> Numbering:
        """End this window with a reading that it lacks; give what was above the gap.

        Args:
            seq: The number.
            t_ms: Its event time.
            lacking: How many numbers are lacking from it on.
        """
        place = seq - self[_BASE]
        begin, dropped = place + lacking, self._dropped_next
        mark = max(0, dropped - (begin - _FIRST))
        upper = Numbering("q", (self[_BASE] + begin - _FIRST, self[_TOLD], mark))
        upper.extend(self[begin:])
        del self[place:]
        self[_MARK] = min(dropped, place - _FIRST)
        self[_TOLD] = _UNTOLD
        self.append(t_ms)
        return upper

    def readings(self) -> Iterator[tuple[int, int]]:
        """Give number and event time of every reading in the window."""
        for place in range(_FIRST, len(self)):
            if self[place] != HOLE:
                yield self[_BASE] + place, self[place]

    @property
    def holes(self) -> int:
        """Give how many numbers are lacking."""
        return self.count(HOLE)

    @property
    def latest_ms(self) -> int:
        """Give the latest event time in the window."""
        return max(self[_FIRST:])

    @property
    def _dropped_next(self) -> int:
        """Give how many numbers of the window are dropped when it ages next."""
        return self[_MARK] if self[_MARK] >= 0 else 1

    def forget_before_last_mark(self) -> None:
        """Drop what was there at the call before the last one, and set the next mark."""
        mark, count = self[_MARK], len(self) - _FIRST
        drop = self._dropped_next
        if drop < count:
            self[_MARK] = count - drop
        else:
            drop = count - 1
            self[_MARK] = min(mark, 0) - 1
        if drop:
            del self[_FIRST : _FIRST + drop]
            self[_BASE] += drop


def begun(seq: int, t_ms: int) -> Numbering:
    """Begin a window with this number and event time; numbers are from 0 to below 2**62."""
    window = Numbering("q", (seq - _FIRST, _UNTOLD, 0))
    # Appended, so that there is room for three more: most that speak once speak again, and
    # the buffer is not moved then.
    window.append(t_ms)
    return window
