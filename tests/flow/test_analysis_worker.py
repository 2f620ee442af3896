"""The analysis stage on the embedded stream: killed, fenced, shared, and still exact."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from analysis_scenario import PLAN, records_of
from flow.analysis_child import END
from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.shares import Shares
from matchday.analysis.worker import BACKOFF_S_MAX, GROUP, SERVED_S, Analysis, WorkerPolicy
from matchday.clock import ManualClock, SystemClock
from matchday.domain.account import decode_ledger
from matchday.domain.finding import Finding
from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_findings, encode_finding, encode_reading
from matchday.errors import ConfigError
from matchday.ports import (
    Assignee,
    Bookmark,
    Consumer,
    Partition,
    Record,
    Start,
    Stream,
    StreamRecord,
)
from matchday.stream.embedded import EmbeddedStream

DEADLINE_S = 60.0
TESTS = Path(__file__).parents[1]
CLOCK = SystemClock()


def end_marker(key: bytes) -> list[Record]:
    """Give two readings of one source, the second of which closes the first's window."""
    return [
        Record(
            key,
            encode_reading(Scalar(source=END + key.decode(), t_ms=t_ms, quantity="q", value=1.0)),
        )
        for t_ms in (1_000, 100_000)
    ]


def fill(folder: Path, seed: int, count: int) -> None:
    stream = EmbeddedStream(folder, clock=CLOCK)
    stream.prepare()
    producer = stream.producer("test")
    records = [Record(one.key, one.value) for one in records_of(seed, count)] + end_marker(b"g")
    for begin in range(0, len(records), 500):
        producer.commit({Topic.ANALYTICS: records[begin : begin + 500]})
    producer.close()
    stream.close()


def read_all(stream: Stream, topic: Topic) -> list[StreamRecord]:
    reader = stream.reader([topic], Start.beginning())
    records: list[StreamRecord] = []
    while not reader.is_at_end():
        records += reader.poll(timeout_s=0.0, records_max=1_000)
    reader.close()
    return records


def expected(readings: Sequence[StreamRecord]) -> list[bytes]:
    """Give what one process without any interruption would have made of the records."""
    return sorted(encode_finding(one) for one in PartitionAnalysis(PLAN).consume(readings))


@pytest.fixture(params=["embedded", "kafka"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stream]:
    """Give an empty stream of each implementation; ends the test's workers afterwards."""
    opened: Stream
    if request.param == "embedded":
        opened = EmbeddedStream(tmp_path, clock=CLOCK)
    else:
        server = request.getfixturevalue("kafka")
        from matchday.stream.kafka import KafkaStream

        prefix = f"a{uuid.uuid4().hex[:8]}."
        opened = KafkaStream(server.url, clock=CLOCK, prefix=prefix, session_timeout_ms=6_000)
    opened.prepare()
    yield opened
    for worker in Worker.running:
        worker.stop.set()
    while Worker.running:
        Worker.running.pop().end()
    opened.close()


class Worker:
    """An analysis worker on a thread of its own."""

    running: ClassVar[list[Worker]] = []

    def __init__(self, stream: Stream, *, owner: str | None = None) -> None:
        self.running.append(self)
        self.stop = threading.Event()
        policy = WorkerPolicy(tick_s=0.001, records_max=60, poll_s=0.02, bookmark_every_s=0.05)
        self.analysis = Analysis(
            stream, plan=PLAN, clock=CLOCK, rng=random.Random(1), policy=policy, owner=owner
        )
        self._thread = threading.Thread(target=self.analysis.run, args=(self.stop,), name="worker")
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


def wait_until(is_met: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not is_met():
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S:.0f} s: {what}"
        pause.wait(0.01)


def ends_of(stream: Stream) -> list[Finding]:
    """Give the findings that the end markers have made so far."""
    records = read_all(stream, Topic.RESULTS)
    findings = [one for record in records for one in decode_findings(record.value)]
    return [one for one in findings if one.sensor.startswith(END)]


def test_killed_again_and_again_it_makes_each_finding_once(tmp_path: Path) -> None:
    fill(tmp_path, seed=7, count=2_500)
    rng = random.Random(7)
    environ = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, str(TESTS / "flow/analysis_child.py"), str(tmp_path)]
    kills = 0
    is_done = False
    while not is_done:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        assert child.stdout is not None
        first = None
        patience = rng.randrange(5, 120) if kills < 6 else None
        for line in child.stdout:
            first = int(line) if first is None else first
            if patience is not None and int(line) >= first + patience:
                child.send_signal(signal.SIGKILL)
                kills += 1
                break
        child.stdout.close()
        is_done = child.wait(DEADLINE_S) == 0
    stream = EmbeddedStream(tmp_path, clock=CLOCK)
    readings = read_all(stream, Topic.ANALYTICS)
    assert kills >= 4
    assert sorted(one.value for one in read_all(stream, Topic.RESULTS)) == expected(readings)
    stream.close()


def test_workers_that_come_and_go_share_the_work_and_make_each_finding_once(
    stream: Stream,
) -> None:
    keys = [f"venue{n}".encode() for n in range(8)]
    producer = stream.producer("test")
    workers = [Worker(stream)]
    for turn in range(12):
        batch = records_of(turn, 150)
        producer.commit({Topic.ANALYTICS: [Record(keys[turn % 8], one.value) for one in batch]})
        if turn % 3 == 0:
            workers.append(Worker(stream))
        elif turn % 3 == 2:
            workers.pop(0).end()
    producer.commit({Topic.ANALYTICS: [one for key in keys for one in end_marker(key)]})
    wait_until(lambda: len(ends_of(stream)) == len(keys), "all was analysed")
    for worker in workers:
        worker.end()
    by_partition: dict[int, list[StreamRecord]] = {}
    for record in read_all(stream, Topic.ANALYTICS):
        by_partition.setdefault(record.partition, []).append(record)
    wanted = sorted(one for records in by_partition.values() for one in expected(records))
    assert len(by_partition) > 1
    assert sorted(one.value for one in read_all(stream, Topic.RESULTS)) == wanted


def test_fenced_worker_joins_again_and_repeats_nothing(stream: Stream) -> None:
    records = [Record(one.key, one.value) for one in records_of(3, 900)]
    producer = stream.producer("test")
    worker = Worker(stream, owner="analysis")
    for begin in range(0, 900, 100):
        producer.commit({Topic.ANALYTICS: records[begin : begin + 100]})
        # The name's next owner: whatever the worker has open now is refused.
        stream.producer("analysis").close()
    producer.commit({Topic.ANALYTICS: end_marker(b"g")})
    wait_until(lambda: len(ends_of(stream)) == 1, "all was analysed")
    worker.end()
    readings = read_all(stream, Topic.ANALYTICS)
    assert sorted(one.value for one in read_all(stream, Topic.RESULTS)) == expected(readings)


class Throwing(EmbeddedStream):
    """Takes the name of whoever joins away again, so that its first commit is refused."""

    joined = 0
    is_throwing = True

    def consumer(self, group: str, topics: Sequence[Topic], assignee: Assignee) -> Consumer:
        self.joined += 1
        consumer = super().consumer(group, topics, assignee)
        if self.is_throwing:
            self.producer("analysis").close()
        return consumer


class Pauses(ManualClock):
    """A clock that keeps the pauses it was asked for, and does something after some of them."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self.pauses_s: list[float] = []
        self._act = act

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.pauses_s.append(timeout_s)
        self._act(len(self.pauses_s))
        return super().wait(event, timeout_s)


def test_worker_that_is_thrown_out_as_soon_as_it_joins_comes_back_ever_less_often(
    tmp_path: Path,
) -> None:
    fill(tmp_path, seed=1, count=50)
    stream, stop = Throwing(tmp_path, clock=CLOCK), threading.Event()
    clock = Pauses(lambda count: stop.set() if count == 8 else None)
    policy = WorkerPolicy(tick_s=0.0, poll_s=0.02, bookmark_every_s=0.0)
    Analysis(
        stream, plan=PLAN, clock=clock, rng=random.Random(1), policy=policy, owner="analysis"
    ).run(stop)
    stream.close()
    assert stream.joined == 8
    assert max(clock.pauses_s[:1]) <= 0.2
    assert min(clock.pauses_s[5:]) >= BACKOFF_S_MAX / 2
    assert max(clock.pauses_s) <= BACKOFF_S_MAX


def test_worker_lets_readings_gather_for_a_tick_unless_it_is_behind(tmp_path: Path) -> None:
    fill(tmp_path, seed=1, count=50)
    stream, stop = EmbeddedStream(tmp_path, clock=CLOCK), threading.Event()
    clock = Pauses(lambda _count: stop.set())
    policy = WorkerPolicy(tick_s=0.1, records_max=20, poll_s=0.02)
    Analysis(stream, plan=PLAN, clock=clock, rng=random.Random(1), policy=policy).run(stop)
    readings = read_all(stream, Topic.ANALYTICS)
    found = sorted(one.value for one in read_all(stream, Topic.RESULTS))
    stream.close()
    assert clock.pauses_s == pytest.approx([0.1])
    assert found == expected(readings)


def test_worker_that_has_served_for_a_while_comes_back_at_once(tmp_path: Path) -> None:
    fill(tmp_path, seed=1, count=50)
    stream, stop = Throwing(tmp_path, clock=CLOCK), threading.Event()

    def act(count: int) -> None:
        if count == 6:
            stream.is_throwing = False
        elif count == 7:
            stop.set()

    clock = Pauses(act)
    policy = WorkerPolicy(tick_s=0.0, poll_s=0.02, bookmark_every_s=0.0)
    analysis = Analysis(
        stream, plan=PLAN, clock=clock, rng=random.Random(1), policy=policy, owner="analysis"
    )
    thread = threading.Thread(target=analysis.run, args=(stop,), name="worker")
    thread.start()
    wait_until(lambda: analysis.state == "running" and not stream.is_throwing, "it serves")
    clock.advance(SERVED_S)
    # It has to look at the clock before it is thrown out.
    wait_until(lambda: not analysis._attempt, "it counts anew")
    stream.producer("analysis").close()
    producer = stream.producer("test")
    producer.commit({Topic.ANALYTICS: end_marker(b"g")})
    thread.join(DEADLINE_S)
    stream.close()
    assert clock.pauses_s[5] >= BACKOFF_S_MAX / 2
    assert clock.pauses_s[6] <= 0.2


def test_late_readings_are_counted_once_in_the_ledger(stream: Stream) -> None:
    readings = [*records_of(5, 1_200), *records_of(6, 1_200)]
    analysis = PartitionAnalysis(PLAN)
    producer = stream.producer("test")
    records = [Record(b"g", one.value) for one in readings] + end_marker(b"g")
    producer.commit({Topic.ANALYTICS: records})
    for _ in range(3):
        worker = Worker(stream)
        wait_until(lambda: worker.analysis.state == "running", "it runs")  # noqa: B023
        worker.end()
    worker = Worker(stream)
    wait_until(lambda: len(ends_of(stream)) == 1, "all was analysed")
    worker.end()
    analysis.consume(read_all(stream, Topic.ANALYTICS))
    counted: dict[str, int] = {}
    for record in read_all(stream, Topic.LATE):
        for source, counts in decode_ledger(record.value).counts.items():
            counted[source] = counted.get(source, 0) + counts.late
    assert sum(counted.values()) > 10
    assert counted == analysis.take_tally().late


def test_open_windows_are_shown_before_they_are_final(stream: Stream) -> None:
    reading = Scalar(source="t", t_ms=1_000, quantity="q", value=4.0)
    worker = Worker(stream)
    stream.producer("test").commit({Topic.ANALYTICS: [Record(b"t", encode_reading(reading))]})
    wait_until(lambda: bool(worker.analysis.provisional()), "the window is open")
    (finding,) = worker.analysis.provisional()
    (status,) = worker.analysis.statuses()
    worker.end()
    assert finding.values["mean"] == 4.0
    assert (status.subject, status.state) == ("t/q", "learning")
    assert read_all(stream, Topic.RESULTS) == []
    assert worker.analysis.provisional() == []


def test_bookmark_of_a_newer_version_is_refused_with_both_numbers(stream: Stream) -> None:
    shares = Shares(PLAN, clock=CLOCK, flush=lambda: None)
    consumer = stream.consumer(GROUP, [Topic.ANALYTICS], shares)
    place = Partition(Topic.ANALYTICS, 0)

    def is_member() -> bool:
        consumer.poll(timeout_s=0.05, records_max=1)
        return place in consumer.ends()

    wait_until(is_member, "it is in the group")
    consumer.commit({place: Bookmark(0, '{"format": 2, "rewind": 0}')})
    consumer.close()
    worker = Analysis(stream, plan=PLAN, clock=CLOCK, rng=random.Random(1))
    with pytest.raises(ConfigError, match=r"analytics/0: its bookmark has format 2, above 1"):
        worker.run(threading.Event())


def test_bookmark_set_by_hand_begins_with_empty_windows() -> None:
    shares = Shares(PLAN, clock=CLOCK, flush=lambda: None)
    place = Partition(Topic.ANALYTICS, 0)
    assert shares.assigned({place: Bookmark(7, "")}) == {place: 7}
    assert shares.assigned({place: None}) == {place: 0}


def test_partition_that_comes_back_goes_on_without_rewinding() -> None:
    shares = Shares(PLAN, clock=CLOCK, flush=lambda: shares.confirmed())
    place = Partition(Topic.ANALYTICS, 0)
    shares.assigned({place: None})
    shares.take(records_of(1, 200))
    left_at = shares.bookmarks()[place]
    assert msgspec.json.decode(left_at.metadata)["rewind"] < 200
    shares.revoked([place])
    assert shares.assigned({place: left_at}) == {place: 200}
    shares.revoked([place])
    assert shares.assigned({place: left_at._replace(offset=190)})[place] < 190
