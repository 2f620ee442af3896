"""The tail of the stream: outages, rubbish and falling behind. Trouble is scripted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from matchday.clock import ManualClock
from matchday.dashboard import live
from matchday.dashboard.board import Board
from matchday.dashboard.live import LEDGER_LINES_MAX, Tail, Watch, take
from matchday.dashboard.state import DashboardState
from matchday.domain.account import Account, Counts, account_of
from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.errors import UnavailableError
from matchday.observe import metrics
from matchday.ports import LinkState, Partition, Start, StreamRecord


def record(source: str, *, value: bytes | None = None, topic: Topic = Topic.ANALYTICS):
    reading = Scalar(source=source, t_ms=1_700_000_000_000, quantity="q", value=1.0)
    return StreamRecord(
        topic, 0, 0, 0, b"k", value if value is not None else encode_reading(reading)
    )


class ScriptedReader:
    """Gives what `polls` says, one entry a poll; an error is raised, a callable called."""

    def __init__(self, polls: list) -> None:
        self.polls = polls
        self.is_closed = False

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        step = self.polls.pop(0)
        if isinstance(step, UnavailableError):
            raise step
        return step() if isinstance(step, Callable) else step

    def is_at_end(self) -> bool:
        return not self.polls

    def offsets(self) -> Mapping[Partition, int]:
        return {}

    def close(self) -> None:
        self.is_closed = True


class ScriptedStream:
    """Hands out the readers it was given, in order; None raises as an unreachable stream."""

    def __init__(self, readers: list) -> None:
        self.readers = readers
        self.starts: list[Start] = []

    def reader(self, topics: Sequence[Topic], start: Start) -> ScriptedReader:
        self.starts.append(start)
        found = self.readers.pop(0)
        if found is None:
            raise UnavailableError("reading the stream: refused")
        return found


class World:
    def __init__(self, readers: Callable[[World], list]) -> None:
        self.clock = ManualClock()
        self.stop = threading.Event()
        self.board = Board([], clock=self.clock)
        self.stream = ScriptedStream(readers(self))
        self.state = DashboardState(
            query=None,  # type: ignore[arg-type] - not asked here
            account=lambda: Account(()),
            links=lambda: [LinkState("store", True, 5)],
            stream=lambda: self.stream,  # type: ignore[arg-type,return-value]
            clock=self.clock,
        )
        self.tail = Tail(self.state, self.board, stop=self.stop)
        self.seen: list[LinkState] = []

    def end(self) -> list[StreamRecord]:
        self.seen.append(self.tail.link())
        self.stop.set()
        return []

    def note(self) -> list[StreamRecord]:
        self.seen.append(self.tail.link())
        return []

    def sources(self) -> list[str]:
        return [source.source for source in self.board.sources().sources]


def test_an_outage_of_the_stream_is_waited_out_and_the_view_goes_on_at_the_end():
    world = World(
        lambda w: [
            ScriptedReader([[record("before")], UnavailableError("reading: connection reset")]),
            None,
            None,
            ScriptedReader([[record("after")], w.end]),
        ]
    )
    begin_ms = world.clock.wall_ms()
    world.tail.run()
    assert world.sources() == ["after", "before"]
    assert world.stream.starts == [Start.end()] * 4
    (link,) = world.seen
    assert link.is_up
    assert link.since_ms > begin_ms


def test_while_the_stream_is_down_the_link_keeps_the_moment_it_went_down():
    links: list[LinkState] = []

    class Watched(ManualClock):
        def wait(self, event: threading.Event, timeout_s: float) -> bool:
            links.append(world.tail.link())
            if len(links) > 4:
                event.set()
            return super().wait(event, timeout_s)

    world = World(lambda w: [None] * 6)
    clock = Watched()
    object.__setattr__(world.state, "clock", clock)
    world.tail = Tail(world.state, world.board, stop=world.stop)
    world.tail.run()
    assert {link.is_up for link in links} == {False}
    assert len({link.since_ms for link in links}) == 1
    assert clock.wall_ms() > links[0].since_ms


def test_a_view_that_falls_behind_goes_on_at_the_streams_end(monkeypatch):
    monkeypatch.setattr(live, "RECORDS_MAX", 1)
    before = metrics.PROCESS.value("matchday_dashboard_skips_total")

    def late(world: World) -> Callable[[], list[StreamRecord]]:
        def poll() -> list[StreamRecord]:
            world.clock.advance(2.0)
            return [record("old")]

        return poll

    def readers(world: World) -> list:
        flood = ScriptedReader([late(world)] * 9)
        world.flood = flood
        return [flood, ScriptedReader([world.end])]

    world = World(readers)
    world.tail.run()
    # Polls end at 2, 4 and 6 s: 4 s behind since the first, which is above the bound of 3 s.
    assert len(world.flood.polls) == 6
    assert world.flood.is_closed
    assert metrics.PROCESS.value("matchday_dashboard_skips_total") == before + 1


def test_the_stream_is_asked_rarely_while_nobody_watches():
    """Each message costs less in large batches, and a page that is closed needs no small ones."""
    waits_s: list[float] = []

    class Watched(ManualClock):
        def wait(self, event: threading.Event, timeout_s: float) -> bool:
            waits_s.append(timeout_s)
            return super().wait(event, timeout_s)

    watches: list[Watch] = []

    def come() -> list[StreamRecord]:
        watches[0].follow(is_watched=True)
        return [record("b")]

    def leave() -> list[StreamRecord]:
        watches[0].follow(is_watched=False)
        return [record("c")]

    world = World(lambda w: [ScriptedReader([[record("a")], come, leave, w.end])])
    object.__setattr__(world.state, "clock", Watched())
    world.tail = Tail(world.state, world.board, stop=world.stop)
    watches.append(Watch(world.state, world.tail, stop=world.stop))
    world.tail.run()
    assert waits_s == [live.UNWATCHED_LINGER_S, live.LINGER_S, live.UNWATCHED_LINGER_S]
    assert world.sources() == ["a", "b", "c"]


def test_a_record_in_no_known_form_is_counted_and_the_next_is_shown():
    board = Board([], clock=ManualClock())
    before = metrics.PROCESS.value("matchday_stream_undecodable_total", stage="dashboard")
    take(
        [
            record("a", value=b"\xff\x00"),
            record("a", value=b"[]", topic=Topic.RESULTS),
            record("good"),
        ],
        board,
    )
    after = metrics.PROCESS.value("matchday_stream_undecodable_total", stage="dashboard")
    assert after - before == 2
    assert [source.source for source in board.sources().sources] == ["good"]


def test_an_account_that_cannot_be_had_keeps_the_last_one_and_says_why():
    world = World(lambda w: [])
    answers = [Account(()), UnavailableError("reading the account: refused"), Account(())]

    def account() -> Account:
        answer = answers.pop(0)
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    object.__setattr__(world.state, "account", account)
    watch = Watch(world.state, world.tail, stop=world.stop)
    watch.ask()
    first = watch.slow
    watch.ask()
    second = watch.slow
    watch.ask()
    assert (first.ledger_error, second.ledger_error) == (None, "reading the account: refused")
    assert second.ledger == first.ledger
    assert watch.slow.ledger_error is None
    assert [link.name for link in watch.slow.links] == ["store", "live view"]


def test_the_live_account_has_a_bound_and_begins_with_what_does_not_add_up():
    counts = {f"sensor-{number:04}": Counts(accepted=2, stored=1) for number in range(900)}
    counts["sensor-0777"] = Counts(accepted=1, stored=2)
    world = World(lambda w: [])
    object.__setattr__(world.state, "account", lambda: account_of(counts))
    watch = Watch(world.state, world.tail, stop=world.stop)
    watch.ask()
    ledger = watch.slow.ledger
    assert ledger is not None
    assert (len(ledger.sources), ledger.source_count) == (LEDGER_LINES_MAX, 900)
    assert [line.source for line in ledger.sources[:2]] == ["sensor-0777", "sensor-0000"]
    assert (ledger.totals.received, ledger.adds_up) == (1799, False)
