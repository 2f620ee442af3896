"""The account on a real MongoDB, settled apart from the rows: once, whoever goes in between."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from matchday.clock import SystemClock
from matchday.domain.account import Counts
from matchday.domain.topics import Topic
from matchday.errors import UnavailableError
from matchday.ports import Entry, Partition, PartitionWrite, Row
from matchday.protocols.cells import CELL
from matchday.store import mongo as mongo_module
from matchday.store.documents import DOCUMENT_BYTES_MAX
from matchday.store.mongo import MongoQuery, MongoStore
from matchday.store.mongo_owed import Owed
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mongo import Mongo

READINGS = Partition(Topic.ANALYTICS, 1)
LEDGER = Partition(Topic.LEDGER, 0)
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOO_LONG = "x" * DOCUMENT_BYTES_MAX


class World:
    """One database on the shared server, with as many owners as a test wants."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f"settle_{uuid.uuid4().hex[:12]}"
        self._stack = ExitStack()
        self.query = self._stack.enter_context(closing(MongoQuery(url, database=self.name)))

    def store(self, *, topic_id: str = "topic-1", **options: Any) -> MongoStore:
        options = {"clock": SystemClock(), "io_timeout_s": 20.0, **options}
        store = self._stack.enter_context(
            closing(MongoStore(self.url, database=self.name, **options))
        )
        store.prepare()
        for partition in (READINGS, LEDGER):
            store.claim(partition, topic_id)
        return store

    def seqs(self) -> list[int]:
        return sorted(one["seq"] for one in self.query.newest("sensors", limit=100_000))

    def stored(self) -> dict[str, int]:
        return {name: counts.stored for name, counts in self.query.folded().counts.items()}

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def world(mongo: Mongo) -> Iterator[World]:
    with closing(World(mongo.url)) as world:
        yield world


class TrapClock(SystemClock):
    """A clock that calls something when it is asked for the wall's time, as each fold does."""

    trap: Callable[[], None] | None = None

    def wall_ms(self) -> int:
        trap, self.trap = self.trap, None
        if trap is not None:
            trap()
        return super().wall_ms()


def reading(offset: int, **fields: Any) -> Row:
    source = f"s{offset % 7}"
    at = T0 + timedelta(seconds=offset / 10)
    document = {"collected_at": at, "seq": offset, "metadata": {"sensor_id": source}, **fields}
    return Row("sensors", offset, document, source)


def readings(offsets: Sequence[int]) -> PartitionWrite:
    return PartitionWrite(READINGS, offsets[-1] + 1, [reading(offset) for offset in offsets])


def expected(count: int) -> dict[str, int]:
    return {f"s{number}": len(range(number, count, 7)) for number in range(min(7, count))}


def test_rows_without_their_counts_are_pending_and_never_a_difference(world: World):
    store = world.store()
    store.write([readings(range(30))])
    store.write([readings(range(30, 80))])
    assert world.query.document_count_by_source() == expected(80)
    folded = world.query.folded()
    assert folded.counts == {}
    assert folded.next_offsets == {READINGS: 0, LEDGER: 0}
    store.settle()
    assert world.stored() == expected(80)
    assert world.query.folded().next_offsets[READINGS] == 80


def test_crash_before_the_account_is_settled_is_made_up_for(world: World):
    """Several writes over several cells, with refused rows, entries and expired readings."""
    end = 2 * CELL + 300
    rows = [reading(offset) for offset in range(end)]
    for bad in (3, CELL + 5, end - 1):
        rows[bad] = reading(bad, text=TOO_LONG)
    entries = [Entry(4, "stream:analytics", Counts(refused=1)), Entry(4, "s3", Counts(late=2))]
    ledger = [Entry(offset, "s1", Counts(accepted=offset)) for offset in range(86)]

    def batch(begin: int, last: int) -> list[PartitionWrite]:
        some = [entry for entry in entries if begin <= entry.offset < last]
        own = [entry for entry in ledger if begin <= entry.offset * 50 < last]
        writes = [PartitionWrite(READINGS, last, rows[begin:last], some)]
        if own:
            writes.append(PartitionWrite(LEDGER, own[-1].offset + 1, (), own))
        return writes

    first = world.store()
    for begin in range(0, end, 900):
        first.write(batch(begin, min(end, begin + 900)))
    assert world.query.folded().counts == {}
    again = world.store()
    refused: list[int] = []
    for begin in range(0, end, 1300):
        refusals = again.write(batch(begin, min(end, begin + 1300)))
        refused += [refusal.row.offset for refusal in refusals]
    for store in (again, first, again):
        store.settle()
    assert refused == [3, CELL + 5, end - 1]
    assert len(world.seqs()) == end - 3
    folded = world.query.folded().counts
    assert sum(one.stored for one in folded.values()) == end - 3
    assert sum(one.refused for one in folded.values()) == 3 + 1
    assert (folded["s3"].late, folded["stream:analytics"]) == (2, Counts(refused=1))
    assert folded["s1"].accepted == sum(range(86)) - Counter(bad % 7 for bad in refused)[1]
    assert world.query.folded().next_offsets == {READINGS: end, LEDGER: 86}


@pytest.mark.parametrize("is_first_earlier", [True, False])
def test_owner_that_wakes_unsettled_after_a_take_over_adds_nothing(
    world: World, is_first_earlier: bool
):
    """Both read from the bookmark that was settled last, and settle in either order."""
    first = world.store()
    first.write([readings(range(50))])
    first.settle()
    first.write([readings(range(50, 80))])
    second = world.store()
    second.write([readings(range(50, 90))])
    first.write([readings(range(80, 120))])
    for store in (first, second) if is_first_earlier else (second, first):
        store.settle()
    second.write([readings(range(90, 150))])
    second.settle()
    assert world.seqs() == list(range(150))
    assert world.stored() == expected(150)


@pytest.mark.parametrize("seed", range(5))
def test_any_mix_of_owners_writes_settlings_and_take_overs_counts_once(world: World, seed: int):
    """Owners begin at the bookmark, go on without gaps, and may be stale; it moves when settled."""
    rng = random.Random(seed)
    bookmark = owner = reached = 0
    stores = [world.store()]
    positions = [0]
    while bookmark < 400:
        one = rng.randrange(len(stores))
        match rng.choice(["write", "write", "write", "settle", "take over", "claim"]):
            case "write":
                end = positions[one] + rng.randrange(1, 60)
                start = max(0, positions[one] - rng.choice([0, 0, 20]))
                stores[one].write([readings(range(start, end))])
                positions[one] = end
                reached = max(reached, end)
            case "settle":
                stores[one].settle()
                if one == owner:
                    bookmark = max(bookmark, positions[one])
            case "take over" if len(stores) < 5:
                stores.append(world.store())
                positions.append(bookmark)
                owner = len(stores) - 1
            case "claim":
                stores[one].claim(READINGS, "topic-1")
                positions[one], owner = bookmark, one
    # Whoever is next finds all that was ever written.
    last = world.store()
    last.write([readings(range(bookmark, reached + 10))])
    for store in (last, *stores):
        store.settle()
    assert world.seqs() == list(range(reached + 10))
    assert world.stored() == expected(reached + 10)


def test_settling_that_is_cut_off_is_done_again_with_more(world: World):
    clock = TrapClock()
    store = world.store(clock=clock)
    store.write([readings(range(20))])
    store.settle()
    store.write([readings(range(20, 60))])

    def die() -> None:
        raise KeyboardInterrupt

    clock.trap = die
    with pytest.raises(KeyboardInterrupt):
        store.settle()
    assert world.stored() == expected(20)
    store.write([readings(range(55, 90))])
    store.settle()
    assert world.stored() == expected(90)


def test_rival_that_settles_in_the_middle_of_a_settling_is_noticed(world: World):
    clock = TrapClock()
    first, second = world.store(clock=clock), world.store()
    first.write([readings(range(60))])
    second.write([readings(range(45))])
    clock.trap = second.settle
    first.settle()
    assert clock.trap is None
    assert world.stored() == expected(60)


def test_server_that_is_away_between_write_and_settling_costs_nothing(
    fresh_mongo: Callable[[], Mongo],
):
    server = fresh_mongo()
    with closing(World(server.url)) as world:
        store = world.store(io_timeout_s=0.5)
        store.write([readings(range(30))])
        store.settle()
        store.write([readings(range(30, 70))])
        server.kill()
        for _ in range(2):
            with pytest.raises(UnavailableError):
                store.settle()
        assert not store.link().is_up
        server.start()

        def works() -> bool:
            try:
                store.settle()
            except UnavailableError:
                return False
            return True

        wait_until(works, what="the account is settled")
        store.write([readings(range(60, 100))])
        store.settle()
        assert world.seqs() == list(range(100))
        assert world.stored() == expected(100)


def test_much_that_is_owed_is_settled_by_the_write_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mongo_module, "OWED_MAX", 50)
    store = world.store()
    store.write([readings(range(49))])
    assert world.stored() == {}
    store.write([readings(range(30, 60))])
    assert world.stored() == expected(60)
    store.write([readings(range(60, 70))])
    assert world.stored() == expected(60)


def test_what_was_owed_under_an_earlier_identity_of_a_topic_is_not_mixed_up(world: World):
    store = world.store()
    store.write([readings(range(40))])
    store.claim(READINGS, "topic-2")
    store.write([readings(range(10))])
    store.settle()
    assert world.stored() == expected(10)
    assert world.query.folded().next_offsets[READINGS] == 10


def test_every_end_of_what_is_owed_can_be_told():
    """Another owner may have folded any beginning of it."""
    owed = Owed("analytics-1")
    rows = [reading(offset) for offset in range(20)]
    entries = [Entry(8, "s1", Counts(late=1)), Entry(9, "x", Counts(refused=1))]
    owed.add(PartitionWrite(READINGS, 12, rows[:12], entries), {id(rows[8])})
    owed.add(PartitionWrite(READINGS, 12, rows[:12], entries), {id(rows[8])})
    owed.add(PartitionWrite(READINGS, 20, rows[10:]))
    shares = owed.shares()
    assert (shares["s1"].first, shares["s1"].last) == (1, 15)
    assert shares["s1"].counts == Counts(stored=2, refused=1, accepted=-1, late=1)
    assert shares["x"].counts == Counts(refused=1)
    assert {name: share.counts.stored for name, share in shares.items() if name != "x"} == {
        **expected(20),
        "s1": 2,
    }
    rest = owed.share_above(8, "s1")
    assert rest is not None
    assert (rest.first, rest.last, rest.counts) == (15, 15, Counts(stored=1))
    assert owed.share_above(15, "s1") is None
    assert len(owed) == 20 + 2
