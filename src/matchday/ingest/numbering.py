"""The window of one source's own numbering: event times by number, in one small array.

Owns what one window holds and how it ages. Does not own which window a source has, what
becomes of a window that is left for a new one, nor bounds over all of them (`identity`).
"""

from __future__ import annotations

from array import array
from enum import Enum
from typing import TYPE_CHECKING, Final

_HOLE: Final = -(2**62)
_UNTOLD: Final = -1

# Places in the array: the number that place 0 would have; the last number that was written
# down; the mark; from here on event times, one for each number.
_BASE: Final = 0
_TOLD: Final = 1
_MARK: Final = 2
_FIRST: Final = 3


class Verdict(Enum):
    """What a numbered reading is in relation to those before it.

    A straggler has a number from before the window: only its content can tell whether it
    is new.
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
        self.extend([_HOLE] * gap)
        self.append(t_ms)

    def has(self, seq: int, t_ms: int) -> bool:
        """Tell whether the reading with this number and event time is in the window."""
        place = seq - self[_BASE]
        return _FIRST <= place < len(self) and self[place] == t_ms

    def look_back(self, seq: int, t_ms: int) -> Verdict:
        """Judge a number that is not above the last; take it in if it was missing.

        Under the window a reading later than all we know is of a new numbering, and so is one
        of a number that another has. The owner then begins a new window.
        """
        place = seq - self[_BASE]
        if place < _FIRST:
            return Verdict.STRAGGLER if t_ms <= self[-1] else Verdict.RENUMBERED
        known = self[place]
        if known == t_ms:
            return Verdict.DUPLICATE
        if known != _HOLE:
            return Verdict.RENUMBERED
        self[place] = t_ms
        return Verdict.NEW

    def forget_before_last_mark(self) -> None:
        """Drop what was there at the call before the last one, and set the next mark."""
        mark, count = self[_MARK], len(self) - _FIRST
        kept = mark if mark >= 0 else 1
        if kept < count:
            drop = kept
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
