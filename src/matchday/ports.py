"""The promises that stages need from the outside, as protocols with complete contracts.

`Feed` takes messages in, `Stream` keeps them in order, `Store` keeps them for good,
`Query` reads them back. Each has an embedded and a real implementation, and one contract
suite runs on both. All calls are synchronous; unless a method says otherwise, one object
is used by one thread, and a call that waits on the world returns within its time-out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from matchday.domain.account import Counts
from matchday.domain.topics import Topic

# --- feed -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Deliveries:
    """Messages of one connection in the order they came: parallel sequences of equal length.

    Attributes:
        origin: Client id of the publisher, or "" behind a broker (packet ids are then the
            broker's).
        connection: Number of the connection; acknowledgements never cross connections.
        arrived_ms: Arrival time, wall clock, milliseconds UTC.
        topics: MQTT topic of each message.
        payloads: Payload of each message.
        packet_ids: MQTT packet identifier of each message; 0 for QoS 0.
    """

    origin: str
    connection: int
    arrived_ms: int
    topics: Sequence[str]
    payloads: Sequence[bytes]
    packet_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.topics)


class Feed(Protocol):
    """Messages from sensors, to be acknowledged once their fate is durable."""

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        """Wait at most `timeout_s` for messages and give those that came, oldest first.

        An empty list is normal. Messages stay unacknowledged; when `receive_max` are, the
        publishers are held back by MQTT flow control and nothing more arrives. A lost
        connection is re-established in here, with back-off; what was not acknowledged
        comes again under a new `connection` number.

        Raises:
            FencedError: Another owner took the MQTT session over: stop.
        """

    def acknowledge(self, deliveries: Deliveries) -> None:
        """Send the acknowledgements for `deliveries`; call in the order received.

        Acknowledgements for a connection that is gone are dropped silently: its messages
        are delivered again. Never blocks on the network longer than `io_timeout_s`.
        """

    def keep_alive(self) -> None:
        """Keep the connection open without taking messages; never blocks.

        Call it at least every few seconds while something else keeps `receive` from
        being called, such as a stream that does not answer.
        """

    def link(self) -> LinkState:
        """Tell the state of the connection; may be called from any thread."""

    def close(self) -> None:
        """Stop taking messages and disconnect; safe to call twice."""


@dataclass(frozen=True)
class LinkState:
    """Whether a dependency can be reached, for `/readyz`, metrics and the page.

    Attributes:
        name: Which link, such as "mqtt", "stream" or "store".
        is_up: It answered the last time it was asked.
        since_ms: Wall clock of the last change of `is_up`, milliseconds UTC.
        detail: The address without secrets, or what is wrong.
    """

    name: str
    is_up: bool
    since_ms: int
    detail: str = ""


# --- stream ---------------------------------------------------------------------------------


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: Topic
    number: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record to append; its key decides the partition. Headers cost: use them rarely."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class StreamRecord(msgspec.Struct, frozen=True, gc=False):
    """A record read back, with its coordinates and the stream's own append time.

    `time_ms` never decreases by more than clock corrections of the stream's machine; it
    is the stream's clock, neither event nor arrival time.
    """

    topic: Topic
    partition: int
    offset: int
    time_ms: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Bookmark(NamedTuple):
    """Where a consumer group goes on in a partition.

    `metadata` is at most 4 kB of text of the group's own, committed with the offset.
    """

    offset: int
    metadata: str = ""


class Assignee(Protocol):
    """The stage's side of membership in a consumer group; called from within `poll`."""

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        """Take partitions over and tell from which offset to read each.

        `None` is a partition for which the group has committed nothing; offset 0 then
        means the oldest record kept. An offset that retention has passed is reported
        through `expired`.
        """

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Give partitions up in good order: finish or abort open work before returning."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Drop the state of partitions that already belong to somebody else; commit nothing."""

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        """Learn that retention deleted the records from `wanted` up to `first`."""


class Consumer(Protocol):
    """A member of a consumer group; reads committed records in order per partition."""

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Wait at most `timeout_s` for records; an empty list is normal.

        Calls the assignee on changes of membership. Must be called at least every few
        seconds, also while paused, or the group takes the partitions away.

        Raises:
            UnavailableError: The stream cannot be reached; poll again.
        """

    def commit(self, bookmarks: Mapping[Partition, Bookmark]) -> None:
        """Store where the group goes on, durably.

        Raises:
            FencedError: The partitions belong to another member by now.
            UnavailableError: The fate is unknown; commit again.
        """

    def pause(self) -> None:
        """Let `poll` give nothing until `resume`, keeping the membership alive."""

    def resume(self) -> None:
        """Undo `pause`."""

    def ends(self) -> Mapping[Partition, int]:
        """Give, per assigned partition, the offset after its newest committed record."""

    def close(self) -> None:
        """Leave the group (calls `revoked`); safe to call twice."""


class Producer(Protocol):
    """The one owner of a name, writing whole batches atomically.

    Making a producer fences every older producer of the same name: their next commit
    raises FencedError and stores nothing.
    """

    def commit(
        self,
        outputs: Mapping[Topic, Sequence[Record]],
        *,
        consumer: Consumer | None = None,
        bookmarks: Mapping[Partition, Bookmark] | None = None,
    ) -> None:
        """Append all records to all topics and move the bookmarks, all or nothing.

        Returns only when it is durable. Order is kept within each key.

        Raises:
            FencedError: A newer producer of this name exists; nothing was stored.
            UnavailableError: The fate of the batch is unknown. This producer is spent:
                close it, make a new one (which resolves the doubt: the batch is then
                either wholly there or never will be) and read the tail.
            RefusedError: A record is larger than its topic takes; nothing was stored.
        """

    def close(self) -> None:
        """Release the connection; open work is aborted; safe to call twice."""


@dataclass(frozen=True)
class Start:
    """Where a reader begins; make it with one of the class methods.

    Exactly one of the fields is set; none at all means at the end.
    """

    since_ms: int | None = None
    last_count: int | None = None
    offsets: Mapping[Partition, int] | None = None

    @classmethod
    def end(cls) -> Start:
        """Begin after the newest record."""
        return cls()

    @classmethod
    def beginning(cls) -> Start:
        """Begin at the oldest record kept."""
        return cls(since_ms=0)

    @classmethod
    def since(cls, time_ms: int) -> Start:
        """Begin at the first record appended at or after `time_ms`, the stream's clock."""
        return cls(since_ms=time_ms)

    @classmethod
    def last(cls, count: int) -> Start:
        """Begin `count` offsets before the end of each partition (or at its oldest)."""
        return cls(last_count=count)

    @classmethod
    def at(cls, offsets: Mapping[Partition, int]) -> Start:
        """Begin at these offsets; partitions not named begin at their oldest record."""
        return cls(offsets=offsets)


class Reader(Protocol):
    """Reads committed records of whole topics, outside every group."""

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Wait at most `timeout_s` for records; an empty list is normal.

        Raises:
            UnavailableError: The stream cannot be reached; poll again.
        """

    def is_at_end(self) -> bool:
        """Tell whether every record committed before this call has been given out."""

    def offsets(self) -> Mapping[Partition, int]:
        """Give, per partition, the offset of the next record that `poll` will look for."""

    def close(self) -> None:
        """Release the connection; safe to call twice."""


class Stream(Protocol):
    """A durable, partitioned sequence of records shared by the stages.

    The factory methods may be called from any thread; what they return belongs to one.
    """

    def prepare(self) -> None:
        """Create missing topics by `domain.topics.PLANS`, then check all of them.

        Raises:
            ConfigError: A topic exists with other settings; names topic, setting and both
                values.
            UnavailableError: The stream cannot be reached.
        """

    def check(self) -> list[str]:
        """Give what is wrong with topics and settings, one sentence each; empty if nothing.

        Raises:
            UnavailableError: The stream cannot be reached.
        """

    def topic_id(self, topic: Topic) -> str:
        """Give the identity of the topic: another one after deletion and re-creation."""

    def producer(self, owner: str) -> Producer:
        """Become the one writer of this name, fencing all before; see `Producer`.

        When this returns, everything older owners committed is visible to readers and
        nothing of theirs can follow.

        Raises:
            UnavailableError: The stream cannot be reached; try again.
        """

    def consumer(self, group: str, topics: Sequence[Topic], assignee: Assignee) -> Consumer:
        """Join a consumer group; the partitions come to the assignee during `poll`."""

    def reader(self, topics: Sequence[Topic], start: Start) -> Reader:
        """Read topics from a chosen start without a group.

        Raises:
            UnavailableError: The stream cannot be reached; try again.
        """

    def link(self) -> LinkState:
        """Tell whether the stream answers; may be called from any thread."""

    def close(self) -> None:
        """Close what the stream itself holds; its producers and consumers come first."""


# --- store ----------------------------------------------------------------------------------


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

    def claim(self, partition: Partition, topic_id: str) -> int | None:
        """Take over the writing of what comes from a stream partition.

        Gives the offset after the last record stored, or None where the store relies on
        the stream's committed bookmark and resolves repeated records by itself.

        Raises:
            UnavailableError: The store cannot be reached; try again.
        """

    def write(self, writes: Sequence[PartitionWrite]) -> list[Refusal]:
        """Store all rows and fold all entries, each exactly once however often it is sent.

        Rows already stored by an earlier, cut-off write or by another owner are skipped.
        Every row with a source adds 1 to that source's `stored`, once. Refused rows add 1
        to `refused` and take 1 from `accepted`. Durable when it returns.

        Raises:
            UnavailableError: Send the very same or an overlapping write again.
            FencedError: Another owner writes these partitions: drop them.
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


class Query(Protocol):
    """Reading back what is stored; every call may come from any thread."""

    def collections(self) -> list[str]:
        """Name the collections, sorted."""

    def newest(
        self, collection: str, *, limit: int, source: str | None = None
    ) -> list[dict[str, Any]]:
        """Give the newest documents by event time, newest first, at most `limit`.

        Raises:
            RefusedError: No such collection (`no_collection`).
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


Stopped = Callable[[], bool]
"""Tells a running loop whether it was asked to stop."""
