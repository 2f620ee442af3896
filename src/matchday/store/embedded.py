"""The embedded store: documents, bookmarks and the account in one SQLite file.

Owns the file `store.db` and its tables. A write puts rows, account and bookmark into one
transaction, which is all that "exactly once" takes here: what lies below the bookmark of
its partition is stored already and is skipped. Does not own reading back
(`embedded_query`), the shape of documents (`documents`), nor the lock of the data folder
(`matchday.sqlite.DataFolder`), which whoever starts the process holds.

One table per collection with two indexes, (source, time) and (time), beside one table of
everything: 173,000 against 164,000 rows/s in batches of 2,000, newest 100 of a source 0.12 ms
with either; and a collection can be emptied or dropped alone.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from matchday.clock import Clock
from matchday.domain.account import Counts
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import LinkState, Partition, PartitionWrite, Refusal, Row
from matchday.protocols.positions import New, new_part
from matchday.sqlite import Writer, check_format, open_reader
from matchday.sqlite_errors import translated
from matchday.store.documents import COLLECTIONS, EPOCH, coordinates_id
from matchday.store.embedded_text import text_of
from matchday.store.rows import ScalarRow

T = TypeVar("T")

FILE_NAME: Final = "store.db"
COUNTS: Final = Counts.__struct_fields__
SOURCE_IDS_KEPT: Final = 100_000

_MILLISECOND: Final = timedelta(milliseconds=1)
_DOCUMENT_COLUMNS: Final = ("source", "time_ms", "coordinates", "document")


class EmbeddedStore:
    """A `Store` in one SQLite file of a data folder; opening it makes what is missing.

    Rows of one write are durable with one fsync. A document larger than MongoDB would take
    is refused here too, so that data can move from one store to the other. A refused row
    is reported every time it is sent, and counted once: whoever dead-letters it may crash
    in between.

    Args:
        folder: The data folder; it exists and this process owns it.
        clock: Dates the state of the link and the account's last change.

    Raises:
        ConfigError: The file cannot be opened or understood; says what to do.
        UnavailableError: The disk is full or the file is locked; try again.
    """

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._clock = clock
        self._topic_ids: dict[Partition, str] = {}
        self._source_ids: dict[str, int] = {}
        self._writer = Writer(self._path, role="store.writer", schema=_schema())
        self._link = LinkState("store", True, clock.wall_ms(), str(self._path))

    def prepare(self) -> None:
        """Check the format of the folder and the tables; see `Store.prepare`."""
        check_format(self._folder)
        wrong = self.check()
        if wrong:
            raise ConfigError(f"preparing store {self._path}: {'; '.join(wrong)}")

    def check(self) -> list[str]:
        """Give what is wrong with the tables; see `Store.check`."""
        wanted: dict[str, tuple[str, ...]] = {
            document_table(name): _DOCUMENT_COLUMNS for name in COLLECTIONS
        }
        wanted["account"] = ("source", *COUNTS, "updated_ms")
        wrong = []
        connection = open_reader(self._path)
        try:
            with translated("checking", self._path):
                for table, columns in wanted.items():
                    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
                    found = tuple(name for (name,) in rows)
                    if found != columns:
                        wrong.append(f"table {table} has columns {found}, wanted {columns}")
        finally:
            connection.close()
        return wrong

    def risks(self) -> list[str]:
        """Tell that there is one copy; see the port."""
        return [
            f"{self._path} is the only copy of the store: it is lost with its disk; back it up, "
            "or use MongoDB with three members"
        ]

    def unasked(self) -> list[str]:
        """Give nothing: the file answers everything; see the port."""
        return []

    def claim(self, partition: Partition, topic_id: str) -> int | None:
        """Give the offset after the last record stored, 0 for a new topic; see `Store.claim`.

        A topic that was deleted and made again has another identity and a bookmark of its
        own, so that its first records are not taken for stored.
        """
        offset = self._submit(lambda connection: _claim(connection, partition, topic_id))
        self._topic_ids[partition] = topic_id
        return offset

    def write(self, writes: Sequence[PartitionWrite]) -> list[Refusal]:
        """Store rows and fold entries in one transaction; see `Store.write`."""
        parts = [self._prepared(write) for write in writes]
        now_ms = self._clock.wall_ms()
        known = self._source_ids
        # Only what became durable may be remembered: a job can still be taken back.
        learned = self._submit(lambda connection: _write(connection, parts, known, now_ms))
        if len(known) + len(learned) > SOURCE_IDS_KEPT:
            self._source_ids = {}
        self._source_ids.update(learned)
        return [refusal for part in parts for refusal in part.refusals]

    def settle(self) -> None:
        """Do nothing: the account was part of each write's transaction; see `Store.settle`."""

    def link(self) -> LinkState:
        """Tell whether the last write went well; see `Store.link`."""
        return self._link

    def close(self) -> None:
        """Finish what was submitted and close the file; safe to call twice."""
        self._writer.close()

    def _prepared(self, write: PartitionWrite) -> _Part:
        topic_id = self._topic_ids.get(write.partition)
        if topic_id is None:
            raise ValueError(f"writing {write.partition}: it was never claimed")
        part = _Part(write, topic_id)
        for row in write.rows:
            encoded = text_of(row)
            if isinstance(encoded, bytes):
                part.add(row, encoded)
            else:
                part.refusals.append(Refusal(write.partition, row, encoded))
        return part

    def _submit(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            result = self._writer.submit(job)
        except UnavailableError as error:
            self._note_link(False, str(error))
            raise
        self._note_link(True, str(self._path))
        return result

    def _note_link(self, is_up: bool, detail: str) -> None:
        if is_up != self._link.is_up:
            self._link = LinkState("store", is_up, self._clock.wall_ms(), detail)


@dataclass
class _Part:
    """One partition's share of a write, encoded: rows by collection, with their offsets."""

    write: PartitionWrite
    topic_id: str
    rows: dict[str, list[tuple[int, str, int, bytes]]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    def add(self, row: Row, encoded: bytes) -> None:
        """Add a row in its stored form, with its source and its event time."""
        if type(row) is ScalarRow:
            source, time_ms = row.reading.source, row.reading.t_ms
        else:
            collection = COLLECTIONS[row.collection]
            source = collection.source_of(row.document)
            time_ms = (row.document[collection.time_field] - EPOCH) // _MILLISECOND
        self.rows.setdefault(row.collection, []).append((row.offset, source, time_ms, encoded))


def document_table(collection: str) -> str:
    """Name the table of a collection; only names of `COLLECTIONS` may be asked for."""
    if collection not in COLLECTIONS:
        raise ValueError(f"naming the table of {collection!r}: no such collection")
    return f"documents_{collection}"


def _schema() -> str:
    counts = ", ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in COUNTS)
    statements = [
        "CREATE TABLE IF NOT EXISTS bookmarks (topic TEXT NOT NULL, partition INTEGER NOT NULL,"
        " topic_id TEXT NOT NULL, next_offset INTEGER NOT NULL, claim INTEGER NOT NULL,"
        " PRIMARY KEY (topic, partition, topic_id))",
        "CREATE TABLE IF NOT EXISTS account (source TEXT PRIMARY KEY NOT NULL, "
        f"{counts}, updated_ms INTEGER NOT NULL)",
        "CREATE TABLE IF NOT EXISTS sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    ]
    for name in COLLECTIONS:
        table = document_table(name)
        statements += [
            f"CREATE TABLE IF NOT EXISTS {table} (source INTEGER NOT NULL,"
            " time_ms INTEGER NOT NULL, coordinates INTEGER NOT NULL, document BLOB NOT NULL)",
            f"CREATE INDEX IF NOT EXISTS {table}_by_source ON {table} (source, time_ms)",
            f"CREATE INDEX IF NOT EXISTS {table}_by_time ON {table} (time_ms)",
        ]
    return "; ".join(statements)


def _claim(connection: sqlite3.Connection, partition: Partition, topic_id: str) -> int:
    """Note the newest identity of the topic and give its bookmark."""
    key = (str(partition.topic), partition.number, topic_id)
    connection.execute(
        "INSERT INTO bookmarks VALUES (?, ?, ?, 0,"
        " (SELECT coalesce(max(claim), 0) + 1 FROM bookmarks))"
        " ON CONFLICT DO UPDATE SET claim = excluded.claim",
        key,
    )
    (next_offset,) = connection.execute(
        "SELECT next_offset FROM bookmarks WHERE topic = ? AND partition = ? AND topic_id = ?", key
    ).fetchone()
    return int(next_offset)


def _write(
    connection: sqlite3.Connection, parts: Sequence[_Part], known: dict[str, int], now_ms: int
) -> dict[str, int]:
    """Do one write inside a transaction; give the source ids that were not known."""
    account: dict[str, Counts] = {}
    learned: dict[str, int] = {}
    for part in parts:
        partition = part.write.partition
        key = (str(partition.topic), partition.number, part.topic_id)
        (stored_to,) = connection.execute(
            "SELECT next_offset FROM bookmarks WHERE topic = ? AND partition = ? AND topic_id = ?",
            key,
        ).fetchone()
        for collection, rows in part.rows.items():
            fresh = rows
            if new_part(stored_to, first=rows[0][0], last=rows[-1][0]) is not New.ALL:
                fresh = [row for row in rows if row[0] >= stored_to]
            _insert(connection, collection, partition.number, fresh, known, learned)
        _fold(account, part, stored_to)
        connection.execute(
            "UPDATE bookmarks SET next_offset = max(next_offset, ?)"
            " WHERE topic = ? AND partition = ? AND topic_id = ?",
            (part.write.next_offset, *key),
        )
    _add_to_account(connection, account, now_ms)
    return learned


def _insert(
    connection: sqlite3.Connection,
    collection: str,
    partition: int,
    rows: Sequence[tuple[int, str, int, bytes]],
    known: dict[str, int],
    learned: dict[str, int],
) -> None:
    for source in dict.fromkeys(row[1] for row in rows):
        if source not in known and source not in learned:
            learned[source] = _source_id(connection, source)
    ids = known | learned if learned else known
    first = coordinates_id(partition, 0)
    connection.executemany(
        f"INSERT INTO {document_table(collection)} VALUES (?, ?, ?, ?)",
        [
            (ids[source], time_ms, first + offset, document)
            for offset, source, time_ms, document in rows
        ],
    )


def _source_id(connection: sqlite3.Connection, source: str) -> int:
    connection.execute("INSERT INTO sources (name) VALUES (?) ON CONFLICT DO NOTHING", (source,))
    (known_id,) = connection.execute("SELECT id FROM sources WHERE name = ?", (source,)).fetchone()
    return int(known_id)


def _fold(account: dict[str, Counts], part: _Part, stored_to: int) -> None:
    """Add what a partition's share changes in the account, from its bookmark on."""
    taken = Counter([row.source for row in part.write.rows if row.offset >= stored_to])
    for refusal in part.refusals:
        source = refusal.row.source
        if source is not None and refusal.row.offset >= stored_to:
            taken[source] -= 1
            counts = account.setdefault(source, Counts())
            counts.refused += 1
            counts.accepted -= 1
    for source, count in taken.items():
        if source is not None:
            account.setdefault(source, Counts()).stored += count
    for entry in part.write.entries:
        if entry.offset >= stored_to:
            known = account.get(entry.source)
            if known is None:
                known = account[entry.source] = Counts()
            known.add(entry.counts)


def _add_to_account(
    connection: sqlite3.Connection, account: dict[str, Counts], now_ms: int
) -> None:
    names = ", ".join(COUNTS)
    marks = ", ".join("?" * (len(COUNTS) + 2))
    sums = ", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)
    connection.executemany(
        f"INSERT INTO account (source, {names}, updated_ms) VALUES ({marks})"
        f" ON CONFLICT DO UPDATE SET {sums}, updated_ms = excluded.updated_ms",
        [(source, *msgspec.structs.astuple(counts), now_ms) for source, counts in account.items()],
    )
