"""Readers of plain time series: `timestamp,value`, `ds,y`, and a bare column of numbers.

The first is the Numenta Anomaly Benchmark's layout, the second Prophet's, the third the
original system's `demo_data.csv`: a header that is the quantity, and one number a line.
Times without a zone are UTC unless the options name one.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from datetime import datetime

from matchday.domain.instants import iso_from_ms
from matchday.sensors.localtime import LocalClock
from matchday.sensors.recorded import RecordedMessage, RecordingFile, topic_level

TIMED_HEADERS = (["timestamp", "value"], ["ds", "y"])

EMPTY = ("", "nan", "na", "null", "none")

# The files hold no quantity and no unit; the well-known ones are known by name.
KNOWN_SERIES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"machine[-_]temperature"), "temperature", "degF"),
    (re.compile(r"yosemite"), "temperature", "degC"),
    (re.compile(r"taxi"), "passengers", "persons"),
)


def fits_timed(head: bytes, lines: list[str]) -> bool:
    """Tell whether the header is one of the two known pairs."""
    return bool(lines) and [cell.strip() for cell in lines[0].split(",")] in TIMED_HEADERS


def fits_column(head: bytes, lines: list[str]) -> bool:
    """Tell whether a single word is followed by a single number."""
    filled = [line.strip() for line in lines if line.strip()]
    if len(filled) < 2 or not re.fullmatch(r"[A-Za-z][\w-]*", filled[0]):
        return False
    return _number(filled[1]) is not None


def read_timed(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give one scalar a row that has a value, sorted by time.

    Rows of equal time keep the file's order; empty ones (`NaN` too) and malformed ones are
    left out and counted.

    Raises:
        ConfigError: The file cannot be read, or the time zone is unknown.
    """
    clock = LocalClock(file.options.time_zone or "UTC")
    quantity, unit = _meaning(file)
    found: list[tuple[int, float]] = []
    rows = csv.reader(file.lines())
    next(rows, None)
    for row in rows:
        try:
            local = datetime.fromisoformat(row[0].strip())
            cell = row[1].strip()
        except (ValueError, IndexError):
            file.skipped["malformed row"] += 1
            continue
        value = _number(cell)
        if value is None:
            file.skipped["empty value" if cell.lower() in EMPTY else "malformed row"] += 1
            continue
        t_ms = clock.instant_ms(local, series=quantity)
        if t_ms is None:
            file.skipped["hour that never was"] += 1
            continue
        found.append((t_ms, value))
    found.sort(key=lambda item: item[0])
    topic = file.topic("scalar", file.stem)
    for t_ms, value in found:
        payload = {"t": t_ms, "quantity": quantity, "value": value}
        if unit is not None:
            payload["unit"] = unit
        yield RecordedMessage(topic, t_ms, payload)


def read_column(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give the original sensor's message for each number, `interval_s` apart.

    Topic and key are the header, the number stays an integer where it is one, and
    `collectedAt` is UTC without a zone, as the original sends it.
    """
    lines = (line.strip() for line in file.lines())
    quantity = next((line for line in lines if line), "")
    index = 0
    for line in lines:
        if not line:
            continue
        value = _number(line)
        if value is None:
            file.skipped["malformed row"] += 1
            continue
        t_ms = file.options.epoch_ms + round(index * file.options.interval_s * 1000)
        index += 1
        payload = {
            "sensorId": file.options.source or "replay",
            quantity: int(value) if re.fullmatch(r"[+-]?\d+", line) else value,
            "collectedAt": original_time(t_ms),
        }
        yield RecordedMessage(topic_level(quantity), t_ms, payload)


def original_time(t_ms: int) -> str:
    """Spell an instant as the original's sensors do: `2024-09-09 14:01:09`, UTC."""
    return iso_from_ms(t_ms)[:19].replace("T", " ")


def _meaning(file: RecordingFile) -> tuple[str, str | None]:
    quantity, unit = "value", None
    for name, known_quantity, known_unit in KNOWN_SERIES:
        if name.search(file.path.name.lower()):
            quantity, unit = known_quantity, known_unit
    if file.options.quantity is not None:
        quantity, unit = file.options.quantity, None
    return quantity, file.options.value_unit or unit


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
