"""The tables of the embedded stream and every statement on them.

Owns the layout of the file and the encoding of batches. Functions take a connection and
work inside whatever transaction it is in; they know no threads, groups or clocks.

One row is one batch of one partition. Its key is made of the partition and the offset of
the batch's newest record, so the row that holds an offset is the first one not below it:
one tree serves appending, reading and retention.
"""

from __future__ import annotations

import sqlite3
import uuid
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from matchday.domain.topics import PLANS, Topic
from matchday.errors import RefusedError
from matchday.ports import Bookmark, Partition, Record, StreamRecord

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS topics (
    name TEXT PRIMARY KEY,
    identity TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    first_offset INTEGER NOT NULL DEFAULT 0,
    next_offset INTEGER NOT NULL DEFAULT 0,
    last_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    last_key INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    records BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS owners (
    name TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS bookmarks (
    group_name TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (group_name, partition_id)
) STRICT
"""

OFFSET_BITS: Final = 48
# Large enough to make rows rare, small enough to decode for a reader that wants few.
BATCH_BYTES_MAX: Final = 4 * 2**20

Headers = tuple[tuple[str, bytes], ...]
# Keys, values, and the headers of those records that have some, by position: by column,
# because that is decoded faster than one object per record.
_Columns = tuple[list[bytes], list[bytes], dict[int, Headers]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Columns)


class Span(NamedTuple):
    """What a partition holds: offsets from `first` up to, not including, `next`."""

    first: int
    next: int


class Batch(NamedTuple):
    """Records of one commit for one partition, encoded."""

    partition_id: int
    record_count: int
    records: bytes


# Topics ---------------------------------------------------------------------------------


def create_topic(connection: sqlite3.Connection, topic: Topic, *, partitions: int) -> None:
    """Create a topic with an identity of its own; it must not exist."""
    identity = str(uuid.uuid4())
    connection.execute("INSERT INTO topics (name, identity) VALUES (?, ?)", (topic, identity))
    add_partitions(connection, topic, numbers=range(partitions))


def add_partitions(connection: sqlite3.Connection, topic: Topic, *, numbers: Iterable[int]) -> None:
    """Give an existing topic partitions of these numbers, which it must not have."""
    connection.executemany(
        "INSERT INTO partitions (topic, number) VALUES (?, ?)",
        [(topic, number) for number in numbers],
    )


def topic_identities(connection: sqlite3.Connection) -> dict[str, str]:
    """Give the identity of every topic by name."""
    return dict(connection.execute("SELECT name, identity FROM topics"))


def partition_ids(connection: sqlite3.Connection) -> dict[Partition, int]:
    """Give the row id of every partition of the topics this program knows."""
    rows = connection.execute("SELECT topic, number, id FROM partitions ORDER BY topic, number")
    known = {str(topic): topic for topic in Topic}
    return {Partition(known[name], number): row for name, number, row in rows if name in known}


def spans(connection: sqlite3.Connection) -> dict[int, Span]:
    """Give what every partition holds, by row id."""
    rows = connection.execute("SELECT id, first_offset, next_offset FROM partitions")
    return {row: Span(first, following) for row, first, following in rows}


# Batches --------------------------------------------------------------------------------


def pack(topic: Topic, ids: Sequence[int], records: Iterable[Record]) -> list[Batch]:
    """Spread records over partitions by key and encode them, keeping their order.

    Args:
        topic: Its plan bounds the size of a record: key, value and headers together.
        ids: Row id of each partition of the topic, in order of number.
        records: What to append.

    Raises:
        RefusedError: A record is too large (reason `too_large`).
    """
    bytes_max = PLANS[topic].record_bytes_max
    homes: dict[bytes, list[Record]] = {}
    shares: dict[int, list[Record]] = {row: [] for row in ids}
    for record in records:
        key = record.key
        home = homes.get(key)
        if home is None:
            home = homes[key] = shares[ids[crc32(key) % len(ids)]]
        if len(key) + len(record.value) > bytes_max or record.headers:
            _check_size(topic, record, bytes_max)
        home.append(record)
    return [
        Batch(row, count, blob)
        for row, share in shares.items()
        if share
        for count, blob in _encoded(share)
    ]


def append(connection: sqlite3.Connection, batch: Batch, *, now_ms: int) -> None:
    """Append a batch to its partition at `now_ms`, or at the newest time there if later."""
    rows = connection.execute(
        "UPDATE partitions SET next_offset = next_offset + ?, last_ms = max(last_ms, ?) "
        "WHERE id = ? RETURNING next_offset, last_ms",
        (batch.record_count, now_ms, batch.partition_id),
    )
    ((next_offset, time_ms),) = rows.fetchall()
    connection.execute(
        "INSERT INTO batches (last_key, count, time_ms, records) VALUES (?, ?, ?, ?)",
        (_key(batch.partition_id, next_offset - 1), batch.record_count, time_ms, batch.records),
    )


def read(
    connection: sqlite3.Connection, partition: Partition, *, partition_id: int, offset: int
) -> Generator[list[StreamRecord], None, None]:
    """Give the records from `offset` on, batch by batch, as long as the caller asks."""
    rows = connection.execute(
        "SELECT last_key, count, time_ms, records FROM batches "
        "WHERE last_key >= ? AND last_key < ? ORDER BY last_key",
        (_key(partition_id, offset), _key(partition_id + 1, 0)),
    )
    for last_key, count, time_ms, blob in rows:
        first = (last_key & ((1 << OFFSET_BITS) - 1)) - count + 1
        records = _decoded(blob, partition, first=first, time_ms=time_ms)
        yield records[max(0, offset - first) :]


def offset_since(
    connection: sqlite3.Connection, partition_id: int, span: Span, *, time_ms: int
) -> int:
    """Give the offset of the first record appended at or after `time_ms`, else the end.

    Times do not fall within a partition, so this is a search by halves over offsets.
    """

    def appended_ms(offset: int) -> int:
        """Give when the record at an offset was appended, the stream's clock."""
        row: tuple[int] = connection.execute(
            "SELECT time_ms FROM batches WHERE last_key >= ? ORDER BY last_key LIMIT 1",
            (_key(partition_id, offset),),
        ).fetchone()
        return row[0]

    return span.first + bisect_left(range(span.first, span.next), time_ms, key=appended_ms)


def delete_before(
    connection: sqlite3.Connection, partition_id: int, span: Span, *, time_ms: int, batches_max: int
) -> int:
    """Delete the oldest batches appended before `time_ms`; give how many records went."""
    keep = offset_since(connection, partition_id, span, time_ms=time_ms)
    if keep == span.first:
        return 0
    connection.execute(
        "DELETE FROM batches WHERE last_key IN (SELECT last_key FROM batches "
        "WHERE last_key >= ? AND last_key < ? ORDER BY last_key LIMIT ?)",
        (_key(partition_id, span.first), _key(partition_id, keep), batches_max),
    )
    row = connection.execute(
        "SELECT last_key, count FROM batches WHERE last_key >= ? AND last_key < ? "
        "ORDER BY last_key LIMIT 1",
        (_key(partition_id, span.first), _key(partition_id + 1, 0)),
    ).fetchone()
    first = span.next if row is None else row[0] - _key(partition_id, 0) - row[1] + 1
    connection.execute("UPDATE partitions SET first_offset = ? WHERE id = ?", (first, partition_id))
    return int(first - span.first)


# Owners and bookmarks -------------------------------------------------------------------


def claim_epoch(connection: sqlite3.Connection, owner: str) -> int:
    """Begin a new epoch of the owner's name and give its number."""
    rows = connection.execute(
        "INSERT INTO owners (name, epoch) VALUES (?, 1) "
        "ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
        (owner,),
    )
    ((epoch,),) = rows.fetchall()
    return int(epoch)


def current_epoch(connection: sqlite3.Connection, owner: str) -> int:
    """Give the newest epoch of the owner's name, 0 if nobody ever claimed it."""
    row = connection.execute("SELECT epoch FROM owners WHERE name = ?", (owner,)).fetchone()
    return int(row[0]) if row else 0


def put_bookmarks(
    connection: sqlite3.Connection, group: str, bookmarks: Mapping[int, Bookmark]
) -> None:
    """Store bookmarks of a group by partition row id."""
    connection.executemany(
        "INSERT INTO bookmarks (group_name, partition_id, next_offset, metadata) "
        "VALUES (?, ?, ?, ?) ON CONFLICT (group_name, partition_id) DO UPDATE "
        "SET next_offset = excluded.next_offset, metadata = excluded.metadata",
        [(group, row, mark.offset, mark.metadata) for row, mark in bookmarks.items()],
    )


def get_bookmarks(connection: sqlite3.Connection, group: str) -> dict[int, Bookmark]:
    """Give all bookmarks of a group by partition row id."""
    rows = connection.execute(
        "SELECT partition_id, next_offset, metadata FROM bookmarks WHERE group_name = ?", (group,)
    )
    return {row: Bookmark(offset, metadata) for row, offset, metadata in rows}


# Encoding -------------------------------------------------------------------------------


def _key(partition_id: int, offset: int) -> int:
    return (partition_id << OFFSET_BITS) + offset


def _check_size(topic: Topic, record: Record, bytes_max: int) -> None:
    headers_bytes = sum(len(name.encode()) + len(value) for name, value in record.headers)
    size_bytes = len(record.key) + len(record.value) + headers_bytes
    if size_bytes > bytes_max:
        raise RefusedError(
            "too_large",
            f"appending to {topic}: record of {size_bytes} bytes with key {record.key[:40]!r} "
            f"above {bytes_max}",
        )


def _encoded(records: list[Record]) -> Iterator[tuple[int, bytes]]:
    columns: _Columns = (
        [record.key for record in records],
        [record.value for record in records],
        {place: record.headers for place, record in enumerate(records) if record.headers},
    )
    blob = _encoder.encode(columns)
    if len(blob) <= BATCH_BYTES_MAX or len(records) == 1:
        yield len(records), blob
    else:
        middle = len(records) // 2
        yield from _encoded(records[:middle])
        yield from _encoded(records[middle:])


def _decoded(blob: bytes, partition: Partition, *, first: int, time_ms: int) -> list[StreamRecord]:
    keys, values, headers = _decoder.decode(blob)
    topic, number = partition
    if headers:
        return [
            StreamRecord(topic, number, first + place, time_ms, key, value, headers.get(place, ()))
            for place, (key, value) in enumerate(zip(keys, values, strict=True))
        ]
    return [
        StreamRecord(topic, number, offset, time_ms, key, value)
        for offset, (key, value) in enumerate(zip(keys, values, strict=True), first)
    ]
