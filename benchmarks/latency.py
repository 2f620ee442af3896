"""Latency from the sensor to the stream, to the store and to the page, at a rate and at rest.

The deployment is that of `end_to_end` with the dashboard beside it. The age of a reading is
from its `t`, taken just before it is sent, to the moment at which this program has it: as a
committed record of `analytics`; as a document found in MongoDB (asked every 10 ms); and, for
frames of 23 objects sent 25 times a second besides, as positions in the WebSocket of an open
page. Part one runs at the paced rate, part two sends one scalar a second and nothing else.
The first `SETTLE_S` of each are left out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from end_to_end import SETTLE_S, WATCHED, Deployment, deployed, watch
from harness import Publisher, Servers, running, service
from pymongo import MongoClient
from report import BASELINE, OTHER, Figure, arguments, machine, progress, report, systems
from websockets.sync.client import connect

from matchday.domain.topics import PLANS, Topic
from matchday.domain.wire import decode_reading
from servers.process import wait_until

FRAMES_PER_S = 25
POLL_S = 0.05


class Watcher:
    """A thread that notes ages until it is told to stop."""

    def __init__(self, look: Callable[[], list[float]], *, name: str) -> None:
        self.ages_ms: list[float] = []
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def _run(self) -> None:
        settled_s = time.monotonic() + SETTLE_S
        while not self._stop.is_set():
            ages_ms = self._look()
            if time.monotonic() > settled_s:
                self.ages_ms += ages_ms

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()


def stream_ages(at: Deployment, stack: ExitStack) -> Callable[[], list[float]]:
    """Give a function that waits for committed readings and gives their ages in ms."""
    settings = {
        "bootstrap.servers": at.servers.kafka.bootstrap,
        "group.id": "benchmark-latency",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "latest",
    }
    client = Consumer(settings)
    stack.callback(client.close)
    plan = PLANS[Topic.ANALYTICS]
    client.assign([TopicPartition(str(plan.topic), one) for one in range(plan.partitions)])

    def look() -> list[float]:
        found = client.consume(1, POLL_S) + client.consume(2000, 0)
        now_ms = time.time() * 1000
        readings = [decode_reading(one.value() or b"") for one in found if one.error() is None]
        return [now_ms - reading.t_ms for reading in readings]

    return look


def page_ages(url: str, stack: ExitStack) -> Callable[[], list[float]]:
    """Give a function that waits for a live message and gives the ages of its frames in ms."""
    live = stack.enter_context(connect(url))

    def look() -> list[float]:
        try:
            message: Mapping[str, Any] = json.loads(live.recv(timeout=POLL_S))
        except TimeoutError:
            return []
        now_ms = time.time() * 1000
        return [now_ms - frame["t_ms"] for frame in message.get("frames", ())]

    return look


def run(
    servers: Servers, system: str, *, rate_per_s: float, messages: int, against: Path | None
) -> list[Figure]:
    """Run at a rate; give one figure for each place where readings arrive."""
    is_busy = rate_per_s > 1
    with ExitStack() as stack:
        at = stack.enter_context(deployed(servers, system, against=against))
        client: MongoClient[dict[str, Any]] = stack.enter_context(
            MongoClient(at.settings["MATCHDAY_STORE__URL"], tz_aware=True)
        )
        checkout = against if system == OTHER else None
        page = service(at.directory, at.settings, "dashboard", checkout=checkout)
        stack.enter_context(running(page))
        wait_until(lambda: page.links().get("live view", False), what="the page is live")
        live_url = f"ws://127.0.0.1:{page.port}/api/v1/live?venue=bench-0"
        watchers = {"stream": Watcher(stream_ages(at, stack), name="stream")}
        if is_busy:
            watchers["page"] = Watcher(page_ages(live_url, stack), name="page")
            frame_count = int(messages / rate_per_s * FRAMES_PER_S)
            options = {"messages": frame_count, "rate": FRAMES_PER_S, "sources": 1}
            frames = Publisher(at.port, **options, kind="frame")
            stack.callback(frames.kill)
            frames.go()
        publisher = Publisher(
            at.port, messages=messages, rate=rate_per_s, sources=100 if is_busy else 1
        )
        publisher.go()
        began_s = time.monotonic()
        sources = WATCHED if is_busy else WATCHED[:1]
        ages = {"store": watch(client[at.database]["sensors"], publisher, sources=sources)}
        seconds = time.monotonic() - began_s
        for name, watcher in watchers.items():
            watcher.stop()
            ages[name] = watcher.ages_ms
    return [
        _figure(f"{system}, {name}", sorted(ages[name]), seconds)
        for name in ("stream", "store", "page")
        if ages.get(name)
    ]


def _figure(name: str, ages_ms: list[float], seconds: float) -> Figure:
    notes = {
        "p50 ms": ages_ms[len(ages_ms) // 2],
        "p99 ms": ages_ms[len(ages_ms) * 99 // 100],
        "max ms": ages_ms[-1],
    }
    return Figure(name, len(ages_ms), seconds, {}, notes)


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, paced_rate=2000, paced_messages=40_000, idle_messages=30)
    machine_is = machine()
    busy: list[Figure] = []
    idle: list[Figure] = []
    with Servers(mongo=True) as servers:
        for number in range(given.rounds):
            for system in systems(given, round_number=number):
                if system == BASELINE:
                    continue
                progress(f"round {number + 1}: {system} at {given.paced_rate}/s, then at 1/s")
                options = {"rate_per_s": given.paced_rate, "messages": given.paced_messages}
                busy += run(servers, system, **options, against=given.against)
                options = {"rate_per_s": 1, "messages": given.idle_messages}
                idle += run(servers, system, **options, against=given.against)
    parts = {
        f"{given.paced_rate:,} scalars and {FRAMES_PER_S} frames a second": busy,
        "one scalar a second": idle,
    }
    title = "Latency: from `t` to the stream, the store and the page"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
