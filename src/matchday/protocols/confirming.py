"""A position that moves after its output: persist, where store and stream are two systems.

The order for every batch, each step only when the one before it is known to be done:

1. *Mark* where the group begins in partitions that it never had, so that a crash after the
   first write finds a bookmark, and not only what the store claims.
2. *Claim* partitions of which the store has not said how far it is.
3. *Write*: the store takes the batch; repetitions it skips by itself (`positions`, `lanes`).
4. *Settle*: the store adds to the account what it has taken, of as many batches as there are.
5. *Confirm*: bookmarks move. Where records were unreadable or rows refused, their dead letters
   are written in the same stream transaction.

A crash before 5 brings the records again; the store skips what it has, counts what it has not
counted, and names refused rows again, so the letters are made again. So a letter is written
exactly once, since it moves with the bookmark. Bookmarks alone may be confirmed twice or late,
or wait for several batches to be stored: they only ever move up to what is stored and counted.
Letters may not: when their commit is not answered, this owner is outside, ends the doubt by
taking over its producer's name, and joins again, so that the bookmark tells. And when a
partition goes while letters of it wait, this owner leaves: the next one makes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from matchday.ports import Bookmark, Partition
from matchday.protocols.ownership import Event, Ownership, illegal


class Do(Enum):
    """What persist has to do next.

    JOIN: leave, drop what is in hand, end the doubt about letters, and join again.
    """

    JOIN = "join"
    READ = "read"
    MARK = "mark beginnings"
    CLAIM = "claim partitions"
    WRITE = "write the batch"
    SETTLE = "settle the account"
    CONFIRM = "confirm"
    CONFIRM_LETTERS = "confirm with dead letters"


class Confirming:
    """What one member of persist's group has stored, and what it owes the stream.

    Attributes:
        positions: Where each of its partitions stands.
        is_in_doubt: Letters were sent and not answered: their producer's name must be taken
            over before bookmarks are believed.
    """

    def __init__(self) -> None:
        self._ownership = Ownership()
        self._owed: dict[Partition, Bookmark] = {}
        self._owes_letters = False
        self._is_folded = True
        self.positions = Positions()
        self.is_in_doubt = False

    @property
    def owed(self) -> Mapping[Partition, Bookmark]:
        """Give the bookmarks of what is stored and not confirmed."""
        return self._owed

    @property
    def owes_letters(self) -> bool:
        """Tell whether dead letters are owed: what is due for them waits for nothing."""
        return self._owes_letters

    def do(self, in_hand: Collection[Partition]) -> Do:
        """Give what is to be done next.

        Args:
            in_hand: Partitions of which a batch is in hand that is to be written.
        """
        if self._ownership.is_over:
            return Do.JOIN
        if self._owes_letters:
            return Do.CONFIRM_LETTERS if self._is_folded else Do.SETTLE
        if not in_hand and not self._owed:
            return Do.READ
        if not in_hand:
            return Do.CONFIRM if self._is_folded else Do.SETTLE
        if self.positions.without_bookmark(in_hand):
            return Do.MARK
        return Do.CLAIM if self.positions.unclaimed() else Do.WRITE

    # --- membership -----------------------------------------------------------------------

    def doubt_ended(self) -> None:
        """Learn that the name of the letters' producer was taken over."""
        self.is_in_doubt = False

    def joined(self) -> None:
        """Learn that the group was joined; its bookmarks come with the partitions."""
        if self.is_in_doubt:
            raise illegal("a member", self._ownership.standing, "joining with letters in doubt")
        self._ownership.follow(Event.TOOK_OVER)

    def assigned(
        self,
        partition: Partition,
        bookmark: Bookmark | None,
        *,
        claim: int | None,
        is_claimed: bool,
    ) -> int:
        """Take a partition over and give the offset to read from; see `Positions.take`.

        What is owed for it from before comes again.
        """
        self.gone([partition])
        self._ownership.follow(Event.SHARED)
        return self.positions.take(partition, bookmark, claim=claim, is_claimed=is_claimed)

    def gone(self, partitions: Iterable[Partition]) -> None:
        """Give partitions up, with what is owed for them.

        Letters that wait may be theirs, and are the next owner's to make: they are dropped
        with all else, by leaving.
        """
        partitions = list(partitions)
        self.positions.forget(partitions)
        for partition in partitions:
            is_owed = self._owed.pop(partition, None) is not None
            if is_owed and self._owes_letters:
                self._ownership.follow(Event.LEFT)

    def refused(self) -> None:
        """Learn that the stream takes nothing more from this member."""
        self.is_in_doubt = self.is_in_doubt or self._owes_letters
        self._ownership.follow(Event.REFUSAL)

    def left(self) -> None:
        """Learn that the group was left; what was owed comes to the next owner."""
        self._ownership.follow(Event.LEFT)
        self._owed = {}
        self._owes_letters = False
        self._is_folded = True
        self.positions = Positions()

    # --- a batch --------------------------------------------------------------------------

    def marked(self, partitions: Iterable[Partition]) -> None:
        """Learn that the group has bookmarks in these partitions now."""
        self.positions.note_bookmarks(partitions)

    def claimed(self, partition: Partition, claim: int | None) -> None:
        """Learn where the store stands, which did not answer when the partition was assigned.

        Where that is below the start of reading, the store came back from an older copy:
        the records between have to be read again.
        """
        if not self.positions.note_claim(partition, claim):
            self._ownership.follow(Event.LEFT)

    def stored(self, bookmarks: Mapping[Partition, Bookmark], *, owes_letters: bool) -> None:
        """Learn that the store has taken a batch up to these bookmarks.

        Args:
            bookmarks: Where each partition goes on.
            owes_letters: Whether dead letters have to be confirmed with them.
        """
        if self.do(bookmarks.keys()) is not Do.WRITE:
            raise illegal("a member", self.do(bookmarks.keys()), "stored batch")
        self._owed.update(bookmarks)
        self._owes_letters = owes_letters
        self._is_folded = False
        self.positions.note_stored(bookmarks)

    def folded(self) -> None:
        """Learn that the store has added to the account all that it has taken."""
        if self.do(()) is not Do.SETTLE:
            raise illegal("a member", self.do(()), "settled account")
        self._is_folded = True

    def confirmed(self) -> None:
        """Learn that the stream has what was owed."""
        if self.do(()) not in (Do.CONFIRM, Do.CONFIRM_LETTERS):
            raise illegal("a member", self.do(()), "confirmation")
        self._owed = {}
        self._owes_letters = False

    def unanswered(self) -> None:
        """Learn that the stream did not answer a confirmation.

        Bookmarks alone stay owed and go with the next ones. Letters exist nowhere else: this
        owner goes back to what is confirmed and makes them again, unless they are there.
        """
        if self._owes_letters:
            self.is_in_doubt = True
            self._ownership.follow(Event.SILENCE)


@dataclass
class Position:
    """Where one partition stands; all offsets.

    Attributes:
        start: Where reading began at this assignment.
        stored_to: The offset after the last record stored.
        claim: Where the store stood at the assignment; None where it does not say.
        is_claimed: The store has been asked.
        has_bookmark: The group has a bookmark here; without one a crash after the first
            write would start where the store stands, past dead letters still due.
    """

    start: int
    stored_to: int
    claim: int | None
    is_claimed: bool
    has_bookmark: bool


class Positions:
    """The partitions of one member and where they stand; one thread's."""

    def __init__(self) -> None:
        self._positions: dict[Partition, Position] = {}

    def take(
        self,
        partition: Partition,
        bookmark: Bookmark | None,
        *,
        claim: int | None,
        is_claimed: bool,
    ) -> int:
        """Take a partition over and give the offset to read from.

        That is the stream's bookmark, or where the store stands if that is lower or the only
        one known: records between a lower bookmark and the store come again, so that the
        store names once more what it refused of them.
        """
        known = [offset for offset in (claim, bookmark and bookmark.offset) if offset is not None]
        start = min(known, default=0)
        self._positions[partition] = Position(
            start=start,
            stored_to=start,
            claim=claim,
            is_claimed=is_claimed,
            has_bookmark=bookmark is not None,
        )
        return start

    def note_claim(self, partition: Partition, claim: int | None) -> bool:
        """Note a claim that came late; tell whether reading began where the store can follow."""
        position = self._positions[partition]
        position.claim = claim
        position.is_claimed = True
        return claim is None or claim >= position.start

    def unclaimed(self) -> list[Partition]:
        """Give the partitions for which the store has yet to be asked."""
        return [partition for partition, at in self._positions.items() if not at.is_claimed]

    def without_bookmark(self, partitions: Iterable[Partition]) -> list[Partition]:
        """Give those of `partitions` in which the group has no bookmark yet."""
        return [
            partition
            for partition in partitions
            if partition in self._positions and not self._positions[partition].has_bookmark
        ]

    def note_bookmarks(self, partitions: Iterable[Partition]) -> None:
        """Note that the group has bookmarks in these partitions."""
        for partition in partitions:
            if partition in self._positions:
                self._positions[partition].has_bookmark = True

    def note_stored(self, bookmarks: Mapping[Partition, Bookmark]) -> None:
        """Note how far the store has come."""
        for partition, bookmark in bookmarks.items():
            if partition in self._positions:
                self._positions[partition].stored_to = bookmark.offset

    def lost_between(self, partition: Partition, wanted: int, first: int) -> int:
        """Give how many deleted offsets from `wanted` to `first` the store does not have."""
        position = self._positions.get(partition)
        stored_to = position.claim if position is not None and position.claim else 0
        return max(0, first - max(wanted, stored_to))

    def lag(self, ends: Mapping[Partition, int]) -> int:
        """Give how many offsets lie between what is stored and the stream's ends."""
        return sum(
            max(0, end - self._positions[partition].stored_to)
            for partition, end in ends.items()
            if partition in self._positions
        )

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Give partitions up."""
        for partition in partitions:
            self._positions.pop(partition, None)

    def __bool__(self) -> bool:
        return bool(self._positions)
