"""End to end, sensor -> Mosquitto -> Kafka -> MongoDB and analysis: sustained rate and latency.

The three services (ingest, persist, analysis) run as processes of their own beside all three
servers and the load; the baseline is its two loops, without analysis. Part one raises the
rate step by step and stops at the first rate that is not sustained. It is sustained when the
load kept its pace, what is sent and not stored grew in the second half of the step by less than
`GROWTH_MAX` of what was sent in it, and analysis had confirmed everything `ANALYSED_S_MAX`
after the last message (it moves its bookmarks once a second). Part two runs at the paced
rate and, after `SETTLE_S`, asks MongoDB every 10 ms for the newest readings of four of the 100
sources: latency is from the payload's `t`, the moment of sending, to the answer that shows
the document.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness import STALL_S, Publisher, Sampler, Servers, loop, running, service
from pymongo import MongoClient
from report import (
    BASELINE,
    OTHER,
    Figure,
    Sample,
    arguments,
    figure,
    machine,
    progress,
    report,
    systems,
)

from matchday.clock import SystemClock
from matchday.store.mongo import MongoStore
from servers.process import wait_until

RATES_PER_S = (5_000, 7_500, 10_000, 12_500, 15_000, 20_000, 25_000)
GROWTH_MAX = 0.05
PACE_MIN = 0.95
ANALYSED_S_MAX = 2.5
MARKERS_MAX = 20
Load = Mapping[str, float | str]
SCALARS: Load = MappingProxyType({})
SETTLE_S = 3.0
WATCHED = ("tag-0", "tag-1", "tag-2", "tag-3")
WATCH_EVERY_S = 0.01
ANALYSIS_GROUP = "matchday-analysis"


@dataclass(frozen=True)
class Deployment:
    """A system that runs: its servers, its processes and where it stores."""

    servers: Servers
    system: str
    port: int
    database: str
    pids: dict[str, int]
    settings: dict[str, str]
    directory: Path

    def unanalysed(self) -> int:
        """Give the offsets that analysis has not committed; the baseline has none."""
        return self.servers.unread(ANALYSIS_GROUP) if self.system != BASELINE else 0


@contextmanager
def deployed(servers: Servers, system: str, *, against: Path | None = None) -> Iterator[Deployment]:
    """Run a system on fresh topics, a fresh broker and a fresh database."""
    assert servers.mongo is not None
    servers.reset_topics()
    directory = servers.fresh_directory()
    database = f"{system}-{directory.name}"
    with closing(MongoStore(servers.mongo.url, clock=SystemClock(), database=database)) as store:
        store.prepare()
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        settings = {
            "MATCHDAY_MQTT__URL": broker.url,
            "MATCHDAY_STREAM__URL": servers.kafka.url,
            "MATCHDAY_STORE__URL": servers.mongo.url,
            "MATCHDAY_STORE__DATABASE": database,
        }
        if system != BASELINE:
            pids = _ours(stack, directory, settings, against if system == OTHER else None)
        else:
            kafka = f"--kafka={servers.kafka.bootstrap}"
            ingest = ("ingest", f"--mqtt-port={broker.port}", kafka)
            persist = ("persist", kafka, f"--mongo={servers.mongo.url}", f"--database={database}")
            pids = {
                "ingest": stack.enter_context(running(loop(directory, *ingest))),
                "persist": stack.enter_context(running(loop(directory, *persist))),
            }
        pids |= {"Mosquitto": broker.pid, "Kafka": servers.kafka.pid, "MongoDB": servers.mongo.pid}
        yield Deployment(servers, system, broker.port, database, pids, settings, directory)


def _ours(
    stack: ExitStack, directory: Path, settings: dict[str, str], checkout: Path | None
) -> dict[str, int]:
    ingest = service(directory, settings, "server", "--role", "ingest", checkout=checkout)
    persist = service(directory, settings, "server", "--role", "persist", checkout=checkout)
    analysis = service(directory, settings, "analysis", checkout=checkout)
    pids = {
        "ingest": stack.enter_context(running(ingest)),
        "persist": stack.enter_context(running(persist)),
        "analysis": stack.enter_context(running(analysis)),
    }
    wait_until(lambda: ingest.links().get("mqtt", False), what="ingest takes messages")
    wait_until(lambda: persist.links().get("store", False), what="persist is connected")
    wait_until(lambda: analysis.links().get("stream", False), what="analysis is connected")
    return pids


# --- sustained rate -------------------------------------------------------------------------


def step(
    at: Deployment,
    *,
    rate_per_s: int,
    seconds: int,
    seq_first: int,
    collection: str = "sensors",
    load: Load = SCALARS,
) -> tuple[Figure, bool]:
    """Run one step of the ramp; give its figure and whether the rate was sustained."""
    messages = rate_per_s * seconds
    stored = at.servers.stored(at.database, collection=collection)
    sampler = Sampler(at.pids, stored)
    first = sampler.look()
    publisher = Publisher(at.port, messages=messages, rate=rate_per_s, seq_first=seq_first, **load)
    began_s = time.monotonic()
    publisher.go()
    _sleep_until(began_s + seconds / 2)
    middle = sampler.look()
    middle_sent = min(messages, int((middle.at_s - began_s) * rate_per_s))
    took_s = publisher.result()["seconds"]
    end = sampler.look()
    pending = messages - (end.done - first.done)
    growth = pending - (middle_sent - (middle.done - first.done))
    last = sampler.until(first.done + messages)
    # The last offsets of a partition are markers of transactions, which nobody reads.
    wait_until(lambda: at.unanalysed() < MARKERS_MAX, what="all is analysed", timeout_s=STALL_S)
    analysed_s = time.monotonic() - end.at_s
    sent_in_half = messages - middle_sent
    is_sustained = (
        messages / took_s >= PACE_MIN * rate_per_s
        and growth < GROWTH_MAX * sent_in_half
        and (at.system == BASELINE or analysed_s < ANALYSED_S_MAX)
    )
    notes = {
        "sent/s": messages / took_s,
        "pending at end": float(pending),
        "stored after, s": max(0.0, last.at_s - end.at_s),
        **({} if at.system == BASELINE else {"analysed after, s": analysed_s}),
        "sustained": float(is_sustained),
    }
    begun = Sample(began_s, first.done, first.cpu)
    return figure(f"{at.system} {rate_per_s}/s", begun, last, **notes), is_sustained


def ramp(
    servers: Servers,
    system: str,
    *,
    seconds: int,
    against: Path | None,
    rates_per_s: Sequence[int] = RATES_PER_S,
    collection: str = "sensors",
    load_at: Callable[[int], Load] = lambda _: SCALARS,
) -> tuple[list[Figure], list[Figure]]:
    """Raise the rate until it is not sustained; give a figure per step, and the last good.

    `load_at` gives the publisher's options at a rate, messages a second.
    """
    figures: list[Figure] = []
    best: list[Figure] = []
    with deployed(servers, system, against=against) as at:
        seq_first = 1
        for rate_per_s in rates_per_s:
            progress(f"{system} at {rate_per_s}/s")
            one, is_sustained = step(
                at,
                rate_per_s=rate_per_s,
                seconds=seconds,
                seq_first=seq_first,
                collection=collection,
                load=load_at(rate_per_s),
            )
            seq_first += rate_per_s * seconds
            figures.append(one)
            if not is_sustained:
                break
            best = [replace(one, system=system, notes={"sent/s": one.notes["sent/s"]})]
    return figures, best


# --- latency --------------------------------------------------------------------------------


def latency(
    servers: Servers, system: str, *, rate_per_s: float, messages: int, against: Path | None
) -> Figure:
    """Run at a rate and watch documents appear; give percentiles of their age in ms."""
    assert servers.mongo is not None
    client: MongoClient[dict[str, Any]] = MongoClient(servers.mongo.url, tz_aware=True)
    with client, deployed(servers, system, against=against) as at:
        publisher = Publisher(at.port, messages=messages, rate=rate_per_s)
        sampler = Sampler(at.pids, servers.stored(at.database))
        first = sampler.look()
        publisher.go()
        ages_ms = sorted(watch(client[at.database]["sensors"], publisher))
        last = sampler.until(messages)
    notes = {
        "p50 ms": ages_ms[len(ages_ms) // 2],
        "p99 ms": ages_ms[len(ages_ms) * 99 // 100],
        "max ms": ages_ms[-1],
        "watched": float(len(ages_ms)),
    }
    return figure(system, first, last, **notes)


def watch(sensors: Any, publisher: Publisher, *, sources: Sequence[str] = WATCHED) -> list[float]:
    """Look for new documents of some sources until a second after the last is sent; ages, ms.

    A source's readings keep their order on the way, so nothing older than the newest found
    can appear later.
    """
    seen: set[tuple[str, int]] = set()
    ages_ms: list[float] = []
    newest = dict.fromkeys(sources, datetime.now(UTC) + timedelta(seconds=SETTLE_S))
    until_s = float("inf")
    while time.monotonic() < until_s:
        looked_s = time.monotonic()
        query = [
            {"metadata.sensor_id": source, "collected_at": {"$gte": newest[source]}}
            for source in sources
        ]
        fields = {"collected_at": 1, "seq": 1, "metadata.sensor_id": 1}
        found = list(sensors.find({"$or": query}, fields))
        now = datetime.now(UTC)
        for document in found:
            source, at = document["metadata"]["sensor_id"], document["collected_at"]
            if (source, document["seq"]) not in seen:
                seen.add((source, document["seq"]))
                ages_ms.append((now - at).total_seconds() * 1000)
                newest[source] = max(newest[source], at)
        if not publisher.is_sending and until_s == float("inf"):
            until_s = time.monotonic() + 1.0
        _sleep_until(looked_s + WATCH_EVERY_S)
    return ages_ms


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, step_seconds=10, paced_rate=2000, paced_messages=40_000)
    machine_is = machine()
    steps: list[Figure] = []
    sustained: list[Figure] = []
    latencies: list[Figure] = []
    with Servers(mongo=True) as servers:
        progress("warming the servers up")
        for system in systems(given):
            with deployed(servers, system, against=given.against) as at:
                step(at, rate_per_s=5000, seconds=4, seq_first=1)
        for number in range(given.rounds):
            for system in systems(given, round_number=number):
                figures, best = ramp(
                    servers, system, seconds=given.step_seconds, against=given.against
                )
                steps += figures
                sustained += best
                progress(f"{system}: latency at {given.paced_rate}/s")
                options = {"rate_per_s": given.paced_rate, "messages": given.paced_messages}
                latencies.append(latency(servers, system, **options, against=given.against))
    parts = {
        f"rate raised every {given.step_seconds} s (CPU: seconds per 100,000)": steps,
        "highest rate sustained": sustained,
        f"latency from `t` to being found in MongoDB, {given.paced_rate:,} messages/s": latencies,
    }
    title = "End to end: sensor -> Mosquitto -> Kafka -> MongoDB (ours: and analysis)"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
