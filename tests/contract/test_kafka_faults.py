"""What the Kafka stream promises when the broker, its network or an owner fails.

Owns the claims that only a real broker can put to the test. What every stream promises is
in the contract suite beside it.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import OFFSET_END, Message, TopicPartition
from confluent_kafka import Producer as Client
from confluent_kafka.admin import AdminClient

from matchday.clock import SystemClock
from matchday.domain.topics import PLANS, Topic
from matchday.errors import ConfigError, FencedError, UnavailableError
from matchday.ports import Bookmark, Partition, Record, Start, StreamRecord
from matchday.stream import kafka_consumer
from matchday.stream.kafka import KafkaStream
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_consumer import KafkaConsumer
from matchday.stream.kafka_producer import KafkaProducer
from matchday.stream.kafka_records import fetch
from servers.kafka import Kafka
from servers.process import wait_until

LEDGER, ANALYTICS = Topic.LEDGER, Topic.ANALYTICS
LEDGER_0 = Partition(LEDGER, 0)
IO_TIMEOUT_S = 3.0
# The time-out, and what the machine may be late by.
BOUND_S = 2 * IO_TIMEOUT_S
SESSION_TIMEOUT_MS = 6_000
DEADLINE_S = 60.0


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def broker(fresh_kafka: Callable[..., Kafka]) -> Kafka:
    return fresh_kafka()


@pytest.fixture
def stream(broker: Kafka, opened: ExitStack) -> KafkaStream:
    return open_stream(broker, opened)


@pytest.fixture
def shared(kafka: Kafka, opened: ExitStack) -> KafkaStream:
    """Give a stream of the test's own on the broker that all tests share."""
    return open_stream(kafka, opened, prefix=f"t{uuid.uuid4().hex[:8]}.")


def open_stream(
    broker: Kafka, opened: ExitStack, *, prefix: str = "", instance: str = ""
) -> KafkaStream:
    stream = KafkaStream(
        broker.url,
        clock=SystemClock(),
        prefix=prefix,
        io_timeout_s=IO_TIMEOUT_S,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        poll_interval_ms_max=2 * SESSION_TIMEOUT_MS,
        instance=instance,
    )
    opened.callback(stream.close)
    stream.prepare()
    return stream


class Notes:
    """An assignee that begins at the bookmarks and writes down what it is told."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()
        self.told: list[object] = []

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        self.told.append("assigned")
        self.held |= set(bookmarks)
        return {place: mark.offset if mark else 0 for place, mark in bookmarks.items()}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.told.append("revoked")
        self.held -= set(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.told.append("lost")
        self.held -= set(partitions)

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        self.told.append((partition, wanted, first))


def numbers(first: int, count: int) -> list[Record]:
    return [Record(b"key-%d" % (n % 5), b"%d" % n) for n in range(first, first + count)]


def stored(stream: KafkaStream, *topics: Topic) -> list[int]:
    """Give the numbers stored, in order, by a reader from the beginning."""
    reader = stream.reader(topics or (LEDGER,), Start.beginning())
    found: list[StreamRecord] = []

    def at_end() -> bool:
        found.extend(reader.poll(timeout_s=0.1, records_max=1_000))
        return reader.is_at_end()

    try:
        wait_until(at_end, what="the reader is at the end", timeout_s=DEADLINE_S)
    finally:
        reader.close()
    return sorted(int(record.value) for record in found)


def joined(
    stream: KafkaStream, opened: ExitStack, notes: Notes, *, topics: Sequence[Topic] = (LEDGER,)
) -> KafkaConsumer:
    """Give a member that holds what it asked for."""
    consumer = stream.consumer("group", topics, notes)
    opened.callback(consumer.close)
    poll_until(consumer, lambda: bool(notes.held), what="it holds partitions")
    return consumer


def rest(consumer: KafkaConsumer) -> None:
    """Pause a member, and wait until its client asks for no more records."""
    consumer.pause()
    poll_until(consumer, lambda: consumer._are_partitions_paused, what="the client rests")


def poll_until(
    consumer: KafkaConsumer, condition: Callable[[], bool], *, what: str
) -> list[StreamRecord]:
    """Poll, through outages too, until the condition holds; give what came."""
    found: list[StreamRecord] = []

    def holds() -> bool:
        try:
            found.extend(consumer.poll(timeout_s=0.1, records_max=1_000))
        except FencedError:
            raise
        except UnavailableError:
            pass
        return condition()

    wait_until(holds, what=what, timeout_s=DEADLINE_S)
    return found


def patiently(make: Callable[[], KafkaProducer]) -> KafkaProducer:
    """Make a producer as soon as the broker lets it."""
    made: list[KafkaProducer] = []

    def try_once() -> bool:
        try:
            made.append(make())
        except UnavailableError:
            return False
        return True

    wait_until(try_once, what="a producer is there", timeout_s=DEADLINE_S)
    return made[0]


def seconds(call: Callable[[], object]) -> float:
    """Measure a call; an UnavailableError is one of its answers."""
    clock = SystemClock()
    begun_s = clock.monotonic_s()
    with suppress(UnavailableError):
        call()
    return clock.monotonic_s() - begun_s


# Doubt ----------------------------------------------------------------------------------


def test_broker_killed_in_mid_commit_leaves_whole_batches_and_the_doubt_is_resolved(
    broker: Kafka, stream: KafkaStream
) -> None:
    size = 200
    confirmed: set[int] = set()
    batch = 0
    for round_number in range(2):
        producer = patiently(lambda: stream.producer("owner"))
        killer = kill_once(broker, confirmed, len(confirmed) + 5 + round_number)
        with pytest.raises(UnavailableError) as doubt:
            append_for_ever(producer, batch, size, confirmed)
        batch = max(confirmed) + 1
        assert not isinstance(doubt.value, FencedError)
        with pytest.raises(UnavailableError, match="spent"):
            producer.commit({LEDGER: numbers(0, 1)})
        producer.close()
        killer.join()
        broker.start()
        heir = patiently(lambda: stream.producer("owner"))
        batches = stored(stream, LEDGER)
        assert stored(stream, ANALYTICS) == [
            one * size + extra for one in batches for extra in range(size)
        ]
        assert len(batches) == len(set(batches))
        assert confirmed <= set(batches) <= confirmed | {batch}
        heir.close()
        # Sent again only where the tail says that it is not there.
        batch = max(batches) + 1
        confirmed |= set(batches)


def kill_once(broker: Kafka, confirmed: set[int], enough: int) -> threading.Thread:
    def work() -> None:
        wait_until(lambda: len(confirmed) >= enough, what="some are confirmed")
        broker.kill()

    killer = threading.Thread(target=work, name="test.killer")
    killer.start()
    return killer


def append_for_ever(producer: KafkaProducer, batch: int, size: int, confirmed: set[int]) -> None:
    """Commit numbered batches, each with its own number in the ledger."""
    while True:
        slot = [Record(b"slot", b"%d" % batch)]
        producer.commit({ANALYTICS: numbers(batch * size, size), LEDGER: slot})
        confirmed.add(batch)
        batch += 1


_APPEND = """
import sys
from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import FencedError
from matchday.observe import logs
from matchday.ports import Record
from matchday.stream.kafka import KafkaStream
logs.configure()
stream = KafkaStream({url!r}, clock=SystemClock(), prefix={prefix!r}, io_timeout_s=3.0)
producer = stream.producer("owner")
number = 0
try:
    while True:
        producer.commit({{Topic.LEDGER: [Record(b"slot", b"%d" % number)]}})
        print(number, flush=True)
        number += 1
except FencedError:
    print("fenced", flush=True)
    producer.close()
    stream.close()
"""


def test_paused_owner_that_wakes_after_a_take_over_is_fenced(
    kafka: Kafka, opened: ExitStack
) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}."
    stream = open_stream(kafka, opened, prefix=prefix)
    code = _APPEND.format(url=kafka.url, prefix=prefix)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    opened.callback(child.stdout.close)
    opened.callback(child.wait)
    opened.callback(child.kill)
    lines = [child.stdout.readline() for _ in range(20)]
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    heir = stream.producer("owner")
    opened.callback(heir.close)
    before = stored(stream)
    heir.commit({LEDGER: numbers(1_000_000, 3)})
    os.kill(child.pid, signal.SIGCONT)
    lines += child.stdout.read().splitlines()
    assert child.wait(DEADLINE_S) == 0
    assert lines[-1] == "fenced"
    assert {int(line) for line in lines[:-1]} <= set(before)
    assert stored(stream) == [*before, 1_000_000, 1_000_001, 1_000_002]


def test_transaction_left_open_is_gone_once_the_next_owner_is_there(
    shared: KafkaStream, opened: ExitStack
) -> None:
    older = shared.producer("owner")
    opened.callback(older.close)
    older.commit({LEDGER: numbers(0, 5)})
    client = older._client
    client.begin_transaction()
    client.produce(shared._cluster.name_of(LEDGER), value=b"99", key=b"k")
    client.flush(DEADLINE_S)
    reader = shared.reader((LEDGER,), Start.at({LEDGER_0: 0}))
    opened.callback(reader.close)
    heir = shared.producer("owner")
    opened.callback(heir.close)
    # What was aborted and the marker behind it lie at the very end.
    assert stored(shared) == [0, 1, 2, 3, 4]
    heir.commit({LEDGER: numbers(5, 1)})
    assert stored(shared) == [0, 1, 2, 3, 4, 5]


def test_strict_end_is_not_reached_behind_the_open_transaction_of_another_owner(
    shared: KafkaStream, opened: ExitStack
) -> None:
    other, own = shared.producer("other"), shared.producer("own")
    opened.callback(own.close)
    other._client.begin_transaction()
    other._client.produce(shared._cluster.name_of(LEDGER), value=b"99", key=b"k")
    other._client.flush(DEADLINE_S)
    own.commit({LEDGER: numbers(0, 5)})
    reader = shared.reader((LEDGER,), Start.at({LEDGER_0: 0}))
    opened.callback(reader.close)
    # The own five are committed and cannot be seen: who looks is at an end, who decides is not.
    assert reader.is_at_end()
    with pytest.raises(UnavailableError, match="a transaction is open"):
        reader.is_at_end(is_strict=True)
    other.close()
    opened.callback(shared.producer("other").close)
    found: list[StreamRecord] = []

    def is_read() -> bool:
        found.extend(reader.poll(timeout_s=0.1, records_max=10))
        return len(found) == 5

    wait_until(is_read, what="the own records are seen", timeout_s=DEADLINE_S)
    assert reader.is_at_end(is_strict=True)


# Silence --------------------------------------------------------------------------------


def test_calls_return_in_time_while_the_broker_is_frozen(
    broker: Kafka, stream: KafkaStream, opened: ExitStack
) -> None:
    notes = Notes()
    producer, idle = stream.producer("one"), stream.producer("two")
    producer.commit({LEDGER: numbers(0, 10)})
    consumer = joined(stream, opened, notes)
    reader = stream.reader((LEDGER,), Start.end())
    broker.pause()
    calls: dict[str, Callable[[], object]] = {
        "commit": lambda: producer.commit({LEDGER: numbers(0, 10)}),
        "close after a commit": producer.close,
        "close": idle.close,
        "poll": lambda: consumer.poll(timeout_s=0.1, records_max=1),
        "bookmarks": lambda: consumer.commit({LEDGER_0: Bookmark(1)}),
        "bookmarks again": lambda: consumer.commit({LEDGER_0: Bookmark(1)}),
        "ends": consumer.ends,
        "at end": reader.is_at_end,
        "close of the reader": reader.close,
        "take over": lambda: stream.producer("one"),
        "new reader": lambda: stream.reader((LEDGER,), Start.end()),
        "prepare": stream.prepare,
        "check": stream.check,
        "topic id": lambda: stream.topic_id(LEDGER),
        "close of the consumer": consumer.close,
    }
    slow = {name: taken for name, call in calls.items() if (taken := seconds(call)) > BOUND_S}
    broker.resume()
    assert slow == {}
    assert seconds(stream.link) < 0.5


def test_producers_spent_by_outages_leave_no_client_behind(
    broker: Kafka, stream: KafkaStream, opened: ExitStack
) -> None:
    def clients() -> int:
        return sum(issubclass(type(one), Client) for one in gc.get_objects())

    def outage() -> None:
        producer = stream.producer("one")
        broker.pause()
        with pytest.raises(UnavailableError):
            producer.commit(
                {LEDGER: numbers(0, 10)}, consumer=consumer, bookmarks={LEDGER_0: Bookmark(1)}
            )
        broker.resume()
        producer.close()

    consumer = joined(stream, opened, Notes())
    before = clients()
    # A collection would hide circles of references; between two of them pass minutes.
    gc.disable()
    try:
        outage()
        wait_until(lambda: clients() <= before, what="its client is gone", timeout_s=DEADLINE_S)
    finally:
        gc.enable()


def test_stream_that_is_closed_leaves_no_client_to_the_garbage_collector(broker: Kafka) -> None:
    # That may run in the client's own thread, and the library then ends the process.
    def clients() -> int:
        return sum(issubclass(type(one), AdminClient) for one in gc.get_objects())

    gc.collect()
    before = clients()
    gc.disable()
    try:
        stream = KafkaStream(broker.url, clock=SystemClock())
        stream.prepare()
        consumer = stream.consumer("group", [LEDGER], Notes())
        reader = stream.reader((LEDGER,), Start.end())
        assert clients() == before + 1
        consumer.close()
        reader.close()
        stream.close()
        wait_until(lambda: clients() == before, what="its client is gone", timeout_s=DEADLINE_S)
        abandoned = KafkaStream(broker.url, clock=SystemClock())
        del abandoned
        assert clients() == before
    finally:
        gc.enable()


def test_link_is_lost_and_restored_with_the_broker(broker: Kafka, stream: KafkaStream) -> None:
    up = stream.link()
    broker.kill()
    wait_until(lambda: not stream.link().is_up, what="the link is down", timeout_s=DEADLINE_S)
    down = stream.link()
    broker.start()
    wait_until(lambda: stream.link().is_up, what="the link is up", timeout_s=DEADLINE_S)
    assert up.is_up
    assert up.since_ms < down.since_ms < stream.link().since_ms
    assert down.detail != up.detail == str(broker.url)


@pytest.mark.timeout(180)
def test_member_goes_on_after_an_outage_longer_than_its_session(
    broker: Kafka, stream: KafkaStream, opened: ExitStack
) -> None:
    notes = Notes()
    stream.producer("owner").commit({LEDGER: numbers(0, 10)})
    consumer = joined(stream, opened, notes)
    poll_until(consumer, lambda: consumer._next[LEDGER_0] >= 10, what="all was read")
    consumer.commit({LEDGER_0: Bookmark(4)})
    broker.kill()
    poll_until(consumer, lambda: not notes.held, what="it is told that it lost")
    broker.start()
    found = poll_until(
        consumer, lambda: consumer._next.get(LEDGER_0, 0) >= 10, what="the rest was read again"
    )
    assert notes.told == ["assigned", "lost", "assigned"]
    assert [int(record.value) for record in found][-6:] == list(range(4, 10))


# Retention and identity ------------------------------------------------------------------


def test_running_member_is_told_when_retention_passes_it(
    kafka: Kafka, shared: KafkaStream, opened: ExitStack
) -> None:
    notes = Notes()
    producer = shared.producer("owner")
    opened.callback(producer.close)
    consumer = joined(shared, opened, notes)
    rest(consumer)
    producer.commit({LEDGER: numbers(0, 10)})
    expire(kafka, shared, 7)
    consumer.resume()
    found = poll_until(consumer, lambda: consumer._next[LEDGER_0] >= 10, what="the rest was read")
    assert notes.told == ["assigned", (LEDGER_0, 0, 7)]
    assert [int(record.value) for record in found] == [7, 8, 9]


def expire(broker: Kafka, stream: KafkaStream, before: int) -> None:
    """Delete what the ledger holds before an offset, as retention does."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    place = TopicPartition(stream._cluster.name_of(LEDGER), 0, before)
    (asked,) = admin.delete_records([place]).values()
    asked.result(DEADLINE_S)


def test_member_passed_by_retention_goes_on_although_the_broker_falls_silent_just_then(
    broker: Kafka, stream: KafkaStream, opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    producer = stream.producer("owner")
    opened.callback(producer.close)
    consumer = joined(stream, opened, notes)
    consumer.commit({LEDGER_0: Bookmark(0)})
    rest(consumer)
    producer.commit({LEDGER: numbers(0, 10)})
    expire(broker, stream, 7)

    def fetch_then_silence(*args: Any, **options: Any) -> list[Message]:
        found = fetch(*args, **options)
        # The client has told that the place is gone; what there is instead cannot be asked.
        if any(message.error() is not None for message in found):
            broker.pause()
        return found

    consumer.resume()
    with monkeypatch.context() as patch:
        patch.setattr(kafka_consumer, "fetch", fetch_then_silence)
        with pytest.raises(UnavailableError, match="asking for offsets"):
            wait_until(lambda: bool(consumer.poll(timeout_s=0.1, records_max=9)), what="a record")
    broker.resume()
    found = poll_until(consumer, lambda: consumer._next.get(LEDGER_0) == 10, what="it read on")
    assert notes.told.count((LEDGER_0, 0, 7)) == 1
    assert [int(record.value) for record in found] == [7, 8, 9]


def test_reader_is_at_its_end_where_all_that_it_lacks_has_expired(
    kafka: Kafka, shared: KafkaStream, opened: ExitStack
) -> None:
    producer = shared.producer("owner")
    opened.callback(producer.close)
    producer.commit({LEDGER: numbers(0, 3)})
    reader = shared.reader((LEDGER,), Start.beginning())
    opened.callback(reader.close)
    found: list[StreamRecord] = []

    def at_end() -> bool:
        found.extend(reader.poll(timeout_s=0.1, records_max=100))
        return reader.is_at_end()

    wait_until(at_end, what="it is at the end", timeout_s=DEADLINE_S)
    # What its client fetched it would give, however old.
    places = [shared._cluster.place(LEDGER_0)]
    reader._client.pause(places)
    producer.commit({LEDGER: numbers(3, 10)})
    assert not reader.is_at_end()
    expire(kafka, shared, OFFSET_END)
    reader._client.resume(places)
    wait_until(at_end, what="it is at the end again", timeout_s=DEADLINE_S)
    producer.commit({LEDGER: numbers(13, 1)})
    wait_until(lambda: at_end() and len(found) > 3, what="it goes on", timeout_s=DEADLINE_S)
    assert [int(record.value) for record in found] == [0, 1, 2, 13]


def test_reader_on_its_way_is_not_asked_for_the_oldest_records_at_each_look_at_the_end(
    shared: KafkaStream, opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = shared.producer("owner")
    opened.callback(producer.close)
    for begin in range(0, 5_000, 500):
        producer.commit({LEDGER: numbers(begin, 500)})
    readers = [shared.reader((LEDGER,), Start.beginning()) for _ in range(5)]
    asked: list[object] = []
    firsts = Cluster.firsts

    def count(cluster: Cluster, partitions: Iterable[Partition]) -> dict[Partition, int]:
        asked.append(partitions)
        return firsts(cluster, partitions)

    monkeypatch.setattr(Cluster, "firsts", count)
    polls: list[int] = []
    for reader in readers:
        opened.callback(reader.close)
        while not reader.is_at_end():
            polls.append(len(reader.poll(timeout_s=5.0, records_max=100)))
    assert sum(polls) == len(readers) * 5_000
    # Only after a poll that gave nothing.
    assert len(asked) <= polls.count(0)


def test_quiet_partition_has_no_lag_while_another_one_is_busy(
    shared: KafkaStream, opened: ExitStack
) -> None:
    topics, late_0 = (LEDGER, Topic.LATE), Partition(Topic.LATE, 0)
    producer = shared.producer("owner")
    opened.callback(producer.close)
    producer.commit({topic: numbers(0, 1) for topic in topics})
    first = joined(shared, opened, Notes(), topics=topics)
    poll_until(first, lambda: all(first._next.values()), what="all is read")
    first.commit(dict.fromkeys(first._next, Bookmark(1)))
    first.close()
    # From now on the quiet one has nothing but the marker behind its last record.
    producer.commit({LEDGER: numbers(1, 1_000)})
    member = joined(shared, opened, Notes(), topics=topics)

    def has_no_lag() -> bool:
        producer.commit({LEDGER: numbers(0, 1)})
        # A poll that waits and gives nothing has always looked where every partition stands.
        member.poll(timeout_s=0.0, records_max=100)
        return member.ends()[late_0] == member._next[late_0]

    wait_until(has_no_lag, what="the lag is gone", timeout_s=DEADLINE_S)


def test_bookmark_beyond_the_end_is_an_error_and_not_a_silent_restart(
    shared: KafkaStream, opened: ExitStack
) -> None:
    notes = Notes()
    producer = shared.producer("owner")
    opened.callback(producer.close)
    producer.commit({LEDGER: numbers(0, 10)})
    consumer = joined(shared, opened, notes)
    consumer.commit({LEDGER_0: Bookmark(5_000)})
    consumer.close()
    notes = Notes()
    successor = shared.consumer("group", (LEDGER,), notes)
    opened.callback(successor.close)
    with pytest.raises(ConfigError, match=r"ledger\[0\] from offset 5000.*ends at 11"):
        poll_until(successor, lambda: False, what="it is refused")


# Membership -------------------------------------------------------------------------------


def test_member_under_the_name_of_another_one_replaces_it_for_good(
    kafka: Kafka, opened: ExitStack
) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}."
    older_notes, newer_notes = Notes(), Notes()
    older = joined(open_stream(kafka, opened, prefix=prefix, instance="a"), opened, older_notes)
    again = open_stream(kafka, opened, prefix=prefix, instance="a")
    joined(again, opened, newer_notes)
    with pytest.raises(FencedError):
        poll_until(older, lambda: False, what="it is fenced")
    with pytest.raises(FencedError):
        older.poll(timeout_s=0.1, records_max=1)
    assert older_notes.told == ["assigned", "lost"]
    assert newer_notes.held == {LEDGER_0}


def test_nobody_commits_bookmarks_after_being_thrown_out_of_an_empty_group(
    kafka: Kafka, shared: KafkaStream, opened: ExitStack
) -> None:
    notes = Notes()
    producer = shared.producer("owner")
    opened.callback(producer.close)
    producer.commit({LEDGER: numbers(0, 10)})
    consumer = joined(shared, opened, notes)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    _throw_out(admin, consumer)
    with pytest.raises(FencedError):
        consumer.commit({LEDGER_0: Bookmark(3)})
    with pytest.raises(FencedError):
        producer.commit({}, consumer=consumer, bookmarks={LEDGER_0: Bookmark(3)})
    heir = Notes()
    other = shared.consumer("group", (LEDGER,), heir)
    opened.callback(other.close)
    found = poll_until(other, lambda: other._next.get(LEDGER_0, 0) >= 10, what="it reads")
    assert [int(record.value) for record in found] == list(range(10))


def _throw_out(admin: AdminClient, consumer: KafkaConsumer) -> None:
    """Make the group forget its member, as it does after its session time-out."""
    clock, never = SystemClock(), threading.Event()
    # Without polls the client leaves by itself after its poll interval; the group is empty then.
    deadline_s = clock.monotonic_s() + DEADLINE_S
    group = consumer._settings["group.id"]
    while clock.monotonic_s() < deadline_s:
        found = admin.describe_consumer_groups([group])[group].result(DEADLINE_S)
        if not found.members:
            return
        clock.wait(never, 0.2)
    raise AssertionError("the group kept its member")


# Settings ---------------------------------------------------------------------------------


def test_settings_of_a_topic_are_checked_and_named_with_both_values(
    kafka: Kafka, opened: ExitStack
) -> None:
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

    stream = open_stream(kafka, opened, prefix=f"t{uuid.uuid4().hex[:8]}.")
    name = stream._cluster.name_of(LEDGER)
    changes = {"retention.ms": "60000", "unclean.leader.election.enable": "true"}
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in changes.items()
    ]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result(DEADLINE_S)
    planned = str(PLANS[LEDGER].retention_ms)
    wait_until(lambda: stream.check() != [], what="the change is in force")
    with pytest.raises(ConfigError, match=rf"{name}: retention.ms is 60000.*{planned}"):
        stream.prepare()
    found = stream.check()
    assert any("retention.ms is 60000" in line for line in found)
    assert any("unclean.leader.election.enable is true" in line for line in found)


def test_partitions_other_than_planned_can_be_said(kafka: Kafka, opened: ExitStack) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}."
    two = {Topic.SLOTS: 2}
    stream = KafkaStream(kafka.url, clock=SystemClock(), prefix=prefix, partitions=two)
    opened.callback(stream.close)
    stream.prepare()
    assert stream.check() == []
    fewer = open_again(kafka, opened, prefix)
    fewer.prepare()
    assert fewer.check() == []


def open_again(broker: Kafka, opened: ExitStack, prefix: str) -> KafkaStream:
    stream = KafkaStream(broker.url, clock=SystemClock(), prefix=prefix)
    opened.callback(stream.close)
    return stream


def test_log_lines_of_the_library_do_not_reach_standard_error(
    broker: Kafka, tmp_path: Path
) -> None:
    code = (
        "from matchday.clock import SystemClock\n"
        "from matchday.errors import UnavailableError\n"
        "from matchday.observe import logs\n"
        "from matchday.stream.kafka import KafkaStream\n"
        "logs.configure(level='error')\n"
        "stream = KafkaStream('kafka://127.0.0.1:1', clock=SystemClock(), io_timeout_s=1.0)\n"
        "for ask in (stream.prepare, lambda: stream.producer('owner')):\n"
        "    try:\n"
        "        ask()\n"
        "    except UnavailableError:\n"
        "        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=DEADLINE_S, check=True
    )
    assert done.stderr == b""
