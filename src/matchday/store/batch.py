"""What persist has in hand: stream records on their way to the store, by partition.

Pure state between two writes: turns records into rows and account entries as they come,
knows what to write, where the bookmarks go and which dead letters are due. Does not talk
to stream or store (`persist`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import msgspec

from matchday.domain.account import Counts, decode_ledger
from matchday.domain.instants import iso_from_ms
from matchday.domain.topics import Topic
from matchday.errors import RefusedError
from matchday.ports import (
    Bookmark,
    Entry,
    Partition,
    PartitionWrite,
    Record,
    Refusal,
    Row,
    StreamRecord,
)
from matchday.store.rows import row_of_reading, rows_of

LEDGER_FORMAT: Final = 1
COUNT_MAX: Final = 2**53
DEAD_LETTER_BYTES_MAX: Final = 12 * 2**20
TRUNCATED_BYTES: Final = 64 * 2**10
DETAIL_CHARS_MAX: Final = 500
SOURCE_CHARS_MAX: Final = 200

UNDECODABLE_PREFIX: Final = "stream:"
"""Records in no known form count as refused under this and the topic's name."""
EXPIRED_PREFIX: Final = "expired:"
"""Records that retention deleted count as expired under this and `topic/partition`."""


class Batch:
    """Records in hand, turned into what the store takes; one thread's.

    Attributes:
        records_count: How many records it holds.
        bytes_count: How many bytes of record values it holds.
        undecodable: The errors of records in no known form, in the order met.
    """

    def __init__(self) -> None:
        self._parts: dict[Partition, _Part] = {}
        self.records_count = 0
        self.bytes_count = 0
        self.undecodable: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, record: StreamRecord) -> None:
        """Take a record; one in no known form becomes a dead letter and a count."""
        self.add_all((record,))

    def add_all(self, records: Sequence[StreamRecord]) -> None:
        """Take records, in their order; see `add`.

        Every reading passes here: what is the same for a run of one partition is done once.
        """
        for partition, run in _runs(records):
            part = self._part(partition, run[0].offset)
            part.records += run
            part.next_offset = run[-1].offset + 1
            self.bytes_count += sum([len(record.value) for record in run])
            make = _MAKERS.get(partition.topic, _put_rows)
            for record in run:
                try:
                    make(part, record)
                except RefusedError as error:
                    self._set_aside(part, record, error)
        self.records_count += len(records)

    def note_expired(self, partition: Partition, *, first: int, count: int) -> None:
        """Take note that retention deleted `count` records of a partition before `first`."""
        source = f"{EXPIRED_PREFIX}{partition.topic}/{partition.number}"
        part = self._part(partition, first - 1)
        part.next_offset = max(part.next_offset, first)
        part.entries.append(Entry(first - 1, source, Counts(expired=count)))

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget what came from partitions that are no longer ours; it comes to their owner."""
        for partition in partitions:
            part = self._parts.pop(partition, None)
            if part is not None:
                self.records_count -= len(part.records)
                self.bytes_count -= sum(len(record.value) for record in part.records)

    def partitions(self) -> frozenset[Partition]:
        """Give the partitions of which something is in hand."""
        return frozenset(self._parts)

    def first_offset(self, partition: Partition) -> int:
        """Give the offset of the first thing in hand of a partition."""
        return self._parts[partition].first_offset

    def writes(self) -> list[PartitionWrite]:
        """Give what the store shall take, by partition."""
        return [
            PartitionWrite(partition, part.next_offset, part.rows, part.entries)
            for partition, part in self._parts.items()
        ]

    def pairs_count(self) -> int:
        """Give how many pairs of partition and source the readings in hand have."""
        return sum(len({row.source for row in part.rows} - {None}) for part in self._parts.values())

    def bookmarks(self) -> dict[Partition, Bookmark]:
        """Give where each partition goes on once all this is stored."""
        return {partition: Bookmark(part.next_offset) for partition, part in self._parts.items()}

    def dead_letters(self, refusals: Sequence[Refusal]) -> list[Record]:
        """Give the dead letters due: of records in no known form, and of what the store refused.

        A refused dead letter makes none: it would be refused again for ever, and it is in
        the stream already.
        """
        letters = [letter for part in self._parts.values() for letter in part.letters]
        for refusal in refusals:
            partition, row = refusal.partition, refusal.row
            if partition.topic is Topic.DEAD_LETTERS:
                continue
            record = next(
                record for record in self._parts[partition].records if record.offset == row.offset
            )
            letters.append(
                dead_letter_of(
                    record,
                    reason="store_refused",
                    detail=refusal.reason,
                    source=row.source or _sensor_of(row),
                )
            )
        return letters

    def _set_aside(self, part: _Part, record: StreamRecord, error: RefusedError) -> None:
        source = f"{UNDECODABLE_PREFIX}{record.topic}"
        part.entries.append(Entry(record.offset, source, Counts(refused=1)))
        part.letters.append(
            dead_letter_of(record, reason=error.reason, detail=str(error), source=source)
        )
        self.undecodable.append(str(error))

    def _part(self, partition: Partition, offset: int) -> _Part:
        part = self._parts.get(partition)
        if part is None:
            part = self._parts[partition] = _Part(first_offset=offset, next_offset=offset)
        return part


@dataclass
class _Part:
    """What is in hand of one partition, in offset order."""

    first_offset: int
    next_offset: int
    records: list[StreamRecord] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    letters: list[Record] = field(default_factory=list)


def _runs(records: Sequence[StreamRecord]) -> Iterator[tuple[Partition, Sequence[StreamRecord]]]:
    """Split records into runs of one partition, in their order; there are far fewer of them."""
    begin = 0
    for at, record in enumerate(records):
        first = records[begin]
        if record.partition != first.partition or record.topic is not first.topic:
            yield Partition(first.topic, first.partition), records[begin:at]
            begin = at
    if records:
        yield Partition(records[begin].topic, records[begin].partition), records[begin:]


def _put_reading(part: _Part, record: StreamRecord) -> None:
    part.rows.append(row_of_reading(record.offset, record.value))


def _put_rows(part: _Part, record: StreamRecord) -> None:
    part.rows += rows_of(record)


def _put_entries(part: _Part, record: StreamRecord) -> None:
    part.entries += entries_of(record)


_MAKERS: Final[Mapping[Topic, Callable[[_Part, StreamRecord], None]]] = MappingProxyType(
    {
        Topic.ANALYTICS: _put_reading,
        Topic.LEDGER: _put_entries,
        Topic.LATE: _put_entries,
    }
)


def _sensor_of(row: Row) -> str:
    return str(row.document.get("metadata", {}).get("sensor_id", ""))


def entries_of(record: StreamRecord) -> list[Entry]:
    """Give what a record of `ledger` adds to the account, one entry per source.

    Raises:
        RefusedError: It is no ledger record (`not_a_ledger`), one of a newer format
            (`newer_format`), or holds numbers that no count can be.
    """
    try:
        ledger = decode_ledger(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RefusedError("not_a_ledger", f"decoding ledger record: {error}") from error
    if ledger.format > LEDGER_FORMAT:
        raise RefusedError(
            "newer_format", f"decoding ledger record: format {ledger.format} above {LEDGER_FORMAT}"
        )
    for source, counts in ledger.counts.items():
        values = msgspec.structs.astuple(counts)
        if min(values) < 0 or max(values) >= COUNT_MAX:
            _require_countable(source, counts, values)
    return [Entry(record.offset, source, counts) for source, counts in ledger.counts.items()]


def _require_countable(source: str, counts: Counts, values: tuple[int, ...]) -> None:
    """Refuse numbers that no count can be (RefusedError `not_a_ledger`)."""
    for name, count in zip(counts.__struct_fields__, values, strict=True):
        # A number that was missing may arrive in a later tick: `missing` goes down then.
        least = -COUNT_MAX if name == "missing" else 0
        if not least <= count < COUNT_MAX:
            raise RefusedError(
                "not_a_ledger",
                f"decoding ledger record: {name} of {source[:80]!r} is {str(count)[:40]}, "
                f"outside {least} to {COUNT_MAX}",
            )


def dead_letter_of(record: StreamRecord, *, reason: str, detail: str, source: str) -> Record:
    """Make the dead letter of a stream record: its raw bytes, with the reason in headers.

    The headers are those of ingest's dead letters, with the record's own coordinates in
    `record`. A value above 12 MiB keeps its first 64 KiB, with its length and SHA-256.
    """
    source = source[:SOURCE_CHARS_MAX]
    headers = {
        "reason": reason,
        "detail": detail[:DETAIL_CHARS_MAX],
        "topic": str(record.topic),
        "source": source,
        "time": iso_from_ms(record.time_ms),
        "record": f"{record.topic}/{record.partition}/{record.offset}",
    }
    value = record.value
    if len(value) > DEAD_LETTER_BYTES_MAX:
        headers |= {"length": str(len(value)), "sha256": sha256(value).hexdigest()}
        value = value[:TRUNCATED_BYTES]
    return Record(
        source.encode("utf-8", "replace"),
        value,
        tuple((name, text.encode("utf-8", "replace")) for name, text in headers.items()),
    )
