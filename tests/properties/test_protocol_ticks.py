"""Ingest's protocol in a model world: a broker with a session, a log with epochs, processes.

The machines are the production ones (`Ticks`, `Doubt`, `in_doubt`); broker, log and network
are models. Any process may crash, stand still for any time, or work on without knowing that
another one has taken over; requests and answers are lost or arrive late. Each mutant of the
protocol must be found out, or the test would prove nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings

from matchday.domain.account import Counts, LedgerRecord, TailEntry
from matchday.protocols.ownership import Event, Ownership, Standing
from matchday.protocols.redelivery import SESSION_LOST, Doubt, in_doubt
from matchday.protocols.ticks import Do, Fate, Ticks
from protocol_script import SCRIPTS, Script, demand, finds_violation

RECEIVE_MAX = 2


@dataclass
class Message:
    uid: int
    text: str
    is_numbered: bool


@dataclass
class CommittedTick:
    record: LedgerRecord
    accepted: list[int]
    session: int = 0


@dataclass
class Broker:
    """A broker that keeps one session: what is unacknowledged comes again, first and in order.

    Now and then it loses the session and all it held. It says so until a tick of the new one
    is in the log: that an owner hears of it and dies before is beyond the protocol.
    """

    reuses_packet_ids: bool = False
    queue: list[Message] = field(default_factory=list)
    in_flight: dict[int, Message] = field(default_factory=dict)
    connection: int = 0
    published: list[Message] = field(default_factory=list)
    session: int = 0
    session_in_log: int = 0
    lost: set[int] = field(default_factory=set)
    _packet_id: int = 0
    _is_resent: bool = True

    def publish(self, text: str, *, is_numbered: bool) -> None:
        message = Message(len(self.published), text, is_numbered)
        self.published.append(message)
        self.queue.append(message)

    def connect(self) -> int:
        self.connection += 1
        self._is_resent = False
        return self.connection

    def lose_session(self) -> None:
        self.lost.update(one.uid for one in [*self.in_flight.values(), *self.queue])
        self.in_flight.clear()
        self.queue.clear()
        self.session += 1
        self.connection += 1
        self._packet_id = 0

    def receive(self, connection: int, count: int) -> list[tuple[int, Message]]:
        if connection != self.connection:
            return []
        given = [] if self._is_resent else list(self.in_flight.items())
        self._is_resent = True
        while self.queue and len(self.in_flight) < RECEIVE_MAX and len(given) < count:
            packet_id = self._next_packet_id()
            self.in_flight[packet_id] = message = self.queue.pop(0)
            given.append((packet_id, message))
        return given

    def acknowledge(self, connection: int, packet_id: int) -> list[Message]:
        if connection != self.connection or packet_id not in self.in_flight:
            return []
        return [self.in_flight.pop(packet_id)]

    def _next_packet_id(self) -> int:
        if self.reuses_packet_ids:
            return next(one for one in range(1, 99) if one not in self.in_flight)
        self._packet_id += 1
        return self._packet_id


@dataclass
class Log:
    """A stream: whoever took over last may append; older epochs are refused."""

    is_fencing: bool = True
    epoch: int = 0
    ticks: list[CommittedTick] = field(default_factory=list)

    def take_over(self) -> int:
        self.epoch += 1
        return self.epoch

    def append(self, epoch: int, tick: CommittedTick) -> bool:
        if self.is_fencing and epoch != self.epoch:
            return False
        self.ticks.append(tick)
        return True


class Process:
    """The bridge as a driver of the machines, one step at a time."""

    count = 0

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.ticks = world.make_ticks(f"run{number}")
        too_few = world.mutant == "remembers one too few"
        self.doubt = Doubt(entries_max=RECEIVE_MAX - too_few)
        self.known: set[int] = set()
        self.epoch = self.connection = self.session = 0
        self.is_resumed = True
        self.deliveries: list[tuple[int, Message]] = []
        self.tick = CommittedTick(LedgerRecord(slot="s", tick="", ts=""), [])

    def step(self, script: Script) -> bool:
        """Do what is due; tell whether the process goes on."""
        do = self.ticks.do
        if do is Do.TAKE_OVER:
            self.epoch = self.world.log.take_over()
            self.ticks.took_over()
        elif do is Do.WARM:
            ticks = [tick.record for tick in self.world.log.ticks]
            numbered = [one.uid for one in self.world.broker.published if one.is_numbered]
            accepted = {uid for tick in self.world.log.ticks for uid in tick.accepted}
            self.known = accepted & set(numbered)
            self.doubt.restarted(in_doubt(ticks))
            self.ticks.warmed(ticks[-1].tick if ticks else "")
        elif do is Do.GATHER:
            self._gather(script)
        elif do is Do.SEND:
            self._send(script)
        elif do is Do.SEARCH:
            self.ticks.searched([tick.record.tick for tick in self.world.log.ticks[-5:]])
        elif do is Do.ACKNOWLEDGE:
            self._acknowledge(script)
        return self.ticks.do is not Do.DROP

    def _gather(self, script: Script) -> None:
        broker = self.world.broker
        if self.connection == 0 or script.pick([False] * 5 + [True]):
            self.connection = broker.connect()
            self.session = broker.session
            self.is_resumed = broker.session_in_log == broker.session
            if self.world.mutant == "dies with what it heard":
                broker.session_in_log = broker.session
        self.deliveries = broker.receive(self.connection, script.pick([2, 1]))
        if not self.deliveries:
            if broker.connection != self.connection:
                self.connection = 0
            return
        is_resumed = self.is_resumed or self.world.mutant == "ignores a lost session"
        accepted, tail, duplicates = [], list[TailEntry](), 0
        if self.doubt.connected("", self.connection, is_resumed=is_resumed):
            tail += [SESSION_LOST] * (self.world.mutant != "notes no lost session")
        for packet_id, message in self.deliveries:
            if message.is_numbered:
                is_new = message.uid not in self.known
                self.known.add(message.uid)
            else:
                is_new = not self.doubt.is_repeated("", packet_id, message.text)
                if is_new:
                    tail.append(TailEntry("", packet_id, message.text))
            if is_new:
                accepted.append(message.uid)
            else:
                duplicates += 1
        counts = {"s": Counts(accepted=len(accepted), duplicate=duplicates)}
        name = self.ticks.gathered()
        record = LedgerRecord(slot="s", tick=name, ts="", counts=counts, tail=tuple(tail))
        self.tick = CommittedTick(record, accepted, self.session)

    def _send(self, script: Script) -> None:
        fate = script.pick(["answered", "request lost", "answer lost", "answered", "late"])
        if fate == "request lost":
            self.ticks.unanswered()
        elif fate == "late":
            self.world.network.append((self.epoch, self.tick))
            self.ticks.unanswered()
        elif not self.world.append(self.epoch, self.tick):
            self.ticks.refused()
        elif fate == "answer lost":
            self.ticks.unanswered()
        else:
            self.ticks.confirmed()

    def _acknowledge(self, script: Script) -> None:
        if "forgets" not in self.world.mutant:
            self.doubt.committed(self.tick.record.tail)
        if script.pick([False] * 2 + [True]):
            self.world.broker.connect()  # the connection breaks, and with it the PUBACKs
        for packet_id, _ in self.deliveries:
            for message in self.world.broker.acknowledge(self.connection, packet_id):
                self.world.acknowledged.append(message.uid)
        self.ticks.acknowledged()


class World:
    """Everything there is, and what must hold of it at every moment."""

    def __init__(self, mutant: str = "") -> None:
        self.mutant = mutant
        self.broker = Broker(reuses_packet_ids=mutant == "reused packet ids")
        self.log = Log(is_fencing=mutant != "no fence")
        self.network: list[tuple[int, CommittedTick]] = []
        self.processes: list[Process] = []
        self.acknowledged: list[int] = []
        self.started = 0

    def make_ticks(self, run_id: str) -> Ticks:
        return MUTANTS.get(self.mutant, Ticks)(run_id)

    def start(self) -> Process:
        self.started += 1
        process = Process(self, self.started)
        self.processes.append(process)
        return process

    def append(self, epoch: int, tick: CommittedTick) -> bool:
        is_there = self.log.append(epoch, tick)
        if is_there:
            self.broker.session_in_log = max(self.broker.session_in_log, tick.session)
        return is_there

    def run(self, numbers: Sequence[int]) -> None:
        script = Script(numbers)
        self.start()
        while not script.is_over:
            self._act(script)
            self.check()
        self.settle()

    def _act(self, script: Script) -> None:
        what = script.pick(["step"] * 9 + ["publish"] * 4 + ["arrive", "crash", "start", "lose"])
        if what == "publish" and len(self.broker.published) < 12:
            self.broker.publish(script.pick("ab"), is_numbered=script.pick([False, False, True]))
        elif what == "arrive" and self.network:
            self.append(*self.network.pop(script.pick(range(len(self.network)))))
        elif what == "lose":
            self.broker.lose_session()
        elif what == "start" and len(self.processes) < 3:
            self.start()
        elif self.processes:
            process = script.pick(self.processes)
            if what == "crash" or (what == "step" and not process.step(script)):
                self.processes.remove(process)

    def check(self) -> None:
        stored = Counter(uid for tick in self.log.ticks for uid in tick.accepted)
        demand(max(stored.values(), default=0) <= 1, "a message is in the log twice")
        demand(set(self.acknowledged) <= set(stored), "acknowledged and not in the log")
        demand(
            self.acknowledged == sorted(self.acknowledged), "acknowledged out of order of arrival"
        )
        counted = sum(one.record.counts["s"].accepted for one in self.log.ticks)
        demand(counted == stored.total(), "the account does not add up")

    def settle(self) -> None:
        """Let everybody but one go, without faults, and demand that all work gets done."""
        self.processes.clear()
        quiet = Script([])
        process = self.start()
        for _ in range(200):
            demand(process.step(quiet), "the only owner was refused")
            self.check()
        for request in self.network:
            self.append(*request)
        self.check()
        stored = {uid for tick in self.log.ticks for uid in tick.accepted}
        everything = set(range(len(self.broker.published)))
        demand(stored | self.broker.lost == everything, "something never arrived")
        demand(not self.broker.in_flight, "something was never acknowledged")


class SendsAgain(Ticks):
    """Sends a tick again without taking over and looking for it."""

    def unanswered(self) -> None:
        if self.fate is not Fate.UNSENT:
            super().unanswered()


class AcknowledgesFirst(Ticks):
    """Acknowledges as soon as a tick is gathered, and commits afterwards."""

    _is_acknowledged = False

    @property
    def do(self) -> Do:
        due = super().do
        return Do.ACKNOWLEDGE if due is Do.SEND and not self._is_acknowledged else due

    def acknowledged(self) -> None:
        if self.fate is Fate.UNSENT:
            self._is_acknowledged = True
        else:
            super().acknowledged()

    def confirmed(self) -> None:
        self._ownership.follow(Event.WROTE)
        self.fate, self._is_acknowledged = Fate.NOTHING, False


class SearchesWithoutFence(Ticks):
    """Looks for its tick without settling what may still arrive."""

    def unanswered(self) -> None:
        super().unanswered()
        if self.fate is Fate.UNKNOWN:
            self._ownership.follow(Event.TOOK_OVER)


class IgnoresOthers(Ticks):
    """Looks for its own tick only, not for whether anybody else has worked meanwhile."""

    def searched(self, names: Sequence[str]) -> None:
        super().searched([name for name in names if name == self.name])


MUTANTS = {
    "sends again": SendsAgain,
    "acknowledges first": AcknowledgesFirst,
    "searches without fence": SearchesWithoutFence,
    "ignores others": IgnoresOthers,
}


@settings(max_examples=500, deadline=None)
@given(SCRIPTS)
def test_every_message_is_once_in_the_log_and_acknowledged_only_then(numbers: list[int]):
    World().run(numbers)


@pytest.mark.parametrize(
    "mutant",
    [
        *MUTANTS,
        "no fence",
        "forgets what it committed",
        "remembers one too few",
        "ignores a lost session",
        "notes no lost session",
    ],
)
def test_protocol_with_a_step_left_out_is_found_out(mutant: str):
    assert finds_violation(lambda numbers: World(mutant).run(numbers))


def test_broker_that_reuses_packet_ids_at_once_is_beyond_the_protocol():
    """The limit that docs/explanation/protocols.md states, shown."""
    assert finds_violation(lambda numbers: World("reused packet ids").run(numbers))


def test_session_and_then_owner_lost_before_the_next_commit_is_beyond_the_protocol():
    """The limit that docs/explanation/protocols.md states, shown."""
    assert finds_violation(lambda numbers: World("dies with what it heard").run(numbers))


@pytest.mark.parametrize("standing", list(Standing))
def test_only_an_owner_can_have_written(standing: Standing):
    ownership = Ownership()
    ownership.standing = standing
    if standing is Standing.OWNER:
        assert ownership.follow(Event.WROTE) is Standing.OWNER
        return
    with pytest.raises(RuntimeError, match="confirmed write"):
        ownership.follow(Event.WROTE)


def test_steps_out_of_order_are_mistakes_of_the_program():
    ticks = Ticks("run")
    with pytest.raises(RuntimeError, match="take over"):
        ticks.gathered()
    ticks.took_over()
    ticks.warmed()
    ticks.gathered()
    with pytest.raises(RuntimeError, match="not sent"):
        ticks.acknowledged()
    ticks.refused()
    assert ticks.do is Do.DROP
    with pytest.raises(RuntimeError, match="refused"):
        ticks.took_over()
