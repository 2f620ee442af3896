"""What arrived: how many so far, and which readings, how often, by number.

Owns reading back what a system wrote, wherever it keeps source and number: Kafka's topic,
MongoDB's collection, or the file of the embedded store. A reading is its number within its
source; parts of one run are told apart by ranges of numbers.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition
from harness import Servers
from pymongo import MongoClient

from matchday.store.embedded import document_table
from peers.lineup import DATA, MONGO, MQTT_TO_KAFKA, TOPIC, Place, System

COLLECTION: Final = "sensors"

_STORED: Final = "SELECT coalesce(sum(stored), 0) FROM account"
_EACH: Final = f"""
    SELECT s.name, json_extract(CAST(d.document AS TEXT), '$.seq'), count(*)
    FROM {document_table(COLLECTION)} d JOIN sources s ON s.id = d.source GROUP BY 1, 2
"""


def through(place: Place, job: str, system: System) -> Callable[[], int]:
    """Give a function that counts what a system is through with, as cheaply as it can be asked."""
    if job == MQTT_TO_KAFKA:
        return place.servers.appended
    if MONGO not in system.servers:
        # Not the file of documents: its account is a row a source.
        path = place.directory / DATA / "store.db"
        return lambda: int(_asked(path, _STORED)[0][0])
    client: MongoClient[dict[str, Any]] = MongoClient(place.url)

    def count() -> int:
        answer = client[place.database].command("collStats", COLLECTION)
        if "timeseries" in answer:
            return int(answer["timeseries"].get("numMeasurementsCommitted", 0))
        return int(answer.get("count", 0))

    return count


class Arrivals:
    """How often each reading of one system arrived."""

    def __init__(self, place: Place, job: str, system: System) -> None:
        if job == MQTT_TO_KAFKA:
            self._counts = _in_topic(place.servers, system)
        elif MONGO in system.servers:
            self._counts = _in_collection(place.url, system, place.database)
        else:
            rows = _asked(place.directory / DATA / "store.db", _EACH)
            self._counts = Counter({(str(name), int(seq)): count for name, seq, count in rows})

    def notes(self, seq_first: int, seq_end: int, sent: int) -> dict[str, float]:
        """Give how many of the readings with these numbers are lost, and are there again."""
        found = [count for (_, seq), count in self._counts.items() if seq_first <= seq < seq_end]
        return {"lost": float(sent - len(found)), "twice": float(sum(found) - len(found))}


def _in_topic(servers: Servers, system: System) -> Counter[tuple[str, int]]:
    settings = {
        "bootstrap.servers": servers.kafka.bootstrap,
        "group.id": "benchmark-arrivals",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "log_level": 0,
    }
    counts: Counter[tuple[str, int]] = Counter()
    with closing(Consumer(settings)) as client:
        known = client.list_topics(TOPIC, 10).topics[TOPIC].partitions
        client.assign([TopicPartition(TOPIC, number, 0) for number in known])
        open_count = len(known)
        while open_count:
            for message in client.consume(5000, 1.0):
                if message.error() is not None:
                    open_count -= 1
                    continue
                value = json.loads(message.value() or b"{}")
                key = (message.key() or b"").decode()
                source = _at(value, system.source) if system.source else key
                counts[source, int(_at(value, system.seq))] += 1
    return counts


def _in_collection(url: str, system: System, database: str) -> Counter[tuple[str, int]]:
    identity = {"source": f"${system.source}", "seq": f"${system.seq}"}
    grouped = {"$group": {"_id": identity, "count": {"$sum": 1}}}
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    with client:
        found = client[database][COLLECTION].aggregate([grouped], allowDiskUse=True)
        return Counter(
            {(str(row["_id"]["source"]), int(row["_id"]["seq"])): row["count"] for row in found}
        )


def _asked(path: Path, question: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(question).fetchall()


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name]
    return value
