"""The window of one source's own numbering: event times by number, in one small array.

Owns what one window holds and how it ages. Does not own several windows of one numbering
(`runs`), which source has which, nor bounds over all of them (`identity`).
"""

from __future__ import annotations

from array import array
from enum import Enum
from typing import TYPE_CHECKING, Final

LACKING: Final = -(2**62)
"""Stands for the event time of a number that was left out."""

_UNTOLD: Final = -1

# Places in the array: the number that place 0 would have; the last number that was written
# down; the mark; from here on event times, one for each number.
_BASE: Final = 0
_TOLD: Final = 1
_MARK: Final = 2
_FIRST: Final = 3


class Verdict(Enum):
    """What a numbered reading is in relation to those before it.

    A straggler has a number from before the window, or from its old end: its content has to
    tell whether it is new, or will have to when it comes again.
    """

    NEW = "new"
    DUPLICATE = "duplicate"
    RENUMBERED = "renumbered"
    STRAGGLER = "straggler"


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
    def first(self) -> tuple[int, int]:
        """Give the number that the window begins with and its event time."""
        return self[_BASE] + _FIRST, self[_FIRST]

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
        self.extend([LACKING] * gap)
        self.append(t_ms)

    def has(self, seq: int, t_ms: int) -> bool:
        """Tell whether the reading with this number and event time is in the window."""
        place = seq - self[_BASE]
        return _FIRST <= place < len(self) and self[place] == t_ms

    def at(self, seq: int) -> int | None:
        """Give the event time that this number has, `LACKING`, or nothing outside the window."""
        place = seq - self[_BASE]
        return self[place] if _FIRST <= place < len(self) else None

    def lacking_about(self, seq: int) -> tuple[int, int]:
        """Give how many numbers right below one that is lacking are so too, and from it on."""
        place = below = above = seq - self[_BASE]
        while below > _FIRST and self[below - 1] == LACKING:
            below -= 1
        while self[above] == LACKING:
            above += 1
        return place - below, above - place

    def look_back(
        self, seq: int, t_ms: int, *, is_timed: bool = True
    ) -> tuple[Verdict, int] | None:
        """Judge a number that is not above the last; take it in if it was late.

        Returns:
            The verdict and the change in missing numbers; nothing if it is of another run or
            from before the window. A number left out is of another run if its time is later
            than the last one's: a source does not go back.
        """
        place = seq - self[_BASE]
        if place < _FIRST:
            return None
        known = self[place]
        if known == t_ms:
            return Verdict.DUPLICATE, 0
        if known != LACKING or (t_ms > self[-1] and is_timed):
            return None
        return self.fill(seq, t_ms), -1

    def fill(self, seq: int, t_ms: int) -> Verdict:
        """Take in a reading whose number is lacking.

        One among those dropped next is a straggler: the content is remembered for longer.
        """
        place = seq - self[_BASE]
        self[place] = t_ms
        return Verdict.STRAGGLER if place - _FIRST < self._dropped_next else Verdict.NEW

    def part(self, seq: int, t_ms: int, lacking: int) -> Numbering:
        """End this window with a reading whose number it lacks; give what was above the gap.

        Args:
            seq: The number.
            t_ms: Its event time.
            lacking: How many numbers are lacking from it on.
        """
        place = seq - self[_BASE]
        begin = place + lacking
        marked = self._dropped_next
        told, mark = self[_TOLD], max(0, marked - (begin - _FIRST))
        upper = Numbering("q", (self[_BASE] + begin - _FIRST, told, mark))
        upper.extend(self[begin:])
        del self[place:]
        self[_MARK] = min(marked, place - _FIRST)
        self[_TOLD] = _UNTOLD
        self.append(t_ms)
        return upper

    def join(self, upper: Numbering, gap: int) -> None:
        """Go on with another window that begins after so many numbers that may still come."""
        self.extend([LACKING] * gap)
        self.extend(upper[_FIRST:])

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
    return Numbering("q", (seq - _FIRST, _UNTOLD, 0, t_ms))
