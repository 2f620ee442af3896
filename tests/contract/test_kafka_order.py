"""What the Kafka stream gives where the offsets of batches are damaged on the way, without TLS."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from contract.test_kafka_network import options_behind
from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import UnavailableError
from matchday.ports import Bookmark, Partition, Reader, Record, Start
from matchday.stream.kafka import KafkaStream
from servers.ports import LOOPBACK, free_ports
from servers.process import wait_until
from servers.shifting_proxy import ShiftingProxy

pytestmark = pytest.mark.timeout(300)

CLOCK = SystemClock()
PLACE = Partition(Topic.LEDGER, 0)
COMMITS = 30
RECORDS = 10
PER_COMMIT = RECORDS + 1
"""The records and the marker behind them."""
HOLE = 101
"""Offsets of an aborted transaction: its records and its marker."""
READERS = 40
"""So many that what happens once in ten times is seen."""
DEADLINE_S = 60.0

FAR = 2**28
SHIFTS = {
    "first far up": {0: FAR},
    "middle far up": {10 * PER_COMMIT: FAR},
    "middle to where another one was": {10 * PER_COMMIT: 5 * PER_COMMIT},
    "middle up by one": {10 * PER_COMMIT: 1},
    "middle up by two": {10 * PER_COMMIT: 2},
    "middle down by one": {10 * PER_COMMIT: -1},
    "middle down by two": {10 * PER_COMMIT: -2},
    "middle down onto another one": {10 * PER_COMMIT: -PER_COMMIT},
    "middle down to the begin": {10 * PER_COMMIT: -10 * PER_COMMIT},
    "middle below zero": {10 * PER_COMMIT: -(2**63) + 1},
    "last far up": {(COMMITS - 1) * PER_COMMIT: FAR},
    "last up by two": {(COMMITS - 1) * PER_COMMIT: 2},
    "last down by two": {(COMMITS - 1) * PER_COMMIT: -2},
    "marker up by two": {10 * PER_COMMIT - 1: 2},
    "marker far up": {10 * PER_COMMIT - 1: FAR},
    "last marker up by four": {COMMITS * PER_COMMIT - 1: 4},
    "last marker far up": {COMMITS * PER_COMMIT - 1: FAR},
    "several": {3 * PER_COMMIT: 64, 10 * PER_COMMIT: -4, 11 * PER_COMMIT: 8, 20 * PER_COMMIT: FAR},
}

MEMBERS_SHIFTS = (
    "first far up",
    "middle up by two",
    "middle down by two",
    "middle below zero",
    "last far up",
    "last down by two",
    "last marker far up",
    "several",
)
"""Joining takes a member a second or two each time; readers try all."""


class Member:
    """Reads as a group of its own and commits as it reads; counts every record once committed."""

    def __init__(self, stream: KafkaStream) -> None:
        self.given: list[tuple[int, int]] = []
        self.lost_count = 0
        self._consumer = stream.consumer(f"group-{uuid.uuid4().hex[:8]}", [Topic.LEDGER], self)

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        return {place: mark.offset if mark else 0 for place, mark in bookmarks.items()}

    def revoked(self, _partitions: Sequence[Partition]) -> None:
        pass

    def lost(self, _partitions: Sequence[Partition]) -> None:
        self.lost_count += 1

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        raise AssertionError("nothing expires here")

    def take(self, *, records_max: int = 500) -> None:
        with suppress(UnavailableError):
            records = self._consumer.poll(timeout_s=0.05, records_max=records_max)
            if records:
                self.given += [(one.offset, int(one.value)) for one in records]
                self._consumer.commit({PLACE: Bookmark(records[-1].offset + 1)})

    def close(self) -> None:
        self._consumer.close()


class Ground:
    """A broker that can be spoken to directly and through a proxy."""

    def __init__(self, proxy: ShiftingProxy, direct: str, opened: ExitStack) -> None:
        self.proxy = proxy
        self._direct = direct
        self._opened = opened

    def fill(self) -> tuple[KafkaStream, KafkaStream, list[tuple[int, int]]]:
        """Give a stream with records, directly and through the proxy, and what it holds."""
        prefix = f"t{uuid.uuid4().hex[:8]}."
        urls = (self._direct, f"kafka://{LOOPBACK}:{self.proxy.port}")
        direct, behind = (
            self._opened.enter_context(closing(KafkaStream(url, clock=CLOCK, prefix=prefix)))
            for url in urls
        )
        direct.prepare()
        return direct, behind, append(direct, 0, COMMITS)


def append(stream: KafkaStream, first: int, commits: int) -> list[tuple[int, int]]:
    """Commit records from the `first` commit on; give their offsets and values."""
    numbers = range(first * RECORDS, (first + commits) * RECORDS)
    with closing(stream.producer("owner")) as producer:
        for begin in range(numbers.start, numbers.stop, RECORDS):
            values = range(begin, begin + RECORDS)
            producer.commit({Topic.LEDGER: [Record(b"k", b"%d" % one) for one in values]})
    return [(one + one // RECORDS, one) for one in numbers]


@pytest.fixture
def ground(fresh_kafka: Callable[..., Any]) -> Iterator[Ground]:
    port, controller_port, behind = free_ports(3)
    with ShiftingProxy(behind) as proxy, ExitStack() as opened:
        kafka = fresh_kafka(**options_behind(proxy.port, port, controller_port, behind))
        yield Ground(proxy, kafka.url, opened)


def test_members_are_given_every_record_once_at_its_place_however_offsets_are_damaged(ground):
    direct, behind, held = ground.fill()
    for name in MEMBERS_SHIFTS:
        ground.proxy.shifts = dict(SHIFTS[name])
        with closing(Member(behind)) as member:
            read_all(member, held, name)
            assert not ground.proxy.shifts, name
            assert not member.lost_count, name
            # It goes on from there.
            new = append(direct, len(held) // RECORDS, 1)
            held += new
            read_all(member, held, name)


def read_all(
    member: Member, held: list[tuple[int, int]], name: str, *, records_max: int = 500
) -> None:
    def has_all() -> bool:
        member.take(records_max=records_max - len(member.given) % records_max)
        assert member.given == held[: len(member.given)], name
        return len(member.given) == len(held)

    wait_until(has_all, what=f"all was given: {name}", timeout_s=DEADLINE_S)


def test_readers_give_every_record_once_at_its_place_however_offsets_are_damaged(ground):
    _, behind, held = ground.fill()
    for name, shifts in SHIFTS.items():
        ground.proxy.shifts = dict(shifts)
        with closing(behind.reader([Topic.LEDGER], Start.at({PLACE: 0}))) as reader:
            assert read_to_end(reader, len(held), name) == held, name
        assert not ground.proxy.shifts, name


def read_to_end(reader: Reader, count: int, name: str) -> list[tuple[int, int]]:
    given: list[tuple[int, int]] = []

    def is_read() -> bool:
        with suppress(UnavailableError):
            records = reader.poll(timeout_s=0.05, records_max=500)
            given.extend((one.offset, int(one.value)) for one in records)
        return len(given) >= count and reader.is_at_end()

    wait_until(is_read, what=f"all was read: {name}", timeout_s=DEADLINE_S)
    return given


def leave_hole(stream: KafkaStream) -> None:
    """Abort a transaction whose records are in the log."""
    with suppress(Exception), closing(stream.producer("owner")) as producer:
        client = producer._client
        client.begin_transaction()
        for _ in range(HOLE - 1):
            client.produce(stream._cluster.name_of(Topic.LEDGER), value=b"0", key=b"k")
        client.flush(10)
        client.abort_transaction(10)


def test_live_member_whose_newest_batch_has_moved_goes_on_from_where_it_was(ground):
    direct, behind, held = ground.fill()
    with closing(Member(behind)) as member:
        read_all(member, held, "before")
        for shift in (FAR, 16, 2, 1, -1, -2, -8):
            ground.proxy.shifts = {len(held) // RECORDS * PER_COMMIT: shift}
            held += append(direct, len(held) // RECORDS, 1)
            read_all(member, held, f"moved by {shift}")
            held += append(direct, len(held) // RECORDS, 1)
            read_all(member, held, f"after one moved by {shift}")
            assert not ground.proxy.shifts


def test_polls_that_end_with_a_batch_see_that_the_next_one_has_moved(ground):
    _, behind, held = ground.fill()
    for shift in (-FAR, -16, -2, 1, FAR):
        ground.proxy.shifts = {10 * PER_COMMIT: shift}
        with closing(Member(behind)) as member:
            read_all(member, held, f"moved by {shift}", records_max=RECORDS)
            assert not member.lost_count
        assert not ground.proxy.shifts


def test_holes_that_aborted_transactions_left_are_read_once_more_and_no_oftener(ground):
    direct, behind, held = ground.fill()
    holes = 5
    for number in range(holes):
        leave_hole(direct)
        first = held[-1][0] + 2 + HOLE
        new = append(direct, COMMITS + number, 1)
        held += [(first + at, value) for at, (_, value) in enumerate(new)]
    ground.proxy.passed.clear()
    with closing(Member(behind)) as member:
        read_all(member, held, "with holes")
        assert not member.lost_count
    newest = max(ground.proxy.passed)
    assert ground.proxy.passed.count(newest) <= holes + 2


def test_reader_is_at_the_end_only_when_it_has_given_what_it_read_again(ground):
    direct, _, held = ground.fill()
    leave_hole(direct)
    end = held[-1][0] + 2 + HOLE
    held += [(end + at, value) for at, (_, value) in enumerate(append(direct, COMMITS, 1))]
    for _ in range(READERS):
        with closing(direct.reader([Topic.LEDGER], Start.beginning())) as reader:
            given: list[int] = []
            # The hole is met within `is_at_end`, which asks in the same moment where it is.
            while not reader.is_at_end(is_strict=True):
                records = reader.poll(timeout_s=DEADLINE_S, records_max=COMMITS * RECORDS)
                given += [one.offset for one in records]
            assert given == [offset for offset, _ in held]
