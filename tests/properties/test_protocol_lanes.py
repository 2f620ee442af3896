"""Persist's protocol towards a server with a retry log, in a model world.

The machines are the production ones (`Lane`, `Passage`, `pieces`); the server with its log,
the network and the bookmark are models. Writers crash, stand still between any two steps for
any time, overlap with their heirs, and meet a server that forgets its log, loses its oplog,
refuses rows and whole commands. Each mutant of the protocol must be found out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import given, settings

from matchday.ports import Row
from matchday.protocols import cells, lanes
from matchday.protocols.cells import Piece, pieces
from matchday.protocols.lanes import LOG_KEPT_S, Do, Lane, Passage, Sureness
from protocol_script import SCRIPTS, Script, demand, finds_violation

CELL = 3
END = 12
DEADLINE_S = 20.0
ARRIVES_WITHIN_S = 900.0
"""The assumption on the network: a command that took longer than this never arrives."""
BAD = frozenset({4, 7})
"""Offsets whose rows the server refuses."""
POISON = frozenset({9})
"""Offsets whose rows make it refuse the whole command."""


@dataclass
class Command:
    piece: Piece
    is_numbered: bool
    sent_s: float
    writer: Writer | None


@dataclass
class Server:
    """Stores rows; with a log it skips statements executed and refuses older cells."""

    has_log: bool = True
    is_fencing: bool = True
    stored: list[int] = field(default_factory=list)
    cell: int | None = None
    executed: set[int] = field(default_factory=set)
    used_s: float = 0.0
    is_log_cut: bool = False

    def insert(self, command: Command, now_s: float) -> tuple[str, list[tuple[int, str]]]:
        piece = command.piece
        numbered = command.is_numbered and self.has_log
        if numbered:
            if self.cell is not None and piece.cell < self.cell and self.is_fencing:
                return "too old", []
            if piece.cell != self.cell:
                self.cell, self.executed, self.is_log_cut = piece.cell, set(), False
            elif self.is_log_cut:
                return "log gone", []
            self.used_s = now_s
        if any(row.offset in POISON for row in piece.rows):
            if not self.has_log and piece.rows[0].offset not in POISON:
                self.stored.append(piece.rows[0].offset)  # it got as far as this
            return "not as a whole", []
        refused = []
        for place, (row, number) in enumerate(zip(piece.rows, piece.numbers, strict=True)):
            if numbered and number in self.executed:
                continue
            if row.offset in BAD:
                refused.append((place, "bad"))
                continue
            self.stored.append(row.offset)
            if numbered:
                self.executed.add(number)
        return "taken", refused

    def forget(self) -> None:
        self.cell, self.executed = None, set()


class Writer:
    """Persist on this store: from its bookmark on, batch after batch, one step at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lane = world.make_lane()
        self.epoch = world.epoch
        self.next_offset = world.bookmark
        self.end = self.next_offset
        self.used_s = float("-inf")
        self.deadline_s = 0.0
        self.todo: list[Piece] = []
        self.passage: Passage | None = None
        self.refused: list[int] = []
        self.is_checked = self.is_waiting = False

    def step(self, script: Script) -> bool:
        """Do what is due; tell whether the writer goes on."""
        if self.is_waiting:
            return True
        if self.passage is None or self.passage.do is Do.NOTHING:
            return self._go_on(script)
        do = self.passage.do
        if do is Do.AWAIT_QUIET:
            self.world.drain(script)
            self.passage.quiet()
        elif do is Do.LOOK_UP:
            stored = set(self.world.server.stored)
            piece = self.passage.piece
            self.passage.looked_up(
                {
                    n
                    for row, n in zip(piece.rows, piece.numbers, strict=True)
                    if row.offset in stored
                }
            )
        elif not self.is_checked and "deadline" not in self.world.mutant:
            # Between this check and the send the writer may stand still.
            if self.world.now_s > self.deadline_s:
                self.passage.late()
                self.passage, self.todo = None, []
                self.end = self.next_offset
            else:
                self.is_checked = True
        else:
            self._send(script)
        return True

    def _go_on(self, script: Script) -> bool:
        if self.passage is not None:
            self.refused += [one.row.offset for one in self.passage.refused]
            self.passage = None
        if self.todo:
            self.passage = self.lane.enter(self.todo.pop(0), has_log=self.world.server.has_log)
        elif self.end > self.next_offset:
            return self._confirm()
        elif self.next_offset < END:
            self._begin(script)
        return True

    def _begin(self, script: Script) -> None:
        now_s = self.world.now_s
        self.end = min(END, self.next_offset + script.pick([5, 1, 2, 3, 7]))
        self.deadline_s = now_s + DEADLINE_S
        self.lane.rested(now_s - self.used_s)
        self.refused = []
        self.todo = pieces([Row("c", offset, {}) for offset in range(self.next_offset, self.end)])

    def _confirm(self) -> bool:
        """Move the bookmark under the membership, with the letters; a stranger is refused."""
        self.used_s = self.world.now_s
        if self.epoch != self.world.epoch:
            return False
        self.world.bookmark = self.next_offset = self.end
        self.world.letters += self.refused
        return True

    def _send(self, script: Script) -> None:
        assert self.passage is not None
        self.is_checked = False
        is_numbered = self.passage.do is Do.SEND
        command = Command(self.passage.piece, is_numbered, self.world.now_s, self)
        self.is_waiting = True
        if script.pick([True] * 4 + [False]):
            self.world.network.append(command)
        else:
            self.hear("nothing", [], script)

    def hear(self, answer: str, refused: list[tuple[int, str]], script: Script) -> None:
        """Take the answer to what was sent."""
        passage = self.passage
        assert passage is not None
        self.is_waiting = False
        if answer == "taken":
            passage.taken(refused)
        elif answer == "too old":
            passage.too_old()
        elif answer == "log gone":
            passage.log_gone()
        elif answer == "not as a whole":
            passage.not_as_a_whole(lambda _: "poison", was_sent=True)
        else:
            passage.unanswered(is_in_time=self.world.now_s < self.deadline_s)
            if passage.do is Do.NOTHING:
                self.passage, self.todo, self.end = None, [], self.next_offset


class World:
    """Server, network, bookmark and writers, and what must hold of them."""

    def __init__(self, mutant: str = "", *, has_log: bool = True, pauses: bool = True) -> None:
        self.mutant = mutant
        self.pauses = pauses
        # Time passes more often where that is what the fault needs.
        self.more = ["time"] * 3 if mutant == "slow network" else []
        self.server = Server(has_log=has_log, is_fencing=mutant != "no fence")
        self.network: list[Command] = []
        self.writers: list[Writer] = []
        self.letters: list[int] = []
        self.bookmark = self.epoch = 0
        self.now_s = 0.0

    def make_lane(self) -> Lane:
        return MUTANTS.get(self.mutant, Lane)()

    def run(self, numbers: Sequence[int]) -> None:
        with patch.object(cells, "CELL", CELL):
            script = Script(numbers)
            self.take_over()
            while not script.is_over:
                self._act(script)
                self.check()
            self.settle()

    def take_over(self) -> Writer:
        self.epoch += 1
        if not self.pauses:
            self.writers.clear()
        writer = Writer(self)
        self.writers.append(writer)
        return writer

    def _act(self, script: Script) -> None:
        what = script.pick(
            ["step"] * 8 + ["arrive"] * 4 + ["time", "take over", "crash"] + self.more
        )
        if what == "arrive" and self.network:
            self.arrive(self.network.pop(script.pick(range(len(self.network)))), script)
        elif what == "time":
            self.pass_time(script.pick([1.0, 30.0, 700.0, LOG_KEPT_S]), script)
        elif what == "take over" and len(self.writers) < 3:
            self.take_over()
        elif self.writers and what in ("step", "crash"):
            writer = script.pick(self.writers)
            if what == "crash" or not writer.step(script):
                self.writers.remove(writer)

    def pass_time(self, elapsed_s: float, script: Script) -> None:
        self.now_s += elapsed_s
        if self.now_s - self.server.used_s >= LOG_KEPT_S and script.pick([True, False]):
            self.server.forget()
        if self.mutant == "slow network":
            return
        for command in list(self.network):
            if self.now_s - command.sent_s > ARRIVES_WITHIN_S:
                self.network.remove(command)
                self.answer(command, "nothing", [], script)
        for writer in self.writers:
            # The same for a writer that stood still between its last check and the send.
            if writer.is_checked and elapsed_s > ARRIVES_WITHIN_S:
                writer.is_checked = False

    def arrive(self, command: Command, script: Script) -> None:
        answer, refused = self.server.insert(command, self.now_s)
        if script.pick([True, True, False]):
            self.answer(command, answer, refused, script)
        else:
            self.answer(command, "nothing", [], script)

    def answer(
        self, command: Command, answer: str, refused: list[tuple[int, str]], script: Script
    ) -> None:
        if command.writer in self.writers:
            assert command.writer is not None
            command.writer.hear(answer, refused, script)

    def drain(self, script: Script) -> None:
        """Let what is on its way arrive or vanish, so that no insert is at work."""
        for command in self.network:
            if script.pick([True, False]):
                self.server.insert(command, self.now_s)
        self.network.clear()

    def check(self) -> None:
        stored = Counter(self.server.stored)
        demand(max(stored.values(), default=0) <= 1, "a row is stored twice")
        done = {offset for offset in range(self.bookmark) if offset not in BAD | POISON}
        demand(done <= set(stored), "the bookmark has passed a row that is not stored")
        wanted = sorted(offset for offset in range(self.bookmark) if offset in BAD | POISON)
        demand(sorted(self.letters) == wanted, "a refused row has not one letter")

    def settle(self) -> None:
        """Let everybody but one go, without faults, and demand that all work gets done."""
        self.writers.clear()
        quiet = Script([])
        writer = self.take_over()
        for _ in range(400):
            demand(writer.step(quiet), "the only writer was refused")
            if self.network:
                self.arrive(self.network.pop(), quiet)
            self.check()
        demand(self.bookmark == END, "something was never stored")


class NeverLooks(Lane):
    """Trusts the log alone."""

    def enter(self, piece: Piece, *, has_log: bool) -> Passage:
        return Passage(self, piece, Sureness.READY, has_log=has_log, is_doubted=False)


class TrustsALogThatExists(Lane):
    """Is sure as soon as one piece was looked up, whether or not a row of it was absent."""

    def enter(self, piece: Piece, *, has_log: bool) -> Passage:
        passage = super().enter(piece, has_log=has_log)
        self.sure_from = piece.cell
        return passage


class NeverDoubtsAgain(Lane):
    """Stays sure, however long it rested and whatever was cut off."""

    def rested(self, idle_s: float) -> None:
        pass

    def interrupted(self) -> None:
        pass


class LosesRefusals(Lane):
    """Takes a finished cell for wholly stored."""

    def enter(self, piece: Piece, *, has_log: bool) -> Passage:
        passage = super().enter(piece, has_log=has_log)
        passage.too_old = passage.taken  # type: ignore[method-assign]
        return passage


MUTANTS = {
    "never looks": NeverLooks,
    "trusts a log that exists": TrustsALogThatExists,
    "loses refusals": LosesRefusals,
}


@settings(max_examples=400, deadline=None)
@given(SCRIPTS)
def test_every_row_is_stored_once_whoever_pauses_and_whatever_is_forgotten(numbers: list[int]):
    World().run(numbers)


@settings(max_examples=200, deadline=None)
@given(SCRIPTS)
def test_without_a_log_every_row_is_stored_once_as_long_as_nobody_pauses(numbers: list[int]):
    World(has_log=False, pauses=False).run(numbers)


@pytest.mark.parametrize("mutant", [*MUTANTS, "no fence"])
def test_protocol_with_a_step_left_out_is_found_out(mutant: str):
    assert finds_violation(lambda numbers: World(mutant).run(numbers))


@pytest.mark.parametrize(("kind", "count"), [(Lane, 1), (NeverDoubtsAgain, 2)])
def test_owner_that_slept_while_another_wrote_and_was_forgotten_looks_up(
    kind: type[Lane], count: int
):
    """The log forgets twice, before and after the other one's write: too long a way for chance."""
    server, row = Server(), Row("c", cells.CELL, {})

    def write(lane: Lane) -> None:
        passage = lane.enter(pieces([row])[0], has_log=True)
        while passage.do is not Do.NOTHING:
            if passage.do is Do.LOOK_UP:
                passage.looked_up({0} if row.offset in server.stored else ())
            else:
                passage.taken(server.insert(Command(passage.piece, True, 0.0, None), 0.0)[1])

    sleeper = kind(sure_from=1)
    server.forget()
    write(Lane())
    server.forget()
    sleeper.rested(2 * LOG_KEPT_S)
    write(sleeper)
    assert Counter(server.stored) == {row.offset: count}


def test_command_that_arrives_after_the_log_was_forgotten_is_beyond_the_protocol():
    """The limit that docs/explanation/protocols.md states, shown."""
    assert finds_violation(lambda numbers: World("slow network").run(numbers))


def test_writers_that_both_miss_the_oplog_of_a_cell_store_twice():
    """The same for an oplog that is shorter than a cell: the one unprotected send."""
    server = Server(stored=[0], cell=0, executed={0}, is_log_cut=True)
    piece = pieces([Row("c", offset, {}) for offset in range(3)])[0]
    both = [Lane().enter(piece, has_log=True) for _ in range(2)]
    for passage in both:
        passage.looked_up({0})
        answer, _ = server.insert(Command(passage.piece, True, 0.0, None), 0.0)
        assert answer == "log gone"
        passage.log_gone()
        passage.looked_up({0})
        assert passage.do is Do.SEND_BARE
    for passage in both:
        passage.taken(server.insert(Command(passage.piece, False, 0.0, None), 0.0)[1])
        assert passage.do is Do.NOTHING
    assert Counter(server.stored) == {0: 1, 1: 2, 2: 2}


def test_without_a_log_a_paused_writer_stores_twice():
    """The limit of a stand-alone server."""
    assert finds_violation(lambda numbers: World(has_log=False).run(numbers))


def test_steps_out_of_order_are_mistakes_of_the_program():
    lane = Lane()
    passage = lane.enter(pieces([Row("c", 0, {})])[0], has_log=True)
    with pytest.raises(RuntimeError, match="doubted"):
        passage.taken()
    passage.looked_up(())
    with pytest.raises(RuntimeError, match="ready"):
        passage.looked_up(())
    passage.taken()
    assert lane.sure_from == 1
    with pytest.raises(RuntimeError, match="done"):
        passage.too_old()


def test_doubt_returns_well_before_a_server_forgets():
    assert lanes.SURE_FOR_S + DEADLINE_S < LOG_KEPT_S / 2
