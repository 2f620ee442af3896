"""Consumer groups of the embedded stream, within one process.

Owns who holds which partition, taking partitions from members that fell silent, and the
consumer itself. Bookmarks are in the file, so they outlive the process; membership is not.

A partition passes on in three steps, each in the poll of the member it concerns: its
holder is told to give it up, then it is free, then the next member claims it and reads its
bookmark. The bookmark is read by the writer's thread, after every commit that was let in
while the last holder still held it; so no record is worked on twice.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from sqlite3 import Connection
from typing import Final

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, FencedError
from matchday.ports import Assignee, Bookmark, Consumer, Partition, StreamRecord
from matchday.stream import embedded_tables as tables
from matchday.stream.embedded_file import Bell, Cursors, LogFile, Waiter

METADATA_BYTES_MAX: Final = 4000


@dataclass(eq=False)
class Member:
    """One place in a group.

    Attributes:
        topics: What it reads.
        seen_s: When it last polled, monotonic seconds.
        is_polling: It is inside `poll` now, so it cannot be silent.
    """

    topics: frozenset[Topic]
    seen_s: float = 0.0
    is_polling: bool = False


class Group:
    """Who holds which partition; safe to share between threads.

    Args:
        name: Of the group.
        clock: Its monotonic clock tells silence.
        bell: Rung when partitions pass on.
        session_timeout_s: A member silent for longer loses its partitions to the others.
    """

    def __init__(self, name: str, *, clock: Clock, bell: Bell, session_timeout_s: float) -> None:
        self.name = name
        self._clock = clock
        self._bell = bell
        self._session_timeout_s = session_timeout_s
        self._lock = threading.Lock()
        self._partitions: set[Partition] = set()
        self._members: list[Member] = []
        self._holders: dict[Partition, Member] = {}
        self._plan: dict[Partition, Member] = {}

    def join(self, member: Member, partitions: Collection[Partition]) -> None:
        """Add a member that reads these partitions."""
        with self._lock:
            self._partitions |= set(partitions)
            member.seen_s = self._clock.monotonic_s()
            self._members.append(member)
            self._share_out()

    def leave(self, member: Member) -> None:
        """Remove a member with all it holds; one that is gone already is ignored."""
        with self._lock:
            self._remove([member])

    def enter(self, member: Member) -> None:
        """Note that a member polls, and remove others that have been silent too long."""
        with self._lock:
            member.is_polling = True
            self._remove_silent(member)

    def exit(self, member: Member) -> None:
        """Note that a member's poll ends."""
        with self._lock:
            member.is_polling = False
            member.seen_s = self._clock.monotonic_s()

    def silence_left_s(self, member: Member) -> float:
        """Remove members silent too long; tell when the next one will be, in seconds."""
        with self._lock:
            self._remove_silent(member)
            now_s = self._clock.monotonic_s()
            return min(
                (
                    other.seen_s + self._session_timeout_s - now_s
                    for other in self._members
                    if other is not member and not other.is_polling
                ),
                default=float("inf"),
            )

    def has(self, member: Member) -> bool:
        """Tell whether the member still belongs to the group."""
        with self._lock:
            return member in self._members

    def due(self, member: Member) -> list[Partition]:
        """Give the partitions that the member holds and should give up."""
        with self._lock:
            return sorted(
                place
                for place, holder in self._holders.items()
                if holder is member and self._plan.get(place) is not member
            )

    def release(self, member: Member, partitions: Iterable[Partition]) -> None:
        """Free partitions that the member holds."""
        with self._lock:
            for place in partitions:
                if self._holders.get(place) is member:
                    del self._holders[place]
        self._bell.ring()

    def claim(self, member: Member) -> list[Partition]:
        """Make the member the holder of what is meant for it and free; give that."""
        with self._lock:
            free = sorted(
                place
                for place, wanted in self._plan.items()
                if wanted is member and place not in self._holders
            )
            self._holders.update(dict.fromkeys(free, member))
            return free

    def require(self, member: Member, partitions: Iterable[Partition]) -> None:
        """Check that the member holds these partitions.

        Raises:
            FencedError: It does not, or not any more.
        """
        with self._lock:
            for place in partitions:
                if self._holders.get(place) is not member:
                    raise FencedError(
                        f"committing bookmark of group {self.name} for {place.topic}/"
                        f"{place.number}: the partition belongs to another member"
                    )

    def _remove_silent(self, asking: Member) -> None:
        oldest_s = self._clock.monotonic_s() - self._session_timeout_s
        self._remove(
            [
                other
                for other in self._members
                if other is not asking and not other.is_polling and other.seen_s <= oldest_s
            ]
        )

    def _remove(self, members: Sequence[Member]) -> None:
        gone = [member for member in members if member in self._members]
        if not gone:
            return
        self._members = [member for member in self._members if member not in gone]
        for place, holder in list(self._holders.items()):
            if holder in gone:
                del self._holders[place]
        self._share_out()

    def _share_out(self) -> None:
        self._plan = share_out(self._partitions, self._members, self._holders)
        self._bell.ring()


def share_out(
    partitions: Iterable[Partition],
    members: Sequence[Member],
    holders: Mapping[Partition, Member],
) -> dict[Partition, Member]:
    """Spread partitions evenly over the members that read their topic, moving few.

    Holders keep what they have as long as no other member could take a partition and still
    hold fewer; ties go to the member that joined first.
    """
    loads = dict.fromkeys(members, 0)
    plan: dict[Partition, Member] = {}
    readers = {
        place: [member for member in members if place.topic in member.topics]
        for place in sorted(partitions)
    }
    readers = {place: able for place, able in readers.items() if able}
    # What is held first, so that the free ones go where there is room.
    for place in sorted(readers, key=lambda place: holders.get(place) not in readers[place]):
        holder = holders.get(place)
        chosen = (
            holder
            if holder is not None and holder in readers[place]
            else min(readers[place], key=loads.__getitem__)
        )
        plan[place] = chosen
        loads[chosen] += 1
    moved = True
    while moved:
        moved = False
        for place, able in readers.items():
            lightest = min(able, key=loads.__getitem__)
            if loads[plan[place]] - loads[lightest] >= 2:
                loads[plan[place]] -= 1
                loads[lightest] += 1
                plan[place] = lightest
                moved = True
    return plan


class EmbeddedConsumer(Consumer):
    """A member of a group; see `matchday.ports.Consumer`. Used by one thread.

    When the assignee raises in `assigned`, the partitions are free again and the next poll
    offers them anew; when it raises in `revoked`, the next poll asks again.
    """

    def __init__(
        self, file: LogFile, group: Group, topics: Sequence[Topic], assignee: Assignee
    ) -> None:
        self._file = file
        self._group = group
        self._assignee = assignee
        self._ids = file.ids_of(topics)
        self._cursors = Cursors(file)
        self._waiter = Waiter(file, self._ids.values())
        self._held: set[Partition] = set()
        self._is_paused = False
        self._is_closed = False
        self._member = Member(frozenset(topics))
        group.join(self._member, self._ids)

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Follow the membership and give records; see the port.

        Raises:
            ConfigError: The assignee wants to read beyond the end of a partition.
        """
        if self._is_closed:
            raise RuntimeError(f"polling group {self._group.name}: the consumer is closed")
        self._group.enter(self._member)
        try:
            return self._waiter.until(
                lambda: self._step(records_max),
                timeout_s=timeout_s,
                pause_s_max=lambda: self._group.silence_left_s(self._member),
            )
        finally:
            self._group.exit(self._member)

    def commit(self, bookmarks: Mapping[Partition, Bookmark]) -> None:
        """Store bookmarks durably; see the port."""
        self._file.write(partial(self.put_bookmarks, bookmarks=bookmarks))

    def put_bookmarks(
        self, connection: Connection, *, bookmarks: Mapping[Partition, Bookmark]
    ) -> None:
        """Store bookmarks within a transaction, in the writer's thread.

        Raises:
            FencedError: The member does not hold one of the partitions.
        """
        for place, mark in bookmarks.items():
            size_bytes = len(mark.metadata.encode())
            if size_bytes > METADATA_BYTES_MAX:
                raise ValueError(
                    f"bookmark of {place}: metadata of {size_bytes} bytes "
                    f"above {METADATA_BYTES_MAX}"
                )
        self._group.require(self._member, bookmarks)
        rows = {self._ids[place]: mark for place, mark in bookmarks.items()}
        tables.put_bookmarks(connection, self._group.name, rows)

    def pause(self) -> None:
        """Let `poll` give nothing until `resume`."""
        self._is_paused = True

    def resume(self) -> None:
        """Undo `pause`."""
        self._is_paused = False

    def ends(self) -> Mapping[Partition, int]:
        """Give the ends of the partitions held."""
        return self._cursors.ends()

    def close(self) -> None:
        """Give everything up in good order and leave the group."""
        if self._is_closed:
            return
        try:
            if not self._group.has(self._member):
                self._lose()
            elif self._held:
                self._assignee.revoked(sorted(self._held))
        finally:
            self._is_closed = True
            self._group.leave(self._member)
            self._waiter.close()
            self._cursors.close()

    def _step(self, records_max: int) -> list[StreamRecord]:
        self._follow_membership()
        if self._is_paused:
            return []
        taken = self._cursors.take(records_max)
        while taken.gaps:
            for gap in taken.gaps:
                self._assignee.expired(*gap)
            taken = self._cursors.take(records_max)
        return taken.records

    def _follow_membership(self) -> None:
        if not self._group.has(self._member):
            self._lose()
            self._group.join(self._member, self._ids)
        if due := self._group.due(self._member):
            self._assignee.revoked(due)
            self._forget(due)
            self._group.release(self._member, due)
        if claimed := self._group.claim(self._member):
            try:
                self._begin(claimed)
            except BaseException:
                self._forget(claimed)
                self._group.release(self._member, claimed)
                raise

    def _begin(self, partitions: Sequence[Partition]) -> None:
        marks = self._file.write(lambda c: tables.get_bookmarks(c, self._group.name))
        bookmarks = {place: marks.get(self._ids[place]) for place in partitions}
        wanted = self._assignee.assigned(bookmarks)
        held = self._file.read(tables.spans)
        begun: dict[Partition, int] = {}
        for place in partitions:
            offset, span = wanted[place], held[self._ids[place]]
            if offset > span.next:
                raise ConfigError(
                    f"reading {place} from offset {offset}: beyond its end "
                    f"{span.next}; the stream is not the one that this offset comes from"
                )
            if offset == 0 and bookmarks[place] is None:
                offset = span.first
            begun[place] = offset
        self._held |= set(partitions)
        self._cursors.put(self._ids, begun)

    def _lose(self) -> None:
        if lost := sorted(self._held):
            self._forget(lost)
            self._assignee.lost(lost)

    def _forget(self, partitions: Sequence[Partition]) -> None:
        self._held -= set(partitions)
        self._cursors.drop(partitions)
