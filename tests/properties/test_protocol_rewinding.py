"""Analysis's protocol in a model world: findings and bookmarks in one transaction, rewinding.

The machines are the production ones (`Ownership`, `Progress`); the stream with its group and
its transactions is a model, and the analysers are the simplest with state: a sum per window,
of two lengths. Workers crash, stand still inside an open transaction, lose the partition and
get it back. Each mutant of the protocol must be found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings

from matchday.protocols.ownership import Event, Ownership, Standing
from matchday.protocols.positions import New
from matchday.protocols.rewinding import Phase, Progress
from protocol_script import SCRIPTS, Script, demand, finds_violation

WINDOWS = (3, 5)
END = 17
VALUES = [offset * offset % 7 for offset in range(END)]
Found = tuple[int, int, int]


def closing(offset: int) -> list[Found]:
    """Give what the windows that end with this offset say: length, start, sum."""
    starts = [(length, offset - length + 1) for length in WINDOWS if (offset + 1) % length == 0]
    return [(length, start, sum(VALUES[start : offset + 1])) for length, start in starts]


FINDINGS = [found for offset in range(END) for found in closing(offset)]


@dataclass
class Commit:
    member: int
    name_epoch: int
    worker: int
    findings: list[Found]
    bookmark: tuple[int, int]


@dataclass
class Stream:
    """Findings and bookmark move together, under the membership and the newest producer."""

    is_fencing: bool = True
    findings: list[Found] = field(default_factory=list)
    bookmark: tuple[int, int] | None = None
    member: int = 0
    members: int = 0
    epochs: dict[int, int] = field(default_factory=dict)
    open: list[Commit] = field(default_factory=list)
    """Transactions whose bookmark was taken and whose end is still on its way."""

    def take_name(self, worker: int, script: Script) -> int:
        for commit in [one for one in self.open if one.worker == worker]:
            self.end(commit, is_committed=script.pick([False, True]))
        self.epochs[worker] = self.epochs.get(worker, 0) + 1
        return self.epochs[worker]

    def join(self) -> int:
        self.members += 1
        self.member = self.members
        return self.members

    def begin(self, commit: Commit) -> bool:
        """Take findings and bookmark, if name and membership are the newest."""
        is_newest = commit.name_epoch == self.epochs[commit.worker]
        if self.is_fencing and not (is_newest and commit.member == self.member):
            return False
        self.open.append(commit)
        return True

    def end(self, commit: Commit, *, is_committed: bool) -> None:
        self.open.remove(commit)
        if is_committed:
            self.findings += commit.findings
            self.bookmark = commit.bookmark


class Worker:
    """One worker as a driver of the machines, one step at a time."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.ownership = Ownership()
        self.progress = world.make_progress(None, None)
        self.windows: dict[int, list[int]] = {}
        self.gathered: list[Found] = []
        self.name_epoch = self.member = 0

    def step(self, script: Script) -> None:
        standing = self.ownership.standing
        if standing is Standing.OUTSIDE:
            self.name_epoch = self.world.stream.take_name(self.number, script)
            self.ownership.follow(Event.TOOK_OVER)
        elif standing is Standing.FENCED:
            self._take_over()
        elif standing is Standing.REFUSED:
            self.gathered = []
            self.ownership.follow(Event.LEFT)
        elif self.progress.phase is Phase.AHEAD and script.pick([False, True]):
            self._commit(script)
        elif self.progress.next_offset < END:
            self._work(script.pick([2, 1, 3, 4]))
        elif self.progress.phase is Phase.AHEAD:
            self._commit(script)

    def resume(self) -> None:
        """Come back to the group: with what was parked, if nobody has worked in between."""
        stream = self.world.stream
        if self.ownership.standing is not Standing.OWNER or self.progress.phase is Phase.AHEAD:
            return
        if stream.open:
            return
        self.member = stream.join()
        self.ownership.follow(Event.SHARED)
        if not self.progress.can_resume(stream.bookmark and stream.bookmark[0]):
            self._begin(stream.bookmark)

    def _take_over(self) -> None:
        stream = self.world.stream
        if stream.open and self.world.mutant != "believes open bookmarks":
            return  # the question for bookmarks waits until they are ended
        self.member = stream.join()
        self.ownership.follow(Event.SHARED)
        self._begin(stream.bookmark)

    def _begin(self, bookmark: tuple[int, int] | None) -> None:
        self.progress = self.world.make_progress(*(bookmark or (None, None)))
        self.windows, self.gathered = {length: [] for length in WINDOWS}, []

    def _work(self, count: int) -> None:
        progress = self.progress
        first = progress.next_offset
        end = min(first + count, END)
        silent_to = first
        if progress.part_out_loud(first, end - 1) is not New.ALL:
            silent_to = min(end, progress.committed)
            self._consume(first, silent_to)
            progress.redid(silent_to, count=silent_to - first)
        if silent_to < end:
            self.gathered += self._consume(silent_to, end)
            progress.worked(end)

    def _consume(self, first: int, end: int) -> list[Found]:
        found = []
        for offset in range(first, end):
            for length, window in self.windows.items():
                window.append(VALUES[offset])
                if (offset + 1) % length == 0:
                    found.append((length, offset - length + 1, sum(window)))
                    window.clear()
        return found

    def _commit(self, script: Script) -> None:
        stream = self.world.stream
        next_offset = self.progress.next_offset
        rewind = min(next_offset // length * length for length in WINDOWS)
        if self.world.mutant == "no rewind":
            rewind = next_offset
        commit = Commit(
            self.member, self.name_epoch, self.number, self.gathered, (next_offset, rewind)
        )
        fate = script.pick(["answered", "answered", "answer lost", "request lost", "late"])
        if fate == "request lost":
            self._unanswered()
        elif not stream.begin(commit):
            self.ownership.follow(Event.REFUSAL)
        elif fate == "late":
            self._unanswered()
        else:
            stream.end(commit, is_committed=True)
            if fate == "answer lost":
                self._unanswered()
            else:
                self.ownership.follow(Event.WROTE)
                self.progress.confirmed()
                self.gathered = []

    def _unanswered(self) -> None:
        if self.world.mutant == "commits again":
            return
        self.ownership.follow(Event.SILENCE)
        if self.world.mutant == "believes open bookmarks":
            self.ownership.standing = Standing.FENCED


class World:
    """The stream and its workers, and what must hold of the findings."""

    def __init__(self, mutant: str = "") -> None:
        self.mutant = mutant
        self.stream = Stream(is_fencing=mutant != "no fence")
        self.workers: list[Worker] = []
        self.started = 0

    def make_progress(self, bookmark: int | None, rewind: int | None) -> Progress:
        if self.mutant == "emits while rewinding" and bookmark is not None:
            assert rewind is not None
            return Progress.begin(rewind, rewind)
        return Progress.begin(bookmark, rewind)

    def start(self) -> Worker:
        self.started += 1
        worker = Worker(self, self.started)
        self.workers.append(worker)
        return worker

    def run(self, numbers: Sequence[int]) -> None:
        script = Script(numbers)
        self.start()
        while not script.is_over:
            what = script.pick(["step"] * 10 + ["end", "end", "crash", "start", "resume"])
            if what == "end" and self.stream.open:
                commit = script.pick(self.stream.open)
                self.stream.end(commit, is_committed=script.pick([True, False]))
            elif what == "start" and len(self.workers) < 3:
                self.start()
            elif self.workers:
                worker = script.pick(self.workers)
                if what == "crash":
                    self.workers.remove(worker)
                elif what == "resume":
                    worker.resume()
                else:
                    worker.step(script)
            self.check()
        self.settle()

    def check(self) -> None:
        found = self.stream.findings
        demand(found == FINDINGS[: len(found)], "findings are not those of no restart")
        done = self.stream.bookmark[0] if self.stream.bookmark else 0
        due = [one for offset in range(done) for one in closing(offset)]
        demand(found == due, "the bookmark and the findings have parted")

    def settle(self) -> None:
        self.workers.clear()
        quiet = Script([])
        for commit in list(self.stream.open):
            self.stream.end(commit, is_committed=False)  # the stream's own time-out
        worker = self.start()
        for _ in range(100):
            worker.step(quiet)
            self.check()
        demand(self.stream.findings == FINDINGS, "a finding was never made")


MUTANTS = [
    "no fence",
    "no rewind",
    "commits again",
    "believes open bookmarks",
    "emits while rewinding",
]


@settings(max_examples=500, deadline=None)
@given(SCRIPTS)
def test_findings_are_those_of_no_restart_each_once(numbers: list[int]):
    World().run(numbers)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_protocol_with_a_step_left_out_is_found_out(mutant: str):
    assert finds_violation(lambda numbers: World(mutant).run(numbers))


def test_partition_comes_back_with_its_state_only_where_it_was_left():
    progress = Progress.begin(None, None)
    progress.worked(5)
    assert not progress.can_resume(5), "findings up to here are not out"
    progress.confirmed()
    assert progress.can_resume(5)
    assert not progress.can_resume(6), "somebody has worked meanwhile"
    assert not progress.can_resume(None)


def test_bookmark_moved_by_hand_begins_there_with_nothing():
    progress = Progress.begin(7, None)
    assert (progress.next_offset, progress.phase) == (7, Phase.LEVEL)


def test_records_that_retention_took_are_missed_only_above_the_bookmark():
    progress = Progress.begin(10, 4)
    assert progress.passed_over(4, 8) == 0
    assert progress.phase is Phase.REWINDING
    assert progress.passed_over(8, 13) == 3
    assert progress.phase is Phase.LEVEL


def test_steps_out_of_order_are_mistakes_of_the_program():
    progress = Progress.begin(10, 4)
    with pytest.raises(RuntimeError, match="findings below 10"):
        progress.worked(9)
    with pytest.raises(RuntimeError, match="silent work up to 11"):
        progress.redid(11, count=7)
    with pytest.raises(RuntimeError, match="record 3 below 4"):
        progress.part_out_loud(3, 5)
