"""The store's curve: what a reading costs by how many of its source come in one write.

MongoDB's time series charge for each pair of source and write, a regular collection for each
reading. So the same readings are stored in both shapes (`store.shape`), in writes of one
size, with 1 to 50 readings of a source in each, and then looked for: the latest of a
source, and one source's last minute. Our own store and query do it, in this process, whose
CPU is the writer's. No Kafka; the order of the shapes alternates.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, get_args

from harness import cpu_s
from pymongo import MongoClient
from report import Figure, Sample, arguments, figure, machine, progress, report

from matchday.clock import SystemClock
from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.ports import Partition, PartitionWrite, Query, Row
from matchday.store.documents import Shape
from matchday.store.mongo import MongoQuery, MongoStore
from matchday.store.rows import row_of_reading
from servers.mongo import Mongo

PER_SOURCE: Final = (1, 2, 5, 10, 20, 50)
PARTITIONS: Final = 4
LOOKS: Final = 20
MINUTE: Final = 60
"""Readings of a source's last minute at one a second."""


def writes(messages: int, *, size: int, per_source: int) -> Iterator[list[PartitionWrite]]:
    """Give the writes of a case: every source is in each of them, as often as wanted.

    Writes are a second apart in event time, and each source keeps to one partition.
    """
    sources = max(size // per_source, 1)
    began_ms = time.time_ns() // 1_000_000 - messages // size * 1000
    offsets = [0] * PARTITIONS
    for number in range(messages // size):
        rows: list[list[Row]] = [[] for _ in range(PARTITIONS)]
        for index in range(size):
            source = index % sources
            place = source % PARTITIONS
            seq = number * per_source + index // sources
            reading = Scalar(
                source=f"tag-{source}",
                t_ms=began_ms + number * 1000 + index * 1000 // size,
                quantity="temperature",
                value=15 + (seq * 7 + source) % 1000 / 100,
                unit="degC",
                seq=seq,
                venue="bench",
                session="benchmark",
            )
            rows[place].append(row_of_reading(offsets[place], encode_reading(reading)))
            offsets[place] += 1
        yield [
            PartitionWrite(Partition(Topic.ANALYTICS, place), offsets[place], of_place, [])
            for place, of_place in enumerate(rows)
        ]


def looked(query: Query, sources: Sequence[str | None], *, limit: int) -> float:
    """Give the median of looks for the newest documents of a source, or of all, ms."""
    taken_ms = []
    for source in sources:
        began_s = time.perf_counter()
        found = query.newest("sensors", limit=limit, source=source)
        taken_ms.append((time.perf_counter() - began_s) * 1000)
        if not found:
            raise SystemExit(f"benchmark: {source} is not found")
    return statistics.median(taken_ms)


def take(mongo: Mongo, shape: Shape, per_source: int, *, messages: int, size: int) -> Figure:
    """Store and find again, in a database of its own that is gone afterwards."""
    database = f"{shape}-{per_source}"
    with ExitStack() as stack:
        client: MongoClient[dict[str, Any]] = stack.enter_context(MongoClient(mongo.url))
        client.drop_database(database)
        stack.callback(client.drop_database, database)
        store = stack.enter_context(
            closing(MongoStore(mongo.url, clock=SystemClock(), database=database, shape=shape))
        )
        store.prepare()
        for number in range(PARTITIONS):
            store.claim(Partition(Topic.ANALYTICS, number), "shapes")
        made = list(writes(messages, size=size, per_source=per_source))
        store.write(made[0])  # it looks up, and makes buckets and the account
        store.settle()
        first = sample(mongo, size)
        for one in made[1:]:
            store.write(one)
        store.settle()
        last = sample(mongo, len(made) * size)
        client.admin.command("fsync")
        stats = client[database].command("collStats", "sensors")
        query = stack.enter_context(closing(MongoQuery(mongo.url, database=database)))
        sources = [f"tag-{number % (size // per_source)}" for number in range(LOOKS)]
        looked(query, sources[:2], limit=1)
        stored = stats["storageSize"] + stats["totalIndexSize"]
        return figure(
            shape,
            first,
            last,
            **{
                "B/reading": stored / last.done,
                "latest ms": looked(query, sources, limit=1),
                "minute ms": looked(query, sources, limit=MINUTE),
            },
        )


def sample(mongo: Mongo, done: int) -> Sample:
    """Note time and CPU of this process and of the server."""
    cpu = {"writer": time.process_time(), "MongoDB": cpu_s(mongo.pid)}
    return Sample(time.monotonic(), done, cpu)


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, messages=40_000, write=2000)
    machine_is = machine()
    parts: dict[str, list[Figure]] = {}
    shapes: Sequence[Shape] = get_args(Shape)
    with (
        tempfile.TemporaryDirectory(prefix="matchday-bench-") as folder,
        Mongo(Path(folder) / "mongo") as mongo,
    ):
        progress("warming the server up")
        for shape in shapes:
            take(mongo, shape, 20, messages=20_000, size=given.write)
        for number in range(given.rounds):
            for place, per_source in enumerate(PER_SOURCE):
                name = f"{per_source} readings of a source in a write"
                for shape in shapes[::-1] if (number + place) % 2 else shapes:
                    progress(f"round {number + 1}: {shape}, {name}")
                    options = {"messages": given.messages, "size": given.write}
                    taken = take(mongo, shape, per_source, **options)
                    parts.setdefault(name, []).append(taken)
    title = f"The shape of `sensors`: writes of {given.write:,} readings, the account included"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
