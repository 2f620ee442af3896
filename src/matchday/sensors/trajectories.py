"""Reader of crowd trajectories as text: `id frame x y [z]`, one row a person and frame.

The layout of the Pedestrian Dynamics Data Archive: blank-separated, header lines begin
with `#` and may state the frame rate and the unit. Rows come grouped by person; a replay
needs them by frame, so the whole file is read before the first message. `z` is the
person's body height, not a position, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from matchday.errors import ConfigError
from matchday.sensors.recorded import RecordedMessage, RecordingFile

SOURCE = "crowd"

_RATE = re.compile(r"frame\s*rate\s*[:=]?\s*(?P<fps>\d+(?:\.\d+)?)", re.IGNORECASE)
_METRES = re.compile(r"\bx\s*/\s*m\b|\[m\]|\bin\s+m(?:et(?:er|re)s?)?\b", re.IGNORECASE)
_CENTIMETRES = re.compile(r"\bx\s*/\s*cm\b|\[cm\]|\bin\s+c(?:m\b|entimet)", re.IGNORECASE)
_PER_METRE = {"m": 1.0, "cm": 100.0}


def fits(head: bytes, lines: list[str]) -> bool:
    """Tell whether the first row below the comments is four or five bare numbers."""
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    cells = first.split()
    if len(cells) not in (4, 5) or "," in first:
        return False
    try:
        return all(float(cell) is not None for cell in cells)
    except ValueError:
        return False


def read(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give one positions message a frame that has anybody in it, people named `p<id>`.

    Frame 0 is at `options.epoch_ms`: the files hold no date.

    Raises:
        ConfigError: Neither the header nor the options state the rate or the unit.
    """
    header: list[str] = []
    frames: dict[int, list[tuple[int, float, float]]] = {}
    for line in file.lines():
        if line.startswith("#"):
            header.append(line)
            continue
        cells = line.split()
        if not cells:
            continue
        try:
            row = (int(cells[0]), float(cells[2]), float(cells[3]))
            frames.setdefault(int(cells[1]), []).append(row)
        except (ValueError, IndexError):
            file.skipped["malformed row"] += 1
    fps = _fps(file, header)
    per_metre = _PER_METRE[_length_unit(file, header)]
    dx_m, dy_m = file.options.offset_m
    topic = file.topic("positions", SOURCE)
    for frame in sorted(frames):
        t_ms = file.options.epoch_ms + round(frame * 1000 / fps)
        objects = [
            {
                "id": f"p{person}",
                "x": round(x / per_metre + dx_m, 6),
                "y": round(y / per_metre + dy_m, 6),
            }
            for person, x, y in sorted(frames[frame])
        ]
        yield RecordedMessage(topic, t_ms, {"t": t_ms, "objects": objects})


def _fps(file: RecordingFile, header: list[str]) -> float:
    if file.options.fps is not None:
        return file.options.fps
    for line in header:
        match = _RATE.search(line)
        if match is not None and float(match["fps"]) > 0:
            return float(match["fps"])
    raise ConfigError(
        f"reading recording {file.path}: no frame rate in its header; state it, such as --fps 16"
    )


def _length_unit(file: RecordingFile, header: list[str]) -> str:
    if file.options.length_unit is not None:
        return file.options.length_unit
    for line in header:
        if _CENTIMETRES.search(line):
            return "cm"
        if _METRES.search(line):
            return "m"
    raise ConfigError(
        f"reading recording {file.path}: no unit of length in its header; state --unit m or cm"
    )
