"""Embedded, `matchday up`: sensor -> own endpoint -> stream and store in SQLite, and analysis.

One process does everything, durably; no server runs. The rate is raised step by step and the
ramp stops at the first rate that is not sustained: the load kept its pace, and everything
was stored and analysed `REST_S_MAX` after the last message. Memory is the resident set beyond
that of a bare interpreter: at rest before the first message, and the most seen under load.

Before the ramp it is watched with no message at all, and with one a second: time on a
processor in per cent of one core, wake-ups a second, and memory. `--rest-seconds 0` leaves
that out.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from at_rest import use_of
from harness import Publisher, Sampler, running, service
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

from servers.ports import free_port
from servers.process import wait_until

RESTS_PER_S = (0, 1)
RATES_PER_S = (5_000, 10_000, 15_000, 20_000, 25_000, 30_000)
PACE_MIN = 0.95
SETTLE_S = 5.0
REST_S_MAX = 2.5

_STORED = "SELECT coalesce(sum(stored), 0) FROM account"
_UNANALYSED = """
    SELECT coalesce(sum(p.next_offset - coalesce(b.next_offset, 0)), 0)
    FROM partitions p LEFT JOIN bookmarks b
    ON b.partition_id = p.id AND b.group_name = 'matchday-analysis'
    WHERE p.topic = 'analytics'
"""


@dataclass
class Embedded:
    """A `matchday up` that runs."""

    port: int
    folder: Path
    pid: int
    bare_mb: float
    peak_mb: float = field(default=0.0)

    def stored(self) -> int:
        """Count what the account says is stored, and note the memory."""
        self.peak_mb = max(self.peak_mb, self.memory_mb())
        return _asked(self.folder / "store.db", _STORED)

    def unanalysed(self) -> int:
        """Count the readings that analysis has not confirmed."""
        return _asked(self.folder / "stream.db", _UNANALYSED)

    def memory_mb(self) -> float:
        """Give the resident memory beyond a bare interpreter, MB."""
        return resident_mb(self.pid) - self.bare_mb


def resident_mb(pid: int) -> float:
    """Give the resident set of a process, MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"benchmark: process {pid} tells no VmRSS")


def _asked(path: Path, question: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute(question).fetchone()[0])


def _bare_mb() -> float:
    words = [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        return resident_mb(child.pid)


@contextmanager
def deployed(checkout: Path | None) -> Iterator[Embedded]:
    """Run `matchday up` in a fresh data folder."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="matchday-")))
        port, folder = free_port(), directory / "data"
        settings = {"MATCHDAY_MQTT__PORT": str(port), "MATCHDAY_DATA_DIR": str(folder)}
        ours = service(directory, settings, "up", checkout=checkout)
        pid = stack.enter_context(running(ours))
        wait_until(lambda: ours.links().get("mqtt", False), what="the endpoint listens")
        yield Embedded(port, folder, pid, _bare_mb())


def rest(at: Embedded, system: str, *, rate_per_s: int, seconds: int, seq_first: int) -> Figure:
    """Watch it at no message or few; CPU and wake-ups are those of all its threads."""
    publisher = None
    messages = rate_per_s * (seconds + int(SETTLE_S))
    if messages:
        publisher = Publisher(at.port, messages=messages, rate=rate_per_s, seq_first=seq_first)
        publisher.go()
    time.sleep(SETTLE_S)
    before, began_s = use_of(at.pid), time.monotonic()
    time.sleep(seconds)
    after, took_s = use_of(at.pid), time.monotonic() - began_s
    if publisher is not None:
        publisher.result()
    notes = {
        "CPU, % of a core": 100 * (after.cpu_s - before.cpu_s) / took_s,
        "wake-ups/s": (after.wakeups - before.wakeups) / took_s,
        "memory, MB": at.memory_mb(),
    }
    return Figure(f"{system} {rate_per_s}/s", rate_per_s * seconds, took_s, {}, notes)


def step(at: Embedded, system: str, *, rate_per_s: int, seconds: int, seq_first: int) -> Figure:
    """Run one step of the ramp; whether it was sustained is a note."""
    messages = rate_per_s * seconds
    at.peak_mb = 0.0
    sampler = Sampler({"itself": at.pid}, at.stored)
    first = sampler.look()
    publisher = Publisher(at.port, messages=messages, rate=rate_per_s, seq_first=seq_first)
    began_s = time.monotonic()
    publisher.go()
    while publisher.is_sending:
        sampler.look()
        time.sleep(0.2)
    took_s = publisher.result()["seconds"]
    ended_s = time.monotonic()
    last = sampler.until(first.done + messages)
    stored_s = last.at_s - ended_s
    wait_until(lambda: at.unanalysed() == 0, what="all is analysed", timeout_s=60)
    analysed_s = time.monotonic() - ended_s
    is_sustained = messages / took_s >= PACE_MIN * rate_per_s and stored_s < REST_S_MAX
    notes = {
        "sent/s": messages / took_s,
        "stored after, s": max(0.0, stored_s),
        "analysed after, s": analysed_s,
        "memory peak, MB": at.peak_mb,
        "sustained": float(is_sustained and analysed_s < REST_S_MAX + 1.0),
    }
    begun = Sample(began_s, first.done, first.cpu)
    return figure(f"{system} {rate_per_s}/s", begun, last, **notes)


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, step_seconds=10, rest_seconds=20)
    machine_is = machine()
    rests: list[Figure] = []
    steps: list[Figure] = []
    for number in range(given.rounds):
        for system in systems(given, round_number=number):
            if system == BASELINE:
                continue
            with deployed(given.against if system == OTHER else None) as at:
                progress(f"{system}: {at.memory_mb():.0f} MB beyond the interpreter at rest")
                seq_first = 1
                for rate_per_s in RESTS_PER_S if given.rest_seconds else ():
                    progress(f"round {number + 1}: {system} at {rate_per_s}/s, at rest")
                    options = {"rate_per_s": rate_per_s, "seconds": given.rest_seconds}
                    rests.append(rest(at, system, **options, seq_first=seq_first))
                    seq_first += rate_per_s * (given.rest_seconds + int(SETTLE_S))
                for rate_per_s in RATES_PER_S:
                    progress(f"round {number + 1}: {system} at {rate_per_s}/s")
                    options = {"rate_per_s": rate_per_s, "seconds": given.step_seconds}
                    steps.append(step(at, system, **options, seq_first=seq_first))
                    seq_first += rate_per_s * given.step_seconds
                    if not steps[-1].notes["sustained"]:
                        break
    parts = {f"rate raised every {given.step_seconds} s (CPU: seconds per 100,000)": steps}
    if rests:
        parts = {f"at rest, {given.rest_seconds} s": rests, **parts}
    title = "Embedded: sensor -> own endpoint -> SQLite stream and store, and analysis"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
