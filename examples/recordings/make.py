"""Make the bundled recordings from the files that their publishers give out.

Run from anywhere with the upstream files, in any order; only those named are made again:

    python make.py tracking_data.parquet 040_c_56_h-.txt pedestriancounts_*_6sensors.csv \
        machine_temperature_system_failure.csv nyc_taxi.csv example_yosemite_temps.csv

Each is recognised by its name, trimmed as README.md beside this file says, and compressed
without time stamps, so that the same input gives the same bytes. Parquet needs pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent


def whole(upstream: Path) -> bytes:
    """Give the file as it is."""
    return upstream.read_bytes()


def footfall(upstream: Path) -> bytes:
    """Give the lines of the header's columns that a reader needs, every row."""
    text = upstream.read_text(encoding="utf-8-sig")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = ["Date", "Hour", "SensorID", "SensorName", "PedestrianCount"]
    return _as_csv(columns, ([row[name] for name in columns] for row in rows))


def tracking(upstream: Path) -> bytes:
    """Give the Parquet table as CSV, without columns that are empty in every row."""
    from pyarrow import parquet

    table = parquet.read_table(upstream)
    kept = [
        name
        for name in table.column_names
        if name != "gametime_td" and table[name].null_count < len(table)
    ]
    columns = [_cells(table[name].to_pylist()) for name in kept]
    return _as_csv(kept, zip(*columns, strict=True))


# Part of the upstream name -> what to keep of it, and the bundled name.
RECIPES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "tracking_data": (tracking, "match.csv.gz"),
    "040_c_56_h": (whole, "crowd-bottleneck.txt.gz"),
    "pedestriancounts": (footfall, "footfall-melbourne.csv.gz"),
    "machine_temperature": (whole, "machine-temperature.csv.gz"),
    "nyc_taxi": (whole, "taxi-passengers.csv.gz"),
    "yosemite": (whole, "yosemite-temperature.csv.gz"),
}


def main(arguments: list[str]) -> int:
    """Make the recordings of the files named; give the exit code."""
    if not arguments:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    for argument in arguments:
        upstream = Path(argument)
        recipe = next((RECIPES[part] for part in RECIPES if part in upstream.name), None)
        if recipe is None:
            sys.stderr.write(f"making recordings: {upstream}: not one of {', '.join(RECIPES)}\n")
            return 2
        extract, name = recipe
        packed = gzip.compress(extract(upstream), 9, mtime=0)
        (HERE / name).write_bytes(packed)
        sys.stdout.write(f"{name}: {len(packed)} bytes\n")
    return 0


def _cells(values: Iterable[object]) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in values]


def _as_csv(columns: list[str], rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
