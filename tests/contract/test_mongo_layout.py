"""Collections and servers that are not as they must be are named at the start."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bson import Int64
from pymongo import MongoClient

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, DeniedError
from matchday.ports import Partition, PartitionWrite, Row
from matchday.store.documents import COLLECTIONS, Shape
from matchday.store.mongo import MongoQuery, MongoStore
from servers import install
from servers.ports import LOOPBACK, free_port
from servers.process import ServerProcess, accepts

if TYPE_CHECKING:
    from servers.mongo import Mongo

READINGS = Partition(Topic.ANALYTICS, 2)
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """One database, seen raw and through stores."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self.name = f"layout_{uuid.uuid4().hex[:12]}"
        self._stack = stack
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        self.raw = stack.enter_context(closing(client))[self.name]

    def store(self, shape: Shape = "timeseries") -> MongoStore:
        return self._stack.enter_context(
            closing(MongoStore(self.url, clock=SystemClock(), database=self.name, shape=shape))
        )

    def query(self) -> MongoQuery:
        return self._stack.enter_context(closing(MongoQuery(self.url, database=self.name)))


@pytest.fixture
def world(mongo: Mongo) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(mongo.url, stack)


@pytest.fixture
def stand_alone(need_server: Callable[[str], None], tmp_path: Path) -> Iterator[World]:
    """Give a database on a mongod that is no replica set."""
    need_server("mongo")
    port = free_port()
    (tmp_path / "data").mkdir()
    server = ServerProcess(
        name=f"stand-alone mongod on port {port}",
        argv=[
            str(install.find_mongod()),
            *("--dbpath", str(tmp_path / "data"), "--port", str(port), "--bind_ip", LOOPBACK),
            *("--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"),
            *("--networkMessageCompressors", "snappy,zstd"),
        ],
        log_path=tmp_path / "mongod.log",
        answers=lambda: accepts(port),
    )
    server.start()
    try:
        with ExitStack() as stack:
            yield World(f"mongodb://{LOOPBACK}:{port}/", stack)
    finally:
        server.kill()


def readings(start: int, end: int) -> PartitionWrite:
    rows = [
        Row(
            "sensors",
            offset,
            {
                "collected_at": T0 + timedelta(seconds=offset),
                "seq": offset,
                "metadata": {"sensor_id": "s1"},
            },
            "s1",
        )
        for offset in range(start, end)
    ]
    return PartitionWrite(READINGS, end, rows)


def test_every_time_series_has_its_fields_granularity_and_indexes(world: World):
    world.store().prepare()
    found = {one["name"]: one for one in world.raw.list_collections()}
    for layout in COLLECTIONS.values():
        series = found[layout.name]["options"].get("timeseries")
        if layout.is_time_series:
            assert series["timeField"] == layout.time_field
            assert series["metaField"] == layout.meta_field
            assert series["granularity"] == layout.granularity
        else:
            assert series is None
    keys = [list(one["key"].items()) for one in world.raw.sensors.list_indexes()]
    assert [("metadata.sensor_id", 1), ("collected_at", -1)] in keys
    assert [("collected_at", -1)] in keys


def test_time_series_with_another_granularity_is_named_with_both_values(world: World):
    options = {"timeField": "collected_at", "metaField": "metadata", "granularity": "hours"}
    world.raw.create_collection("sensors", timeseries=options)
    with pytest.raises(
        ConfigError, match="collection sensors has granularity 'hours', wanted 'seconds'"
    ):
        world.store().prepare()


def test_regular_collection_in_place_of_a_time_series_is_named(world: World):
    world.raw.create_collection("positions")
    with pytest.raises(
        ConfigError, match="collection positions has type 'collection', wanted 'timeseries'"
    ):
        world.store().prepare()


@pytest.mark.parametrize(("made", "wanted"), [("timeseries", "regular"), ("regular", "timeseries")])
def test_store_of_the_other_shape_is_refused_and_says_which_it_is(
    world: World, made: Shape, wanted: Shape
):
    world.store(made).prepare()
    with pytest.raises(ConfigError, match=f"made with store.shape = '{made}'"):
        world.store(wanted).prepare()
    with pytest.raises(ConfigError, match="prepare the store first"):
        world.store(wanted).claim(READINGS, "topic-1")
    assert world.store(made).check() == []


def test_regular_readings_have_the_same_indexes(world: World):
    world.store("regular").prepare()
    keys = [list(one["key"].items()) for one in world.raw.sensors.list_indexes()]
    assert [("metadata.sensor_id", 1), ("collected_at", -1)] in keys
    assert [("collected_at", -1)] in keys


def test_regular_readings_are_stored_once_without_any_log_or_look_up(world: World):
    """Who finds his own `_id` there is repeating a row; nothing is refused for it."""
    store = world.store("regular")
    store.prepare()
    store.claim(READINGS, "topic-1")
    rows = readings(0, 300).rows
    world.raw.sensors.insert_many(
        [{"_id": Int64(2 << 48 | row.offset), **row.document} for row in rows[100:200]]
    )
    for claim in store._claims.values():
        for lane in claim.lanes.values():
            lane.doubt.sure_from = 0
            lane.used_s, lane.used_ms = float("inf"), 2**60
    assert store.write([readings(0, 300)]) == []
    assert world.raw.sensors.count_documents({}) == 300


def test_check_names_what_is_missing_and_prepare_makes_it(world: World):
    store = world.store()
    assert "collection sensors is missing" in store.check()
    store.prepare()
    world.raw.sensors.drop_index("collected_at_-1")
    assert store.check() == ["collection sensors has no index on collected_at"]
    store.prepare()
    assert store.check() == []


def test_database_of_a_newer_version_is_refused(world: World):
    store = world.store()
    store.prepare()
    world.raw.matchday.update_one({"_id": "format"}, {"$set": {"version": 2}})
    with pytest.raises(ConfigError, match="format version 2 is above 1"):
        store.prepare()
    assert "format version 2 is above 1" in store.check()[0]


def test_claim_without_prepare_is_refused(world: World):
    with pytest.raises(ConfigError, match="prepare the store first"):
        world.store().claim(READINGS, "topic-1")


def test_wrong_login_names_the_user_and_not_the_password(mongo: Mongo):
    url = f"mongodb://someone:hush-hush@{LOOPBACK}:{mongo.port}/?replicaSet=matchday"
    with (
        closing(MongoStore(url, clock=SystemClock())) as store,
        pytest.raises(
            DeniedError, match=r"'someone' is refused.*check user and password"
        ) as caught,
    ):
        store.prepare()
    assert "hush" not in str(caught.value)


def test_collection_made_again_stores_what_the_old_one_held(world: World):
    """Its sessions are others, so the log of the old collection does not skip anything."""
    store = world.store()
    store.prepare()
    store.claim(READINGS, "topic-1")
    store.write([readings(0, 20)])
    world.raw.sensors.drop()
    store.prepare()
    store.claim(READINGS, "topic-1")
    store.write([readings(0, 20)])
    assert world.raw.sensors.count_documents({}) == 20


def test_newest_works_in_a_database_without_indexes(world: World):
    world.raw.sensors.insert_many(
        [{"collected_at": T0 + timedelta(seconds=n), "n": n} for n in range(5)]
    )
    assert [one["n"] for one in world.query().newest("sensors", limit=2)] == [4, 3]


@pytest.mark.parametrize("silent_s", [0, 3 * 86_400])
def test_latest_of_a_source_opens_one_bucket_however_long_its_history(world: World, silent_s: int):
    """Else the server fetches 32 of them, from disk where the cache does not hold them."""
    store = world.store()
    store.prepare()
    store.claim(READINGS, "topic-1")
    last = datetime.now(UTC) - timedelta(seconds=silent_s)
    rows = [
        Row(
            "sensors",
            offset,
            {
                "collected_at": last - timedelta(hours=2 * (39 - offset)),
                "seq": offset,
                "metadata": {"sensor_id": "s"},
            },
            "s",
        )
        for offset in range(40)
    ]
    store.write([PartitionWrite(READINGS, len(rows), rows)])
    store.settle()
    world.raw.ledger.update_one({"_id": "s"}, {"$set": {"updated_at": last}})
    assert world.raw["system.buckets.sensors"].count_documents({}) == 40
    world.raw.command("profile", 2)
    (found,) = world.query().newest("sensors", limit=1, source="s")
    world.raw.command("profile", 0)
    asked = list(world.raw["system.profile"].find({"ns": f"{world.name}.sensors"}))
    assert found["seq"] == 39
    assert sum(one["docsExamined"] for one in asked) == 1


def test_stand_alone_server_says_what_it_does_not_cover(stand_alone: World):
    store = stand_alone.store()
    store.prepare()
    (sentence,) = store.check()
    assert "not a replica set" in sentence
    assert "twice" in sentence


@pytest.mark.parametrize("seed", range(4))
def test_stand_alone_server_stores_overlaps_and_restarts_once(stand_alone: World, seed: int):
    rng = random.Random(seed)
    store = stand_alone.store()
    store.prepare()
    store.claim(READINGS, "topic-1")
    position = 0
    while position < 7000:
        start = position
        if rng.random() < 0.6:
            start = rng.randrange(max(0, position - 600), position + 1)
        if rng.random() < 0.4:
            store = stand_alone.store()
            store.claim(READINGS, "topic-1")
        end = start + rng.randrange(1, 900)
        store.write([readings(start, end)])
        store.settle()
        position = max(position, end)
    found = sorted(one["seq"] for one in stand_alone.raw.sensors.find())
    assert found == list(range(position))
    assert stand_alone.query().folded().counts["s1"].stored == position


def test_stand_alone_server_stores_the_rest_when_one_row_is_too_long(stand_alone: World):
    store = stand_alone.store()
    store.prepare()
    store.claim(READINGS, "topic-1")
    write = readings(0, 40)
    write.rows[17].document["text"] = "x" * 9 * 2**20
    assert [one.row.offset for one in store.write([write])] == [17]
    assert [one.row.offset for one in store.write([write])] == [17]
    store.settle()
    found = sorted(one["seq"] for one in stand_alone.raw.sensors.find())
    assert found == [offset for offset in range(40) if offset != 17]
    counts = stand_alone.query().folded().counts["s1"]
    assert (counts.stored, counts.refused, counts.accepted) == (39, 1, -1)
