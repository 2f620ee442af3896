"""What ingest's own code costs a message, by the number of sources: no server, no socket.

For each number of sources a process of its own hears every source once (or `PRIME_MIN`
messages, if that is more), and then the same number of messages for each: sources in turn, and
at random. Microseconds of CPU per message; `bytes/source` is what the process has grown by.
"dictionary alone" is the floor: a source's text looked up among as many, and one number read
where it leads to. What that costs with a million beyond what it costs with one is the machine
waiting for its memory, whatever program waits.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from publisher import Load, packet

from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.tick import Sorter, Tick
from matchday.mqtt.publish import Decoder
from matchday.ports import Deliveries
from matchday.protocols.redelivery import Doubt
from matchday.services.memory import spare_collector

SOURCE_COUNTS = (1, 1_000, 100_000, 1_000_000)
PRIME_MIN = 100_000
MESSAGES = 100_000
TICK = 1000
ARRIVED_MS = 1_790_000_000_000


def resident_bytes() -> int:
    """Give the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def chunks(sources: int, order: Sequence[int], *, messages: int, seq: int) -> Iterable[bytes]:
    """Give the packets of a tick at a time, sources as `order` has them, again and again."""
    load = Load(0, 0, sources, 0.0, seq, "bench")
    for begin in range(0, messages, TICK):
        places = range(begin, min(begin + TICK, messages))
        indices = (place // sources * sources + order[place % sources] for place in places)
        yield b"".join(packet(load, index, ARRIVED_MS + index // 20 % 1000) for index in indices)


class Steps:
    """One ingest, and what its steps have cost, in seconds of CPU."""

    def __init__(self) -> None:
        self._decoder = Decoder(version=4, packet_bytes_max=2**20)
        self._identities = Identities(window_ms=120_000, entries_min=2000)
        self._sorter = Sorter(
            adapters=Adapters(),
            gate=GatePolicy(),
            identities=self._identities,
            doubt=Doubt(entries_max=2000),
            payload_bytes_max=2**20,
        )
        self.cpu_s: dict[str, float] = {}

    def take(self, parts: Iterable[bytes]) -> None:
        """Take ticks as a bridge does, all but writing them."""
        self.cpu_s = dict.fromkeys(("packets", "tick", "account"), 0.0)
        for chunk in parts:
            at = [time.process_time()]
            batch = self._decoder.decode(chunk)
            at.append(time.process_time())
            tick = Tick()
            found = Deliveries("", 1, ARRIVED_MS, batch.topics, batch.payloads, batch.packet_ids)
            self._sorter.take(tick, found)
            at.append(time.process_time())
            tick.outputs(slot="s", tick="t", ts_ms=ARRIVED_MS)
            at.append(time.process_time())
            self._identities.turn(ARRIVED_MS)
            if len(tick.analytics) != len(batch):
                raise SystemExit(f"benchmark: {len(tick.analytics)} of {len(batch)} accepted")
            for name, began_s, ended_s in zip(self.cpu_s, at, at[1:], strict=False):
                self.cpu_s[name] += ended_s - began_s


def alone_us(sources: int) -> float:
    """Give microseconds for one look-up at random among as many texts, and what it leads to."""
    rng = random.Random(2)
    get = {f"tag-{number}": array("q", (number, 0, 0, 0)) for number in range(sources)}.get
    wanted = [f"tag-{rng.randrange(sources)}" for _ in range(MESSAGES)]
    began_s = time.process_time()
    for text in wanted:
        row = get(text)
        if row is None or row[0] + len(row) < 0:
            raise SystemExit("benchmark: a source is not in its dictionary")
    return (time.process_time() - began_s) * 1e6 / MESSAGES


def taken(sources: int) -> dict[str, float]:
    """Give what each step costs with so many sources, and the memory for one."""
    spare_collector()
    in_turn = range(sources)
    at_random = random.Random(1).sample(in_turn, sources)
    each = max(1, PRIME_MIN // sources)
    again = max(1, MESSAGES // sources)
    steps, figures = Steps(), {}
    before_bytes = resident_bytes()
    steps.take(chunks(sources, in_turn, messages=each * sources, seq=1))
    grown_bytes = resident_bytes() - before_bytes
    ready = list(chunks(sources, in_turn, messages=MESSAGES, seq=each + 1))
    steps.take(ready)
    for name, cpu_s in steps.cpu_s.items():
        figures[name] = cpu_s * 1e6 / MESSAGES
    if sources > MESSAGES:
        # Those that have not spoken in turn speak here, so that each says its next number.
        at_random = [one for one in at_random if one >= MESSAGES]
        again = 0
    ready = list(chunks(sources, at_random, messages=MESSAGES, seq=each + again + 1))
    steps.take(ready)
    figures["tick, at random"] = steps.cpu_s["tick"] * 1e6 / MESSAGES
    del steps, ready
    figures["dictionary alone"] = alone_us(sources)
    if sources >= PRIME_MIN:
        figures["bytes/source"] = grown_bytes / sources
    return figures


def of_checkout(sources: int, checkout: Path | None = None) -> dict[str, float]:
    """Take the figures in a process of its own, which may import another checkout's package."""
    environment = dict(os.environ)
    if checkout is not None:
        parts = (str(checkout.resolve() / "src"), str(Path(__file__).parent))
        environment["PYTHONPATH"] = os.pathsep.join(parts)
    words = [sys.executable, __file__, "--json", f"--sources={sources}"]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(said.stdout))


def main() -> None:
    """Take the figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, help="only so many; all numbers if left out")
    parser.add_argument("--against", type=Path, help="another checkout, such as a git worktree")
    parser.add_argument("--json", action="store_true", help="JSON, and in this process")
    given = parser.parse_args()
    if given.json:
        print(json.dumps(taken(given.sources or 1)))
        return
    for sources in (given.sources,) if given.sources else SOURCE_COUNTS:
        for checkout in (given.against, None) if given.against else (None,):
            figures = of_checkout(sources, checkout)
            told = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"{sources:>9,}  {'other' if checkout else 'this':<6}{told}", flush=True)


if __name__ == "__main__":
    main()
