"""Reading on where Kafka's batches come with damaged offsets, in a model world.

The check is the production one (`Order`). Broker and client are models: the client of the
library, as it takes answers apart: what lies below where it asked from is dropped, markers move
its position only, and it asks on behind the last batch, whatever its offset. Damage comes by
chance: what was hit is not hit again. Each mutant must be found out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings

from matchday.domain.topics import Topic
from matchday.ports import Partition, StreamRecord
from matchday.stream.kafka_order import Order
from protocol_script import SCRIPTS, Script, demand, finds_violation

PLACE = Partition(Topic.ANALYTICS, 0)
TURNS_MAX = 400


@dataclass(frozen=True)
class Batch:
    """`kind` is "records", "aborted" or "marker"."""

    first: int
    count: int
    kind: str

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True)
class Case:
    """A log's transactions, as counts of records (those below zero were aborted), and damage.

    Attributes:
        groups: Transactions that overlap: their markers come behind the records of all.
        shifts: By which batches are moved.
        is_whole: Answers end behind a marker, and a poll takes all that is there.
    """

    groups: Sequence[Sequence[int]]
    shifts: Sequence[int]
    is_whole: bool = False

    def log(self) -> list[Batch]:
        found = [Batch(0, 1, "marker")]
        for group in self.groups:
            for count in group:
                kind = "records" if count > 0 else "aborted"
                found.append(Batch(found[-1].end, abs(count), kind))
            for _ in group:
                found.append(Batch(found[-1].end, 1, "marker"))
        return found


CASES = {
    "one owner, moved by more than a batch": Case(
        [[2], [3], [2], [2], [3], [3], [2], [3]], [4, -4, 8, -8, 64, -64, 2**40, -(2**62)]
    ),
    "one owner, whole answers, moved by anything": Case(
        [[5], [1], [7], [2], [4], [1], [3], [6]],
        [1, -1, 2, -2, 4, -4, 8, -8, 2**40, -(2**40)],
        is_whole=True,
    ),
    "several owners and holes, whole answers, moved by more than a batch": Case(
        [[8], [12, 9], [-3], [8, -4, 10], [9], [-40], [9, 12, 8, 10], [-20], [10]],
        [32, -32, 64, -64, 2**40, -(2**62)],
        is_whole=True,
    ),
    "several owners and holes, no damage": Case(
        [[1], [1, 1], [-3], [2, -1, 1], [9], [-40], [1, 1, 1, 1], [-1], [-1], [-20, 1], [1], [-5]],
        [0],
    ),
}


@dataclass
class Client:
    """What the library does with answers."""

    log: Sequence[Batch]
    asking: int = 0
    position: int = -1
    waiting: list[tuple[int, int | None]] = field(default_factory=list)
    """Offsets and values; markers have none."""
    undamaged_to: int = 0
    """What was hit has to be read, and what it may be taken for, before anything is hit again."""

    def assign(self, start: int) -> None:
        self.asking, self.position, self.waiting = start, -1, []

    def ask(self, script: Script, shifts: Sequence[int], received: int, *, is_whole: bool) -> None:
        """Take one answer."""
        there = [batch for batch in self.log if batch.end > self.asking]
        if not is_whole:
            there = there[: script.pick(range(1, 6))]
        elif there:
            markers = [at for at, batch in enumerate(there) if batch.kind == "marker"]
            there = there[: script.pick(markers) + 1]
        asked = self.asking
        damage = self._damage(script, there, shifts, received)
        for batch in there:
            self._take(batch, damage.get(batch, 0), asked)

    def _damage(
        self, script: Script, there: Sequence[Batch], shifts: Sequence[int], received: int
    ) -> dict[Batch, int]:
        if not there or received < self.undamaged_to or not script.pick([False, True]):
            return {}
        batch = script.pick(there)
        at = self.log.index(batch)
        self.undamaged_to = self.log[min(at + 3, len(self.log) - 1)].end
        return {batch: script.pick(shifts)}

    def _take(self, batch: Batch, shift: int, asked: int) -> None:
        for at in range(batch.first, batch.end):
            if batch.kind != "aborted" and at + shift >= asked:
                self.waiting.append((at + shift, at if batch.kind == "records" else None))
                self.asking = at + shift + 1
        self.asking = max(self.asking, batch.end + shift)

    def give(self, count_max: int) -> list[StreamRecord]:
        given: list[StreamRecord] = []
        while self.waiting and len(given) < count_max:
            offset, value = self.waiting.pop(0)
            self.position = offset + 1
            if value is not None:
                text = b"%d" % value
                given.append(StreamRecord(PLACE.topic, PLACE.number, offset, 0, b"", text))
        return given


class TakesAll(Order):
    def check(self, runs, positions):
        run = [one for run in runs.values() for one in run]
        return run, []


class TakesTheFirstPart(Order):
    """Takes what comes before the step in doubt."""

    def check(self, runs, positions):
        received = dict(self.received)
        taken, again = super().check(runs, positions)
        if again:
            before = received[PLACE] - 1
            for one in runs.get(PLACE, []):
                if not 1 <= one.offset - before <= self._ordinary:
                    break
                taken.append(one)
                before = one.offset
            self.received[PLACE] = before + 1
        return taken, again


class BelievesAtOnce(Order):
    def check(self, runs, positions):
        super().check(runs, positions)
        return super().check(runs, positions)


class NeverBelieves(Order):
    def check(self, runs, positions):
        self._seen.clear()
        return super().check(runs, positions)


class LooksAtRecordsOnly(Order):
    def check(self, runs, positions):
        return super().check(runs, dict.fromkeys(positions, -1))


class CountsOnly(Order):
    """Believes as many records as lie between the first and the last."""

    def _can_be(self, partition, offsets, position):
        dense = offsets and offsets[-1] - offsets[0] + 1 == len(offsets)
        if dense and 1 <= offsets[0] - self.received[partition] + 1 <= 2:
            return True
        return super()._can_be(partition, offsets, position)


class BelievesWhatGoesUp(Order):
    def _can_be(self, partition, offsets, position):
        is_rising = all(one < following for one, following in pairwise(offsets))
        if is_rising and (not offsets or offsets[0] >= self.received[partition]):
            return True
        return super()._can_be(partition, offsets, position)


class ReadsOn(Order):
    """Reads again from behind what is in doubt."""

    def check(self, runs, positions):
        taken, again = super().check(runs, positions)
        if again and runs:
            self.received[PLACE] = max(self.received[PLACE], runs[PLACE][-1].offset + 1)
        return taken, again


class IsWhereTheClientIs(Order):
    """Says that it has reached what it has read again, too."""

    def check(self, runs, positions):
        taken, again = super().check(runs, positions)
        self.reached.update((one, max(at, self.reached[one])) for one, at in positions.items())
        return taken, again


MUTANTS = {
    TakesAll: "one owner, moved by more than a batch",
    TakesTheFirstPart: "one owner, whole answers, moved by anything",
    BelievesAtOnce: "one owner, moved by more than a batch",
    NeverBelieves: "several owners and holes, whole answers, moved by more than a batch",
    LooksAtRecordsOnly: "one owner, whole answers, moved by anything",
    CountsOnly: "one owner, whole answers, moved by anything",
    BelievesWhatGoesUp: "one owner, moved by more than a batch",
    ReadsOn: "one owner, moved by more than a batch",
    IsWhereTheClientIs: "several owners and holes, no damage",
}


class World:
    def __init__(self, case: Case, order: type[Order] = Order) -> None:
        self.case = case
        self.log = case.log()
        self.held = [
            at
            for batch in self.log
            if batch.kind == "records"
            for at in range(batch.first, batch.end)
        ]
        self.given: list[tuple[int, int]] = []
        self.order = order()
        self.order.begin({PLACE: 0})
        self.client = Client(self.log)
        self.client.assign(0)

    def run(self, numbers: Sequence[int]) -> None:
        script = Script(numbers)
        for _ in numbers:
            self.turn(script)
        for _ in range(TURNS_MAX):
            self.turn(Script([]))
        demand(len(self.given) == len(self.held), "it does not come to the end")

    def turn(self, script: Script) -> None:
        client, is_whole = self.client, self.case.is_whole
        if script.pick(range(16)) == 15:  # the partition is lost, and comes back
            self.order.begin({PLACE: self.order.received[PLACE]})
            client.assign(self.order.received[PLACE])
        if not 0 <= client.asking <= self.log[-1].end:
            client.assign(self.order.received[PLACE])  # out of range: it is told
        if not (is_whole and client.waiting):
            client.ask(script, self.case.shifts, self.order.received[PLACE], is_whole=is_whole)
        run = client.give(1000 if is_whole else script.pick(range(1, 8)))
        runs = {PLACE: run} if run else {}
        taken, again = self.order.check(runs, {PLACE: client.position})
        self.given += [(one.offset, int(one.value)) for one in taken]
        begin = self.held[: len(self.given)]
        demand([value for _, value in self.given] == begin, "one is lost, twice or out of order")
        demand([offset for offset, _ in self.given] == begin, "one has a wrong offset")
        passed = bisect_left(self.held, self.order.reached[PLACE])
        demand(passed <= len(self.given), "it says that it is where it is not")
        if again:
            self.order.begin(self.order.received)
            client.assign(self.order.received[PLACE])


@pytest.mark.parametrize("name", CASES)
def test_every_record_is_given_once_at_its_offset(name: str):
    @settings(max_examples=300, deadline=None)
    @given(SCRIPTS)
    def run(numbers: list[int]) -> None:
        World(CASES[name]).run(numbers)

    run()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_check_with_a_step_left_out_is_found_out(mutant: type[Order]):
    case = CASES[MUTANTS[mutant]]
    assert finds_violation(lambda numbers: World(case, mutant).run(numbers))
