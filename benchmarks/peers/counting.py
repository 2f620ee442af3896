"""Which readings arrived, and how often: of Kafka's topic or of MongoDB's collection, by number.

Owns reading back what a system wrote, wherever it keeps source and number. A reading is
its number within its source; runs on the same servers are told apart by ranges of numbers.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from harness import Servers
from pymongo import MongoClient

from peers.lineup import MQTT_TO_KAFKA, TOPIC, System


class Arrivals:
    """How often each reading of one system arrived."""

    def __init__(self, servers: Servers, job: str, system: System, database: str) -> None:
        if job == MQTT_TO_KAFKA:
            self._counts = _in_topic(servers, system)
        else:
            assert servers.mongo is not None
            self._counts = _in_collection(servers.mongo.url, system, database)

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
        found = client[database]["sensors"].aggregate([grouped], allowDiskUse=True)
        return Counter(
            {(str(row["_id"]["source"]), int(row["_id"]["seq"])): row["count"] for row in found}
        )


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name]
    return value
