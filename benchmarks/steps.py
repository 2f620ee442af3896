"""What each step costs one message: microseconds of CPU, without servers or sockets.

Each step runs alone on what the step before it gave, in batches as large as a busy service
sees, and the least of several rounds counts. So the sum is the part of a process that our own
code is; what the Kafka and MongoDB clients do in their own threads comes on top and is in
`hop1` and `hop2`. With `--against CHECKOUT` the same steps of another checkout are taken in
alternation with these, and the ratio is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bson import encode as bson_encode
from publisher import Load, packet

from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.analysis.rolling import WindowStatistics
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading, encode_reading
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy, check
from matchday.ingest.identity import Identities
from matchday.ingest.tick import Sorter, Tick
from matchday.mqtt.publish import Batch, Decoder, pack_pubacks
from matchday.ports import Deliveries, PartitionWrite, StreamRecord
from matchday.protocols.cells import Piece, pieces
from matchday.protocols.redelivery import Doubt
from matchday.store.batch import Batch as StoreBatch
from matchday.store.mongo_cells import documents_of
from matchday.store.mongo_owed import Owed
from matchday.store.rows import rows_of

MESSAGES = 20_000
TICK = 1000
STORE_BATCH = 8000
ROUNDS = 7
ARRIVED_MS = 1_790_000_000_000


class Steps:
    """The steps in the order of the flow; each keeps what the next one needs."""

    def __init__(self) -> None:
        load = Load(0, MESSAGES, 100, 0.0, 1, "bench")
        packets = [packet(load, i, ARRIVED_MS + i // 20) for i in range(MESSAGES)]
        self._chunks = [b"".join(packets[at : at + TICK]) for at in range(0, MESSAGES, TICK)]
        self._adapters = Adapters()
        self._gate = GatePolicy()
        self._least: dict[str, float] = {}

    def take(self) -> dict[str, float]:
        """Run every step once; give the least microseconds per message so far."""
        batches = self._ingest()
        ticks = self._tick(batches)
        records = [
            StreamRecord(Topic.ANALYTICS, 0, offset, ARRIVED_MS, record.key, record.value)
            for offset, record in enumerate(one for tick in ticks for one in tick.analytics)
        ]
        self._persist(records)
        self._analyse(records)
        return self._least

    def _ingest(self) -> list[Batch]:
        def decode_all() -> list[Batch]:
            decoder = Decoder(version=4, packet_bytes_max=2**20)
            return [decoder.decode(chunk) for chunk in self._chunks]

        batches: list[Batch] = self._timed("ingest: PUBLISH packets -> messages", decode_all)
        messages = [pair for one in batches for pair in zip(one.topics, one.payloads, strict=True)]
        decode = self._adapters.decode
        decoded = self._timed(
            "ingest: message -> reading",
            lambda: [decode(topic, payload, ARRIVED_MS) for topic, payload in messages],
        )
        readings = [reading for found in decoded for reading in found[0]]

        def check_all() -> None:
            for reading in readings:
                check(reading, arrived_ms=ARRIVED_MS, policy=self._gate)

        self._timed("ingest: bounds of belief", check_all)
        self._timed("ingest: reading -> record", lambda: [encode_reading(one) for one in readings])
        self._timed(
            "ingest: acknowledgements",
            lambda: [pack_pubacks(one.packet_ids) for one in batches],
        )
        return batches

    def _tick(self, batches: Sequence[Batch]) -> list[Tick]:
        sorter = Sorter(
            adapters=self._adapters,
            gate=self._gate,
            identities=Identities(window_ms=120_000, entries_min=2000),
            doubt=Doubt(entries_max=2000),
            payload_bytes_max=2**20,
        )

        def sort_all() -> list[Tick]:
            ticks = []
            for one in batches:
                tick = Tick()
                deliveries = Deliveries("", 1, ARRIVED_MS, one.topics, one.payloads, one.packet_ids)
                sorter.take(tick, deliveries)
                ticks.append(tick)
            return ticks

        ticks: list[Tick] = self._timed("ingest: all of a tick but packets", sort_all)
        self._timed(
            "ingest: the account's record",
            lambda: [tick.outputs(slot="s", tick="t", ts_ms=ARRIVED_MS) for tick in ticks],
        )
        return ticks

    def _persist(self, records: Sequence[StreamRecord]) -> None:
        self._timed(
            "persist: record -> reading", lambda: [decode_reading(r.value) for r in records]
        )
        self._timed("persist: record -> row", lambda: [rows_of(record) for record in records])
        parts = [records[at : at + STORE_BATCH] for at in range(0, len(records), STORE_BATCH)]

        def gather() -> list[list[PartitionWrite]]:
            found = []
            for part in parts:
                batch = StoreBatch()
                for record in part:
                    batch.add(record)
                found.append(batch.writes())
            return found

        writes = self._timed("persist: all of a batch up to the store", gather)
        commands = self._timed(
            "persist: rows -> cells of documents",
            lambda: [
                _cell(piece) for batch in writes for one in batch for piece in pieces(one.rows)
            ],
        )
        self._timed("persist: documents -> BSON", lambda: [bson_encode(one) for one in commands])

        def sum_up() -> None:
            for batch in writes:
                for one in batch:
                    owed = Owed("analytics-0")
                    owed.add(one)
                    owed.shares()

        self._timed("persist: the account's sums", sum_up)

    def _analyse(self, records: Sequence[StreamRecord]) -> None:
        readings = [decode_reading(record.value) for record in records]
        plan = Plan()
        windows = WindowStatistics(plan.policy)

        def feed_windows() -> None:
            for offset, reading in enumerate(readings):
                windows.feed(reading, offset=offset, stream_ms=ARRIVED_MS)

        self._timed("analysis: window statistics", feed_windows)
        analysis = PartitionAnalysis(plan)
        self._timed("analysis: all of a scalar", lambda: analysis.consume(records))

    def _timed(self, name: str, step: Callable[[], Any]) -> Any:
        began_s = time.process_time()
        found = step()
        cost_us = (time.process_time() - began_s) * 1e6 / MESSAGES
        self._least[name] = min(cost_us, self._least.get(name, cost_us))
        return found


def _cell(piece: Piece) -> dict[str, Any]:
    """Give what one insert carries, as `store.mongo_fence` puts it together."""
    return {"documents": documents_of(0, piece), "stmtIds": piece.numbers}


def _of_checkout(checkout: Path) -> dict[str, float]:
    """Take one round in a process of another checkout, by its own idea of the steps."""
    scripts = checkout / "benchmarks"
    path = os.pathsep.join((str(checkout / "src"), str(scripts)))
    words = [sys.executable, str(scripts / "steps.py"), "--json", "--rounds=2"]
    environment = {**os.environ, "PYTHONPATH": path}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(said.stdout))


def _rounds(count: int, checkouts: Sequence[Path]) -> Iterator[list[dict[str, float]]]:
    for _ in range(count):
        yield [_of_checkout(one) for one in checkouts]


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
        else:
            for name, cost_us in figures.items():
                print(f"{name:<42} {cost_us:6.2f} us")
        return
    here = Path(__file__).resolve().parents[1]
    least: list[dict[str, float]] = [{}, {}]
    for taken in _rounds(given.rounds, (given.against, here)):
        for known, new in zip(least, taken, strict=True):
            known.update({name: min(cost, known.get(name, cost)) for name, cost in new.items()})
    before, after = least
    print(f"{'microseconds per message':<42} {'other':>8} {'this':>8} {'ratio':>6}")
    for name, cost_us in after.items():
        other_us = before[name]
        print(f"{name:<42} {other_us:8.2f} {cost_us:8.2f} {other_us / cost_us:6.2f}")


if __name__ == "__main__":
    main()
