"""The stream of one process: a partitioned log in one SQLite file, durable and fenced.

Owns the embedded implementation of `matchday.ports.Stream` and its producers and readers.
Does not own the lock of the data folder (`matchday.sqlite.DataFolder`), which whoever opens
the stream for writing must hold, as groups are known only within the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from matchday.clock import Clock
from matchday.domain.topics import Topic, planned, wrong_partitions
from matchday.errors import ConfigError, FencedError, UnavailableError
from matchday.ports import (
    Assignee,
    Bookmark,
    Consumer,
    LinkState,
    Partition,
    Producer,
    Reader,
    Record,
    Start,
    Stream,
    StreamRecord,
)
from matchday.stream import embedded_tables as tables
from matchday.stream.embedded_file import Cursors, LogFile, Waiter
from matchday.stream.embedded_group import EmbeddedConsumer, Group

SESSION_TIMEOUT_S: Final = 30.0
RETENTION_EVERY_S: Final = 60.0
# Bounds how long a commit can wait behind retention: some tens of milliseconds.
RETENTION_BATCHES_MAX: Final = 1000


class EmbeddedStream(Stream):
    """A stream in the file `stream.db` of a folder; see `matchday.ports.Stream`.

    What was confirmed survives SIGKILL and power loss. Commits of several threads share one
    transaction of the file. Records older than their topic's retention, by the stream's own
    time, are deleted now and then while producers commit.

    Args:
        folder: Made when missing, unless `read_only`.
        clock: Gives records their time, and tells silent members.
        read_only: Open beside the process that owns the folder: readers, `check`, `topic_id`
            and `link` work, and new records are seen within 50 ms.
        partitions: Numbers of partitions that differ from the plan, such as of ingest slots.
        retention_ms: How long topics keep their records where that differs from the plan,
            in milliseconds; holds for what is stored already, too.
        session_timeout_s: A group member that does not poll for longer loses its partitions
            to the others.

    Raises:
        ConfigError: The file cannot be opened, or is missing and `read_only` is set.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        read_only: bool = False,
        partitions: Mapping[Topic, int] | None = None,
        retention_ms: Mapping[Topic, int] | None = None,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> None:
        self._file = LogFile(folder, clock=clock, is_writable=not read_only)
        self._clock = clock
        self._plans = planned(partitions=partitions, retention_ms=retention_ms)
        self._session_timeout_s = session_timeout_s
        self._lock = threading.Lock()
        self._groups: dict[str, Group] = {}
        self._retention_due_s = float("-inf")

    def prepare(self) -> None:
        """Create missing topics and slots, then check all; see the port."""

        def create(connection: Connection) -> None:
            """Create the topics and slots that are missing, in one transaction."""
            present = tables.topic_identities(connection)
            for topic, plan in self._plans.items():
                if topic not in present:
                    tables.create_topic(connection, topic, partitions=plan.partitions)
            slots = sum(place.topic == Topic.SLOTS for place in tables.partition_ids(connection))
            lacking = range(slots, self._plans[Topic.SLOTS].partitions)
            tables.add_partitions(connection, Topic.SLOTS, numbers=lacking)

        self._file.write(create)
        if wrong := self.check():
            raise ConfigError(f"preparing {self._file.path}: {'; '.join(wrong)}")

    def check(self) -> list[str]:
        """Compare the topics with the plan; see the port."""
        present = self._file.read(tables.partition_ids)
        wrong = []
        for topic, plan in self._plans.items():
            count = sum(place.topic == topic for place in present)
            if count == 0:
                wrong.append(f"topic {topic} does not exist")
            elif (sentence := wrong_partitions(plan, count, name=topic)) is not None:
                wrong.append(sentence)
        return wrong

    def risks(self) -> list[str]:
        """Tell that there is one copy; see the port."""
        return [
            f"{self._file.path} is the only copy of the stream: it is lost with its disk; back it "
            "up, or use Kafka with three brokers"
        ]

    def unasked(self) -> list[str]:
        """Give nothing: whoever may read the file may read all of it; see the port."""
        return []

    def topic_id(self, topic: Topic) -> str:
        """Give the identity made with the topic.

        Raises:
            ConfigError: There is no such topic.
        """
        identities = self._file.read(tables.topic_identities)
        if topic not in identities:
            raise ConfigError(f"identifying topic {topic} in {self._file.path}: no such topic")
        return identities[topic]

    def producer(self, owner: str) -> Producer:
        """Become the one writer of a name; see the port."""
        ids = self._file.ids_of(self._plans)
        # Runs after every commit that was submitted before, so their fate is settled.
        epoch = self._file.write(lambda connection: tables.claim_epoch(connection, owner))
        return EmbeddedProducer(
            self._file, ids, owner=owner, epoch=epoch, before_commit=self._retain_if_due
        )

    def consumer(self, group: str, topics: Sequence[Topic], assignee: Assignee) -> Consumer:
        """Join a group of this process; see the port."""
        if not self._file.is_writable:
            raise RuntimeError(f"joining group {group}: {self._file.path} is open for reading only")
        with self._lock:
            if group not in self._groups:
                self._groups[group] = Group(
                    group,
                    clock=self._clock,
                    bell=self._file.bell,
                    session_timeout_s=self._session_timeout_s,
                )
        return EmbeddedConsumer(self._file, self._groups[group], topics, assignee)

    def reader(self, topics: Sequence[Topic], start: Start) -> Reader:
        """Read topics without a group; see the port."""
        return EmbeddedReader(self._file, topics, start)

    def enforce_retention(self, *, batches_max: int | None = None) -> int:
        """Delete what is older than its topic's retention and give how many records went.

        Args:
            batches_max: Per partition; None deletes all that is due, a bounded step at a time.

        Raises:
            UnavailableError: The file cannot be written; call again.
        """
        total = 0
        step = RETENTION_BATCHES_MAX if batches_max is None else batches_max
        while True:
            count = self._file.write(lambda connection: self._retain(connection, step))
            total += count
            if count == 0 or batches_max is not None:
                return total

    def link(self) -> LinkState:
        """Tell whether the file could be written and read the last time."""
        return self._file.link()

    def close(self) -> None:
        """Finish what was submitted and close the file; safe to call twice."""
        self._file.close()

    def _retain(self, connection: Connection, batches_max: int) -> int:
        now_ms = self._clock.wall_ms()
        held = tables.spans(connection)
        return sum(
            tables.delete_before(
                connection,
                row,
                held[row],
                time_ms=now_ms - self._plans[place.topic].retention_ms,
                batches_max=batches_max,
            )
            for place, row in tables.partition_ids(connection).items()
        )

    def _retain_if_due(self) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            if now_s < self._retention_due_s:
                return
            self._retention_due_s = now_s + RETENTION_EVERY_S
        if self.enforce_retention(batches_max=RETENTION_BATCHES_MAX):
            # There may be more: the next commit goes on.
            with self._lock:
                self._retention_due_s = now_s


class EmbeddedProducer(Producer):
    """The writer of a name in one epoch; see `matchday.ports.Producer`. Used by one thread.

    A refused commit leaves it usable; after an UnavailableError it takes nothing more.
    """

    def __init__(
        self,
        file: LogFile,
        ids: Mapping[Partition, int],
        *,
        owner: str,
        epoch: int,
        before_commit: Callable[[], None],
    ) -> None:
        self._file = file
        self._owner = owner
        self._epoch = epoch
        self._before_commit = before_commit
        self._rows: dict[Topic, list[int]] = {}
        for place, row in ids.items():
            self._rows.setdefault(place.topic, []).append(row)
        self._is_spent = False
        self._is_closed = False

    def commit(
        self,
        outputs: Mapping[Topic, Sequence[Record]],
        *,
        consumer: Consumer | None = None,
        bookmarks: Mapping[Partition, Bookmark] | None = None,
    ) -> None:
        """Append and move bookmarks in one transaction of the file; see the port."""
        if self._is_closed:
            raise RuntimeError(f"committing as {self._owner}: the producer is closed")
        if bookmarks and not isinstance(consumer, EmbeddedConsumer):
            raise TypeError(f"committing as {self._owner}: bookmarks need a consumer of the stream")
        if self._is_spent:
            raise UnavailableError(
                f"committing as {self._owner}: an earlier commit is in doubt; make a new producer"
            )
        batches = [
            batch
            for topic, records in outputs.items()
            for batch in tables.pack(topic, self._rows[topic], records)
        ]
        if not batches and not bookmarks:
            return

        def append(connection: Connection) -> None:
            """Append and move bookmarks, if no newer epoch has begun."""
            newest = tables.current_epoch(connection, self._owner)
            if newest != self._epoch:
                raise FencedError(
                    f"committing as {self._owner}: epoch {self._epoch} ended, {newest} has begun"
                )
            if bookmarks and isinstance(consumer, EmbeddedConsumer):
                consumer.put_bookmarks(connection, bookmarks=bookmarks)
            now_ms = self._file.clock.wall_ms()
            for batch in batches:
                tables.append(connection, batch, now_ms=now_ms)
                self._file.note_append(batch.partition_id)

        try:
            self._before_commit()
            self._file.write(append)
        except FencedError:
            raise
        except UnavailableError:
            self._is_spent = True
            raise

    def close(self) -> None:
        """Take no more commits; safe to call twice."""
        self._is_closed = True


class EmbeddedReader(Reader):
    """A reader of whole topics; see `matchday.ports.Reader`. Used by one thread.

    Records that retention deletes before they are read are passed over.
    """

    def __init__(self, file: LogFile, topics: Sequence[Topic], start: Start) -> None:
        ids = file.ids_of(topics)
        offsets = file.read(lambda connection: _starts(connection, ids, start))
        self._cursors = Cursors(file)
        self._cursors.put(ids, offsets)
        self._waiter = Waiter(file, ids.values())
        self._is_closed = False

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Give the next records; see the port."""
        if self._is_closed:
            raise RuntimeError("polling: the reader is closed")
        return self._waiter.until(lambda: self._take(records_max), timeout_s=timeout_s)

    def is_at_end(self, *, is_strict: bool = False) -> bool:
        """Tell whether everything committed before has been given; see the port.

        One transaction at a time writes here, so the end is always strict.
        """
        return self._cursors.is_at_end()

    def offsets(self) -> Mapping[Partition, int]:
        """Give where it stands; see the port."""
        return self._cursors.offsets()

    def close(self) -> None:
        """Close its connection; safe to call twice."""
        self._is_closed = True
        self._waiter.close()
        self._cursors.close()

    def _take(self, records_max: int) -> list[StreamRecord]:
        taken = self._cursors.take(records_max)
        while taken.gaps:
            taken = self._cursors.take(records_max)
        return taken.records


def _starts(
    connection: Connection, ids: Mapping[Partition, int], start: Start
) -> dict[Partition, int]:
    """Work out where a reader begins in each partition, within what is kept."""
    held = tables.spans(connection)

    def begin(place: Partition, row: int) -> int:
        """Give where to begin in one partition; it may be outside of what is kept."""
        span = held[row]
        if start.offsets is not None:
            return start.offsets.get(place, span.first)
        if start.last_count is not None:
            return span.next - start.last_count
        if start.since_ms is not None:
            return tables.offset_since(connection, row, span, time_ms=start.since_ms)
        return span.next

    return {
        place: min(max(begin(place, row), held[row].first), held[row].next)
        for place, row in ids.items()
    }
