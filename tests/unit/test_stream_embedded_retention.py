"""How the embedded stream forgets: by its own time, in whole batches, and never silently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from matchday.clock import ManualClock
from matchday.domain.topics import DAY_MS, PLANS, Topic
from matchday.errors import RefusedError
from matchday.ports import Bookmark, Partition, Record, Start
from matchday.stream import embedded
from matchday.stream.embedded import RETENTION_EVERY_S, EmbeddedStream
from matchday.stream.embedded_tables import BATCH_BYTES_MAX

LEDGER = Topic.LEDGER
PLACE = Partition(LEDGER, 0)
DAY_S = DAY_MS / 1000
KEPT_S = PLANS[LEDGER].retention_ms / 1000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stream(tmp_path: Path, clock: ManualClock) -> Iterator[EmbeddedStream]:
    made = EmbeddedStream(tmp_path, clock=clock)
    made.prepare()
    yield made
    made.close()


class Listener:
    """An assignee that begins where it is told and keeps what it learns of retention."""

    def __init__(self, offset: int | None = None) -> None:
        self.expirations: list[tuple[Partition, int, int]] = []
        self._offset = offset

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        if self._offset is not None:
            return dict.fromkeys(bookmarks, self._offset)
        return {place: mark.offset if mark else 0 for place, mark in bookmarks.items()}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        pass

    def lost(self, partitions: Sequence[Partition]) -> None:
        raise AssertionError(partitions)

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        self.expirations.append((partition, wanted, first))


def put(stream: EmbeddedStream, *values: bytes) -> None:
    producer = stream.producer("owner")
    producer.commit({LEDGER: [Record(b"slot", value) for value in values]})
    producer.close()


def kept(stream: EmbeddedStream) -> list[bytes]:
    reader = stream.reader([LEDGER], Start.beginning())
    values = []
    while not reader.is_at_end():
        values += [one.value for one in reader.poll(timeout_s=0, records_max=10_000)]
    reader.close()
    return values


def test_batches_go_when_they_are_older_than_the_topic_keeps_them(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    for day in range(5):
        put(stream, b"%d" % day, b"%d" % day)
        clock.advance(DAY_S)
    clock.advance(KEPT_S - 3 * DAY_S)
    # Now day 2 is exactly as old as allowed.
    assert stream.enforce_retention() == 4
    assert kept(stream) == [b"2", b"2", b"3", b"3", b"4", b"4"]
    assert stream.enforce_retention() == 0


def test_offsets_go_on_after_everything_expired(stream: EmbeddedStream, clock: ManualClock) -> None:
    put(stream, b"old", b"old")
    clock.advance(KEPT_S + 1)
    stream.enforce_retention()
    put(stream, b"new")
    reader = stream.reader([LEDGER], Start.beginning())
    assert [one.offset for one in reader.poll(timeout_s=0, records_max=10)] == [2]
    reader.close()


def test_committing_enforces_retention_now_and_then(
    stream: EmbeddedStream, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "RETENTION_BATCHES_MAX", 2)
    for _ in range(5):
        put(stream, b"old")
    clock.advance(KEPT_S + RETENTION_EVERY_S)
    put(stream, b"new")
    assert kept(stream) == [b"old"] * 3 + [b"new"], "one bounded step at a time"
    put(stream, b"new")
    put(stream, b"new")
    assert kept(stream) == [b"new"] * 3


def test_member_overtaken_by_retention_is_told_before_it_reads_on(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    for number in range(4):
        put(stream, b"old %d" % number)
    listener = Listener()
    member = stream.consumer("group", [LEDGER], listener)
    assert [one.value for one in member.poll(timeout_s=0, records_max=1)] == [b"old 0"]
    clock.advance(KEPT_S + 1)
    stream.enforce_retention()
    put(stream, b"new")
    assert [one.value for one in member.poll(timeout_s=0, records_max=9)] == [b"new"]
    assert listener.expirations == [(PLACE, 1, 4)]
    member.close()


@pytest.mark.parametrize("taken", range(1, 7))
def test_member_overtaken_amid_a_batch_is_given_or_told_of_each_record_once(
    stream: EmbeddedStream, clock: ManualClock, taken: int
) -> None:
    for _ in range(3):
        put(stream, b"old", b"old", b"old")
    listener = Listener()
    member = stream.consumer("group", [LEDGER], listener)
    offsets = [one.offset for one in member.poll(timeout_s=0, records_max=taken)]
    clock.advance(KEPT_S + 1)
    stream.enforce_retention()
    put(stream, b"new", b"new")
    while records := member.poll(timeout_s=0, records_max=9):
        offsets += [one.offset for one in records]
    # A batch is read as a whole: what of it was at hand is given still.
    first_gone = 3 if taken <= 3 else 6
    assert offsets == [*range(first_gone), 9, 10]
    assert listener.expirations == [(PLACE, first_gone, 9)]
    member.close()


def test_member_that_waits_at_the_end_misses_nothing(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    put(stream, b"old")
    listener = Listener()
    member = stream.consumer("group", [LEDGER], listener)
    member.poll(timeout_s=0, records_max=9)
    clock.advance(KEPT_S + 1)
    stream.enforce_retention()
    put(stream, b"new")
    assert [one.value for one in member.poll(timeout_s=0, records_max=9)] == [b"new"]
    assert listener.expirations == []
    member.close()


@pytest.mark.parametrize(("offset", "told"), [(0, []), (2, [(PLACE, 2, 3)]), (3, []), (4, [])])
def test_new_group_is_told_only_of_offsets_it_asked_for(
    stream: EmbeddedStream, clock: ManualClock, offset: int, told: list[object]
) -> None:
    put(stream, b"old", b"old", b"old")
    clock.advance(KEPT_S + 1)
    stream.enforce_retention()
    put(stream, b"new", b"new")
    listener = Listener(offset)
    member = stream.consumer("group", [LEDGER], listener)
    records = member.poll(timeout_s=0, records_max=9)
    assert [one.offset for one in records] == list(range(max(offset, 3), 5))
    assert listener.expirations == told
    member.close()


def test_bookmark_at_offset_0_that_expired_is_reported(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    member = stream.consumer("group", [LEDGER], Listener())
    member.poll(timeout_s=0, records_max=9)
    member.commit({PLACE: Bookmark(0)})
    member.close()
    put(stream, b"old")
    clock.advance(KEPT_S + 1)
    stream.enforce_retention()
    listener = Listener()
    successor = stream.consumer("group", [LEDGER], listener)
    successor.poll(timeout_s=0, records_max=9)
    assert listener.expirations == [(PLACE, 0, 1)]
    successor.close()


def test_clock_set_back_neither_reorders_times_nor_hides_records(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    put(stream, b"first")
    before_ms = clock.wall_ms()
    clock.jump(-3_600)
    put(stream, b"second")
    clock.jump(7_200)
    put(stream, b"third")
    reader = stream.reader([LEDGER], Start.since(before_ms))
    records = reader.poll(timeout_s=0, records_max=9)
    assert [one.time_ms - before_ms for one in records] == [0, 0, 3_600_000]
    reader.close()


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_since_finds_the_very_batch_among_many(
    stream: EmbeddedStream, clock: ManualClock, count: int
) -> None:
    begun_ms = clock.wall_ms()
    for number in range(count):
        put(stream, *[b"%d" % number] * (number + 1))
        clock.advance(1)
    for number in range(count):
        for before_ms in (0, 999):
            reader = stream.reader([LEDGER], Start.since(begun_ms + number * 1000 - before_ms))
            found = reader.poll(timeout_s=0, records_max=1)
            assert [one.value for one in found] == [b"%d" % number]
            reader.close()


def test_commit_larger_than_a_row_is_still_whole_and_in_order(stream: EmbeddedStream) -> None:
    values = [bytes([number]) * 300_000 for number in range(40)]
    assert sum(map(len, values)) > 2 * BATCH_BYTES_MAX
    put(stream, *values)
    assert kept(stream) == values


def test_size_of_a_record_counts_key_value_and_headers(stream: EmbeddedStream) -> None:
    bytes_max = PLANS[LEDGER].record_bytes_max
    producer = stream.producer("owner")
    fits = Record(b"key", bytes(bytes_max - 3 - 10), (("name", b"values"),))
    producer.commit({LEDGER: [fits]})
    with pytest.raises(RefusedError, match=f"of {bytes_max + 1} bytes .* above {bytes_max}") as no:
        producer.commit({LEDGER: [Record(b"key+", fits.value, fits.headers)]})
    assert no.value.reason == "too_large"
    assert len(kept(stream)) == 1
