"""Bars and curves as SVG pictures, and which of them shows a table of figures best.

Owns the drawing, with nothing but text, and the choice of picture: CPU by process as
stacked bars, a rate that is raised step by step as curves over the rate, percentiles of
latency as curves, anything else as plain bars. Lines over time are in `timeline`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Final

from timeline import COLOURS, round_up

WIDTH: Final = 900
LEFT, RIGHT, TOP, BOTTOM = 270, 200, 30, 34
BAR: Final = 16
BAR_STEP: Final = 24
CURVES: Final = 200
LEGEND: Final = 15

Row = Mapping[str, float | str]
"""One line of a table: its label under "system", and numbers by column."""

CPU: Final = "CPU "
# Sums of what other columns name one by one, and the machine's own account beside them.
SUMS: Final = ("CPU together", "CPU machine")
_RATE: Final = re.compile(r"^(?P<system>.+?) (?P<rate>\d+)/s$")


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, each of one or more segments.

    Attributes:
        title: With the unit.
        rows: Segments by name, by label of the bar.
    """

    title: str
    rows: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Curves:
    """Curves over numbers, or over names at equal distances.

    Attributes:
        title: With the unit.
        lines: Points by name of the curve.
        ticks: Where the horizontal axis is labelled, and with what.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    ticks: Mapping[float, str]


def picture(title: str, rows: Sequence[Row]) -> list[Bars | Curves]:
    """Choose the plots for one table; several rows of one label count by their median."""
    middle = medians(rows)
    numbers = [name for name in _columns(middle) if name not in SUMS]
    cpu = [name for name in numbers if name.startswith(CPU)]
    if len(cpu) > 2 and "CPU programs" in cpu and _has_details(middle, cpu):
        cpu.remove("CPU programs")
    steps = {label: found for label in middle if (found := _RATE.match(label))}
    if len(steps) > 1 and len(steps) == len(middle):
        return [_over_rate(title, middle, steps, cpu)] if cpu else []
    percentiles = [name for name in numbers if re.match(r"^(p\d+|max)\b.* ms$", name)]
    if len(percentiles) > 1:
        return [_over_percentiles(title, middle, percentiles)]
    if cpu:
        bars = {
            label: {name.removeprefix(CPU): row[name] for name in cpu if name in row}
            for label, row in middle.items()
        }
        return [Bars(f"{title}: CPU s per 100,000", bars)]
    if not numbers:
        return []
    shown = numbers[0]
    return [
        Bars(
            f"{title}: {shown}",
            {label: {shown: row[shown]} for label, row in middle.items() if shown in row},
        )
    ]


def medians(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Give the median of every numeric column by label, labels in order of appearance."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of_label = found.setdefault(str(row.get("system", "")), {})
        for name, value in row.items():
            if isinstance(value, int | float) and name != "messages":
                of_label.setdefault(name, []).append(float(value))
    return {
        label: {name: median(values) for name, values in columns.items()}
        for label, columns in found.items()
    }


def draw(plots: Sequence[Bars | Curves]) -> str:
    """Draw plots below one another."""
    parts: list[str] = []
    top = TOP
    for plot in plots:
        if isinstance(plot, Bars):
            drawn, height = _bars(plot, top)
        else:
            drawn, height = _curves(plot, top)
        parts += drawn
        top += height + TOP + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
            'font-family="sans-serif" font-size="11" fill="#222">',
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _columns(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _has_details(rows: Mapping[str, Mapping[str, float]], cpu: Sequence[str]) -> bool:
    """Tell whether every row names the programs that its sum is made of."""
    servers = {"CPU programs", "CPU Mosquitto", "CPU Kafka", "CPU MongoDB"}
    return all(any(name in row for name in cpu if name not in servers) for row in rows.values())


def _over_rate(
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    steps: Mapping[str, re.Match[str]],
    cpu: Sequence[str],
) -> Curves:
    lines: dict[str, list[tuple[float, float]]] = {}
    systems = {found["system"] for found in steps.values()}
    ticks: dict[float, str] = {}
    for label, found in steps.items():
        rate = float(found["rate"])
        ticks[rate] = f"{rate:,.0f}"
        for name in cpu:
            if name in rows[label]:
                process = name.removeprefix(CPU)
                line = process if len(systems) == 1 else f"{found['system']}: {process}"
                lines.setdefault(line, []).append((rate, rows[label][name]))
    return Curves(f"{title}: CPU s per 100,000 over messages/s", lines, ticks)


def _over_percentiles(
    title: str, rows: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> Curves:
    lines = {
        label: [(float(at), row[name]) for at, name in enumerate(names) if name in row]
        for label, row in rows.items()
    }
    ticks = {float(at): name.removesuffix(" ms") for at, name in enumerate(names)}
    return Curves(f"{title}: milliseconds", {n: line for n, line in lines.items() if line}, ticks)


def _bars(plot: Bars, top: int) -> tuple[list[str], int]:
    inner = WIDTH - LEFT - RIGHT
    names = _columns(plot.rows)
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(names)}
    ceiling = round_up(max((sum(row.values()) for row in plot.rows.values()), default=1.0))
    height = max(len(plot.rows) * BAR_STEP, len(names) * LEGEND)
    parts = _frame(plot.title, top, height)
    for at, (label, row) in enumerate(plot.rows.items()):
        x, y = float(LEFT), top + at * BAR_STEP + (BAR_STEP - BAR) / 2
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + BAR - 4:.1f}" text-anchor="end">{escape(label)}</text>'
        )
        for name, value in row.items():
            width = inner * max(0.0, value) / ceiling
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" '
                f'fill="{colours[name]}"><title>{escape(name)}: {value:.4g}</title></rect>'
            )
            x += width
        parts.append(f'<text x="{x + 4:.1f}" y="{y + BAR - 4:.1f}">{sum(row.values()):.4g}</text>')
    for share in (0.0, 0.5, 1.0):
        parts.append(_tick(LEFT + inner * share, top + height, f"{ceiling * share:g}"))
    return parts + _legend(colours, top), height


def _curves(plot: Curves, top: int) -> tuple[list[str], int]:
    inner = WIDTH - LEFT - RIGHT
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(plot.lines)}
    points = [point for line in plot.lines.values() for point in line]
    ceiling = round_up(max((value for _, value in points), default=1.0))
    low, high = min(plot.ticks, default=0.0), max(plot.ticks, default=1.0)
    height = max(CURVES, len(plot.lines) * LEGEND)

    def x(at: float) -> float:
        return LEFT + inner * ((at - low) / (high - low) if high > low else 0.5)

    def y(value: float) -> float:
        return top + height - height * value / ceiling

    parts = _frame(plot.title, top, height)
    for share in (0.0, 0.5, 1.0):
        value = ceiling * share
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    parts += [_tick(x(at), top + height, name) for at, name in plot.ticks.items()]
    for name, line in plot.lines.items():
        text = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line)
        parts.append(f'<polyline points="{text}" fill="none" stroke="{colours[name]}"/>')
        parts += [
            f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="{colours[name]}">'
            f"<title>{escape(name)}: {value:.4g}</title></circle>"
            for at, value in line
        ]
    return parts + _legend(colours, top), height


def _frame(title: str, top: int, height: int) -> list[str]:
    inner = WIDTH - LEFT - RIGHT
    return [
        f'<text x="8" y="{top - 10}" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{inner}" height="{height}" fill="none" stroke="#bbb"/>',
    ]


def _tick(x: float, bottom: int, text: str) -> str:
    return f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{escape(text)}</text>'


def _legend(colours: Mapping[str, str], top: int) -> list[str]:
    return [
        f'<text x="{WIDTH - RIGHT + 44}" y="{top + 12 + LEGEND * at}" fill="{colour}">'
        f"{escape(name)}</text>"
        for at, (name, colour) in enumerate(colours.items())
    ]
