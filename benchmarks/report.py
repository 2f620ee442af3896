"""Figures and how they are shown: tables with medians and ratios pair by pair, or JSON.

Owns the arithmetic between two samples, the options that every benchmark has, and the
description of the machine. Does not own how samples are taken (`harness`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

from matchday.observe.logs import configure

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from servers import install

OURS, OTHER, BASELINE = "matchday", "other-checkout", "baseline"


@dataclass(frozen=True)
class Sample:
    """One look: when, how many messages were through, CPU seconds by process name."""

    at_s: float
    done: int
    cpu: Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """What a run of one system came to.

    Attributes:
        system: Whose.
        messages: How many were counted between the two samples.
        seconds: Between them.
        cpu_per_100k: CPU seconds per 100,000 messages, by process name; ours or the
            baseline's own are under "itself".
        notes: More numbers of this run, such as lost and twice.
    """

    system: str
    messages: int
    seconds: float
    cpu_per_100k: Mapping[str, float]
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        """Give messages per second."""
        return self.messages / self.seconds

    def row(self) -> dict[str, float]:
        """Give all numbers by column name; no rate where no messages were counted."""
        cpu = {f"CPU {name}": value for name, value in self.cpu_per_100k.items()}
        rate = {"messages/s": self.per_s} if self.messages else {}
        return {**rate, **cpu, **self.notes}


def figure(system: str, first: Sample, last: Sample, **notes: float) -> Figure:
    """Make the figure between two samples."""
    messages = last.done - first.done
    cpu = {name: (last.cpu[name] - first.cpu[name]) * 1e5 / messages for name in last.cpu}
    return Figure(system, messages, last.at_s - first.at_s, cpu, notes)


def arguments(text: str | None, **defaults: float | str) -> argparse.Namespace:
    """Read the options that every benchmark has, and those of one, by their defaults."""
    parser = argparse.ArgumentParser(description=text)
    for name, default in {**defaults, "rounds": 3}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.add_argument(
        "--against", type=Path, help="another checkout, taken in the same rounds (git worktree)"
    )
    parser.add_argument("--alone", action="store_true", help="leave the baseline out")
    configure(level="warning")
    return parser.parse_args()


def systems(given: argparse.Namespace, *, round_number: int = 0) -> list[str]:
    """Give what is taken in a round; odd rounds go the other way round."""
    wanted = [OURS]
    if given.against is not None:
        wanted.append(OTHER)
    if not given.alone:
        wanted.append(BASELINE)
    return wanted[::-1] if round_number % 2 else wanted


def machine() -> dict[str, str]:
    """Describe the machine and the versions of everything measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_kb = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    packages = ("matchday", "confluent-kafka", "pymongo", "paho-mqtt", "msgspec")
    return {
        "cpu": f"{os.cpu_count()} x {model}",
        "memory": f"{memory_kb / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f} before the start",
        "python": platform.python_version(),
        "servers": f"{_said(install.find_mosquitto(), '-h')}, Kafka {install.KAFKA_VERSION}, "
        f"mongod {_said(install.find_mongod(), '--version').rpartition(' v')[2]}",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _said(program: Path | None, option: str) -> str:
    if program is None:
        return "none"
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def report(
    title: str,
    machine_is: Mapping[str, str],
    parts: Mapping[str, Sequence[Figure]],
    *,
    as_json: bool,
) -> None:
    """Print every part as a table, or all of them as JSON.

    Figures of a part come in the order taken; the n-th of each system are a pair.
    """
    if as_json:
        rows = {
            name: [{"system": one.system, "messages": one.messages, **one.row()} for one in figures]
            for name, figures in parts.items()
        }
        print(json.dumps({"title": title, "machine": machine_is, "figures": rows}, indent=1))
        return
    print(f"\n{title}")
    for name, text in machine_is.items():
        print(f"  {name:<9}{text}")
    for name, figures in parts.items():
        print(f"\n{name}")
        _table(figures)


def _table(figures: Sequence[Figure]) -> None:
    by_system: dict[str, list[dict[str, float]]] = {}
    for one in figures:
        by_system.setdefault(one.system, []).append(one.row())
    columns = list(dict.fromkeys(column for one in figures for column in one.row()))
    lines = [["", *columns]]
    for system, rows in by_system.items():
        for row in rows:
            lines.append([system, *(_number(row.get(column)) for column in columns)])
        if len(rows) > 1:
            middle = [_middle([row[c] for row in rows if c in row]) for c in columns]
            lines.append([f"{system}, median", *map(_number, middle)])
    for theirs in (name for name in by_system if name != OURS):
        pairs = zip(by_system.get(OURS, []), by_system.get(theirs, []), strict=False)
        for number, (mine, other) in enumerate(pairs, 1):
            ratios = [_ratio(other.get(column), mine.get(column)) for column in columns]
            lines.append([f"{theirs} / {OURS}, pair {number}", *ratios])
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns) + 1)]
    for line in lines:
        cells = [f"{line[0]:<{widths[0]}}"]
        cells += [f"{text:>{width}}" for text, width in zip(line[1:], widths[1:], strict=True)]
        print(f"  {'  '.join(cells)}".rstrip())


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def _ratio(other: float | None, mine: float | None) -> str:
    return f"{other / mine:.2f}" if other and mine else "-"


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    print(f"... {text}", file=sys.stderr, flush=True)
