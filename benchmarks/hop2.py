"""Hop 2, Kafka -> MongoDB time series: messages per second and CPU, beside a pymongo loop.

Before each drain `analytics` and `ledger` are made anew and filled as ingest does, in transactions
of 1,000 readings: two checkouts are one consumer group, and the second would find everything
read. Then `matchday server --role persist` or `baseline.py persist` drains them (the order
alternates), each into a database of its own with the same collections.
The figure begins when a tenth is stored, so that starting the process is not in it. The
paced part writes readings while the system runs, a transaction every 20 ms, and counts from
the first one on.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from harness import Sampler, Servers, loop, running, service
from report import (
    BASELINE,
    OTHER,
    Figure,
    arguments,
    figure,
    machine,
    progress,
    report,
    systems,
)

from matchday.clock import SystemClock
from matchday.domain.account import Counts
from matchday.domain.reading import Scalar
from matchday.domain.wire import encode_reading
from matchday.ingest.tick import Tick
from matchday.ports import Producer, Record
from matchday.store.mongo import MongoStore
from servers.process import wait_until

SOURCES = 100
TICK = 1000
PACED_TICK_S = 0.02


def tick_of(first: int, end: int, t_ms: Sequence[int]) -> Tick:
    """Make what ingest would commit for the readings from `first` up to `end`."""
    tick = Tick()
    for index, at_ms in zip(range(first, end), t_ms, strict=True):
        source = f"tag-{index % SOURCES}"
        reading = Scalar(
            source=source,
            t_ms=at_ms,
            quantity="temperature",
            value=15 + index % 1000 / 100,
            unit="degC",
            seq=1 + index // SOURCES,
            venue="bench",
            session="benchmark " + "x" * 60,
        )
        tick.analytics.append(Record(source.encode(), encode_reading(reading)))
        tick.counts.setdefault(source, Counts()).accepted += 1
    return tick


def append(producer: Producer, tick: Tick, number: int, at_ms: int) -> None:
    """Commit a tick as ingest does."""
    producer.commit(tick.outputs(slot="bench", tick=f"bench-{number}", ts_ms=at_ms))


def fill(servers: Servers, messages: int) -> None:
    """Put readings of 2,000/s into the stream, as fast as it takes them."""
    began_ms = time.time_ns() // 1_000_000 - messages // 2
    with closing(servers.stream()) as stream, closing(stream.producer("bench")) as producer:
        for number, first in enumerate(range(0, messages, TICK)):
            end = min(first + TICK, messages)
            t_ms = [began_ms + index // 2 for index in range(first, end)]
            append(producer, tick_of(first, end, t_ms), number, began_ms)


def feed(servers: Servers, messages: int, rate_per_s: float) -> None:
    """Put readings into the stream at that rate, each with the time of its commit."""
    with closing(servers.stream()) as stream, closing(stream.producer("bench")) as producer:
        began_s, first = time.monotonic(), 0
        for number in range(messages):
            end = min(int((time.monotonic() - began_s) * rate_per_s) + 1, messages)
            now_ms = time.time_ns() // 1_000_000
            append(producer, tick_of(first, end, [now_ms] * (end - first)), number, now_ms)
            first = end
            if first == messages:
                return
            time.sleep(max(0.0, began_s + (number + 1) * PACED_TICK_S - time.monotonic()))


def has_partitions(url: str) -> bool:
    """Tell whether persist knows its lag: it has joined the group, and knows where to read."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    name = "matchday_persist_lag_records "
    return any(float(line.split()[1]) >= 0 for line in text.splitlines() if line.startswith(name))


def run(
    servers: Servers, system: str, *, messages: int, rate_per_s: float, against: Path | None
) -> Figure:
    """Store `messages` by one system and give its figure; rate 0 drains what is there."""
    assert servers.mongo is not None
    directory = servers.fresh_directory()
    database = f"{system}-{directory.name}"
    with closing(MongoStore(servers.mongo.url, clock=SystemClock(), database=database)) as store:
        store.prepare()
    with ExitStack() as stack:
        if system != BASELINE:
            settings = {
                "MATCHDAY_STREAM__URL": servers.kafka.url,
                "MATCHDAY_STORE__URL": servers.mongo.url,
                "MATCHDAY_STORE__DATABASE": database,
            }
            checkout = against if system == OTHER else None
            role = ("server", "--role", "persist")
            ours = service(directory, settings, *role, checkout=checkout)
            pid = stack.enter_context(running(ours))
            # The next one must not wait for the group to miss this one.
            stack.callback(ours.stop)
            wait_until(lambda: has_partitions(ours.url), what="persist has its partitions")
        else:
            words = (f"--kafka={servers.kafka.bootstrap}", f"--mongo={servers.mongo.url}")
            pid = stack.enter_context(
                running(loop(directory, "persist", *words, f"--database={database}"))
            )
        pids = {"itself": pid, "Kafka": servers.kafka.pid, "MongoDB": servers.mongo.pid}
        sampler = Sampler(pids, servers.stored(database))
        first = sampler.look()
        if rate_per_s:
            feed(servers, messages, rate_per_s)
        last = sampler.until(messages)
        if not rate_per_s:
            first = sampler.first_above(messages // 10)
        return figure(system, first, last, twice=float(last.done - messages))


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, messages=200_000, paced_rate=2000, paced_messages=40_000)
    machine_is = machine()
    full: list[Figure] = []
    paced: list[Figure] = []
    with Servers(mongo=True) as servers:
        for system in systems(given):
            progress(f"warming up: {system}")
            servers.reset_topics()
            fill(servers, 50_000)
            run(servers, system, messages=50_000, rate_per_s=0, against=given.against)
        for number in range(given.rounds):
            for system in systems(given, round_number=number):
                progress(f"round {number + 1}: {system} drains")
                servers.reset_topics()
                fill(servers, given.messages)
                options = {"messages": given.messages, "rate_per_s": 0}
                full.append(run(servers, system, **options, against=given.against))
            for system in systems(given, round_number=number) if given.paced_messages else ():
                progress(f"round {number + 1}: {system} at {given.paced_rate}/s")
                servers.reset_topics()
                options = {"messages": given.paced_messages, "rate_per_s": given.paced_rate}
                paced.append(run(servers, system, **options, against=given.against))
    parts = {f"drain of {given.messages:,} messages (CPU: seconds per 100,000)": full}
    if paced:
        parts[f"{given.paced_rate:,} messages/s, {given.paced_messages:,} messages"] = paced
    title = "Hop 2: Kafka -> MongoDB time series (majority, journal), scalars of 100 sources"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
