"""The open file of the embedded stream, and positions in it.

Owns the writer, waking those who wait for news, the state of the link, and reading ahead.
Does not own groups, ownership of names or the statements on the tables.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Final, NamedTuple, TypeVar

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, FencedError, UnavailableError
from matchday.observe.events import LinkLost, LinkRestored, emit
from matchday.ports import LinkState, Partition, StreamRecord
from matchday.sqlite import Writer, open_reader
from matchday.sqlite_errors import translated
from matchday.stream import embedded_tables as tables

T = TypeVar("T")

FILE_NAME: Final = "stream.db"
LINK_NAME: Final = "stream"
# How soon another process sees what was appended; one small query each time.
FOREIGN_POLL_S: Final = 0.05
TAKE_BYTES_MAX: Final = 32 * 2**20


class Bell:
    """Wakes the waiting threads of the process whom news in the file concerns.

    Not all of them for every commit: each would look into the file before it sleeps again,
    and a commit of bookmarks concerns nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[threading.Event, frozenset[int]] = {}

    def add(self, event: threading.Event, rows: Iterable[int]) -> None:
        """Set `event` at every ring for one of these partition row ids, from now on."""
        with self._lock:
            self._events[event] = frozenset(rows)

    def remove(self, event: threading.Event) -> None:
        """Stop setting `event`; unknown ones are ignored."""
        with self._lock:
            self._events.pop(event, None)

    def ring(self, rows: Collection[int] | None = None) -> None:
        """Set the events of those who wait for one of these partitions; None sets all."""
        with self._lock:
            for event, wanted in self._events.items():
                if rows is None or not wanted.isdisjoint(rows):
                    event.set()


class LogFile:
    """The stream's file as one process has it open: for writing and reading, or reading only.

    Safe to share between threads. Transactions run in the writer's thread, reads in the
    caller's on a connection of its own.

    Raises:
        ConfigError: The file cannot be opened, or is missing and `is_writable` is false.
    """

    def __init__(self, folder: Path, *, clock: Clock, is_writable: bool) -> None:
        self.path = folder / FILE_NAME
        self.clock = clock
        self.bell = Bell()
        self._lock = threading.Lock()
        self._link = LinkState(LINK_NAME, True, clock.wall_ms(), str(self.path))
        self._faults: dict[str, str] = {}
        # Touched by the writer's thread only.
        self._appended: set[int] = set()
        self._writer: Writer | None = None
        if is_writable:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(
                self.path,
                role="stream.writer",
                schema=tables.SCHEMA,
                after_commit=self._announce,
            )
        else:
            self._check_tables()

    @property
    def is_writable(self) -> bool:
        """Tell whether this process may write."""
        return self._writer is not None

    def write(self, job: Callable[[Connection], T]) -> T:
        """Run `job` in a durable transaction; see `matchday.sqlite.Writer.submit`."""
        if self._writer is None:
            raise RuntimeError(f"writing {self.path}: it is open for reading only")
        with self.watched("writing"):
            return self._writer.submit(job)

    def note_append(self, row: int) -> None:
        """Have those who wait for this partition woken after the transaction; for jobs only."""
        self._appended.add(row)

    def read(self, job: Callable[[Connection], T]) -> T:
        """Run `job` on a connection of its own, closed afterwards, in one view of the file."""
        with self.watched("reading"), translated("reading", self.path):
            connection = open_reader(self.path)
            try:
                connection.execute("BEGIN")
                return job(connection)
            finally:
                connection.close()

    def ids_of(self, topics: Iterable[Topic]) -> dict[Partition, int]:
        """Give the row id of every partition of these topics, sorted by topic and number.

        Raises:
            ConfigError: A topic does not exist; `prepare` makes it.
        """
        every = self.read(tables.partition_ids)
        wanted = set(topics)
        for topic in wanted - {place.topic for place in every}:
            raise ConfigError(f"opening topic {topic} in {self.path}: no such topic; prepare first")
        return {place: row for place, row in every.items() if place.topic in wanted}

    def link(self) -> LinkState:
        """Tell whether both the last transaction and the last look-up went well."""
        with self._lock:
            return self._link

    def close(self) -> None:
        """Finish what was submitted and close the file; safe to call twice."""
        if self._writer is not None:
            self._writer.close()
        self._note("writing", f"{self.path} is closed")

    def _announce(self) -> None:
        # What a job noted that was taken back wakes somebody for nothing, no more.
        if self._appended:
            rows, self._appended = self._appended, set()
            self.bell.ring(rows)

    def _check_tables(self) -> None:
        connection = open_reader(self.path)
        try:
            (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            connection.close()
        if count == 0:
            raise ConfigError(f"opening {self.path}: its owner has not prepared it yet")

    @contextmanager
    def watched(self, action: str) -> Iterator[None]:
        """Let the link follow how the block ends; `action` is "reading" or "writing"."""
        try:
            yield
        except FencedError:
            raise
        except (UnavailableError, ConfigError) as error:
            if self._note(action, str(error)):
                emit(LinkLost(link=LINK_NAME, detail=str(error)))
            raise
        if self._note(action, None):
            emit(LinkRestored(link=LINK_NAME, detail=str(self.path)))

    def _note(self, action: str, fault: str | None) -> bool:
        """Remember how an action went; tell whether that changed the link."""
        with self._lock:
            # Apart by action: a full disk can still be read, which does not make it well.
            if fault is None:
                self._faults.pop(action, None)
            else:
                self._faults[action] = fault
            is_up = not self._faults
            if self._link.is_up == is_up:
                return False
            detail = str(self.path) if is_up else next(iter(self._faults.values()))
            self._link = LinkState(LINK_NAME, is_up, self.clock.wall_ms(), detail)
            return True


class Waiter:
    """One thread's way of waiting for news of partitions, within a time-out of the clock.

    Args:
        file: Where they are.
        rows: Row ids of the partitions.
    """

    def __init__(self, file: LogFile, rows: Iterable[int]) -> None:
        self._file = file
        self._event = threading.Event()
        file.bell.add(self._event, rows)

    def until(
        self,
        attempt: Callable[[], list[StreamRecord]],
        *,
        timeout_s: float,
        pause_s_max: Callable[[], float] = lambda: float("inf"),
    ) -> list[StreamRecord]:
        """Repeat `attempt` at every news until it gives something or `timeout_s` has passed.

        `pause_s_max` says after how long to try again without news. At least one attempt.
        """
        clock = self._file.clock
        deadline_s = clock.monotonic_s() + timeout_s
        while True:
            # Cleared before looking: what comes after the look sets it again.
            self._event.clear()
            records = attempt()
            remaining_s = deadline_s - clock.monotonic_s()
            if records or remaining_s <= 0:
                return records
            foreign_s = float("inf") if self._file.is_writable else FOREIGN_POLL_S
            clock.wait(self._event, min(remaining_s, foreign_s, pause_s_max()))

    def close(self) -> None:
        """Stop listening; safe to call twice."""
        self._file.bell.remove(self._event)


class Gap(NamedTuple):
    """Records that retention deleted before they were read: `wanted` up to `first`."""

    partition: Partition
    wanted: int
    first: int


class Taken(NamedTuple):
    """What `Cursors.take` found: gaps, or else records."""

    gaps: list[Gap]
    records: list[StreamRecord]


class Cursors:
    """Where one reader stands in each of its partitions; used by one thread.

    A batch is decoded as a whole, so up to one batch per partition is kept ahead.
    """

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._connection = open_reader(file.path)
        self._cursors: dict[Partition, _Cursor] = {}

    def put(self, ids: Mapping[Partition, int], offsets: Mapping[Partition, int]) -> None:
        """Stand at these offsets in partitions with these row ids, besides those known."""
        for partition, offset in offsets.items():
            self._cursors[partition] = _Cursor(partition, ids[partition], offset)

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions with what was read ahead."""
        for partition in partitions:
            self._cursors.pop(partition, None)

    def take(self, records_max: int) -> Taken:
        """Give at most `records_max` records in order per partition, or the gaps found.

        A partition whose next record was deleted moves on to the oldest one kept; when that
        happens no records are given, so that the gaps can be told first.
        """
        begun = self.offsets()
        try:
            with self._snapshot() as held:
                return self._take(held, records_max)
        except BaseException:
            # Nothing of it is given, so all of it is looked for again.
            for partition, offset in begun.items():
                self._cursors[partition].go_to(offset)
            raise

    def is_at_end(self) -> bool:
        """Tell whether everything committed before this call has been given."""
        with self._snapshot() as held:
            return all(cursor.offset >= held[cursor.row].next for cursor in self._cursors.values())

    def offsets(self) -> dict[Partition, int]:
        """Give the offset of the next record to be given, by partition."""
        return {partition: cursor.offset for partition, cursor in sorted(self._cursors.items())}

    def ends(self) -> dict[Partition, int]:
        """Give the offset after the newest record committed, by partition."""
        with self._snapshot() as held:
            return {
                partition: held[cursor.row].next
                for partition, cursor in sorted(self._cursors.items())
            }

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._cursors.clear()
        self._connection.close()

    def _take(self, held: Mapping[int, tables.Span], records_max: int) -> Taken:
        gaps = [cursor.skip(held[cursor.row]) for cursor in self._cursors.values()]
        if found := [gap for gap in gaps if gap is not None]:
            return Taken(found, [])
        records: list[StreamRecord] = []
        for cursor in list(self._cursors.values()):
            if len(records) >= records_max:
                break
            wanted = records_max - len(records)
            records += cursor.take(self._connection, held[cursor.row], wanted)
            # The next call begins with the partitions that this one did not reach.
            self._cursors[cursor.partition] = self._cursors.pop(cursor.partition)
        return Taken([], records)

    @contextmanager
    def _snapshot(self) -> Iterator[dict[int, tables.Span]]:
        # One view of the file, so that retention cannot pass between two looks.
        with self._file.watched("reading"), translated("reading", self._file.path):
            self._connection.execute("BEGIN")
            try:
                yield tables.spans(self._connection)
            finally:
                self._connection.execute("COMMIT")


class _Cursor:
    """The next offset of one partition, and the records read ahead from there."""

    def __init__(self, partition: Partition, row: int, offset: int) -> None:
        self.partition = partition
        self.row = row
        self.go_to(offset)

    def go_to(self, offset: int) -> None:
        """Stand at an offset, with nothing at hand."""
        self.offset = offset
        self._ahead: list[StreamRecord] = []
        self._place = 0

    def skip(self, span: tables.Span) -> Gap | None:
        """Move on to the oldest record kept if the next one was deleted and is not at hand."""
        if self.offset >= span.first or self._place < len(self._ahead):
            return None
        gap = Gap(self.partition, self.offset, span.first)
        self.offset = span.first
        return gap

    def take(
        self, connection: Connection, span: tables.Span, records_max: int
    ) -> list[StreamRecord]:
        """Give the next records, reading ahead where none are at hand."""
        found = self._ahead[self._place : self._place + records_max]
        self._place += len(found)
        self.offset += len(found)
        # What retention deleted behind the records at hand is told of before it is passed.
        if len(found) == records_max or not span.first <= self.offset < span.next:
            return found
        size_bytes = 0
        rows = tables.read(connection, self.partition, partition_id=self.row, offset=self.offset)
        with closing(rows) as batches:
            for batch in batches:
                wanted = records_max - len(found)
                found += batch[:wanted]
                self._ahead, self._place = batch, min(wanted, len(batch))
                self.offset += self._place
                size_bytes += sum(len(record.value) for record in batch)
                if len(found) == records_max or size_bytes >= TAKE_BYTES_MAX:
                    break
        return found
