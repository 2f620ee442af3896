"""What analysis costs per position: microseconds of CPU, without servers or sockets.

Two shapes, each in event time as it would come: tracking frames of 23 objects at 25 Hz from
many venues in turn (100,000 positions/s are 189 of them), and one object a message as in the
DEBS 2013 challenge. Records go through the analysis of one partition in batches as a busy worker
gets them; the least of several rounds counts, each with fresh state and windows that close. With
`--against CHECKOUT` another checkout takes turns with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from publisher import EVENTS_PER_MS, FRAME_OBJECTS, Load, message

from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.analysis.players.metrics import PlayerMetrics
from matchday.domain.reading import Positions
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading, encode_reading
from matchday.ingest.adapters import Adapters
from matchday.ports import StreamRecord

ARRIVED_MS = 1_790_000_000_000
VENUES = 189
FRAME_MS = 40
FRAME_SECONDS = 15
EVENT_SECONDS = 15
BATCH = 200
ROUNDS = 5


def records_of(kind: str) -> list[StreamRecord]:
    """Give the records that ingest makes of one shape, in order of event time."""
    if kind == "frame":
        load = Load(0, 0, VENUES, 0.0, 1, "bench", kind)
        count = VENUES * FRAME_SECONDS * 1000 // FRAME_MS
        times = [ARRIVED_MS + index // VENUES * FRAME_MS for index in range(count)]
    else:
        load = Load(0, 0, 1, 0.0, 1, "bench", kind)
        times = [
            ARRIVED_MS + n // EVENTS_PER_MS for n in range(EVENTS_PER_MS * 1000 * EVENT_SECONDS)
        ]
    adapters = Adapters()
    records = []
    for offset, t_ms in enumerate(times):
        topic, body = message(load, offset, t_ms)
        readings, _ = adapters.decode(topic, body, t_ms)
        value = encode_reading(readings[0])
        records.append(StreamRecord(Topic.ANALYTICS, 0, offset, t_ms, b"venue", value))
    return records


class Steps:
    """The steps of both shapes; keeps the least that each has cost so far."""

    def __init__(self) -> None:
        self._records = {kind: records_of(kind) for kind in ("frame", "event")}
        self._least: dict[str, float] = {}

    def take(self) -> dict[str, float]:
        """Run every step once; give the least microseconds per position so far."""
        self._shape("frame", f"frames of {FRAME_OBJECTS}", each=FRAME_OBJECTS)
        self._shape("event", "single objects", each=1)
        return self._least

    def _shape(self, kind: str, name: str, *, each: int) -> None:
        records = self._records[kind]
        count = len(records) * each
        part = records[: len(records) // 8]
        self._timed(
            f"{name}: record -> reading",
            lambda: [decode_reading(record.value) for record in part],
            len(part) * each,
        )
        readings = [decode_reading(record.value) for record in part]
        players = PlayerMetrics(Plan().policy, {})

        def feed() -> None:
            for offset, reading in enumerate(readings):
                assert isinstance(reading, Positions)
                players.feed(reading, offset=offset, stream_ms=reading.t_ms)
            players.finish()

        self._timed(f"{name}: player metrics alone", feed, len(part) * each)
        analysis = PartitionAnalysis(Plan())
        self._timed(f"{name}: all of analysis", lambda: _consume(analysis, records), count)

    def _timed(self, name: str, step: Callable[[], Any], positions: int) -> None:
        began_s = time.process_time()
        step()
        cost_us = (time.process_time() - began_s) * 1e6 / positions
        self._least[name] = min(cost_us, self._least.get(name, cost_us))


def _consume(analysis: PartitionAnalysis, records: Sequence[StreamRecord]) -> None:
    for begin in range(0, len(records), BATCH):
        analysis.consume(records[begin : begin + BATCH])
        analysis.rewind_offset(begin + BATCH)


def _of_checkout(checkout: Path) -> dict[str, float]:
    """Take one round in a process that imports another checkout's package."""
    path = os.pathsep.join((str(checkout / "src"), str(Path(__file__).parent)))
    words = [sys.executable, __file__, "--json", "--rounds=1"]
    environment = {**os.environ, "PYTHONPATH": path}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(said.stdout))


def main() -> None:
    """Take the figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--against", type=Path, help="another checkout, such as a git worktree")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.against is None:
        steps = Steps()
        for _ in range(given.rounds):
            figures = steps.take()
        if given.json:
            print(json.dumps(figures))
            return
        for name, cost_us in figures.items():
            print(f"{name:<44} {cost_us:7.2f} us per position")
        return
    here = Path(__file__).resolve().parents[1]
    least: list[dict[str, float]] = [{}, {}]
    for _ in range(given.rounds):
        for known, checkout in zip(least, (given.against, here), strict=True):
            taken = _of_checkout(checkout)
            known.update({name: min(cost, known.get(name, cost)) for name, cost in taken.items()})
    before, after = least
    print(f"{'microseconds per position':<44} {'other':>8} {'this':>8} {'ratio':>6}")
    for name, cost_us in after.items():
        print(f"{name:<44} {before[name]:8.2f} {cost_us:8.2f} {before[name] / cost_us:6.2f}")


if __name__ == "__main__":
    main()
