"""Length of history: does a store of 100 million readings write and answer as an empty one?

Two databases on one server, in one run and in turns: one begins empty, in the other lie
`--readings` readings of 1,000 sources, one a second each, up to now. They are not sent one
by one; their buckets are. Our own store makes some, which the server compresses, and they are
copied with source, first `_id`, time and number changed, into the collection of buckets, as
`mongorestore` does. So they are what the server would have made of the readings, and a
hundred million take minutes. Then our own store writes the same to both, and our own query
asks both. "latest" is the first look at a source, of whose history nothing need be in the cache,
"latest again" the second. Everything is in a temporary folder that is gone afterwards.
"""

from __future__ import annotations

import random
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from copy import deepcopy
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bson import Binary, Int64, ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.write_concern import WriteConcern
from report import Figure, arguments, figure, machine, progress, report
from shapes import LOOKS, MINUTE, PARTITIONS, looked, sample, writes

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.ports import Partition, PartitionWrite, Row
from matchday.store.documents import EPOCH
from matchday.store.mongo import MongoQuery, MongoStore
from servers.mongo import Mongo

SOURCES: Final = 1000
BUCKET: Final = 780
"""Readings in a bucket, one a second: whole minutes, to which buckets are aligned. The server
closes one at 125 kB of documents, some 830 of these."""

BUCKET_S: Final = 780
BUCKETS: Final = "system.buckets.sensors"
BULK: Final = 500
TEMPLATES: Final = 97
"""Buckets that are copied: neighbours must differ, or the disk's compression finds them equal."""

CACHE_GB: Final = 0.25
"""The least that the server takes: the history shall not fit."""

SLOT: Final = 2000
"""Stands in the `_id` of history, where no partition of the run does."""

PER_SOURCE: Final = 10
MADE_AT: Final = EPOCH + timedelta(days=20_000)
MINUTE_MS: Final = 60_000


def templates(url: str) -> list[dict[str, Any]]:
    """Let our own store make buckets that the server has closed and compressed."""
    database = "template"
    with ExitStack() as stack:
        client: MongoClient[dict[str, Any]] = stack.enter_context(MongoClient(url, tz_aware=True))
        stack.callback(client.drop_database, database)
        store = stack.enter_context(
            closing(MongoStore(url, clock=SystemClock(), database=database))
        )
        store.prepare()
        partition = Partition(Topic.ANALYTICS, 0)
        store.claim(partition, "template")
        rng = random.Random(1)
        # The last one of a source is too late for its bucket, and closes it.
        times_s = [*range(BUCKET), 10 * BUCKET_S]
        rows = [
            _row(place * len(times_s) + seq, f"made-{place}", seq, at_s, rng)
            for place in range(TEMPLATES)
            for seq, at_s in enumerate(times_s)
        ]
        store.write([PartitionWrite(partition, len(rows), rows, [])])
        first = {"control.min.seq": 0, "control.max.seq": BUCKET - 1}
        made = list(client[database][BUCKETS].find(first))
    columns = [column for one in made for column in one["data"].values()]
    if len(made) != TEMPLATES or not all(isinstance(one, Binary) for one in columns):
        raise SystemExit(f"benchmark: the server compressed {len(made)} buckets of {TEMPLATES}")
    return made


def _row(offset: int, source: str, seq: int, at_s: int, rng: random.Random) -> Row:
    document = {
        "collected_at": MADE_AT + timedelta(seconds=at_s),
        "temperature": round(rng.gauss(20, 3), 2),
        "unit": "degC",
        "seq": seq,
        "metadata": {"sensor_id": source, "venue": "bench", "session": "benchmark"},
    }
    return Row("sensors", offset, document, source)


def copies(made: Sequence[dict[str, Any]], buckets: int, end: datetime) -> Iterator[dict[str, Any]]:
    """Give the buckets of a history that ends at `end`, in the order of their times."""
    rounds = -(-buckets // SOURCES)
    for number in range(buckets):
        turn, source = divmod(number, SOURCES)
        begin = end - timedelta(seconds=(rounds - turn) * BUCKET_S)
        one = made[number % len(made)]
        yield _copy(one, source=source, begin=begin, first_id=number * BUCKET, seq=turn * BUCKET)


def _copy(
    made: dict[str, Any], *, source: int, begin: datetime, first_id: int, seq: int
) -> dict[str, Any]:
    """Copy a bucket to another source and time.

    A compressed column begins with its first value, and the rest are differences.
    """
    later = begin - MADE_AT
    coordinates = (SLOT << 48 | first_id) - made["control"]["min"]["_id"]
    one = deepcopy(made)
    one["meta"]["sensor_id"] = f"tag-{source}"
    for bound in (one["control"]["min"], one["control"]["max"]):
        bound["_id"] = Int64(bound["_id"] + coordinates)
        bound["collected_at"] += later
        bound["seq"] += seq
    data = one["data"]
    data["_id"] = _shifted(data["_id"], "<q", coordinates)
    data["collected_at"] = _shifted(data["collected_at"], "<q", later // timedelta(milliseconds=1))
    data["seq"] = _shifted(data["seq"], "<i", seq)
    # A bucket is found by the time in its name as well.
    seconds = int(one["control"]["min"]["collected_at"].timestamp())
    one["_id"] = ObjectId(struct.pack(">I", seconds) + ObjectId().binary[4:])
    return one


def _shifted(column: Binary, layout: str, by: int) -> Binary:
    """Add to the first value of a column: one byte of type, an empty name, the value."""
    (first,) = struct.unpack_from(layout, column, 2)
    value = struct.pack(layout, first + by)
    return Binary(column[:2] + value + column[2 + len(value) :], column.subtype)


def lay_down(
    database: Database[dict[str, Any]], made: Sequence[dict[str, Any]], readings: int
) -> int:
    """Put so many readings into a prepared database; give how many it became."""
    buckets = -(-readings // BUCKET)
    now_ms = time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS - 2 * MINUTE_MS
    end = EPOCH + timedelta(milliseconds=now_ms)
    into = database.get_collection(BUCKETS, write_concern=WriteConcern(w=1))
    bulk: list[dict[str, Any]] = []
    for number, one in enumerate(copies(made, buckets, end), 1):
        bulk.append(one)
        if len(bulk) == BULK or number == buckets:
            into.insert_many(bulk, ordered=False)
            bulk = []
        if number % 20_000 == 0:
            progress(f"{number * BUCKET:,} readings are laid down")
    database.client.admin.command("fsync")
    return buckets * BUCKET


def check(database: Database[dict[str, Any]]) -> None:
    """Read one source's copied buckets back through the time series, reading by reading.

    Raises:
        SystemExit: They are not what our store would have written.
    """
    found = list(database.sensors.find({"metadata.sensor_id": "tag-7"}).sort("seq", 1).limit(5000))
    numbers = [one["seq"] for one in found]
    ids = {one["_id"] >> 48 for one in found}
    times = [one["collected_at"] for one in found]
    steps = {(after - before).total_seconds() for before, after in pairwise(times)}
    if numbers != list(range(len(found))) or ids != {SLOT} or steps - {1.0}:
        raise SystemExit(f"benchmark: copied buckets read back wrong: {numbers[:3]} {steps}")


def take(mongo: Mongo, database: str, *, number: int, messages: int) -> Figure:
    """Write to a database and ask it."""
    with ExitStack() as stack:
        store = stack.enter_context(
            closing(MongoStore(mongo.url, clock=SystemClock(), database=database))
        )
        store.prepare()
        for place in range(PARTITIONS):
            store.claim(Partition(Topic.ANALYTICS, place), f"round-{number}")
        made = list(writes(messages, size=SOURCES * PER_SOURCE, per_source=PER_SOURCE))
        store.write(made[0])
        store.settle()
        first = sample(mongo, SOURCES * PER_SOURCE)
        for one in made[1:]:
            store.write(one)
        store.settle()
        last = sample(mongo, len(made) * SOURCES * PER_SOURCE)
        query = stack.enter_context(closing(MongoQuery(mongo.url, database=database)))
        sources = [f"tag-{50 * place}" for place in range(LOOKS)]
        return figure(
            database,
            first,
            last,
            **{
                "latest ms": looked(query, sources, limit=1),
                "latest again ms": looked(query, sources, limit=1),
                "minute ms": looked(query, sources, limit=MINUTE),
                "newest 100 of all ms": looked(query, [None] * 5, limit=100),
            },
        )


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, readings=100_000_000, messages=100_000)
    machine_is = machine()
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="matchday-bench-") as folder,
        Mongo(Path(folder) / "mongo", cache_gb=CACHE_GB) as mongo,
        MongoClient[dict[str, Any]](mongo.url, tz_aware=True) as client,
    ):
        names = ("empty", "history")
        for name in names:
            with closing(MongoStore(mongo.url, clock=SystemClock(), database=name)) as store:
                store.prepare()
        began_s = time.monotonic()
        readings = lay_down(client["history"], templates(mongo.url), given.readings)
        laid_s = time.monotonic() - began_s
        check(client["history"])
        stats = client["history"].command("collStats", "sensors")
        for name in names:
            take(mongo, name, number=0, messages=2 * SOURCES * PER_SOURCE)
        for number in range(1, given.rounds + 1):
            for name in names[::-1] if number % 2 else names:
                progress(f"round {number}: {name}")
                figures.append(take(mongo, name, number=number, messages=given.messages))
    size_gb = (stats["storageSize"] + stats["totalIndexSize"]) / 1e9
    title = (
        f"History: {readings:,} readings of {SOURCES:,} sources ({size_gb:.2f} GB), laid down as"
        f" copied buckets in {laid_s:.0f} s, beside an empty store"
    )
    parts = {f"writes of {SOURCES * PER_SOURCE:,} readings, the account included": figures}
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
