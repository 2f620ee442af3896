"""Reader of wide tracking tables: one row a frame, a column per object and axis.

The shape that optical providers' data takes in the common open-source tools: `frame`,
`datetime`, `ball_x`, `ball_y`, `ball_z`, `home_10_x`, ... in metres from the centre spot;
an absent player's cells are empty. As CSV (gzip allowed) or Parquet. Kicked out: columns
without a place in a positions reading (possession, ball status, game time).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from matchday.errors import ConfigError
from matchday.sensors.recorded import RecordedMessage, RecordingFile

PARQUET_MAGIC = b"PAR1"
SOURCE = "tracking"
PARQUET_BATCH_ROWS = 1_000

_AXIS = re.compile(r"(?P<object>(?P<team>home|away)_\w+|ball)_(?P<axis>[xyz])")


def fits_csv(head: bytes, lines: list[str]) -> bool:
    """Tell whether the first line names a frame and at least one player's x."""
    columns = lines[0].split(",") if lines else []
    return "frame" in columns and any(re.fullmatch(r"(home|away)_\w+_x", name) for name in columns)


def fits_parquet(head: bytes, lines: list[str]) -> bool:
    """Tell whether the file is Parquet."""
    return head.startswith(PARQUET_MAGIC)


def read_csv(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give one positions message a row, in the file's order, which is that of frames.

    Raises:
        ConfigError: The file cannot be read or lacks a column.
    """
    rows = csv.reader(file.lines())
    header = next(rows, [])
    yield from _messages(file, _plan(file, header), rows)


def read_parquet(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give the same as `read_csv` from Parquet.

    Raises:
        ConfigError: pyarrow is not installed, or the file cannot be read or lacks a column.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError(
            f"reading recording {file.path}: Parquet is not installed;"
            " in the checkout: pip install '.[parquet]'"
        ) from error
    try:
        with ParquetFile(file.path) as table:
            plan = _plan(file, table.schema_arrow.names)
            for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=list(plan.columns)):
                columns = [batch.column(name).to_pylist() for name in plan.columns]
                yield from _messages(file, _plan(file, plan.columns), zip(*columns, strict=True))
    except (OSError, ArrowException) as error:
        raise ConfigError(f"reading recording {file.path}: {error}") from error


@dataclass(frozen=True)
class _Object:
    id: str
    team: str | None
    x: int
    y: int
    z: int | None


@dataclass(frozen=True)
class _Plan:
    """Which column holds what; `columns` are the names needed, in a fixed order."""

    columns: tuple[str, ...]
    frame: int
    time: int | None
    objects: tuple[_Object, ...]


def _plan(file: RecordingFile, header: Sequence[str]) -> _Plan:
    place = {name: index for index, name in enumerate(header)}
    axes: dict[str, dict[str, int]] = {}
    teams: dict[str, str | None] = {}
    for name, index in place.items():
        match = _AXIS.fullmatch(name)
        if match is not None:
            axes.setdefault(match["object"], {})[match["axis"]] = index
            teams[match["object"]] = match["team"]
    objects = tuple(
        _Object(name, teams[name], found["x"], found["y"], found.get("z"))
        for name, found in axes.items()
        if "x" in found and "y" in found
    )
    if "frame" not in place or not objects:
        raise ConfigError(f"reading recording {file.path}: no columns frame, home_<n>_x, ...")
    if "datetime" not in place and file.options.fps is None:
        raise ConfigError(
            f"reading recording {file.path}: no column datetime; state the frames per second"
        )
    needed = [header[place["frame"]], *(["datetime"] if "datetime" in place else [])]
    for thing in objects:
        needed += [header[thing.x], header[thing.y]]
        needed += [header[thing.z]] if thing.z is not None else []
    return _Plan(tuple(needed), place["frame"], place.get("datetime"), objects)


def _messages(
    file: RecordingFile, plan: _Plan, rows: Iterable[Sequence[Any]]
) -> Iterator[RecordedMessage]:
    topic = file.topic("positions", SOURCE)
    for row in rows:
        try:
            t_ms = _time_ms(file, plan, row)
            objects = [entry for thing in plan.objects if (entry := _entry(thing, row))]
        except (ValueError, IndexError, TypeError):
            file.skipped["malformed row"] += 1
            continue
        yield RecordedMessage(topic, t_ms, {"t": t_ms, "objects": objects})


def _time_ms(file: RecordingFile, plan: _Plan, row: Sequence[Any]) -> int:
    if file.options.fps is not None or plan.time is None:
        assert file.options.fps is not None
        return file.options.epoch_ms + round(int(row[plan.frame]) * 1000 / file.options.fps)
    stamp = row[plan.time]
    moment = stamp if isinstance(stamp, datetime) else datetime.fromisoformat(stamp)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _entry(thing: _Object, row: Sequence[Any]) -> dict[str, Any] | None:
    x, y = _number(row[thing.x]), _number(row[thing.y])
    if x is None or y is None:
        return None
    entry: dict[str, Any] = {"id": thing.id, "x": x, "y": y}
    if thing.z is not None and (z := _number(row[thing.z])) is not None:
        entry["z"] = z
    if thing.team is not None:
        entry["team"] = thing.team
    return entry


def _number(cell: Any) -> float | None:
    if cell is None or cell == "":
        return None
    value = float(cell)
    return None if math.isnan(value) else value
