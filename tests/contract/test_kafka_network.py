"""What the Kafka stream promises while its connections are cut again and again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import UnavailableError
from matchday.ports import Bookmark, Partition, Record
from matchday.stream.kafka import KafkaStream
from servers.process import LOOPBACK, free_ports, wait_until
from servers.proxy import Proxy

CLOCK = SystemClock()
IO_TIMEOUT_S = 2.0
BOUND_S = 3 * IO_TIMEOUT_S
"""The commit's own bound, that of aborting, and what the machine may be late by."""
COMMITS = 25


class Holder:
    """An assignee that begins at the bookmarks."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        self.held |= set(bookmarks)
        return {place: mark.offset if mark else 0 for place, mark in bookmarks.items()}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.held -= set(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.held -= set(partitions)

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        raise AssertionError("nothing expires here")


@pytest.mark.timeout(300)
def test_commits_with_bookmarks_end_in_time_however_their_connection_is_cut(
    fresh_kafka: Callable[..., Any],
):
    """The client itself waits for ever here (librdkafka issue 5456)."""
    port, controller_port, behind = free_ports(3)
    with Proxy(behind) as proxy:
        fresh_kafka(
            port=port,
            controller_port=controller_port,
            settings={
                "listeners": f"PLAINTEXT://{LOOPBACK}:{port},PROXIED://{LOOPBACK}:{behind},"
                f"CONTROLLER://{LOOPBACK}:{controller_port}",
                "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port},"
                f"PROXIED://{LOOPBACK}:{proxy.port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
                "CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
            },
        )
        url = f"kafka://{LOOPBACK}:{proxy.port}"
        with closing(KafkaStream(url, clock=CLOCK, io_timeout_s=IO_TIMEOUT_S)) as stream:
            stream.prepare()
            slowest_s = slowest_commit_s(stream, proxy)
    assert slowest_s < BOUND_S


def slowest_commit_s(stream: KafkaStream, proxy: Proxy) -> float:
    """Commit while connections are cut at random moments; give the longest time taken."""
    rng = random.Random(5)
    holder = Holder()
    never = threading.Event()
    slowest_s = 0.0
    producer = None
    with closing(stream.consumer("group", [Topic.LEDGER], holder)) as consumer:

        def holds() -> bool:
            try:
                consumer.poll(timeout_s=0.1, records_max=100)
            except UnavailableError:
                return False
            return bool(holder.held)

        for _ in range(COMMITS):
            wait_until(holds, what="it holds partitions", timeout_s=60)
            try:
                producer = producer or stream.producer("owner")
            except UnavailableError:
                continue
            cutting = threading.Thread(
                target=lambda: (CLOCK.wait(never, rng.uniform(0.0, 0.03)), proxy.cut())
            )
            cutting.start()
            began_s = CLOCK.monotonic_s()
            try:
                producer.commit(
                    {Topic.RESULTS: [Record(b"key", b"{}")]},
                    consumer=consumer,
                    bookmarks={place: Bookmark(0) for place in holder.held},
                )
            except UnavailableError:
                producer.close()
                producer = None
            slowest_s = max(slowest_s, CLOCK.monotonic_s() - began_s)
            cutting.join()
    if producer is not None:
        producer.close()
    return slowest_s
