"""Every figure in one report: runs the benchmarks one after the other, each in its own process.

Each script's answer is kept as JSON in the report's folder, with its command, the load before
it and how long it took; the report (`report.md`, with a picture for each script) is made of all
answers that lie there, so that `--only NAME` takes one anew and leaves the others. A script
that fails is named with its error and stops nothing. The default is a short form, one round of
each; `--full` takes what the scripts take by themselves. Long runs with faults are
`long_run.py`'s own report. Exit code 1 when a script failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from plots import Row, draw, medians, picture
from report import machine, progress

HERE: Final = Path(__file__).resolve().parent
TIME_OUT_S: Final = 7200.0
ERROR_LINES: Final = 5
# Parts of the benchmarks, and those that write a report of another form.
NOT_FIGURES: Final = frozenset(
    (
        *("all", "baseline", "harness", "long_run", "model", "plots", "publisher", "report"),
        *("steps_sources", "timeline", "warming"),
    )
)
_FEW: Final = ("--rounds=1", "--messages=100000", "--paced-messages=20000")
_RAMP: Final = ("--rounds=1", "--step-seconds=6")
SHORT: Final[Mapping[str, tuple[str, ...]]] = {
    "hop1": _FEW,
    "hop2": _FEW,
    "compare": _FEW,
    "scaling": ("--messages=100000", "--seconds=6"),
    "end_to_end": (*_RAMP, "--paced-messages=20000"),
    "positions": _RAMP,
    "embedded": _RAMP,
    "latency": ("--rounds=1", "--paced-messages=20000", "--idle-messages=15"),
    "floor": ("--rounds=1", "--paced-messages=20000"),
    "sources": ("--rounds=1", "--messages=100000", "--sources-max=100000"),
    "at_rest": ("--seconds=15",),
    "shapes": ("--rounds=1",),
    "buckets": ("--rounds=1", "--messages=40000", "--buckets=1000,120"),
    "history": ("--rounds=1", "--readings=5000000", "--messages=50000"),
    "steps": ("--rounds=3",),
    "steps_positions": ("--rounds=3",),
}


@dataclass(frozen=True)
class Answer:
    """What one script came to.

    Attributes:
        name: Of the script.
        options: It was given.
        began: ISO 8601, UTC.
        load: The load average before it.
        took_s: How long it ran.
        error: Why there are no figures; empty when there are.
        figures: What it printed.
    """

    name: str
    options: Sequence[str]
    began: str
    load: float
    took_s: float
    error: str
    figures: Any


def scripts() -> list[str]:
    """Give the names of all scripts that yield figures, in the order of the report."""
    found = {path.stem for path in HERE.glob("*.py")} - NOT_FIGURES
    known = [name for name in SHORT if name in found]
    return known + sorted(found - set(known))


def take(name: str, options: Sequence[str]) -> Answer:
    """Run one script to its end."""
    began, load, began_s = datetime.now(UTC), os.getloadavg()[0], time.monotonic()
    words = [sys.executable, str(HERE / f"{name}.py"), "--json", *options]
    figures, error = None, ""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIME_OUT_S)
        if done.returncode == 0:
            figures = json.loads(done.stdout)
        else:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            error = "\n".join([f"exit code {done.returncode}", *said[-ERROR_LINES:]])
    except subprocess.TimeoutExpired:
        error = f"not done after {TIME_OUT_S:.0f} s"
    except ValueError as reason:
        error = f"its answer is not JSON: {reason}"
    return Answer(
        name=name,
        options=list(options),
        began=began.isoformat(timespec="seconds"),
        load=load,
        took_s=time.monotonic() - began_s,
        error=error,
        figures=figures,
    )


def tables(figures: Any) -> dict[str, list[Row]]:
    """Give the tables of an answer, whichever of the three forms it has.

    Those are `report`'s (parts of rows), a list of rows that name their part, and one number
    for each name, microseconds.
    """
    if not isinstance(figures, Mapping):
        return {}
    if isinstance(parts := figures.get("figures"), Mapping):
        return {str(name): list(rows) for name, rows in parts.items()}
    if isinstance(rows := figures.get("rows"), Sequence):
        found: dict[str, list[Row]] = {}
        for row in rows:
            rest = {name: value for name, value in row.items() if name not in ("part", "service")}
            found.setdefault(str(row["part"]), []).append({"system": row["service"], **rest})
        return found
    numbers = {name: one for name, one in figures.items() if isinstance(one, int | float)}
    return {"": [{"system": name, "microseconds": one} for name, one in numbers.items()]}


def section(answer: Answer, picture_name: str | None) -> list[str]:
    """Give the part of the report about one script, in Markdown."""
    words = " ".join((f"benchmarks/{answer.name}.py", *answer.options))
    figures = answer.figures if isinstance(answer.figures, Mapping) else {}
    lines = [
        f"## {figures.get('title', answer.name)}",
        "",
        f"`{words}`, begun {answer.began}, load {answer.load:.1f} before it, "
        f"took {answer.took_s:.0f} s; raw numbers in `{answer.name}.json`.",
        "",
    ]
    about = figures.get("machine", {})
    lines += [f"- {name}: {about[name]}" for name in ("peers", "absent") if name in about]
    if answer.error:
        return [*lines, "**It failed:**", "", "```", answer.error, "```", ""]
    if picture_name is not None:
        lines += ["", f"![{answer.name}]({picture_name})"]
    for name, rows in tables(answer.figures).items():
        lines += ["", *([f"### {name}", ""] if name else []), *_table(rows)]
    return [*lines, ""]


def _table(rows: Sequence[Row]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "system"))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [_line(str(row.get("system", "")), row, columns) for row in rows]
    middle = medians(rows)
    if len(middle) < len(rows):
        lines += [_line(f"**{name}, median**", row, columns) for name, row in middle.items()]
    return lines


def _line(label: str, row: Row, columns: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(_cell(row.get(name)) for name in columns)} |"


def _cell(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def write_report(folder: Path) -> None:
    """Make the report of all answers that lie in the folder."""
    lines = ["# Benchmarks", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in machine().items() if name != "load"]
    changed = {name: value for name, value in os.environ.items() if name.startswith("MATCHDAY_")}
    told = ", ".join(f"`{name}={value}`" for name, value in sorted(changed.items()))
    lines += [f"| settings | {told or 'all as they are by default'} |"]
    lines += [f"| revision | {_revision()} |", ""]
    answers = [
        Answer(**json.loads(path.read_text(encoding="utf-8")))
        for name in scripts()
        if (path := folder / f"{name}.json").exists()
    ]
    failed = [one.name for one in answers if one.error]
    if failed:
        lines += [f"Failed: {', '.join(failed)}.", ""]
    for answer in answers:
        plots = [
            plot
            for name, rows in tables(answer.figures).items()
            for plot in picture(name or answer.name, rows)
        ]
        picture_name = f"{answer.name}.svg" if plots else None
        if picture_name is not None:
            (folder / picture_name).write_text(draw(plots), encoding="utf-8")
        lines += section(answer, picture_name)
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _revision() -> str:
    words = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def main() -> int:
    """Run what is asked for and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="not the short form; takes hours")
    parser.add_argument(
        "--only", action="append", choices=scripts(), help="this script alone; may repeat"
    )
    parser.add_argument("--report", type=Path, default=Path("bench-report"), help="its folder")
    given = parser.parse_args()
    given.report.mkdir(parents=True, exist_ok=True)
    has_failed = False
    for name in given.only or scripts():
        progress(f"{name} ({'full' if given.full else 'short'} form)")
        answer = take(name, () if given.full else SHORT.get(name, ("--rounds=1",)))
        has_failed |= bool(answer.error)
        if answer.error:
            progress(f"{name} failed: {answer.error}")
        text = json.dumps(vars(answer), indent=1)
        (given.report / f"{name}.json").write_text(text, encoding="utf-8")
        write_report(given.report)
    print(given.report / "report.md")
    return 1 if has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
