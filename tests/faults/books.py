"""What is in the stream and in the store, counted by plain clients from outside.

Readings are told apart by (source, seq). Nothing of the product decides here whether
something was lost or stored twice, except where the product's own file is the only reader:
the embedded stream and store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from confluent_kafka import Consumer, TopicPartition
from pymongo import MongoClient

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.ports import Start
from matchday.store.embedded_query import EmbeddedQuery
from matchday.stream.embedded import EmbeddedStream

Document = dict[str, Any]
Numbers = Counter[tuple[str, int]]
"""How often each (source, seq) is there."""

FINDINGS: Final = ("sensor_metrics", "crowd_metrics", "player_metrics", "anomalies")
WindowCounts = dict[tuple[str, int], int]
"""Readings in a window, by source and by the window's start in event time, milliseconds."""

READINGS: Final = ("sensors", "positions")
DOCUMENTS_MAX: Final = 10_000_000
DATABASE: Final = "server"


class Streamed(NamedTuple):
    """A reading in the stream: who said it, under which number, and its event time."""

    source: str
    seq: int
    t_ms: int


class Newest(NamedTuple):
    """The newest stored reading of a source: its number and its event time."""

    seq: int
    t_ms: int


class Span(NamedTuple):
    """What a finding over a time span is about; two of the same are one too many."""

    collection: str
    about: str
    start_ms: int


class Books(Protocol):
    """What is in stream and store; to be read while nothing flows, except `newest`."""

    def in_stream(self) -> list[Streamed]:
        """Give the readings that consumers of the stream can see, each source's in order."""

    def in_store(self) -> Numbers:
        """Count the stored readings."""

    def newest(self, source: str) -> Newest | None:
        """Give the newest stored reading of a source; None while the store does not answer."""

    def findings(self) -> Counter[Span]:
        """Count the stored findings over time spans."""

    def window_counts(self) -> WindowCounts:
        """Give how many readings each stored window says that it is made of."""

    def refused(self) -> Counter[bytes]:
        """Count the messages kept as dead letters, by their raw bytes."""


class ServerBooks:
    """The books on Kafka and MongoDB."""

    def __init__(self, bootstrap: str, mongo_url: str) -> None:
        self._bootstrap = bootstrap
        self._client: MongoClient[Document] = MongoClient(
            mongo_url, tz_aware=True, serverSelectionTimeoutMS=1000, socketTimeoutMS=20_000
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def in_stream(self) -> list[Streamed]:
        """Read the whole topic back, committed records only."""
        return [_streamed(value) for value in committed(self._bootstrap, "analytics")]

    def in_store(self) -> Numbers:
        """Count the documents of all kinds of readings."""
        database, wanted = self._client[DATABASE], {"seq": 1, "metadata.sensor_id": 1}
        return sum((_numbers(database[name].find({}, wanted)) for name in READINGS), Counter())

    def newest(self, source: str) -> Newest | None:
        """Ask for the newest document of a source."""
        from pymongo.errors import PyMongoError

        try:
            found = self._client[DATABASE]["sensors"].find_one(
                {"metadata.sensor_id": source}, sort=[("collected_at", -1)], max_time_ms=5000
            )
        except PyMongoError:
            return None
        return None if found is None else _newest(found)

    def findings(self) -> Counter[Span]:
        """Count the documents of the collections of findings."""
        database = self._client[DATABASE]
        return Counter(_span(name, one) for name in FINDINGS for one in database[name].find())

    def window_counts(self) -> WindowCounts:
        """Read the documents of `sensor_metrics`."""
        return _window_counts(self._client[DATABASE]["sensor_metrics"].find())

    def refused(self) -> Counter[bytes]:
        """Count the documents of `dead_letters`."""
        return Counter(bytes(one["raw"]) for one in self._client[DATABASE]["dead_letters"].find())


class EmbeddedBooks:
    """The books in the data folder of `matchday up`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def in_stream(self) -> list[Streamed]:
        """Read the whole topic back."""
        found: list[Streamed] = []
        stream = EmbeddedStream(self._folder, clock=SystemClock(), read_only=True)
        reader = stream.reader([Topic.ANALYTICS], Start.beginning())
        try:
            while not reader.is_at_end():
                records = reader.poll(timeout_s=1.0, records_max=5000)
                found += [_streamed(json.loads(record.value)) for record in records]
        finally:
            reader.close()
            stream.close()
        return found

    def in_store(self) -> Numbers:
        """Count the rows of all kinds of readings."""
        return sum((_numbers(self._documents(name)) for name in READINGS), Counter())

    def newest(self, source: str) -> Newest | None:
        """Ask for the newest row of a source."""
        with self._query() as query:
            found = query.newest("sensors", limit=1, source=source)
        return _newest(found[0]) if found else None

    def findings(self) -> Counter[Span]:
        """Count the rows of the collections of findings."""
        return Counter(_span(name, one) for name in FINDINGS for one in self._documents(name))

    def window_counts(self) -> WindowCounts:
        """Read the rows of `sensor_metrics`."""
        return _window_counts(self._documents("sensor_metrics"))

    def refused(self) -> Counter[bytes]:
        """Count the rows of `dead_letters`."""
        return Counter(bytes(one["raw"]) for one in self._documents("dead_letters"))

    def _documents(self, collection: str) -> list[Document]:
        with self._query() as query:
            return query.newest(collection, limit=DOCUMENTS_MAX)

    @contextmanager
    def _query(self) -> Iterator[EmbeddedQuery]:
        query = EmbeddedQuery(self._folder)
        try:
            yield query
        finally:
            query.close()


def committed(bootstrap: str, topic: str) -> Iterator[Mapping[str, Any]]:
    """Give every committed record of a topic, decoded from JSON."""
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "fault-suite-books",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        numbers = client.list_topics(topic, timeout=10).topics[topic].partitions
        client.assign([TopicPartition(topic, number, 0) for number in numbers])
        open_count = len(numbers)
        while open_count:
            for message in client.consume(5000, 1.0):
                if message.error() is not None:
                    open_count -= 1
                else:
                    yield json.loads(message.value() or b"{}")
    finally:
        client.close()


def _numbers(documents: Iterable[Document]) -> Numbers:
    return Counter((one["metadata"]["sensor_id"], one["seq"]) for one in documents)


def _streamed(value: Mapping[str, Any]) -> Streamed:
    return Streamed(value["sensor"], value["seq"], _ms(datetime.fromisoformat(value["ts"])))


def _window_counts(documents: Iterable[Document]) -> WindowCounts:
    return {
        (one["metadata"]["sensor_id"], _ms(one["span_start"])): round(one["count"])
        for one in documents
    }


def _newest(document: Document) -> Newest:
    return Newest(document["seq"], _ms(document["collected_at"]))


def _span(collection: str, document: Document) -> Span:
    about = json.dumps(document["metadata"], sort_keys=True, default=str)
    return Span(collection, about, _ms(document["span_start"]))


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
