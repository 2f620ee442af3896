"""Persist's protocol towards stream and store, in a model world.

The machines are the production ones (`Confirming`, `new_part`); the store with its position and
its account, the stream with its group and transactions are models. The account is settled apart
from the rows, as in MongoDB. Members crash, stand still, lose the partition, told or not, and get
no answer from either side. Each mutant of the protocol must be found out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings

from matchday.domain.topics import Topic
from matchday.ports import Bookmark, Partition
from matchday.protocols.confirming import Confirming, Do
from matchday.protocols.positions import New, new_part
from protocol_script import SCRIPTS, Script, demand, finds_violation

PLACE = Partition(Topic.ANALYTICS, 0)
END = 12
BAD = frozenset({1, 5, 6, 10})
"""Offsets whose rows the store refuses."""


@dataclass
class Open:
    """A transaction of letters and bookmark whose end is still on its way."""

    worker: int
    letters: list[int]
    bookmark: int


@dataclass
class Stream:
    bookmark: int | None = None
    letters: list[int] = field(default_factory=list)
    member: int = 0
    members: int = 0
    open: list[Open] = field(default_factory=list)

    def join(self) -> int:
        self.members += 1
        self.member = self.members
        return self.member

    def end(self, transaction: Open, *, is_committed: bool) -> None:
        self.open.remove(transaction)
        if is_committed:
            self.letters += transaction.letters
            self.bookmark = transaction.bookmark


@dataclass
class Store:
    """Rows and position change in one step; what lies below the position is skipped.

    So do the account and how far it is folded, in another step.
    """

    position: int = 0
    stored: list[int] = field(default_factory=list)
    folded: int = 0
    counted: list[int] = field(default_factory=list)

    def write(self, rows: Sequence[int]) -> list[int]:
        if new_part(self.position, first=rows[0], last=rows[-1]) is not New.NOTHING:
            self.stored += [row for row in rows if row >= self.position and row not in BAD]
        self.position = max(self.position, rows[-1] + 1)
        return [row for row in rows if row in BAD]

    def fold(self, rows: Sequence[int]) -> None:
        if rows and new_part(self.folded, first=rows[0], last=rows[-1]) is not New.NOTHING:
            self.counted += [row for row in rows if row >= self.folded]
            self.folded = rows[-1] + 1


class NeverMarks(Confirming):
    """Writes to the store before the group has a bookmark."""

    def do(self, in_hand: Collection[Partition]) -> Do:
        due = super().do(in_hand)
        return Do.WRITE if due is Do.MARK else due


class StartsAtTheClaim(Confirming):
    """Reads from where the store stands, even if the bookmark is lower."""

    def assigned(
        self,
        partition: Partition,
        bookmark: Bookmark | None,
        *,
        claim: int | None,
        is_claimed: bool,
    ) -> int:
        start = super().assigned(partition, bookmark, claim=claim, is_claimed=is_claimed)
        return start if claim is None else claim


class ForgetsTheDoubt(Confirming):
    """Joins again without settling letters that were not answered."""

    def unanswered(self) -> None:
        super().unanswered()
        self.is_in_doubt = False


class SendsLettersAgain(Confirming):
    """Treats letters like bookmarks: no answer, so the same once more."""

    def unanswered(self) -> None:
        pass


class NeverSettles(Confirming):
    """Confirms what the store has taken and not counted."""

    def do(self, in_hand: Collection[Partition]) -> Do:
        self._is_folded = True
        return super().do(in_hand)


class SettlesTooEarly(Confirming):
    """Takes the account for settled once it was, whatever is written after that."""

    has_settled = False

    def folded(self) -> None:
        super().folded()
        self.has_settled = True

    def stored(self, bookmarks: Mapping[Partition, Bookmark], *, owes_letters: bool) -> None:
        super().stored(bookmarks, owes_letters=owes_letters)
        self._is_folded = self.has_settled


class KeepsLettersOfWhatIsGone(Confirming):
    """Stays when a partition goes, with letters of it that wait."""

    def gone(self, partitions: Iterable[Partition]) -> None:
        owes_letters, self._owes_letters = self._owes_letters, False
        super().gone(partitions)
        self._owes_letters = owes_letters


MUTANTS = {
    "never settles": NeverSettles,
    "settles too early": SettlesTooEarly,
    "keeps letters of what is gone": KeepsLettersOfWhatIsGone,
    "never marks": NeverMarks,
    "starts at the claim": StartsAtTheClaim,
    "forgets the doubt": ForgetsTheDoubt,
    "sends letters again": SendsLettersAgain,
}


class Member:
    """Persist as a driver of the machine, one step at a time."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.protocol = MUTANTS.get(world.mutant, Confirming)()
        self.member = self.next_offset = 0
        self.hand: list[int] = []
        self.letters: list[int] = []
        self.owed: list[int] = []
        self.is_held = False

    def step(self, script: Script) -> None:
        do = self.protocol.do([PLACE] if self.hand else [])
        if do is Do.JOIN:
            self._join(script)
        elif do is Do.READ and not self.is_held:
            self._take(script)
        elif do is Do.READ:
            self._read(script)
        elif do is Do.MARK:
            if self._move(self.hand[0], script):
                self.protocol.marked([PLACE])
        elif do is Do.CLAIM:
            self.protocol.claimed(PLACE, self.world.store.position)
        elif do is Do.WRITE:
            self._write(script)
        elif self._may_wait(do) and script.pick([False, True]):
            self._read(script)  # account and bookmarks may wait for more to be stored
        elif do is Do.SETTLE:
            self._settle(script)
        elif do is Do.CONFIRM:
            if self._move(self.protocol.owed[PLACE].offset, script):
                self.protocol.confirmed()
        else:
            self._confirm_letters(script)

    def revoke(self) -> None:
        """Lose the partition and stay in the group, which may give it back."""
        if self.is_held:
            self.hand, self.is_held = [], False
            self.protocol.gone([PLACE])

    def _may_wait(self, do: Do) -> bool:
        is_of_bookmarks = do in (Do.SETTLE, Do.CONFIRM) and not self.protocol.owes_letters
        return is_of_bookmarks and self.is_held and self.next_offset < END

    def _read(self, script: Script) -> None:
        end = min(END, self.next_offset + script.pick([3, 1, 2, 5]))
        self.hand = list(range(self.next_offset, end))
        self.next_offset = end

    def _join(self, script: Script) -> None:
        stream = self.world.stream
        self.protocol.left()
        self.hand, self.letters, self.is_held = [], [], False
        if self.protocol.is_in_doubt:
            for one in [one for one in stream.open if one.worker == self.number]:
                stream.end(one, is_committed=script.pick([False, True]))
            self.protocol.doubt_ended()
        if self._is_waiting():
            return
        self.protocol.joined()
        self.member = stream.join()
        self._take(script)

    def _is_waiting(self) -> bool:
        """The question for bookmarks waits until open transactions are ended."""
        return bool(self.world.stream.open) and self.world.mutant != "forgets the doubt"

    def _take(self, script: Script) -> None:
        """Be given the partition, with its bookmark."""
        stream = self.world.stream
        if self.member != stream.member:
            self.protocol.refused()
            return
        if self._is_waiting():
            return
        self.owed = []
        is_answering = script.pick([True, True, False])
        self.next_offset = self.protocol.assigned(
            PLACE,
            None if stream.bookmark is None else Bookmark(stream.bookmark),
            claim=self.world.store.position if is_answering else None,
            is_claimed=is_answering,
        )
        self.is_held = True

    def _write(self, script: Script) -> None:
        fate = script.pick(["answered", "answered", "answer lost", "request lost"])
        if fate == "request lost":
            return
        refused = self.world.store.write(self.hand)
        # Sent twice it is owed once.
        self.owed += [row for row in self.hand if not self.owed or row > self.owed[-1]]
        if fate == "answer lost":
            return
        bookmarks = {PLACE: Bookmark(self.hand[-1] + 1)}
        self.letters, self.hand = refused, []
        self.protocol.stored(bookmarks, owes_letters=bool(refused))

    def _settle(self, script: Script) -> None:
        fate = script.pick(["answered", "answered", "answer lost", "request lost"])
        if fate != "request lost":
            self.world.store.fold(self.owed)
        if fate == "answered":
            self.owed = []
            self.protocol.folded()

    def _move(self, offset: int, script: Script) -> bool:
        """Move the bookmark alone; tell whether it is known to have moved."""
        if self.member != self.world.stream.member:
            self.protocol.refused()
            return False
        fate = script.pick(["answered", "answered", "answer lost", "request lost"])
        if fate != "request lost":
            self.world.stream.bookmark = offset
        if fate != "answered":
            self.protocol.unanswered()
        return fate == "answered"

    def _confirm_letters(self, script: Script) -> None:
        stream = self.world.stream
        if self.member != stream.member:
            self.protocol.refused()
            return
        fate = script.pick(["answered", "answered", "answer lost", "request lost", "late"])
        if fate != "request lost":
            owed = self.protocol.owed.get(PLACE)
            bookmark = stream.bookmark or 0 if owed is None else owed.offset
            stream.open.append(Open(self.number, self.letters, bookmark))
        if fate in ("answered", "answer lost"):
            stream.end(stream.open[-1], is_committed=True)
        if fate == "answered":
            self.protocol.confirmed()
            self.letters = []
        else:
            self.protocol.unanswered()


class World:
    """Store, stream and members, and what must hold of them."""

    def __init__(self, mutant: str = "") -> None:
        self.mutant = mutant
        self.store = Store()
        self.stream = Stream()
        self.members: list[Member] = []
        self.started = 0

    def start(self) -> Member:
        self.started += 1
        member = Member(self, self.started)
        self.members.append(member)
        return member

    def run(self, numbers: Sequence[int]) -> None:
        script = Script(numbers)
        self.start()
        while not script.is_over:
            what = script.pick(["step"] * 12 + ["end", "crash", "start", "revoke"])
            if what == "end" and self.stream.open:
                one = script.pick(self.stream.open)
                self.stream.end(one, is_committed=script.pick([True, False]))
            elif what == "start" and len(self.members) < 3:
                self.start()
            elif self.members:
                member = script.pick(self.members)
                if what == "crash":
                    self.members.remove(member)
                elif what == "revoke":
                    member.revoke()
                else:
                    member.step(script)
            self.check()
        self.settle()

    def check(self) -> None:
        stored = Counter(self.store.stored)
        demand(max(stored.values(), default=0) <= 1, "a row is stored twice")
        bookmark = self.stream.bookmark or 0
        demand(
            {row for row in range(bookmark) if row not in BAD} <= set(stored),
            "the bookmark has passed a row that is not stored",
        )
        counted = Counter(self.store.counted)
        demand(max(counted.values(), default=0) <= 1, "a row is counted twice")
        demand(
            set(range(bookmark)) <= set(counted),
            "the bookmark has passed a row that is not counted",
        )
        wanted = [row for row in range(bookmark) if row in BAD]
        demand(sorted(self.stream.letters) == wanted, "a refused row has not one letter")

    def settle(self) -> None:
        self.members.clear()
        for one in list(self.stream.open):
            self.stream.end(one, is_committed=False)  # the stream's own time-out
        quiet = Script([])
        member = self.start()
        for _ in range(80):
            if self.stream.bookmark == END:
                break
            member.step(quiet)
            self.check()
        demand(self.stream.bookmark == END, "something was never stored")


@settings(max_examples=500, deadline=None)
@given(SCRIPTS)
def test_every_row_is_stored_once_and_every_letter_written_once(numbers: list[int]):
    World().run(numbers)


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_protocol_with_a_step_left_out_is_found_out(mutant: str):
    assert finds_violation(lambda numbers: World(mutant).run(numbers))


def test_steps_out_of_order_are_mistakes_of_the_program():
    protocol = Confirming()
    with pytest.raises(RuntimeError, match="stored batch"):
        protocol.stored({PLACE: Bookmark(3)}, owes_letters=False)
    protocol.joined()
    protocol.assigned(PLACE, None, claim=0, is_claimed=True)
    with pytest.raises(RuntimeError, match="mark beginnings"):
        protocol.stored({PLACE: Bookmark(3)}, owes_letters=False)
    protocol.marked([PLACE])
    with pytest.raises(RuntimeError, match="settled account"):
        protocol.folded()
    protocol.stored({PLACE: Bookmark(3)}, owes_letters=True)
    with pytest.raises(RuntimeError, match="confirmation"):
        protocol.confirmed()
    protocol.folded()
    protocol.unanswered()
    assert protocol.do(()) is Do.JOIN
    protocol.left()
    with pytest.raises(RuntimeError, match="letters in doubt"):
        protocol.joined()


def test_store_that_came_back_from_an_older_copy_is_read_for_again():
    protocol = Confirming()
    protocol.joined()
    assert protocol.assigned(PLACE, Bookmark(9), claim=None, is_claimed=False) == 9
    assert protocol.do([PLACE]) is Do.CLAIM
    protocol.claimed(PLACE, 4)
    assert protocol.do([PLACE]) is Do.JOIN


def test_letters_of_a_partition_that_goes_before_the_account_is_settled_are_dropped():
    protocol = Confirming()
    protocol.joined()
    other = Partition(Topic.ANALYTICS, 1)
    for place in (PLACE, other):
        protocol.assigned(place, Bookmark(0), claim=None, is_claimed=True)
    protocol.stored({PLACE: Bookmark(3)}, owes_letters=True)
    assert protocol.do([other]) is Do.SETTLE
    protocol.gone([other])
    assert protocol.do(()) is Do.SETTLE
    protocol.gone([PLACE])
    assert protocol.do(()) is Do.JOIN
