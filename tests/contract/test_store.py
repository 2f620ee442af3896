"""The promises of the ports `Store` and `Query`, kept by every implementation.

Run as a program it is the writer that the crash test kills.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from matchday.clock import SystemClock
from matchday.domain.account import Counts
from matchday.domain.topics import Topic
from matchday.errors import FencedError, RefusedError
from matchday.ports import Entry, Partition, PartitionWrite, Query, Refusal, Row, Store
from matchday.sqlite import DataFolder
from matchday.store.cursors import cursor_of
from matchday.store.documents import COLLECTIONS, DOCUMENT_BYTES_MAX, Shape
from matchday.store.embedded import EmbeddedStore
from matchday.store.embedded_query import EmbeddedQuery
from servers.process import wait_until

KIND_NAMES = ("embedded", "mongo", "mongo-regular")
TOPIC_ID = "topic-1"
READINGS = Partition(Topic.ANALYTICS, 1)
MORE_READINGS = Partition(Topic.ANALYTICS, 2)
FINDINGS = Partition(Topic.RESULTS, 0)
LEDGER = Partition(Topic.LEDGER, 0)
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Backend:
    """One kind of store at one place, opened as often as a test has owners."""

    def __init__(self, kind: str, place: str, database: str) -> None:
        self.kind = kind
        self.place = place
        self.database = database
        self._stack = ExitStack()

    def store(self, *partitions: Partition, topic_id: str = TOPIC_ID) -> Store:
        store = self._stack.enter_context(closing(self._open()))
        store.prepare()
        for partition in partitions:
            store.claim(partition, topic_id)
        return store

    def query(self) -> Query:
        query: Query
        if self.kind == "embedded":
            query = EmbeddedQuery(Path(self.place))
        else:
            from matchday.store.mongo import MongoQuery

            query = MongoQuery(self.place, database=self.database)
        return self._stack.enter_context(closing(query))

    def close(self) -> None:
        self._stack.close()

    def _open(self) -> Store:
        if self.kind == "embedded":
            return EmbeddedStore(Path(self.place), clock=SystemClock())
        from matchday.store.mongo import MongoStore

        shape: Shape = "regular" if self.kind == "mongo-regular" else "timeseries"
        return MongoStore(self.place, clock=SystemClock(), database=self.database, shape=shape)


@pytest.fixture(params=KIND_NAMES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    database = f"contract_{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        if request.param == "embedded":
            stack.enter_context(DataFolder(tmp_path))
            place = str(tmp_path)
        else:
            place = request.getfixturevalue("mongo").url
        yield stack.enter_context(closing(Backend(request.param, place, database)))


def reading(offset: int, source: str = "s1", **fields: Any) -> Row:
    document = {
        "collected_at": T0 + timedelta(seconds=offset),
        "temperature": offset / 2,
        "seq": offset,
        "metadata": {"sensor_id": source, "venue": "demo"},
        **fields,
    }
    return Row("sensors", offset, document, source)


def finding(offset: int, subject: str = "p1") -> Row:
    document = {
        "span_start": T0 + timedelta(seconds=offset),
        "span_end": T0 + timedelta(seconds=offset + 1),
        "distance_m": offset * 1.5,
        "metadata": {"sensor_id": "cam", "subject": subject, "model": "players/1"},
    }
    return Row("player_metrics", offset, document)


def readings(partition: Partition, offsets: Sequence[int], **fields: Any) -> PartitionWrite:
    rows = [reading(offset, **fields) for offset in offsets]
    return PartitionWrite(partition, offsets[-1] + 1, rows)


def settled(store: Store, writes: Sequence[PartitionWrite]) -> list[Refusal]:
    """Write and settle, as persist does before it moves a bookmark."""
    refusals = store.write(writes)
    store.settle()
    return refusals


def stored_seqs(query: Query, source: str | None = None) -> list[int]:
    found = query.newest("sensors", limit=100_000, source=source)
    return sorted(document["seq"] for document in found)


def stored_count(query: Query, source: str = "s1") -> int:
    return query.folded().counts.get(source, Counts()).stored


def test_prepare_can_be_repeated_and_leaves_nothing_to_complain_of(backend: Backend):
    store = backend.store()
    store.prepare()
    assert store.check() == []
    assert store.link().is_up


def test_every_collection_exists_once_prepared_and_is_empty(backend: Backend):
    backend.store()
    query = backend.query()
    assert set(query.collections()) >= set(COLLECTIONS)
    assert query.collections() == sorted(query.collections())
    assert all(query.newest(name, limit=5) == [] for name in COLLECTIONS)
    assert query.folded().counts == {}
    assert query.document_count_by_source() == {}


def test_new_partition_is_claimed_at_its_beginning(backend: Backend):
    assert backend.store().claim(READINGS, TOPIC_ID) in (0, None)


def test_what_was_written_is_read_back(backend: Backend):
    store = backend.store(READINGS, Partition(Topic.DEAD_LETTERS, 0))
    positions = {
        "collected_at": T0 + timedelta(milliseconds=123),
        "objects": [{"id": "p1", "x": 1.5, "y": -2.25}, {"id": "ball", "x": 0.0, "y": 0.0}],
        "seq": 2**40,
        "metadata": {"sensor_id": "cam", "venue": "demo"},
    }
    letter = {"time": T0, "reason": "not_json", "source": "s", "raw": bytes(range(256))}
    settled(
        store,
        [
            PartitionWrite(READINGS, 1, [Row("positions", 0, positions, "cam")]),
            PartitionWrite(
                Partition(Topic.DEAD_LETTERS, 0), 1, [Row("dead_letters", 0, letter, None)]
            ),
        ],
    )
    query = backend.query()
    for name, document in (("positions", positions), ("dead_letters", letter)):
        (found,) = query.newest(name, limit=2)
        found.pop("_id")
        assert found == document


def test_same_write_twice_stores_once(backend: Backend):
    store = backend.store(READINGS)
    write = readings(READINGS, range(20))
    assert settled(store, [write]) == []
    assert settled(store, [write]) == []
    query = backend.query()
    assert stored_seqs(query) == list(range(20))
    assert stored_count(query) == 20


def test_overlapping_writes_with_other_boundaries_store_once(backend: Backend):
    store = backend.store(READINGS)
    for start, end in ((0, 10), (5, 12), (0, 3), (11, 30), (0, 31)):
        settled(store, [readings(READINGS, range(start, end))])
    query = backend.query()
    assert stored_seqs(query) == list(range(31))
    assert stored_count(query) == 31


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_repeats_stores_once(backend: Backend, seed: int):
    """A consumer that goes back and on at will, as after crashes at any point."""
    rng = random.Random(seed)
    stores = [backend.store(READINGS) for _ in range(2)]
    position = 0
    while position < 120:
        start = rng.randrange(max(0, position - 40), position + 1)
        end = start + rng.randrange(1, 40)
        try:
            settled(rng.choice(stores), [readings(READINGS, range(start, end))])
        except FencedError:
            continue
        position = max(position, end)
    query = backend.query()
    assert stored_seqs(query) == list(range(position))
    assert stored_count(query) == position


def test_thousands_of_rows_in_odd_batches_store_once(backend: Backend):
    store = backend.store(READINGS)
    for start, end in ((0, 1999), (0, 2500), (1990, 6100), (4000, 6500)):
        settled(store, [readings(READINGS, range(start, end))])
    query = backend.query()
    assert stored_seqs(query) == list(range(6500))
    assert stored_count(query) == 6500


def test_offsets_with_holes_store_once(backend: Backend):
    """Transactions leave offsets that carry no record."""
    store = backend.store(READINGS)
    settled(store, [readings(READINGS, [3, 4, 7])])
    settled(store, [readings(READINGS, [4, 7, 9])])
    assert stored_seqs(backend.query()) == [3, 4, 7, 9]


def test_partitions_and_collections_of_one_write_are_independent(backend: Backend):
    store = backend.store(READINGS, MORE_READINGS, FINDINGS)
    settled(
        store,
        [
            readings(READINGS, range(4)),
            readings(MORE_READINGS, range(3), source="s2"),
            PartitionWrite(FINDINGS, 2, [finding(0), finding(1)]),
        ],
    )
    settled(store, [readings(MORE_READINGS, range(5), source="s2")])
    query = backend.query()
    assert stored_seqs(query, "s1") == [0, 1, 2, 3]
    assert stored_seqs(query, "s2") == [0, 1, 2, 3, 4]
    assert len(query.newest("player_metrics", limit=10)) == 2


def test_several_rows_of_one_record_are_all_stored_once(backend: Backend):
    """The original's form of results holds several forecasts in one record."""
    store = backend.store(FINDINGS)
    write = PartitionWrite(FINDINGS, 6, [finding(5, "a"), finding(5, "b"), finding(5, "c")])
    settled(store, [write])
    settled(store, [write])
    found = backend.query().newest("player_metrics", limit=10)
    assert sorted(document["metadata"]["subject"] for document in found) == ["a", "b", "c"]


def test_findings_count_for_no_source(backend: Backend):
    store = backend.store(FINDINGS)
    settled(store, [PartitionWrite(FINDINGS, 1, [finding(0)])])
    query = backend.query()
    assert query.folded().counts == {}
    assert query.document_count_by_source() == {}


def test_ledger_entries_are_folded_once(backend: Backend):
    store = backend.store(LEDGER)
    first = [
        Entry(0, "s1", Counts(accepted=3, duplicate=1)),
        Entry(0, "s2", Counts(accepted=5)),
        Entry(1, "s1", Counts(accepted=2, missing=4, unknown_fields=1)),
    ]
    more = [*first[2:], Entry(2, "s1", Counts(refused=1, renumbered=1, late=2))]
    settled(store, [PartitionWrite(LEDGER, 2, (), first)])
    settled(store, [PartitionWrite(LEDGER, 2, (), first)])
    settled(store, [PartitionWrite(LEDGER, 3, (), more)])
    assert backend.query().folded().counts == {
        "s1": Counts(
            accepted=5, duplicate=1, refused=1, missing=4, renumbered=1, unknown_fields=1, late=2
        ),
        "s2": Counts(accepted=5),
    }


def test_readings_and_ledger_of_one_write_make_one_account(backend: Backend):
    store = backend.store(READINGS, LEDGER)
    writes = [
        readings(READINGS, range(4)),
        PartitionWrite(LEDGER, 1, (), [Entry(0, "s1", Counts(accepted=5))]),
    ]
    settled(store, writes)
    settled(store, writes)
    folded = backend.query().folded()
    assert folded.counts == {"s1": Counts(accepted=5, stored=4)}


def test_entry_beside_rows_of_a_partition_is_folded_once(backend: Backend):
    """A record in no known form is counted in the partition it came from."""
    store = backend.store(READINGS)
    rows = [reading(0), reading(2)]
    write = PartitionWrite(READINGS, 3, rows, [Entry(1, "stream:analytics", Counts(refused=1))])
    settled(store, [write])
    settled(store, [write])
    assert backend.query().folded().counts == {
        "s1": Counts(stored=2),
        "stream:analytics": Counts(refused=1),
    }


def test_partitions_are_folded_up_to_the_offset_after_the_last_write(backend: Backend):
    store = backend.store(READINGS, LEDGER)
    settled(
        store,
        [
            readings(READINGS, range(4)),
            PartitionWrite(LEDGER, 1, (), [Entry(0, "s1", Counts(accepted=4))]),
        ],
    )
    next_offsets = backend.query().folded().next_offsets
    assert next_offsets[READINGS] == 4
    assert next_offsets[LEDGER] == 1


def test_account_of_several_writes_is_there_once_settled(backend: Backend):
    store = backend.store(READINGS, LEDGER)
    query = backend.query()
    for end in (4, 7, 30):
        entry = Entry(end, "s1", Counts(accepted=end))
        store.write([readings(READINGS, range(end)), PartitionWrite(LEDGER, end + 1, (), [entry])])
        assert stored_seqs(query) == list(range(end))
        assert stored_count(query) <= end
    store.settle()
    for _ in range(2):
        folded = query.folded()
        assert folded.counts == {"s1": Counts(accepted=41, stored=30)}
        assert (folded.next_offsets[READINGS], folded.next_offsets[LEDGER]) == (30, 31)
        store.settle()


def test_too_large_row_is_refused_and_the_others_are_stored(backend: Backend):
    store = backend.store(READINGS, LEDGER)
    large = reading(1, text="x" * DOCUMENT_BYTES_MAX)
    writes = [
        PartitionWrite(READINGS, 3, [reading(0), large, reading(2)]),
        PartitionWrite(LEDGER, 1, (), [Entry(0, "s1", Counts(accepted=3))]),
    ]
    (refusal,) = settled(store, writes)
    assert (refusal.partition, refusal.row.offset) == (READINGS, 1)
    assert "16777216" in refusal.reason
    query = backend.query()
    assert stored_seqs(query) == [0, 2]
    assert query.folded().counts == {"s1": Counts(accepted=2, refused=1, stored=2)}


def test_refusal_is_reported_at_every_send_and_counted_once(backend: Backend):
    """Whoever makes a dead letter of it may have crashed before that was durable."""
    store = backend.store(READINGS)
    large = reading(1, text="x" * DOCUMENT_BYTES_MAX)
    write = PartitionWrite(READINGS, 3, [reading(0), large, reading(2)])
    first = [refusal.row.offset for refusal in settled(store, [write])]
    second = [refusal.row.offset for refusal in settled(backend.store(READINGS), [write])]
    assert first == second == [1]
    assert backend.query().folded().counts == {"s1": Counts(accepted=-1, refused=1, stored=2)}


def test_dead_letter_of_the_largest_payload_is_stored_whole(backend: Backend):
    partition = Partition(Topic.DEAD_LETTERS, 0)
    store = backend.store(partition)
    raw = bytes(12 * 2**20)
    row = Row("dead_letters", 0, {"time": T0, "reason": "not_json", "source": "s", "raw": raw})
    assert settled(store, [PartitionWrite(partition, 1, [row])]) == []
    (found,) = backend.query().newest("dead_letters", limit=1)
    assert found["raw"] == raw


def test_list_of_dead_letters_holds_long_ones_by_their_length(backend: Backend):
    """Fifty of the largest are more than the memory of who lists them."""
    partition = Partition(Topic.DEAD_LETTERS, 0)
    store = backend.store(partition)
    raws = [b"", b"x" * 99, bytes(range(256)) * 2, b"y" * 511, b"z" * 513]
    rows = [
        Row("dead_letters", offset, {"time": T0 + timedelta(seconds=offset), "raw": raw})
        for offset, raw in enumerate(raws)
    ]
    rows[3].document.update(length=70_000, truncated=True)  # cut when it came in
    rows[4].document.update(length=90_000, truncated=True)
    settled(store, [PartitionWrite(partition, len(rows), rows)])
    query = backend.query()
    listed = query.newest("dead_letters", limit=9, bytes_max=511)[::-1]
    assert [one["raw"] for one in listed] == [*raws[:2], b"", raws[3], b""]
    assert [one.get("length") for one in listed] == [None, None, 512, 70_000, 90_000]
    assert [one.get("truncated") for one in listed] == [None, None, True, True, True]
    assert [one["raw"] for one in query.newest("dead_letters", limit=9)] == raws[::-1]


def test_bound_on_bytes_leaves_other_collections_as_they_are(backend: Backend):
    store = backend.store(READINGS)
    settled(store, [readings(READINGS, range(3))])
    query = backend.query()
    assert query.newest("sensors", limit=3, bytes_max=1) == query.newest("sensors", limit=3)


def test_second_owner_goes_on_where_the_first_stopped(backend: Backend):
    settled(backend.store(READINGS), [readings(READINGS, range(10))])
    second = backend.store()
    start = second.claim(READINGS, TOPIC_ID)
    assert start in (10, None)
    settled(second, [readings(READINGS, range(5 if start is None else start, 20))])
    query = backend.query()
    assert stored_seqs(query) == list(range(20))
    assert stored_count(query) == 20


def test_stale_owner_stores_nothing_twice(backend: Backend):
    """The first owner read 0 to 19, froze before its write, and the second took over."""
    first = backend.store(READINGS)
    settled(first, [readings(READINGS, range(10))])
    second = backend.store(READINGS)
    settled(second, [readings(READINGS, range(10, 25))])
    with suppress(FencedError):
        settled(first, [readings(READINGS, range(10, 20))])
    settled(second, [readings(READINGS, range(25, 30))])
    query = backend.query()
    assert stored_seqs(query) == list(range(30))
    assert stored_count(query) == 30


def test_topic_made_again_is_stored_from_its_beginning(backend: Backend):
    settled(backend.store(READINGS), [readings(READINGS, range(10))])
    again = backend.store()
    assert again.claim(READINGS, "topic-2") in (0, None)
    settled(again, [readings(READINGS, range(4), source="s2")])
    settled(again, [readings(READINGS, range(4), source="s2")])
    query = backend.query()
    assert stored_seqs(query, "s1") == list(range(10))
    assert stored_seqs(query, "s2") == list(range(4))
    assert stored_count(query, "s2") == 4
    assert query.folded().next_offsets[READINGS] == 4


def test_newest_is_by_event_time_and_not_by_arrival(backend: Backend):
    store = backend.store(READINGS)
    times = [5, 1, 9, 3, 7]
    rows = [
        reading(offset, collected_at=T0 + timedelta(seconds=second))
        for offset, second in enumerate(times)
    ]
    settled(store, [PartitionWrite(READINGS, 5, rows)])
    found = backend.query().newest("sensors", limit=3)
    assert [document["collected_at"] for document in found] == [
        T0 + timedelta(seconds=second) for second in (9, 7, 5)
    ]


def test_newest_of_a_source_leaves_out_the_others(backend: Backend):
    store = backend.store(READINGS)
    rows = [reading(offset, source=f"s{offset % 3}") for offset in range(30)]
    settled(store, [PartitionWrite(READINGS, 30, rows)])
    found = backend.query().newest("sensors", limit=4, source="s1")
    assert [document["seq"] for document in found] == [28, 25, 22, 19]
    assert backend.query().newest("sensors", limit=4, source="nobody") == []


@pytest.mark.parametrize("seed", range(6))
def test_newest_of_a_source_is_found_whenever_its_readings_are(backend: Backend, seed: int):
    """Now, hours ago, years ago, in the future, at any pace: where is looked first is a guess."""
    rng = random.Random(seed)
    now = datetime.now(UTC).replace(microsecond=0)
    times = {
        f"s{number}": [
            now - timedelta(seconds=rng.choice((-5000, 0, 3, 400, 9000, 10**5, 10**8)) + gap)
            for gap in (rng.expovariate(1 / rng.choice((0.2, 20, 3000))) for _ in range(40))
        ]
        for number in range(5)
    }
    rows = [
        reading(offset, source=source, collected_at=at.replace(microsecond=0))
        for offset, (source, at) in enumerate((one, at) for one in times for at in times[one])
    ]
    store = backend.store(READINGS)
    settled(store, [PartitionWrite(READINGS, len(rows), rows)])
    query = backend.query()
    for source in times:
        own = sorted(row.document["collected_at"] for row in rows if row.source == source)[::-1]
        for limit in (1, 7, 30, 40, 500):
            found = query.newest("sensors", limit=limit, source=source)
            assert [one["collected_at"] for one in found] == own[:limit]


def pages(
    query: Query, collection: str, *, limit: int, source: str | None = None
) -> Iterator[list[dict[str, Any]]]:
    """Give page by page until there is none, each asked for when the one before was used."""
    after = ""
    while found := query.listed(collection, limit=limit, source=source, after=after):
        yield [one.document for one in found]
        after = found[-1].cursor


@pytest.mark.parametrize("seed", range(3))
def test_pages_hold_every_document_once_however_many_share_an_instant(backend: Backend, seed: int):
    rng = random.Random(seed)
    rows = [
        reading(
            offset,
            source=rng.choice(("s1", "s2")),
            collected_at=T0 + timedelta(milliseconds=rng.choice((0, 0, 1, 5, 9000))),
        )
        for offset in range(60)
    ]
    store = backend.store(READINGS)
    settled(store, [PartitionWrite(READINGS, len(rows), rows)])
    query = backend.query()
    for source in (None, "s1", "nobody"):
        wanted = sorted(row.offset for row in rows if source in (None, row.source))
        for limit in (1, 7, 59, 60, 61):
            found = [
                one for page in pages(query, "sensors", limit=limit, source=source) for one in page
            ]
            assert sorted(one["seq"] for one in found) == wanted
            times = [one["collected_at"] for one in found]
            assert times == sorted(times, reverse=True)


def test_what_comes_while_pages_are_read_moves_nothing(backend: Backend):
    partition = Partition(Topic.DEAD_LETTERS, 0)
    store = backend.store(partition)

    def letters(offsets: range) -> None:
        rows = [
            Row("dead_letters", offset, {"time": T0 + timedelta(seconds=offset), "raw": b"x"})
            for offset in offsets
        ]
        settled(store, [PartitionWrite(partition, offsets[-1] + 1, rows)])

    letters(range(10))
    found = []
    for turn, page in enumerate(pages(backend.query(), "dead_letters", limit=3)):
        found += [(one["time"] - T0).seconds for one in page]
        letters(range(10 + 5 * turn, 15 + 5 * turn))
    assert found == list(range(10))[::-1]


def test_pages_of_the_account_hold_every_source_once(backend: Backend):
    store = backend.store(READINGS)
    rows = [reading(offset, source=f"s{offset}") for offset in range(8)]
    settled(store, [PartitionWrite(READINGS, len(rows), rows)])
    found = [one["_id"] for page in pages(backend.query(), "ledger", limit=3) for one in page]
    assert found == [f"s{number}" for number in range(8)]


def test_sources_that_change_while_the_account_is_read_stay_where_they_are(backend: Backend):
    store = backend.store(READINGS)
    names = [f"s{number}" for number in range(8)]

    def all_speak(turn: int) -> None:
        rows = [reading(8 * turn + place, source=name) for place, name in enumerate(names)]
        settled(store, [PartitionWrite(READINGS, 8 * turn + 8, rows)])

    all_speak(0)
    found = []
    for turn, page in enumerate(pages(backend.query(), "ledger", limit=3)):
        found += [one["_id"] for one in page]
        all_speak(turn + 1)
    assert found == names
    (own,) = pages(backend.query(), "ledger", limit=3, source="s3")
    assert [one["_id"] for one in own] == ["s3"]


def test_newest_of_the_account_is_who_changed_last(backend: Backend):
    store = backend.store(READINGS)
    query = backend.query()
    for offset, source in enumerate(("s2", "s1", "s3")):
        settled(store, [PartitionWrite(READINGS, offset + 1, [reading(offset, source=source)])])
        assert query.newest("ledger", limit=1)[0]["_id"] == source
        written_ms = SystemClock().wall_ms()
        wait_until(lambda at=written_ms: SystemClock().wall_ms() > at, what="a millisecond passes")


@pytest.mark.parametrize("letter", ["x", "\u044f", "\u6f22", "\U0001f3c9", '"', "\x01"])
def test_pages_of_the_account_go_on_after_long_names_of_any_script(backend: Backend, letter: str):
    names = [letter * 1000, letter * 1000 + "b"]
    rows = [reading(offset, source=name) for offset, name in enumerate(names)]
    store = backend.store(READINGS)
    settled(store, [PartitionWrite(READINGS, len(rows), rows)])
    found = [one["_id"] for page in pages(backend.query(), "ledger", limit=1) for one in page]
    assert found == names


@pytest.mark.parametrize(
    "after",
    [
        *("x", "\u00e4", "AAAA", "9" * 5000, "A" * 10_000),
        *(cursor_of(1, identity) for identity in (b"{", b"1 OR 1", b'{"$gt": ""}', b"\xb2")),
    ],
)
def test_text_that_is_no_cursor_is_refused(backend: Backend, after: str):
    backend.store()
    with pytest.raises(RefusedError) as caught:
        backend.query().listed("sensors", limit=5, after=after)
    assert caught.value.reason == "bad_cursor"


@pytest.mark.parametrize("after", ["x", "AAAA", "A" * 10_000, cursor_of(0, b"\xff")])
def test_text_that_is_no_cursor_of_a_name_is_refused(backend: Backend, after: str):
    backend.store()
    with pytest.raises(RefusedError) as caught:
        backend.query().listed("ledger", limit=5, after=after)
    assert caught.value.reason == "bad_cursor"


def test_unknown_collection_is_refused(backend: Backend):
    backend.store()
    for ask in (backend.query().newest, backend.query().listed):
        with pytest.raises(RefusedError) as caught:
            ask("sensors; DROP TABLE account", limit=1)
        assert caught.value.reason == "no_collection"


def test_documents_are_counted_by_source_over_all_kinds_of_readings(backend: Backend):
    store = backend.store(READINGS, FINDINGS)
    positions = Row(
        "positions", 3, {"collected_at": T0, "objects": [], "metadata": {"sensor_id": "s1"}}, "s1"
    )
    rows = [reading(0), reading(1, source="s2"), reading(2), positions]
    settled(store, [PartitionWrite(READINGS, 4, rows), PartitionWrite(FINDINGS, 1, [finding(0)])])
    assert backend.query().document_count_by_source() == {"s1": 3, "s2": 1}


def test_query_sees_a_write_once_it_returned_from_any_thread(backend: Backend):
    store = backend.store(READINGS)
    query = backend.query()
    seen: list[int] = []

    def read() -> None:
        seen.append(len(query.newest("sensors", limit=100)))

    for end in (10, 20):
        settled(store, [readings(READINGS, range(end))])
        thread = threading.Thread(target=read, name="test.reader")
        thread.start()
        thread.join()
    assert seen == [10, 20]


def test_closing_twice_is_safe(backend: Backend):
    store, query = backend.store(), backend.query()
    for closable in (store, query):
        closable.close()
        closable.close()


@pytest.mark.parametrize("batches_before_kill", [1, 4, 9])
def test_killed_writer_is_resumed_exactly_once(backend: Backend, batches_before_kill: int):
    backend.store()
    argv = [sys.executable, __file__, backend.kind, backend.place, backend.database]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ) as writer:
        assert writer.stdout is not None
        for _ in range(batches_before_kill):
            confirmed = int(writer.stdout.readline())
        writer.kill()
    store = backend.store()
    # The stream's bookmark may lag behind: as if the last commits had been lost with it.
    start = store.claim(READINGS, TOPIC_ID)
    if start is None:
        start = max(0, confirmed - 2 * CHILD_BATCH)
    assert start >= confirmed - 2 * CHILD_BATCH
    end = confirmed + 20 * CHILD_BATCH
    settled(store, [readings(READINGS, range(start, start + 17))])
    settled(store, [readings(READINGS, range(start + 17, end))])
    query = backend.query()
    assert stored_seqs(query) == list(range(end))
    assert stored_count(query) == end


CHILD_BATCH = 50


def main(kind: str, place: str, database: str) -> None:
    """Write batch after batch until killed, telling the offset after each."""
    store = Backend(kind, place, database).store(READINGS)
    for start in range(0, 10**6, CHILD_BATCH):
        end = start + CHILD_BATCH
        settled(store, [readings(READINGS, range(start, end))])
        print(end, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
