"""`Stream`: a durable, partitioned sequence of records shared by the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from matchday.domain.topics import Topic
from matchday.ports.link import LinkState


class Partition(NamedTuple):
    """One partition of one topic; as text `topic/number`."""

    topic: Topic
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


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

    `metadata` is text of the group's own, committed with the offset: at most 4000 bytes of
    UTF-8 without NUL; more is a ValueError.
    """

    offset: int
    metadata: str = ""


class Assignee(Protocol):
    """The stage's side of membership in a consumer group; called from within `poll`."""

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        """Take partitions over and tell from which offset to read each.

        `None` is a partition for which the group has committed nothing; offset 0 then
        means the oldest record kept. An offset that retention has passed is reported
        through `expired`; one beyond the end is a ConfigError. No partition at all: others
        have them, and this member stands by; not told where a stream is one process's own.
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
        """Store where the group goes on, durably; allowed inside `revoked` too.

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
            FencedError: A newer producer of this name exists, or the group gave the
                partitions away. Nothing was stored, save in one rare order (the answer to
                the very commit was lost before the newer one came): drop everything, the
                heir reads the tail.
            UnavailableError: The fate of the batch is unknown. This producer is spent:
                close it, make a new one (which resolves the doubt: the batch is then
                either wholly there or never will be) and read the tail.
            RefusedError: A record (key, value and headers together) is larger than its
                topic takes; nothing was stored, and this producer goes on.
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
        """Begin `count` offsets before the end of each partition (or at its oldest).

        A stream may use some offsets for itself, so fewer records may come.
        """
        return cls(last_count=count)

    @classmethod
    def at(cls, offsets: Mapping[Partition, int]) -> Start:
        """Begin at these offsets; partitions not named begin at their oldest record.

        Offsets outside what is kept move to the nearest end.
        """
        return cls(offsets=offsets)


class Reader(Protocol):
    """Reads committed records of whole topics, outside every group."""

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Wait at most `timeout_s` for records; an empty list is normal.

        Raises:
            UnavailableError: The stream cannot be reached; poll again.
        """

    def is_at_end(self, *, is_strict: bool = False) -> bool:
        """Tell whether every record committed before this call has been given out.

        What is committed behind a transaction that is still open cannot be read yet. Without
        `is_strict` the end lies before it: the view of somebody who only looks.

        Args:
            is_strict: Refuse to call that the end: for an owner who decides by what it reads.

        Raises:
            UnavailableError: The stream does not answer; with `is_strict` also: somebody's
                transaction is open before the end. Ask again.
        """

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

        What the installation wants otherwise (partitions, retention) is told when the stream
        is opened. Lacking partitions of the slots' topic are added, as it holds nothing.

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

    def risks(self) -> list[str]:
        """Give what nothing here can prevent as the stream is set up, and what would help.

        Nothing of it is wrong; one sentence each. Asks the stream again.

        Raises:
            UnavailableError: The stream cannot be reached.
        """

    def unasked(self) -> list[str]:
        """Give which questions of `check` could not be asked for lack of rights, one each.

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
