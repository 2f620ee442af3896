"""Exactly once on a real MongoDB, where writers freeze and the server forgets."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import pytest
from bson import (
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    encode,
)
from bson.raw_bson import RawBSONDocument
from pymongo.write_concern import WriteConcern

from matchday.clock import ManualClock, SystemClock
from matchday.domain.account import Counts
from matchday.domain.topics import Topic
from matchday.errors import RefusedError, UnavailableError
from matchday.ports import Entry, Partition, PartitionWrite, Refusal, Row
from matchday.protocols.cells import CELL
from matchday.store.cursors import cursor_of
from matchday.store.documents import Shape
from matchday.store.mongo import MongoQuery, MongoStore
from matchday.store.mongo_link import MongoLink, session_of
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mongo import Mongo

READINGS = Partition(Topic.ANALYTICS, 1)
LEDGER = Partition(Topic.LEDGER, 0)
DEAD = Partition(Topic.DEAD_LETTERS, 0)
TOPIC_ID = "topic-1"
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
HALF_AN_HOUR_S = 31 * 60


class World:
    """One database on the shared server, with as many stores and queries as a test opens."""

    def __init__(self, url: str, shape: Shape) -> None:
        self.url = url
        self.shape = shape
        self.name = f"mongo_{uuid.uuid4().hex[:12]}"
        self.clock = ManualClock()
        self._stack = ExitStack()
        self.raw = self._stack.enter_context(
            closing(MongoLink(url, database=self.name, clock=self.clock, reply_timeout_s=10))
        )

    def store(self, *, clock: Any = None, io_timeout_s: float = 20.0) -> MongoStore:
        store = self._stack.enter_context(
            closing(
                MongoStore(
                    self.url,
                    clock=clock or self.clock,
                    database=self.name,
                    shape=self.shape,
                    io_timeout_s=io_timeout_s,
                )
            )
        )
        store.prepare()
        for partition in (READINGS, LEDGER, DEAD):
            assert store.claim(partition, TOPIC_ID) is None
        return store

    def query(self) -> MongoQuery:
        return self._stack.enter_context(closing(MongoQuery(self.url, database=self.name)))

    def forget(self) -> None:
        """Let the server forget its retry logs, as it does half an hour after the last use."""
        self.change_logs(lambda logs: logs.delete_many({}), until={"_id": {"$exists": True}})
        self.clock.advance(HALF_AN_HOUR_S)

    def change_logs(self, change: Callable[[Any], Any], *, until: dict[str, Any]) -> None:
        """Write to the retry logs, and wait until nothing matches `until`.

        The server takes such writes only without a session, which the driver leaves out
        only where it does not wait for the answer.
        """
        logs = self.raw.client.config.transactions
        change(logs.with_options(write_concern=WriteConcern(w=0)))
        wait_until(lambda: logs.count_documents(until) == 0, what="the retry logs are changed")

    def seqs(self) -> list[int]:
        return sorted(one["seq"] for one in self.raw.database.sensors.find())

    def stored(self) -> dict[str, int]:
        return {name: counts.stored for name, counts in self.query().folded().counts.items()}

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(params=get_args(Shape))
def world(request: pytest.FixtureRequest, mongo: Mongo) -> Iterator[World]:
    with closing(World(mongo.url, request.param)) as world:
        yield world


class TrapClock(SystemClock):
    """A clock that calls something when it is asked for the monotonic time the nth time.

    The store asks right before it sends, so the trap freezes a writer exactly there.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.at: int | None = None
        self.trap: Callable[[], None] = lambda: None

    def monotonic_s(self) -> float:
        self.asked += 1
        if self.asked == self.at:
            self.at = None
            self.trap()
        return super().monotonic_s()


def reading(offset: int, **fields: Any) -> Row:
    source = f"s{offset % 7}"
    at = T0 + timedelta(seconds=offset / 10)
    metadata = {"sensor_id": source}
    document = {"collected_at": at, "seq": offset, "metadata": metadata, **fields}
    return Row("sensors", offset, document, source)


def readings(offsets: Sequence[int]) -> PartitionWrite:
    return PartitionWrite(READINGS, offsets[-1] + 1, [reading(offset) for offset in offsets])


def settled(store: MongoStore, writes: Sequence[PartitionWrite]) -> list[Refusal]:
    """Write and settle, as persist does before it moves a bookmark."""
    refusals = store.write(writes)
    store.settle()
    return refusals


def expected(count: int) -> dict[str, int]:
    return {f"s{number}": len(range(number, count, 7)) for number in range(min(7, count))}


@pytest.mark.parametrize("at", range(1, 8))
def test_writer_frozen_before_any_send_adds_nothing_when_it_wakes(world: World, at: int):
    """The rightful owner stores the frozen rows and more, in other batches, meanwhile."""
    clock = TrapClock()
    frozen = world.store(clock=clock)
    settled(frozen, [readings(range(100))])
    owner = world.store()

    def take_over() -> None:
        settled(owner, [readings(range(100, CELL + 700))])
        settled(owner, [readings(range(CELL + 300, 2 * CELL + 900))])

    clock.trap, clock.asked, clock.at = take_over, 0, at
    settled(frozen, [readings(range(100, 2 * CELL + 500))])
    assert clock.at is None, "the writer was never frozen"
    assert world.seqs() == list(range(2 * CELL + 900))
    assert world.stored() == expected(2 * CELL + 900)


@pytest.mark.parametrize("seed", range(6))
def test_any_mix_of_owners_overlaps_and_forgotten_logs_stores_once(world: World, seed: int):
    rng = random.Random(seed)
    stores = [world.store() for _ in range(3)]
    position = CELL - 300
    settled(stores[0], [readings(range(position))])
    while position < CELL + 500:
        store = rng.choice(stores)
        match rng.randrange(6):
            case 0:
                world.forget()
            case 1:
                store.claim(READINGS, TOPIC_ID)
        start = rng.randrange(max(0, position - 400), position + 1)
        end = start + rng.randrange(1, 300)
        settled(store, [readings(range(start, end))])
        position = max(position, end)
    assert world.seqs() == list(range(position))
    assert world.stored() == expected(position)


def test_forgotten_log_that_began_anew_in_the_middle_of_a_cell_is_not_trusted(world: World):
    """The log exists then, and knows only the second half of the cell."""
    settled(world.store(), [readings(range(50))])
    world.forget()
    settled(world.store(), [readings(range(40, 80))])
    settled(world.store(), [readings(range(90))])
    assert world.seqs() == list(range(90))
    assert world.stored() == expected(90)


def test_rest_of_a_cell_is_stored_when_the_oplog_no_longer_reaches_back(world: World):
    store = world.store()
    settled(store, [readings(range(50))])
    gone = {"lastWriteOpTime": {"ts": Timestamp(1_700_000_000, 1), "t": Int64(1)}}
    world.change_logs(
        lambda logs: logs.update_many({}, {"$set": gone}),
        until={"lastWriteOpTime": {"$ne": gone["lastWriteOpTime"]}},
    )
    settled(store, [readings(range(30, 80))])
    settled(store, [readings(range(60, CELL + 10))])
    assert world.seqs() == list(range(CELL + 10))
    assert world.stored() == expected(CELL + 10)


def test_rows_without_a_source_and_entries_beside_them_fold_once_in_any_batches(world: World):
    rng = random.Random(3)
    entries = [
        Entry(offset, f"s{number}", Counts(accepted=number + 1, missing=offset))
        for offset in range(30)
        for number in range(offset % 4)
    ]
    stores = [world.store(), world.store()]
    position = 0
    while position < 30:
        start = rng.randrange(max(0, position - 8), position + 1)
        end = min(30, start + rng.randrange(1, 8))
        some = [entry for entry in entries if start <= entry.offset < end]
        settled(
            rng.choice(stores),
            [PartitionWrite(LEDGER, end, (), some), readings(range(start * 5, end * 5))],
        )
        position = max(position, end)
    totals: dict[str, Counts] = {
        f"s{n}": Counts(stored=c) for n, c in enumerate(expected(150).values())
    }
    for entry in entries:
        totals[entry.source].add(entry.counts)
    folded = world.query().folded()
    assert folded.counts == totals
    assert folded.next_offsets == {READINGS: 150, LEDGER: 30, DEAD: 0}
    assert folded.entry_offsets["s2", LEDGER] == 27


def test_lanes_written_at_the_same_time_all_store_once(world: World):
    first, second = world.store(), world.store()
    others = [Partition(Topic.ANALYTICS, number) for number in (2, 3, 4)]
    for store in (first, second):
        assert [store.claim(other, TOPIC_ID) for other in others] == [None] * 3

    def batch(start: int, end: int) -> list[PartitionWrite]:
        rows = [reading(offset) for offset in range(start, end)]
        return [PartitionWrite(one, end, rows) for one in (READINGS, *others)]

    settled(first, batch(0, CELL + 200))
    settled(second, batch(CELL - 100, CELL + 300))
    settled(first, batch(CELL, CELL + 400))
    assert world.seqs() == sorted(4 * list(range(CELL + 400)))
    assert sum(world.stored().values()) == 4 * (CELL + 400)


def test_trouble_in_one_lane_is_told_when_no_other_is_under_way(world: World):
    clock = TrapClock()
    store = world.store(clock=clock)
    other = Partition(Topic.ANALYTICS, 2)
    store.claim(other, TOPIC_ID)

    def fail() -> None:
        raise UnavailableError("writing: this lane is cut off")

    writes = [readings(range(50)), PartitionWrite(other, 50, [reading(n) for n in range(50)])]
    clock.trap, clock.asked, clock.at = fail, 0, 4
    with pytest.raises(UnavailableError):
        settled(store, writes)
    settled(store, writes)
    assert world.seqs() == sorted(2 * list(range(50)))
    assert sum(world.stored().values()) == 100


def test_refused_rows_stay_refused_after_their_cell_is_finished(world: World):
    """Too long for MongoDB, too long for a bucket, and without a time; the rest is stored."""
    rows = [reading(offset) for offset in range(CELL + 20)]
    rows[3] = reading(3, text="x" * 17 * 2**20)
    rows[CELL + 1] = reading(CELL + 1, number=2**70)
    wrong = [3, CELL + 1]
    if world.shape == "timeseries":
        rows[700] = reading(700, text="x" * 9 * 2**20)
        rows[1999] = reading(1999, collected_at="noon")
        wrong = [3, 700, 1999, CELL + 1]
    write = PartitionWrite(READINGS, CELL + 20, rows)
    for store in (world.store(), world.store()):
        for _ in range(2):
            assert [refusal.row.offset for refusal in settled(store, [write])] == wrong
    assert world.seqs() == [offset for offset in range(CELL + 20) if offset not in wrong]
    counts = world.query().folded().counts.values()
    assert sum(one.stored for one in counts) == CELL + 20 - len(wrong)
    assert sum(one.refused for one in counts) == len(wrong)
    assert sum(one.accepted for one in counts) == -len(wrong)


def test_rows_above_one_message_together_are_all_stored(world: World):
    """A message holds 48 MB; a cell of crowd positions may be longer."""
    rows = [reading(offset, text="x" * 2**20) for offset in range(60)]
    assert settled(world.store(), [PartitionWrite(READINGS, 60, rows)]) == []
    assert world.seqs() == list(range(60))


def test_dead_letters_of_two_topics_with_the_same_coordinates_are_both_kept(world: World):
    store = world.store()
    store.claim(Partition(Topic.ANALYTICS, 0), TOPIC_ID)
    for partition in (DEAD, Partition(Topic.ANALYTICS, 0)):
        row = Row("dead_letters", 5, {"time": T0, "source": str(partition.topic), "raw": b"?"})
        for _ in range(2):
            settled(store, [PartitionWrite(partition, 6, [row])])
    found = world.query().newest("dead_letters", limit=9)
    assert sorted(one["source"] for one in found) == ["analytics", "dead_letters"]


def test_partition_twice_in_one_write_is_folded_once(world: World):
    store = world.store()
    settled(store, [readings(range(10)), readings(range(5, 20))])
    assert world.seqs() == list(range(20))
    assert world.stored() == expected(20)


def test_slow_process_sends_nothing_after_its_deadline(world: World):
    clock = TrapClock()
    store = world.store(clock=clock, io_timeout_s=0.0)
    with pytest.raises(UnavailableError, match="past the deadline"):
        settled(store, [readings(range(10))])
    assert world.seqs() == []


def test_write_to_a_partition_that_was_never_claimed_is_a_broken_invariant(world: World):
    store = world.store()
    with pytest.raises(ValueError, match="never claimed"):
        settled(store, [PartitionWrite(Partition(Topic.RESULTS, 3), 1)])


def test_session_carries_the_chosen_id_and_is_never_handed_to_others(world: World):
    """The driver's private interface: if an update breaks it, here is where it shows."""
    wanted = uuid.uuid4()
    session = session_of(world.raw.client, wanted)
    command = {"insert": "any", "documents": [{"_id": 1}], "txnNumber": Int64(5), "stmtIds": [0]}
    world.raw.database.command(command, session=session)
    found = world.raw.client.config.transactions.find_one({"_id.id": wanted})
    assert found is not None
    assert found["txnNum"] == 5
    del session
    others = [world.raw.client.start_session() for _ in range(3)]
    for other in others:
        world.raw.database.command("ping", session=other)
        assert other.session_id["id"].as_uuid() != wanted
        other.end_session()


def test_empty_write_keeps_the_logs_of_resting_partitions_alive(world: World):
    store = world.store()
    settled(store, [readings(range(5))])
    world.clock.advance(400)

    def refreshed() -> int:
        status = world.raw.client.admin.command("serverStatus")
        return int(status["metrics"]["commands"]["refreshSessions"]["total"])

    before = refreshed()
    settled(store, [])
    settled(store, [])
    assert refreshed() == before + 1


def test_link_state_may_be_asked_from_any_thread(world: World):
    store = world.store()
    states = []
    thread = threading.Thread(target=lambda: states.append(store.link()), name="test.link")
    thread.start()
    thread.join()
    assert [state.is_up for state in states] == [True]
    assert states[0].detail == store.link().detail


def test_trouble_of_the_server_itself_refuses_no_document(world: World):
    """A damaged retry log answers TypeMismatch to every insert: wait for a person, lose nothing."""
    store = world.store()
    settled(store, [readings(range(50))])
    damaged = {"lastWriteOpTime": {"ts": Timestamp(1_700_000_000, 1), "t": 1}}
    world.change_logs(
        lambda logs: logs.update_many({}, {"$set": damaged}),
        until={"lastWriteOpTime": {"$ne": damaged["lastWriteOpTime"]}},
    )
    with pytest.raises(UnavailableError, match="wrong type"):
        settled(store, [readings(range(50, 80))])
    assert not store.link().is_up
    world.forget()
    assert settled(store, [readings(range(50, 80))]) == []
    assert store.link().is_up
    assert world.seqs() == list(range(80))


def foreign_ids(number: int, shape: Shape) -> list[Any]:
    """Give ids of every type that other programs may take, others for each number."""
    # A regular collection takes no names with dollars in an id, and each id once.
    dollars = [{"$gt": number}, DBRef("other", number)] if shape == "timeseries" else []
    ends = [MinKey(), MaxKey()] if shape == "timeseries" or number == 0 else []
    rng = random.Random(number)
    either = uuid.UUID(int=rng.getrandbits(128))
    return [
        *(ObjectId(), ObjectId(), f"text {number}", f"{number} text", either),
        *(uuid.UUID(int=rng.getrandbits(128)), b"bytes %d" % number, b"b%d" % number),
        *(number + 0.5, Decimal128(f"{number}.25"), T0 + timedelta(days=number)),
        *({"a": number}, {"a": either}, {"a": {"b": [number, either]}}),
        {"record": Int64(number), "order": Int64(1)},
        *(Timestamp(number + 1, 1), (None, True, False)[number], *dollars, *ends),
    ]


def test_pages_hold_every_document_once_whatever_ids_other_programs_took(world: World):
    """Each place of a list is where the next page may begin: a page may end by its bytes."""
    store = world.store()
    rows = [
        reading(offset, collected_at=T0 + timedelta(seconds=offset // 4)) for offset in range(9)
    ]
    settled(store, [PartitionWrite(READINGS, 9, rows)])
    wanted = list(range(9))
    for second in range(3):
        for identity in foreign_ids(second, world.shape):
            wanted.append(len(wanted))
            world.raw.database.sensors.insert_one(
                {
                    "_id": identity,
                    "collected_at": T0 + timedelta(seconds=second),
                    "seq": wanted[-1],
                    "metadata": {"sensor_id": "s0"},
                }
            )
    query = world.query()
    for source in (None, "s0"):
        found = query.listed("sensors", limit=500, source=source)
        seqs = [one.document["seq"] for one in found]
        others = [] if source is None else [1, 2, 3, 4, 5, 6, 8]
        assert sorted(seqs + others) == wanted
        for limit in (1, 500):
            for place, one in enumerate(found, 1):
                after = query.listed("sensors", limit=limit, source=source, after=one.cursor)
                assert [one.document["seq"] for one in after] == seqs[place : place + limit]
        times = [one["collected_at"] for one in query.newest("sensors", limit=500, source=source)]
        assert times == sorted(times, reverse=True)
        assert len(times) == len(found)


def test_documents_without_id_or_time_stop_no_list(world: World):
    """A time series takes documents without `_id`, a regular collection those without time."""
    store = world.store()
    settled(store, [readings(range(3))])
    wanted = [2, 1, 0]
    if world.shape == "timeseries":
        bare = {"collected_at": T0 - timedelta(days=1), "seq": 9, "metadata": {"sensor_id": "s0"}}
        raw = RawBSONDocument(encode(bare))
        world.raw.database.command({"insert": "sensors", "documents": [raw]})
        wanted.append(9)
    else:
        world.raw.database.sensors.insert_one({"seq": 9, "metadata": {"sensor_id": "s0"}})
    query = world.query()
    after = ""
    for seq in wanted:
        (one,) = query.listed("sensors", limit=1, after=after)
        assert one.document["seq"] == seq
        after = one.cursor
    assert query.listed("sensors", limit=1, after=after) == []
    assert len(query.listed("sensors", limit=9)) == len(wanted)
    assert [one["seq"] for one in query.newest("sensors", limit=3)] == [2, 1, 0]
    assert len(query.newest("sensors", limit=9)) == len(wanted)


def nested(depth: int) -> Any:
    identity: Any = 1
    for _ in range(depth):
        identity = {"": identity}
    return identity


@pytest.mark.parametrize(
    "encoded",
    [
        *(b"", b"{}", encode({}), encode({"other": 1}), encode({"_id": 1})[:-1]),
        *(encode({"_id": 1}) + b"\0", encode({"_id": "x"}).replace(b"x", b"\xff")),
        encode({"_id": T0}).replace(encode({"_id": T0})[9:17], b"\xff" * 7 + b"\x7f"),
        *(encode({"_id": nested(depth)}) for depth in (150, 250, 800)),
    ],
)
def test_cursor_that_holds_no_id_is_refused_and_nothing_is_asked(world: World, encoded: bytes):
    world.store()
    query = world.query()
    assert query.listed("sensors", limit=5) == []
    with pytest.raises(RefusedError) as caught:
        query.listed("sensors", limit=5, after=cursor_of(1, encoded))
    assert caught.value.reason == "bad_cursor"
    assert query.link().is_up


@pytest.mark.parametrize(
    "identity", ["$_id", {"$gt": ""}, {"$where": "1"}, Regex("."), MaxKey(), [1], nested(130)]
)
def test_cursor_is_never_taken_for_a_question(world: World, identity: Any):
    store = world.store()
    settled(store, [PartitionWrite(READINGS, 3, [reading(n, collected_at=T0) for n in range(3)])])
    after = cursor_of(round(T0.timestamp() * 1000), encode({"_id": identity}))
    found = world.query().listed("sensors", limit=5, after=after)
    # It is behind numbers, whatever it says: all that is there comes after such an id.
    assert [one.document["seq"] for one in found] == [2, 1, 0]


def test_row_whose_id_another_program_took_is_refused_and_not_counted_as_stored(world: World):
    """A time series has an `_id` as often as it is inserted: there nothing is refused."""
    first = Partition(Topic.ANALYTICS, 0)
    store = world.store()
    store.claim(first, TOPIC_ID)
    day_before = T0 - timedelta(days=1)
    for identity, at in ((0, T0), (Int64(1), day_before), (2.0, T0), (Decimal128("3"), T0)):
        world.raw.database.sensors.insert_one(
            {"_id": identity, "collected_at": at, "metadata": {"sensor_id": "other"}}
        )
    write = PartitionWrite(first, 5, [reading(number, collected_at=T0) for number in range(5)])
    refused = range(4) if world.shape == "regular" else range(0)
    for turn in range(3):
        refusals = store.write([write])
        assert [one.row.offset for one in refusals] == list(refused)
        assert all("E11000" in one.reason for one in refusals)
        if turn:
            world.forget()
    store.settle()
    stored = [number for number in range(5) if number not in refused]
    own = world.raw.database.sensors.find({"metadata.sensor_id": {"$ne": "other"}})
    assert sorted(one["seq"] for one in own) == stored
    assert {name for name, count in world.stored().items() if count} == {f"s{n}" for n in stored}
