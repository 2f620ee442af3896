"""What the servers take by themselves: the least clients that move readings at these lags.

Mosquitto -> Kafka -> MongoDB as everybody has to use them at this latency, with nobody's program
in the figures: one loop acknowledges to the broker what Kafka has, a batch every `--tick-ms`, and
one reads the stream and inserts what came every `--linger-ms`, majority and journal, into
`sensors`. Both are threads of this script and pass messages on nearly unread; what they take is
not shown. So no program that uses these servers in this way is cheaper than a row here, but by
being later: what a program could save at all is the distance to it.

The rows differ in one thing each from *plain*, which writes idempotently and outside transactions
into four partitions and a time series. Where a batch is a transaction, a record for the account
goes with it. *age* is from the payload's `t` to the answer of MongoDB. Servers are warmed up.
"""

from __future__ import annotations

import random
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from harness import Publisher, Sampler, Servers
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern
from report import Figure, Sample, arguments, figure, machine, progress, report
from warming import SECONDS, takes_over, warm

from matchday.clock import SystemClock
from matchday.domain.topics import PLANS, Topic
from matchday.mqtt.address import parse_address
from matchday.mqtt.session import BrokerFeed
from matchday.mqtt.settings import BrokerSettings
from matchday.store.documents import Shape
from matchday.store.mongo import MongoStore
from servers.mosquitto import Mosquitto
from servers.process import wait_until

SETTLE_S: Final = 15.0
"""So long is not counted. It leaves the buckets of a time series at 300 of their 1,000
measurements: the fuller the dearer, and what is counted takes them to 700, the mean of all."""
READ_MAX: Final = 20_000
TOPIC: Final = str(Topic.ANALYTICS)


@dataclass(frozen=True)
class Way:
    """How the servers are used.

    Attributes:
        name: In tables.
        partitions: Written to, of those of the topic.
        is_transactional: Each batch, with a record for the account, is a transaction.
        shape: Of the collection.
    """

    name: str
    partitions: int = PLANS[Topic.ANALYTICS].partitions
    is_transactional: bool = False
    shape: Shape = "timeseries"


WAYS: Final = (
    Way("plain"),
    Way("one partition", partitions=1),
    Way("regular collection", shape="regular"),
    Way("transactions", is_transactional=True),
)


class Sent(msgspec.Struct):
    """What is read of a message."""

    quantity: str
    value: float
    t: int
    seq: int


@dataclass
class Loops:
    """The two loops and how far they are.

    Attributes:
        stored: Readings of which MongoDB has said that it has them.
        ages_ms: Of each of them then, in that order.
        error: What ended a loop.
    """

    way: Way
    servers: Servers
    broker: Mosquitto
    database: str
    tick_s: float
    linger_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    stored: int = 0
    ages_ms: list[float] = field(default_factory=list)
    error: Exception | None = None

    def done(self) -> int:
        """Give how much is stored.

        Raises:
            SystemExit: A loop has ended early.
        """
        if self.error is not None:
            raise SystemExit(f"floor: {self.error}")
        return self.stored

    def run(self, stack: ExitStack) -> None:
        """Run both loops until the stack is left; returns when the broker is subscribed to."""
        feed = BrokerFeed(
            BrokerSettings(
                address=parse_address(self.broker.url), client_id="floor", filters=("#",)
            ),
            clock=SystemClock(),
            rng=random.Random(1),
        )
        stack.enter_context(closing(feed))
        wait_until(lambda: not feed.receive(timeout_s=0.1) and feed.link().is_up, what="floor")
        for loop in (lambda: self._ingest(feed), self._persist):
            thread = threading.Thread(target=self._guarded, args=(loop,), daemon=True)
            thread.start()
            stack.callback(thread.join)
        stack.callback(self.stop.set)

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # noqa: BLE001 - whatever ends a loop ends the run, in `done`
            self.error = error

    def _ingest(self, feed: BrokerFeed) -> None:
        sender = self._sender()
        partition_of: dict[str, int] = {}
        due_s = time.monotonic()
        while not self.stop.is_set():
            due_s = max(due_s + self.tick_s, time.monotonic())
            self.stop.wait(due_s - time.monotonic())
            if not (found := feed.receive(timeout_s=0.0)):
                continue
            if self.way.is_transactional:
                sender.begin_transaction()
                sender.produce(str(Topic.LEDGER), b"x" * 200, partition=0)
            for deliveries in found:
                for topic, payload in zip(deliveries.topics, deliveries.payloads, strict=True):
                    # As by a key, a source stays in a partition.
                    number = partition_of.setdefault(topic, len(partition_of))
                    source = topic.rpartition("/")[2].encode()
                    sender.produce(TOPIC, payload, source, partition=number % self.way.partitions)
            if self.way.is_transactional:
                sender.commit_transaction()
            else:
                sender.flush()
            for deliveries in found:
                feed.acknowledge(deliveries)

    def _sender(self) -> Producer:
        settings: dict[str, Any] = {
            "bootstrap.servers": self.servers.kafka.bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            # The batch goes as a whole, when `flush` or the end of the transaction asks for it.
            "linger.ms": 1000,
            "log_level": 0,
        }
        if not self.way.is_transactional:
            return Producer(settings)
        sender = Producer({**settings, "transactional.id": "floor"})
        wait_until(lambda: takes_over(sender), what="a producer takes its name over")
        return sender

    def _persist(self) -> None:
        reader = Consumer(
            {
                "bootstrap.servers": self.servers.kafka.bootstrap,
                "group.id": f"floor-{self.database}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        assert self.servers.mongo is not None
        with closing(reader), MongoClient[dict[str, Any]](self.servers.mongo.url) as client:
            sensors = client[self.database].get_collection(
                "sensors", write_concern=WriteConcern("majority", j=True)
            )
            reader.assign([TopicPartition(TOPIC, n, 0) for n in range(self.way.partitions)])
            due_s = time.monotonic()
            while not self.stop.is_set():
                due_s = max(due_s + self.linger_s, time.monotonic())
                self.stop.wait(due_s - time.monotonic())
                batch = [one for one in reader.consume(READ_MAX, 0) if one.error() is None]
                readings = [msgspec.json.decode(one.value() or b"", type=Sent) for one in batch]
                if not readings:
                    continue
                sensors.insert_many(
                    [_document(*pair) for pair in zip(batch, readings, strict=True)], ordered=False
                )
                reader.commit(asynchronous=True)
                now_ms = time.time() * 1000
                self.ages_ms += [now_ms - one.t for one in readings]
                self.stored += len(readings)


def _document(message: Any, reading: Sent) -> dict[str, Any]:
    return {
        "collected_at": datetime.fromtimestamp(reading.t / 1000, UTC),
        reading.quantity: reading.value,
        "seq": reading.seq,
        "metadata": {"sensor_id": message.key().decode()},
    }


def run(servers: Servers, way: Way, given: Namespace) -> Figure:
    """Take one way; CPU of the servers alone."""
    servers.reset_topics()
    database = f"run-{servers.fresh_directory().name}"
    assert servers.mongo is not None
    store = MongoStore(servers.mongo.url, clock=SystemClock(), database=database, shape=way.shape)
    with closing(store):
        store.prepare()
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        loops = Loops(
            way,
            servers,
            broker,
            database,
            tick_s=given.tick_ms / 1000,
            linger_s=given.linger_ms / 1000,
        )
        loops.run(stack)
        pids = {
            "Mosquitto": broker.pid,
            "Kafka": servers.kafka.pid,
            "MongoDB": servers.mongo.pid,
        }
        sampler = Sampler(pids, loops.done)
        settle = round(SETTLE_S * given.paced_rate)
        messages = given.paced_messages + settle
        publisher = Publisher(broker.port, messages=messages, rate=given.paced_rate)
        stack.callback(publisher.kill)
        publisher.go()
        last = sampler.until(messages)
        first = sampler.first_above(settle)
        return _figure(way, first, last, sorted(loops.ages_ms[first.done :]))


def _figure(way: Way, first: Sample, last: Sample, ages_ms: list[float]) -> Figure:
    notes = {
        "age p50 ms": ages_ms[len(ages_ms) // 2],
        "age p99 ms": ages_ms[len(ages_ms) * 99 // 100],
    }
    raw = figure(way.name, first, last)
    cpu = {**raw.cpu_per_100k, "together": sum(raw.cpu_per_100k.values())}
    return Figure(way.name, raw.messages, raw.seconds, cpu, notes)


def main() -> None:
    """Take the figures and print them."""
    given = arguments(
        __doc__,
        paced_rate=2000,
        paced_messages=40_000,
        tick_ms=25,
        linger_ms=200,
        warm_seconds=SECONDS,
    )
    machine_is = machine()
    figures: list[Figure] = []
    with Servers(mongo=True) as servers:
        progress("warming the servers up")
        warm(servers, given.warm_seconds)
        for number in range(given.rounds):
            for way in WAYS[::-1] if number % 2 else WAYS:
                progress(f"round {number + 1}: {way.name}")
                figures.append(run(servers, way, given))
    title = "Servers alone, 200-byte scalars of 100 sources (CPU: seconds per 100,000 messages)"
    part = f"{given.paced_rate:,}/s, a batch every {given.tick_ms} ms, a write every"
    report(title, machine_is, {f"{part} {given.linger_ms} ms": figures}, as_json=given.json)


if __name__ == "__main__":
    main()
