"""`Store` and `Query`: where readings, findings and the account are kept for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from matchday.domain.account import Counts
from matchday.ports.link import LinkState
from matchday.ports.stream import Partition


class Row(msgspec.Struct, frozen=True, gc=False):
    """One document to store, with the coordinates of the record it comes from.

    Attributes:
        collection: Where it goes.
        offset: Offset of the record in its partition.
        document: The document in the collection's shape, times as `datetime` in UTC.
        source: The source to which it counts as stored; None for findings and such.
    """

    collection: str
    offset: int
    document: dict[str, Any]
    source: str | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Something to add to the account of one source, known by coordinates."""

    offset: int
    source: str
    counts: Counts


@dataclass(frozen=True)
class PartitionWrite:
    """What one partition contributes to a write, in offset order.

    Attributes:
        partition: The stream partition.
        next_offset: Where the store's own bookmark stands after this write.
        rows: Documents; those with a source count as stored.
        entries: Additions to the account from ledger records.
    """

    partition: Partition
    next_offset: int
    rows: Sequence[Row] = ()
    entries: Sequence[Entry] = ()


@dataclass(frozen=True)
class Refusal:
    """A row that the store can never take, with the reason; it is a dead letter."""

    partition: Partition
    row: Row
    reason: str


class Store(Protocol):
    """Where readings, findings and the account are kept for good, each exactly once."""

    def prepare(self) -> None:
        """Create missing collections and indexes, then check all of them.

        Raises:
            ConfigError: A collection exists with other options; names it and both values.
            UnavailableError: The store cannot be reached.
        """

    def check(self) -> list[str]:
        """Give what is wrong with collections and settings, one sentence each."""

    def risks(self) -> list[str]:
        """Give what nothing here can prevent as the store is set up, and what would help.

        Nothing of it is wrong; one sentence each.

        Raises:
            UnavailableError: The store cannot be reached.
        """

    def unasked(self) -> list[str]:
        """Give which questions of `check` and `risks` the login may not ask, one each.

        Raises:
            UnavailableError: The store cannot be reached.
        """

    def claim(self, partition: Partition, topic_id: str) -> int | None:
        """Take over the writing of what comes from a stream partition.

        Gives the offset after the last record stored, or None where the store relies on
        the stream's committed bookmark and resolves repeated records by itself. What earlier
        writes from there owe the account is forgotten: it comes again.

        Raises:
            UnavailableError: The store cannot be reached; try again.
        """

    def write(self, writes: Sequence[PartitionWrite]) -> list[Refusal]:
        """Store all rows, each exactly once however often it is sent.

        Rows already stored by an earlier, cut-off write or by another owner are skipped.
        A refused row is reported at every send. Several rows may share offset and collection
        (one results record with several forecasts). Rows are durable when it returns. What
        rows and entries add to the account is owed then, and added at the latest by `settle`.
        A pause of more than ten minutes costs a look-up at the next write, nothing else.

        Between two claims of a partition, writes leave nothing out: each begins at or below
        where the one before it ended, and the first at or below what was settled last, by
        whomever. So it is where bookmarks move only after `settle`.

        Raises:
            UnavailableError: Send the very same or an overlapping write again.
            FencedError: Another owner writes these partitions: drop them.
        """

    def settle(self) -> None:
        """Add to the account what earlier writes owe it, each row and entry exactly once.

        Every row with a source adds 1 to that source's `stored`. Refused rows add 1 to
        `refused` and take 1 from `accepted`, once however often they were sent. The account
        is durable when it returns; only then may the stream's bookmarks move. What was owed
        by somebody who is gone is owed by who sends the same rows again.

        Raises:
            UnavailableError: Part of it may be done; settle again, with more writes before
                it or not.
        """

    def link(self) -> LinkState:
        """Tell whether the store answers; may be called from any thread."""

    def close(self) -> None:
        """Release the connection; safe to call twice."""


@dataclass(frozen=True)
class Folded:
    """The stored account: counts by source, and how far each partition is folded in.

    Attributes:
        counts: By source.
        next_offsets: By partition, the first offset whose counts are not yet in `counts`
            for certain.
        entry_offsets: By source and partition, the last ledger offset folded into that
            source's counts; an entry above it is not in them. Stores that fold atomically
            leave it empty.
    """

    counts: dict[str, Counts]
    next_offsets: dict[Partition, int] = field(default_factory=dict)
    entry_offsets: dict[tuple[str, Partition], int] = field(default_factory=dict)


class Listed(NamedTuple):
    """A document of a list.

    Attributes:
        cursor: Where it stands in its collection, as text for an address.
        document: The document.
    """

    cursor: str
    document: dict[str, Any]


class Query(Protocol):
    """Reading back what is stored; every call may come from any thread."""

    def collections(self) -> list[str]:
        """Name the collections, sorted."""

    def newest(
        self,
        collection: str,
        *,
        limit: int,
        source: str | None = None,
        bytes_max: int | None = None,
    ) -> list[dict[str, Any]]:
        """Give the newest documents by event time, newest first, at most `limit`.

        Of the account, those that changed last.

        Args:
            collection: One of `collections`.
            limit: How many at most.
            source: Only those of this source.
            bytes_max: A field of bytes (a dead letter's `raw`) that holds more comes back
                empty, with `truncated` true and how many there are in `length`, so that a list
                of large ones stays small; None gives all whole.

        Raises:
            RefusedError: No such collection (`no_collection`).
            UnavailableError: The store cannot be reached.
        """

    def listed(
        self,
        collection: str,
        *,
        limit: int,
        source: str | None = None,
        bytes_max: int | None = None,
        after: str = "",
    ) -> list[Listed]:
        """Give documents page by page, each once; what is stored meanwhile moves none of them.

        Newest first by event time, those of one instant in one order. But the account, whose
        documents change with every reading, goes by the source's name: ordered as in `newest`,
        whatever a page had not come to yet would be in front of it by the next.

        Args:
            collection: As for `newest`.
            limit: As for `newest`.
            source: As for `newest`.
            bytes_max: As for `newest`.
            after: Only those that come after the document of this cursor, be it there or not;
                empty gives the first.

        Raises:
            RefusedError: No such collection (`no_collection`), no such cursor (`bad_cursor`).
            UnavailableError: The store cannot be reached.
        """

    def folded(self) -> Folded:
        """Give the stored part of the account."""

    def document_count_by_source(self) -> dict[str, int]:
        """Count the stored readings of every source document by document; slow."""

    def link(self) -> LinkState:
        """Tell whether the store answers."""

    def close(self) -> None:
        """Release the connection; safe to call twice."""
