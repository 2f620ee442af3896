"""What the contract suite of the stream needs: members, readers, children, records.

Owns how a test drives a stream and watches it. Does not own any claim (test_stream*.py),
nor how an implementation is opened (stream_worlds.py); nothing here asks which one it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

from contract.stream_worlds import World
from matchday.domain.topics import PLANS, Topic
from matchday.ports import (
    Bookmark,
    Consumer,
    Partition,
    Producer,
    Reader,
    Record,
    Start,
    Stream,
    StreamRecord,
)
from servers.process import wait_until

# A group of a real broker may need a full session time-out before it gives partitions on.
DEADLINE_S = 90.0
POLL_S = 0.1
BATCH_RECORDS = 10


class Recorder:
    """An assignee that begins at the bookmarks and keeps what it was told.

    Attributes:
        held: The partitions it has now.
        bookmarks: What `assigned` said of each partition the last time.
        calls: Names of the calls in order.
        expirations: Arguments of `expired`.
    """

    def __init__(self, *, offsets: Mapping[Partition, int] | None = None) -> None:
        self.held: set[Partition] = set()
        self.bookmarks: dict[Partition, Bookmark | None] = {}
        self.calls: list[str] = []
        self.expirations: list[tuple[Partition, int, int]] = []
        self.is_inside = False
        self.before_revoked: Callable[[Sequence[Partition]], None] = lambda _: None
        self._offsets = offsets or {}

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        self._note("assigned")
        assert not self.held & set(bookmarks), "assigned again without revoked or lost"
        self.held |= set(bookmarks)
        self.bookmarks.update(bookmarks)
        begun = {place: mark.offset if mark else 0 for place, mark in bookmarks.items()}
        return begun | {place: self._offsets[place] for place in self._offsets if place in begun}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self._note("revoked")
        assert set(partitions) <= self.held
        self.before_revoked(partitions)
        self.held -= set(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self._note("lost")
        assert set(partitions) <= self.held
        self.held -= set(partitions)

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        self._note("expired")
        self.expirations.append((partition, wanted, first))

    def _note(self, call: str) -> None:
        assert self.is_inside, f"{call} outside of poll and close"
        self.calls.append(call)


class Member:
    """A consumer with its recorder, and everything it has read."""

    def __init__(
        self,
        stream: Stream,
        group: str,
        topics: Sequence[Topic],
        *,
        offsets: Mapping[Partition, int] | None = None,
    ) -> None:
        self.recorder = Recorder(offsets=offsets)
        self.consumer: Consumer = stream.consumer(group, topics, self.recorder)
        self.records: list[StreamRecord] = []

    def poll(self, *, records_max: int = 500) -> list[StreamRecord]:
        """Poll once, keep and give what came."""
        self.recorder.is_inside = True
        try:
            records = self.consumer.poll(timeout_s=POLL_S, records_max=records_max)
        finally:
            self.recorder.is_inside = False
        for record in records:
            assert place_of(record) in self.recorder.held, "a record of somebody else's partition"
        self.records += records
        return records

    def close(self) -> None:
        self.recorder.is_inside = True
        self.consumer.close()
        self.recorder.is_inside = False

    def bookmarks(self, *, metadata: str = "") -> dict[Partition, Bookmark]:
        """Give bookmarks after the last record read of each partition still held."""
        return {
            place: Bookmark(offset, metadata)
            for place, offset in next_offsets(self.records).items()
            if place in self.recorder.held
        }


class Stage:
    """What a test opens, closed after it in reverse order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._stack = ExitStack()

    @property
    def stream(self) -> Stream:
        return self.world.stream

    def producer(self, owner: str | None = None) -> Producer:
        producer = self.stream.producer(owner or unique("owner"))
        self._stack.callback(producer.close)
        return producer

    def reader(self, start: Start, *topics: Topic) -> Reader:
        reader = self.stream.reader(topics or (Topic.ANALYTICS,), start)
        self._stack.callback(reader.close)
        return reader

    def member(
        self, group: str, *topics: Topic, offsets: Mapping[Partition, int] | None = None
    ) -> Member:
        member = Member(self.stream, group, topics or (Topic.ANALYTICS,), offsets=offsets)
        self._stack.callback(member.close)
        return member

    def owning_member(self, group: str, *topics: Topic) -> Member:
        """Give a member that holds every partition of its topics."""
        member = self.member(group, *topics)
        places = partitions_of(*topics or (Topic.ANALYTICS,))
        poll_until(lambda: member.recorder.held == places, member, what="it holds everything")
        return member

    def stored(self, *topics: Topic) -> list[StreamRecord]:
        """Give every record committed so far, by a reader of its own."""
        reader = self.stream.reader(topics or (Topic.ANALYTICS,), Start.beginning())
        try:
            return drain(reader)
        finally:
            reader.close()

    def reopen(self) -> None:
        """Close everything, then open the stream again as the next run of the program does."""
        self._stack.close()
        self.world.reopen()

    def close(self) -> None:
        """Close everything but the stream."""
        self._stack.close()


def unique(name: str) -> str:
    """Give a name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def place_of(record: StreamRecord) -> Partition:
    """Give the partition of a record."""
    return Partition(record.topic, record.partition)


def partitions_of(*topics: Topic) -> set[Partition]:
    """Give the planned partitions of these topics."""
    return {
        Partition(topic, number) for topic in topics for number in range(PLANS[topic].partitions)
    }


def next_offsets(records: Iterable[StreamRecord]) -> dict[Partition, int]:
    """Give, per partition, the offset after the last of these records."""
    return {place_of(record): record.offset + 1 for record in records}


def numbered(start: int, count: int, *, keys: int = 7) -> list[Record]:
    """Give records whose values are consecutive numbers, over some keys."""
    return [
        Record(key=b"key-%d" % (number % keys), value=b"%d" % number)
        for number in range(start, start + count)
    ]


def values_of(records: Iterable[StreamRecord | Record]) -> list[int]:
    """Give the values as numbers, sorted."""
    return sorted(int(record.value) for record in records)


def by_key(records: Iterable[StreamRecord | Record]) -> dict[bytes, list[bytes]]:
    """Give the values of each key in the order in which they came."""
    found: dict[bytes, list[bytes]] = {}
    for record in records:
        found.setdefault(record.key, []).append(record.value)
    return found


def drain(reader: Reader, *, records_max: int = 500) -> list[StreamRecord]:
    """Read until the reader is at its end."""
    records: list[StreamRecord] = []

    def at_end() -> bool:
        if reader.is_at_end():
            return True
        records.extend(reader.poll(timeout_s=POLL_S, records_max=records_max))
        return False

    wait_until(at_end, what="the reader reached its end", timeout_s=DEADLINE_S)
    return records


def poll_until(condition: Callable[[], bool], *members: Member, what: str) -> None:
    """Poll the members in turn until the condition holds."""

    def holds() -> bool:
        for member in members:
            if condition():
                return True
            member.poll()
        return condition()

    wait_until(holds, what=what, timeout_s=DEADLINE_S)


class Appender:
    """A child process that commits numbered batches to two topics until it is killed.

    Batch n has BATCH_RECORDS records in `analytics` and one in `ledger`; the child writes
    n to its standard output once the commit has returned.
    """

    def __init__(self, world: World, *, owner: str, first: int) -> None:
        settings = f"owner, first, size = {owner!r}, {first}, {BATCH_RECORDS}\n"
        code = _QUIET + world.code() + settings + _APPEND
        # A file, because nobody reads a pipe of errors while the child runs.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill_after
        self._child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=self._errors
        )
        self.confirmed: list[int] = []
        self._has_ended = False
        self._changed = threading.Condition()
        self._listener = threading.Thread(target=self._listen, name="test.appender")
        self._listener.start()

    def kill_after(self, confirmed: int) -> None:
        """SIGKILL the child once it has confirmed so many batches."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self.confirmed) >= confirmed or self._has_ended, DEADLINE_S
            )
        self._child.kill()
        self._child.wait()
        self._listener.join()
        with self._errors as errors:
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        assert len(self.confirmed) >= confirmed, f"confirmed too little in time; it said: {said}"

    def _listen(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                with self._changed:
                    # The kill may cut the last line short.
                    if line.endswith(b"\n"):
                        self.confirmed.append(int(line))
                    self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()


# Events go to standard error, away from the numbers.
_QUIET = """
from matchday.observe import logs
logs.configure()
"""
_APPEND = """
from matchday.domain.topics import Topic
from matchday.ports import Record
producer = stream.producer(owner)
batch = first
while True:
    numbers = range(batch * size, (batch + 1) * size)
    records = [Record(key=b"key-%d" % (n % 7), value=b"%d" % n) for n in numbers]
    ledger = [Record(key=b"slot", value=b"%d" % batch)]
    producer.commit({Topic.ANALYTICS: records, Topic.LEDGER: ledger})
    print(batch, flush=True)
    batch += 1
"""
