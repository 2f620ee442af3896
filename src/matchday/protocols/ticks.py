"""Ingest's tick: received, in the tick, committed, acknowledged; one at a time, in order.

A message is *received* and unacknowledged; the tick that holds its fate is *sent* in one
transaction; when that is known to be *durable*, and only then, its messages are
acknowledged, and only after that the next tick may be gathered. So acknowledgements leave in
the order of arrival, and at most one tick is ever in doubt.

A commit that got no answer leaves the tick's fate *unknown*. Sending it again would store it
twice, acknowledging it might lose it. So: take over again, which ends the transaction
either way, and look at the newest tick of the slot. If it is the one in hand, it is durable.
If it is the one before it, the tick can never appear any more, and is sent again under the
same name. If it is anybody else's, this owner was paused and another worked meanwhile: what
is in hand may have been delivered to that one, too, and is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from matchday.protocols.ownership import Event, Ownership, Standing, illegal

SEARCH_OFFSETS: Final = 200
"""How many of the newest offsets of `ledger` are searched for a tick's name. Only the slots
of one deployment write there, a record or seldom several and one transaction mark a tick; more
is searched where none of the slot's is among them."""

SNAPSHOT_MARK: Final = "-snapshot-"
"""Between the name of a tick and the number of one of its snapshot records."""


class Fate(Enum):
    """What is known of the tick in hand."""

    NOTHING = "not there"
    UNSENT = "not sent"
    UNKNOWN = "unanswered"
    DURABLE = "durable"


class Do(Enum):
    """What the bridge has to do next.

    DROP: the slot is somebody else's; forget the tick, acknowledge nothing.
    """

    TAKE_OVER = "take over"
    WARM = "read the tail to know what was accepted"
    SEARCH = "search the tail for the tick"
    GATHER = "gather a tick"
    SEND = "commit the tick"
    ACKNOWLEDGE = "acknowledge the tick"
    DROP = "drop the tick"


_DUE: Final = {
    (Standing.OUTSIDE, Fate.NOTHING): Do.TAKE_OVER,
    (Standing.OUTSIDE, Fate.UNKNOWN): Do.TAKE_OVER,
    (Standing.FENCED, Fate.NOTHING): Do.WARM,
    (Standing.FENCED, Fate.UNKNOWN): Do.SEARCH,
    (Standing.OWNER, Fate.NOTHING): Do.GATHER,
    (Standing.OWNER, Fate.UNSENT): Do.SEND,
    (Standing.OWNER, Fate.DURABLE): Do.ACKNOWLEDGE,
}


class Ticks:
    """The ticks of one owner of a slot.

    Args:
        run_id: Makes the names of this run's ticks differ from every other run's.

    Attributes:
        name: The name of the tick in hand, "" before the first.
        fate: What is known of it.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._count = 0
        self._ownership = Ownership()
        self._newest = ""
        self.name = ""
        self.fate = Fate.NOTHING

    @property
    def do(self) -> Do:
        """Give what is to be done next."""
        if self._ownership.standing is Standing.REFUSED:
            return Do.DROP
        return _DUE[self._ownership.standing, self.fate]

    def took_over(self) -> None:
        """Learn that every older owner is fenced and what was open is ended."""
        self._ownership.follow(Event.TOOK_OVER)

    def warmed(self, newest: str = "") -> None:
        """Learn that the tail has been read at the start: messages may be taken.

        Args:
            newest: Name of the slot's newest tick, "" where the ledger holds none.
        """
        self._expect(Do.WARM, "end of warming")
        self._ownership.follow(Event.READ_TAIL)
        self._newest = tick_of(newest)

    def gathered(self) -> str:
        """Take a tick in hand and give the name under which it is to be committed."""
        self._expect(Do.GATHER, "gathered tick")
        self._count += 1
        self.name = f"{self._run_id}-{self._count}"
        self.fate = Fate.UNSENT
        return self.name

    def confirmed(self) -> None:
        """Learn that the stream has confirmed the tick."""
        self._expect(Do.SEND, "confirmation")
        self._ownership.follow(Event.WROTE)
        self.fate, self._newest = Fate.DURABLE, self.name

    def unanswered(self) -> None:
        """Learn that the stream did not answer, whatever it had been asked."""
        if self.fate is Fate.UNSENT:
            self.fate = Fate.UNKNOWN
        elif self.fate is Fate.DURABLE:
            raise illegal("a tick", self.fate, "silence")
        self._ownership.follow(Event.SILENCE)

    def searched(self, names: Sequence[str]) -> None:
        """Learn the names of the slot's newest ticks, read after the take-over.

        Args:
            names: Oldest first; the very last one that the ledger holds is among them.
        """
        self._expect(Do.SEARCH, "search")
        self._ownership.follow(Event.READ_TAIL)
        newest = tick_of(names[-1]) if names else ""
        if newest == self.name:
            self.fate, self._newest = Fate.DURABLE, newest
        elif newest in ("", self._newest):
            self.fate = Fate.UNSENT
        else:
            self._ownership.follow(Event.REFUSAL)

    def acknowledged(self) -> None:
        """Learn that all messages of the tick were acknowledged, in order."""
        self._expect(Do.ACKNOWLEDGE, "acknowledgement")
        self.fate = Fate.NOTHING

    def refused(self) -> None:
        """Learn that somebody newer owns the slot."""
        self._ownership.follow(Event.REFUSAL)

    def _expect(self, wanted: Do, event: str) -> None:
        if self.do is not wanted:
            raise illegal(f"a slot due to {self.do.value}, its tick", self.fate, event)


def tick_of(name: str) -> str:
    """Give the name of the tick that a ledger record belongs to, snapshots included."""
    return name.partition(SNAPSHOT_MARK)[0]


def run_of(name: str) -> str:
    """Give the run of an owner that a ledger record belongs to."""
    return tick_of(name).rpartition("-")[0]
