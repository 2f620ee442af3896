"""Rows into a server with a retry log: when to look up, when to send, what answers mean.

A *lane* is the way from one partition into one collection; a *piece* is rows of one of its
cells. Pieces go strictly in offset order, the next one only after the one before is done,
so what is stored is a gapless beginning plus any part of one cell.

The retry log skips what it has executed and refuses a cell older than its newest, atomically
with the write. It forgets a lane that rests for `LOG_KEPT_S`, so what it does not know must be
looked up. A lane starts *in doubt*: its pieces are looked up, and what is absent is sent *with*
its numbers, since a frozen writer sends after any look-up. Once a row found absent was accepted
in cell n, nothing beyond cell n can be stored that the log does not know: the lane is *sure*
from n + 1 on. Trusting a log because it exists would not do: after a forgotten log it may hold
only the second half of a cell.

A server without a log (`has_log` false) skips and refuses nothing. There a repetition is only
known by looking up, and a writer that is frozen between look-up and send stores twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from matchday.ports import Row
from matchday.protocols.cells import Piece
from matchday.protocols.ownership import illegal

LOG_KEPT_S: Final = 1800.0
"""How long a server keeps the log of a session that nobody uses."""

SURE_FOR_S: Final = 600.0
"""Rest after which a lane is in doubt again. Well below `LOG_KEPT_S`: whoever was frozen for
longer may find his rows stored by another, and the log of that gone again."""

NOT_STORED: Final = "the store refused it in an earlier write"

Why: TypeAlias = Callable[[Row], str]
"""Gives the reason why the store can never take a row."""


class Refused(NamedTuple):
    """A row that can never be stored, and why."""

    row: Row
    reason: str


class Do(Enum):
    """What is to be done with the piece in hand.

    AWAIT_QUIET: wait until no earlier insert of ours is at work; only without a log.
    """

    AWAIT_QUIET = "wait until earlier inserts ended"
    LOOK_UP = "look up"
    SEND = "send with numbers"
    SEND_BARE = "send without numbers"
    NOTHING = "nothing"


class Sureness(Enum):
    """What is known of the piece in hand.

    DOUBTED: some of it may be stored, not known to the log. UNQUIET: the same, and an insert
    may still be at work. READY: what of it is stored, the log knows. BARE: none of it is
    stored, and no log will judge it. SPLIT: a part may have been stored by a send that was
    refused as a whole. FINISHED: somebody began the next cell; what is absent was refused.
    LOGLESS: its log is gone; what is absent goes bare. DONE: nothing is left to do.
    GIVEN_UP: it was not answered in time.
    """

    DOUBTED = "doubted"
    UNQUIET = "unquiet"
    READY = "ready"
    BARE = "bare"
    SPLIT = "split"
    FINISHED = "finished by another"
    LOGLESS = "without its log"
    DONE = "done"
    GIVEN_UP = "given up"


_DUE: Final = {
    Sureness.DOUBTED: Do.LOOK_UP,
    Sureness.UNQUIET: Do.AWAIT_QUIET,
    Sureness.READY: Do.SEND,
    Sureness.BARE: Do.SEND_BARE,
    Sureness.SPLIT: Do.LOOK_UP,
    Sureness.FINISHED: Do.LOOK_UP,
    Sureness.LOGLESS: Do.LOOK_UP,
    Sureness.DONE: Do.NOTHING,
    Sureness.GIVEN_UP: Do.NOTHING,
}


@dataclass(slots=True)
class Lane:
    """What one owner knows of a lane.

    Attributes:
        sure_from: The first cell of which nothing can be stored that the retry log does not
            know; None means in doubt.
        sent_to: The offset after the last one sent by this owner; without a retry log, what
            lies below it is looked up too.
    """

    sure_from: int | None = None
    sent_to: int = 0

    def rested(self, idle_s: float) -> None:
        """Learn for how long nothing was written, by the clock that saw more of it."""
        if idle_s > SURE_FOR_S:
            self.sure_from = None

    def interrupted(self) -> None:
        """Learn that a write was cut off: whatever was under way may have taken effect."""
        self.sure_from = None

    def enter(self, piece: Piece, *, has_log: bool) -> Passage:
        """Begin with the next piece; the one before must be done."""
        is_doubted = self.sure_from is None or piece.cell < self.sure_from
        if has_log:
            state = Sureness.DOUBTED if is_doubted else Sureness.READY
        elif is_doubted or piece.rows[0].offset < self.sent_to:
            state = Sureness.UNQUIET
        else:
            state = Sureness.BARE
        return Passage(self, piece, state, has_log=has_log, is_doubted=is_doubted)

    def passed(self, cell: int) -> None:
        """Learn that a row found absent from this cell was accepted."""
        self.sure_from = cell + 1


class Passage:
    """The way of one piece: what is due, and what each answer leads to.

    The piece is halved while it cannot be taken as a whole, so that one bad row is found;
    `piece` is then the part in hand.

    Attributes:
        piece: What is to be looked up or sent.
        state: What is known of it.
        refused: Rows that can never be stored, so far.
    """

    def __init__(
        self, lane: Lane, piece: Piece, state: Sureness, *, has_log: bool, is_doubted: bool
    ) -> None:
        self._lane = lane
        self._has_log = has_log
        self._is_doubted = is_doubted
        self._accepted = 0
        self._waiting: list[tuple[Piece, Sureness]] = []
        self._why: Why | None = None
        self.piece = piece
        self.state = state
        self.refused: list[Refused] = []
        self._note_sending()

    @property
    def do(self) -> Do:
        """Give what is to be done next."""
        return _DUE[self.state]

    def quiet(self) -> None:
        """Learn that no earlier insert is at work any more."""
        self._expect(Do.AWAIT_QUIET, "silence of the server")
        self.state = Sureness.DOUBTED

    def looked_up(self, stored: Collection[int]) -> None:
        """Learn which statement numbers of the piece are stored."""
        self._expect(Do.LOOK_UP, "look-up")
        rest = self.piece.without(stored)
        if self.state is Sureness.FINISHED:
            self.refused += [Refused(row, NOT_STORED) for row in rest.rows]
            self._next()
        elif self.state is Sureness.SPLIT and len(rest.rows) == len(self.piece.rows):
            self._halve(Sureness.BARE)
        else:
            if self.state is Sureness.SPLIT and not self._has_log:
                self._accepted += len(self.piece.rows) - len(rest.rows)
            bare = self.state is Sureness.LOGLESS or not self._has_log
            self._take(rest, Sureness.BARE if bare else Sureness.READY)

    def taken(self, refused: Sequence[tuple[int, str]] = ()) -> None:
        """Learn that the server took the piece, but for rows at these places, and why not."""
        self._expect(Do.SEND, "answer", Do.SEND_BARE)
        self.refused += [Refused(self.piece.rows[place], reason) for place, reason in refused]
        if self.state is Sureness.READY or not self._has_log:
            self._accepted += len(self.piece.rows) - len(refused)
        self._next()

    def too_old(self) -> None:
        """Learn that the log refuses the cell, because a later one was begun."""
        self._expect(Do.SEND, "refusal of the cell")
        self.state = Sureness.FINISHED

    def log_gone(self) -> None:
        """Learn that the server cannot judge statements of this cell any more.

        It refuses every one until the next cell begins, so the rest goes without numbers:
        only here is a server with a log as unprotected from a frozen writer as one without.
        """
        self._expect(Do.SEND, "loss of the log")
        self.state = Sureness.LOGLESS

    def not_as_a_whole(self, why: Why, *, was_sent: bool) -> None:
        """Learn that the piece cannot be sent or taken as a whole, for the sake of some row.

        Args:
            why: Gives the reason if the fault is found to be this row's.
            was_sent: Whether the server has seen it, and may have stored a part.
        """
        self._expect(Do.SEND, "refusal of the whole", Do.SEND_BARE)
        self._why = why
        if len(self.piece.rows) > 1 and was_sent and self.state is Sureness.BARE:
            # Without numbers nothing would skip what is stored.
            self.state = Sureness.SPLIT
        else:
            self._halve(self.state)

    def unanswered(self, *, is_in_time: bool) -> None:
        """Learn that a send got no answer: it may have been carried out, now or later.

        With numbers it is simply sent again, since repeating it is harmless, as long as
        there is time. Otherwise the write is over and the lane in doubt.
        """
        self._expect(Do.SEND, "silence", Do.SEND_BARE)
        if not (is_in_time and self.state is Sureness.READY):
            self.late()

    def late(self) -> None:
        """Learn that the write is past its deadline: nothing of it may be sent any more.

        The log refuses a frozen writer as long as it is kept. This covers a process frozen
        for longer, and, but for the moment between this and the send, a server without one.
        """
        self.state = Sureness.GIVEN_UP
        self._lane.interrupted()

    def _take(self, piece: Piece, state: Sureness) -> None:
        """Go on with a piece, unless nothing is left of it."""
        if not piece.rows:
            self._next()
            return
        self.piece, self.state = piece, state
        self._note_sending()

    def _halve(self, state: Sureness) -> None:
        if len(self.piece.rows) == 1:
            row = self.piece.rows[0]
            assert self._why is not None
            self.refused.append(Refused(row, self._why(row)))
            self._next()
            return
        first, second = self.piece.halves()
        self._waiting.append((second, state))
        self._take(first, state)

    def _next(self) -> None:
        if self._waiting:
            self._take(*self._waiting.pop())
            return
        self.state = Sureness.DONE
        if self._is_doubted and self._accepted:
            self._lane.passed(self.piece.cell)

    def _note_sending(self) -> None:
        if self.state in (Sureness.READY, Sureness.BARE):
            lane = self._lane
            lane.sent_to = max(lane.sent_to, self.piece.rows[-1].offset + 1)

    def _expect(self, wanted: Do, event: str, other: Do | None = None) -> None:
        if self.do is not wanted and self.do is not other:
            raise illegal("a piece", self.state, event)
