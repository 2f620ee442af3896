"""Latency from the sensor to the stream, to the store and to the page, at a rate and at rest.

The deployment is that of `end_to_end` with the dashboard beside it. The age of a reading is
from its `t`, taken just before it is sent, to the moment at which this program has it: as a
committed record of `analytics`; as a document found in MongoDB (asked every 10 ms); and in the
WebSocket of an open page, there as the newest value of its series and, for frames of 23
objects sent 25 times a second besides, as positions. Part one runs at the paced rate, part two
sends one scalar a second and nothing else. The first `SETTLE_S` of each are left out. Ends
with an error where one of these places showed nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

from confluent_kafka import Consumer, TopicPartition
from end_to_end import SETTLE_S, WATCHED, Deployment, deployed, watch
from harness import Publisher, Servers, running, service
from pymongo import MongoClient
from report import BASELINE, OTHER, Figure, arguments, machine, progress, report, systems
from warming import warm
from websockets.sync.client import connect

from matchday.domain.topics import PLANS, Topic
from matchday.domain.wire import decode_reading
from servers.process import wait_until

FRAMES_PER_S = 25
POLL_S = 0.05
IDLE_PER_S = 1

Look: TypeAlias = Callable[[], Mapping[str, Sequence[float]]]
"""Waits a little and gives the ages in ms of what came, by the name of the place."""


class Watcher:
    """A thread that notes ages until it is told to stop."""

    def __init__(self, look: Look, *, name: str, places: Sequence[str]) -> None:
        self.ages_ms: dict[str, list[float]] = {place: [] for place in places}
        self._look = look
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        settled_s = time.monotonic() + SETTLE_S
        try:
            while not self._stop.is_set():
                found = self._look()
                if time.monotonic() > settled_s:
                    for place, ages_ms in self.ages_ms.items():
                        ages_ms += found.get(place, ())
        except BaseException as error:  # noqa: BLE001 - told by `stop`
            self._error = error

    def stop(self) -> None:
        """End the thread.

        Raises:
            SystemExit: It ended by itself before.
        """
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise SystemExit(f"benchmark: {self._thread.name}: {self._error!r}") from self._error


def stream_ages(bootstrap: str, stack: ExitStack) -> Look:
    """Give a function that waits for committed readings and gives their ages."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": "benchmark-latency",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "latest",
    }
    client = Consumer(settings)
    stack.callback(client.close)
    plan = PLANS[Topic.ANALYTICS]
    client.assign([TopicPartition(str(plan.topic), one) for one in range(plan.partitions)])

    def look() -> Mapping[str, Sequence[float]]:
        found = client.consume(1, POLL_S) + client.consume(2000, 0)
        now_ms = time.time() * 1000
        readings = [decode_reading(one.value() or b"") for one in found if one.error() is None]
        return {"stream": [now_ms - reading.t_ms for reading in readings]}

    return look


def page_ages(url: str, stack: ExitStack) -> Look:
    """Give a function that waits for a live message and gives the ages of what it shows."""
    live = stack.enter_context(connect(url))

    def look() -> Mapping[str, Sequence[float]]:
        try:
            message: Mapping[str, Any] = json.loads(live.recv(timeout=POLL_S))
        except TimeoutError:
            return {}
        now_ms = time.time() * 1000
        return {
            "page, map": [now_ms - frame["t_ms"] for frame in message.get("frames", ())],
            "page, values": [now_ms - point["t_ms"] for point in message.get("series", ())],
        }

    return look


def run(
    servers: Servers, system: str, *, rate_per_s: float, messages: int, against: Path | None
) -> list[Figure]:
    """Run at a rate; give one figure for each place where readings arrive.

    Raises:
        SystemExit: A place where nothing arrived.
    """
    is_busy = rate_per_s > IDLE_PER_S
    with ExitStack() as stack:
        at = stack.enter_context(deployed(servers, system, against=against))
        client: MongoClient[dict[str, Any]] = stack.enter_context(
            MongoClient(at.settings["MATCHDAY_STORE__URL"], tz_aware=True)
        )
        live_url = _live_url(at, stack, checkout=against if system == OTHER else None)
        shown = ("page, map", "page, values") if is_busy else ("page, values",)
        watchers = [
            Watcher(stream_ages(servers.kafka.bootstrap, stack), name="stream", places=("stream",)),
            Watcher(page_ages(live_url, stack), name="page", places=shown),
        ]
        if is_busy:
            frame_count = int(messages / rate_per_s * FRAMES_PER_S)
            options = {"messages": frame_count, "rate": FRAMES_PER_S, "sources": 1}
            frames = Publisher(at.port, **options, kind="frame")
            stack.callback(frames.kill)
            frames.go()
        publisher = Publisher(
            at.port, messages=messages, rate=rate_per_s, sources=100 if is_busy else 1
        )
        stack.callback(publisher.kill)
        publisher.go()
        began_s = time.monotonic()
        sources = WATCHED if is_busy else WATCHED[:1]
        ages = {"store": watch(client[at.database]["sensors"], publisher, sources=sources)}
        seconds = time.monotonic() - began_s
        for watcher in watchers:
            watcher.stop()
            ages |= watcher.ages_ms
    empty = [name for name, found in ages.items() if not found]
    if empty:
        raise SystemExit(
            f"benchmark: {system} at {rate_per_s:g}/s: nothing seen in {', '.join(empty)} after "
            f"the first {SETTLE_S:g} s of {messages} messages"
        )
    return [
        _figure(f"{system}, {name}", sorted(ages[name]), seconds)
        for name in ("stream", "store", *shown)
    ]


def _live_url(at: Deployment, stack: ExitStack, *, checkout: Path | None) -> str:
    """Run the dashboard and give the address of its live view."""
    page = service(at.directory, at.settings, "dashboard", checkout=checkout)
    stack.enter_context(running(page))
    wait_until(lambda: page.links().get("live view", False), what="the page is live")
    return f"ws://127.0.0.1:{page.port}/api/v1/live?venue=bench-0"


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
        progress("warming the servers up")
        warm(servers)
        for number in range(given.rounds):
            for system in systems(given, round_number=number):
                if system == BASELINE:
                    continue
                progress(f"round {number + 1}: {system} at {given.paced_rate}/s, then at 1/s")
                options = {"rate_per_s": given.paced_rate, "messages": given.paced_messages}
                busy += run(servers, system, **options, against=given.against)
                options = {"rate_per_s": IDLE_PER_S, "messages": given.idle_messages}
                idle += run(servers, system, **options, against=given.against)
    parts = {
        f"{given.paced_rate:,} scalars and {FRAMES_PER_S} frames a second": busy,
        "one scalar a second": idle,
    }
    title = "Latency: from `t` to the stream, the store and the page"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
