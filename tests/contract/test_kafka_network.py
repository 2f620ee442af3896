"""What the Kafka stream promises while its connections are cut again and again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any, Self

import pytest

pytest.importorskip("confluent_kafka")

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import UnavailableError
from matchday.ports import Bookmark, Partition, Record, Start
from matchday.stream.kafka import KafkaStream
from matchday.stream.kafka_consumer import KafkaConsumer
from matchday.stream.kafka_reader import KafkaReader
from servers.hiding_proxy import HidingProxy
from servers.ports import LOOPBACK, free_ports
from servers.process import wait_until
from servers.proxy import Proxy

CLOCK = SystemClock()
IO_TIMEOUT_S = 2.0
BOUND_S = 3 * IO_TIMEOUT_S
"""The commit's own bound, that of aborting, and what the machine may be late by."""
COMMITS = 25
USERS = 4
HIDDEN_S = 6.0


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


def options_behind(proxy_port: int, port: int, controller_port: int, behind: int) -> dict[str, Any]:
    """Give the options of a node with a second listener at `behind`, behind a proxy."""
    listeners = {
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},PROXIED://{LOOPBACK}:{behind},"
        f"CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port},PROXIED://{LOOPBACK}:{proxy_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
        "CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    return {"port": port, "controller_port": controller_port, "settings": listeners}


@pytest.mark.timeout(300)
def test_commits_with_bookmarks_end_in_time_however_their_connection_is_cut(
    fresh_kafka: Callable[..., Any],
):
    """The client itself waits for ever here (librdkafka issue 5456)."""
    port, controller_port, behind = free_ports(3)
    with Proxy(behind) as proxy:
        fresh_kafka(**options_behind(proxy.port, port, controller_port, behind))
        url = f"kafka://{LOOPBACK}:{proxy.port}"
        with closing(KafkaStream(url, clock=CLOCK, io_timeout_s=IO_TIMEOUT_S)) as stream:
            stream.prepare()
            slowest_s = slowest_commit_s(stream, proxy)
    assert slowest_s < BOUND_S


@pytest.mark.timeout(300)
def test_clients_go_on_after_the_cluster_named_no_broker(fresh_kafka: Callable[..., Any]):
    """Many of the library's clients never ask anybody again after that (its issue 5301)."""
    port, controller_port, behind = free_ports(3)
    with HidingProxy(behind) as proxy, ExitStack() as stack:
        options = options_behind(proxy.port, port, controller_port, behind)
        direct = stack.enter_context(closing(KafkaStream(fresh_kafka(**options).url, clock=CLOCK)))
        direct.prepare()
        url = f"kafka://{LOOPBACK}:{proxy.port}"
        users = [
            stack.enter_context(User(url, f"{role.__name__}-{number}", role))
            for role in (read, join, write)
            for number in range(USERS)
        ]
        wait_until(lambda: all(user.count for user in users), what="all have begun")
        proxy.is_hiding = True
        proxy.cut()
        CLOCK.wait(threading.Event(), HIDDEN_S)
        assert proxy.hidden_count
        proxy.is_hiding = False
        for user in users:
            user.count = 0
        with closing(direct.producer("direct")) as producer:
            producer.commit({Topic.LEDGER: [Record(b"after", b"{}")]})
        wait_until(lambda: all(user.count for user in users), what="all have gone on", timeout_s=90)


class User:
    """One client of a stream of its own, used in a thread from entry to exit.

    Args:
        url: Of the stream.
        name: Of group or producer.
        role: Yields each time the client begins or goes on, and None where it has to wait.
    """

    def __init__(
        self, url: str, name: str, role: Callable[[KafkaStream, str], Iterator[object]]
    ) -> None:
        self.count = 0
        self._stream = KafkaStream(url, clock=CLOCK, io_timeout_s=IO_TIMEOUT_S)
        self._role = role
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(name,), name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self, name: str) -> None:
        with closing(self._stream) as stream:
            for step in self._role(stream, name):
                self.count += step is not None
                stream.link()
                if self._ended.is_set():
                    break


def read(stream: KafkaStream, _name: str) -> Iterator[object]:
    """Read the ledger's topic from its end."""
    with closing(stream.reader([Topic.LEDGER], Start.end())) as reader:
        yield "begun"
        yield from polled(reader)


def join(stream: KafkaStream, name: str) -> Iterator[object]:
    """Read the same topic as a group of one."""
    holder = Holder()
    with closing(stream.consumer(name, [Topic.LEDGER], holder)) as member:
        while not holder.held:
            member.poll(timeout_s=0.1, records_max=100)
            yield None
        yield "begun"
        yield from polled(member)


def polled(reader: KafkaReader | KafkaConsumer) -> Iterator[object]:
    """Yield records as they come."""
    while True:
        try:
            yield from reader.poll(timeout_s=0.1, records_max=100) or [None]
        except UnavailableError:
            yield None


def write(stream: KafkaStream, name: str) -> Iterator[object]:
    """Write again and again, each time as a new producer after an error."""
    while True:
        with suppress(UnavailableError), closing(stream.producer(name)) as producer:
            while True:
                producer.commit({Topic.RESULTS: [Record(b"key", b"{}")]})
                yield "written"
        yield None


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
