"""Lines over time as an SVG picture: panels below one another, with one time axis.

Owns the drawing, with nothing but text. Does not own what the lines mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from math import ceil, log10
from operator import itemgetter
from typing import Final

WIDTH: Final = 900
PANEL: Final = 150
LEFT, RIGHT, TOP, BOTTOM = 70, 130, 24, 20
COLOURS: Final = ("#1b6ca8", "#c8553d", "#2e8b57", "#8e5ea2", "#b8860b", "#555555", "#d1495b")

Line = Sequence[tuple[float, float]]
"""Points (seconds since the beginning, value), oldest first."""


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: With the unit.
        lines: By name.
    """

    title: str
    lines: Mapping[str, Line]


def draw(panels: Sequence[Panel], *, span_s: float, marks_s: Sequence[float] = ()) -> str:
    """Draw panels over one time axis in minutes.

    Args:
        panels: From top to bottom.
        span_s: The length of the axis, seconds.
        marks_s: Moments to mark with a thin vertical line in every panel.
    """
    height = len(panels) * (PANEL + TOP + BOTTOM) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11" fill="#222">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        top = number * (PANEL + TOP + BOTTOM) + TOP
        parts += _panel(panel, top=top, span_s=max(span_s, 1.0), marks_s=marks_s)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, *, top: int, span_s: float, marks_s: Sequence[float]) -> list[str]:
    inner = WIDTH - LEFT - RIGHT
    ceiling = round_up(max((y for line in panel.lines.values() for _, y in line), default=1.0))

    def x(at_s: float) -> float:
        return LEFT + inner * at_s / span_s

    def y(value: float) -> float:
        return top + PANEL - PANEL * value / ceiling

    parts = [
        f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{escape(panel.title)}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{inner}" height="{PANEL}" fill="none" stroke="#bbb"/>',
    ]
    parts += [
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{top + PANEL}" stroke="#e3b5a4"/>'
        for at in marks_s
    ]
    for share in (0.0, 0.5, 1.0):
        value = ceiling * share
        parts.append(
            f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
        minutes = span_s * share / 60
        parts.append(
            f'<text x="{x(span_s * share):.1f}" y="{top + PANEL + 14}" text-anchor="middle">'
            f"{minutes:.3g} min</text>"
        )
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        dots = _thinned([(x(at), y(value)) for at, value in line])
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in dots)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{top + 12 + 15 * number}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return parts


def round_up(value: float) -> float:
    """Give the next number of the form 1, 2, 5 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** (ceil(log10(value)) - 1)
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= value)


def _thinned(dots: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep of each pixel's width the first, the highest, the lowest and the last dot."""
    kept: list[tuple[float, float]] = []
    for _, column in groupby(dots, key=lambda dot: int(dot[0])):
        run = list(column)
        ends = {run[0], min(run, key=itemgetter(1)), max(run, key=itemgetter(1)), run[-1]}
        kept += sorted(ends, key=run.index)
    return kept
