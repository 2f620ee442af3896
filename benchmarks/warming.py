"""Warm servers: what a broker that has been up for hours costs, not one of a minute ago.

A JVM compiles what has run some ten thousand times, and at twenty commits a second Kafka needs
minutes to get there: measured at 2,000 messages a second its CPU fell to half within the first
four minutes, whoever was the client. So before anything is counted bare clients hurry it, as fast
as it answers: small transactions, as ours are, and single batches, as those of others are, with
readers of either kind, until its compiler rests. Then our services run with commits every 5 ms,
which shows MongoDB what comes, too.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer
from harness import TICKS_PER_S, Publisher, Servers, running, service
from report import progress

from matchday.clock import SystemClock
from matchday.domain.topics import PLANS, Topic
from matchday.store.mongo import MongoStore
from servers.process import wait_until

RATE_PER_S: Final = 2000
SECONDS: Final = 90.0
"""The longest that bare clients hurry the broker; services run for a sixth of it."""
RECORD: Final = b"x" * 200
BATCH: Final = 8
LOOK_S: Final = 5.0
REST_SHARE: Final = 0.04
"""Of a core: a compiler that takes less rests."""
TAKE_OVER_S: Final = 5.0
HURRY: Final = {
    "MATCHDAY_INGEST__TICK_S": "0.005",
    "MATCHDAY_PERSIST__BATCH_LINGER_S": "0.01",
    "MATCHDAY_STORE__DATABASE": "warming",
}


def warm(servers: Servers, seconds: float = SECONDS) -> None:
    """Let many small commits and writes run through the servers; leaves topics to be reset."""
    servers.reset_topics()
    _hurry(servers, seconds)
    servers.reset_topics()
    _serve(servers, seconds / 6)


def _hurry(servers: Servers, seconds: float) -> None:
    """Send batches and read them, one right after the other, until the compiler rests."""
    common: dict[str, Any] = {"bootstrap.servers": servers.kafka.bootstrap, "log_level": 0}
    plain = Producer({**common, "enable.idempotence": True, "acks": "all"})
    owner = Producer({**common, "transactional.id": "warming", "linger.ms": 0})
    wait_until(lambda: takes_over(owner), what="a producer takes its name over")
    topic, count = str(Topic.ANALYTICS), PLANS[Topic.ANALYTICS].partitions
    began_s = looked_s = time.monotonic()
    compiled_s, rounds = _compiler_s(servers.kafka.pid), 0
    with ExitStack() as stack:
        readers = []
        for isolation in ("read_committed", "read_uncommitted"):
            own = {"group.id": isolation, "isolation.level": isolation, "fetch.wait.max.ms": 100}
            reader = stack.enter_context(closing(Consumer({**common, **own})))
            reader.subscribe([topic])
            readers.append(reader)
        while (now_s := time.monotonic()) < began_s + seconds:
            owner.begin_transaction()
            owner.produce(str(Topic.LEDGER), RECORD)
            for number in range(BATCH):
                owner.produce(topic, RECORD, partition=number % count)
                plain.produce(topic, RECORD, partition=number % count)
            owner.commit_transaction()
            plain.flush()
            rounds += 1
            for reader in readers:
                if reader.consume(1000, 0):
                    reader.commit(asynchronous=True)
            if now_s >= looked_s + LOOK_S:
                before_s, compiled_s = compiled_s, _compiler_s(servers.kafka.pid)
                if compiled_s - before_s < REST_SHARE * (now_s - looked_s):
                    break
                looked_s = now_s
    took_s = time.monotonic() - began_s
    progress(f"{rounds} transactions in {took_s:.0f} s; {compiled_s:.0f} s of CPU for compiling")


def takes_over(sender: Producer) -> bool:
    """Tell whether the coordinator, which may only be starting, gave the name."""
    try:
        sender.init_transactions(TAKE_OVER_S)
    except KafkaException:
        return False
    return True


def _compiler_s(pid: int) -> float:
    """Give the CPU seconds of a JVM's optimising compiler; it may end threads that rest."""
    ticks = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name, _, rest = (task / "stat").read_text(encoding="utf-8").rpartition(")")
        except OSError:
            continue
        if "(C2 Compiler" in name:
            ticks += sum(map(int, rest.split()[11:13]))
    return ticks / TICKS_PER_S


def _serve(servers: Servers, seconds: float) -> None:
    """Let our services commit and write in a hurry."""
    directory = servers.fresh_directory()
    messages = int(RATE_PER_S * seconds)
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        settings = {
            **HURRY,
            "MATCHDAY_MQTT__URL": broker.url,
            "MATCHDAY_STREAM__URL": servers.kafka.url,
        }
        if servers.mongo is not None:
            settings["MATCHDAY_STORE__URL"] = servers.mongo.url
            clock, database = SystemClock(), settings["MATCHDAY_STORE__DATABASE"]
            with closing(MongoStore(servers.mongo.url, clock=clock, database=database)) as store:
                store.prepare()
            stack.enter_context(running(service(directory, settings, "server", "--role=persist")))
        ingest = service(directory, settings, "server", "--role=ingest")
        stack.enter_context(running(ingest))
        wait_until(lambda: ingest.links().get("mqtt", False), what="ingest takes messages")
        publisher = Publisher(broker.port, messages=messages, rate=RATE_PER_S)
        stack.callback(publisher.kill)
        publisher.go()
        publisher.result()
