"""Reader of hourly pedestrian counts as the City of Melbourne publishes them.

Columns `Date` (dd-Mon-yyyy), `Hour` (0..23, local), `SensorID`, `PedestrianCount`. The count
is of both directions, so it is a scalar "pedestrians" per hour and not a gate's in and out;
its time is the beginning of the hour, as upstream. Each street sensor is a source of its own.

Day-light saving, as `localtime` rules: upstream keeps ONE row for the doubled hour in
April, which becomes the first of the two (whether it holds the sum is not documented), so
that the next hour follows two hours later; a second row of that hour would be the second.
The missing hour in October has no row; one that claims it is left out and counted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime

from matchday.sensors.localtime import LocalClock
from matchday.sensors.recorded import RecordedMessage, RecordingFile

COLUMNS = ("Date", "Hour", "SensorID", "PedestrianCount")
QUANTITY = "pedestrians"
UNIT = "1/h"
TIME_ZONE = "Australia/Melbourne"

# Not strptime's %b: that follows the machine's language.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def fits(head: bytes, lines: list[str]) -> bool:
    """Tell whether the header names the four columns."""
    return bool(lines) and set(COLUMNS) <= set(lines[0].split(","))


def read(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give one scalar a row, sorted by time and sensor: upstream's rows are not.

    With the option `source`, that name and the sensor's number make the source.

    Raises:
        ConfigError: The file cannot be read, or the time zone is unknown.
    """
    clock = LocalClock(file.options.time_zone or TIME_ZONE)
    prefix = file.options.source or "footfall"
    found: list[tuple[int, int, float]] = []
    for row in csv.DictReader(file.lines()):
        try:
            sensor = int(row["SensorID"])
            local = _local_hour(row["Date"], row["Hour"])
            count_per_h = float(row["PedestrianCount"])
        except (ValueError, TypeError, KeyError):
            file.skipped["malformed row"] += 1
            continue
        t_ms = clock.instant_ms(local, series=row["SensorID"])
        if t_ms is None:
            file.skipped["hour that never was"] += 1
            continue
        found.append((t_ms, sensor, count_per_h))
    found.sort()
    for t_ms, sensor, count_per_h in found:
        yield RecordedMessage(
            f"matchday/{file.options.venue}/scalar/{prefix}-{sensor}",
            t_ms,
            {"t": t_ms, "quantity": QUANTITY, "value": count_per_h, "unit": UNIT},
        )


def _local_hour(date: str, hour: str) -> datetime:
    day, month, year = date.split("-")
    return datetime(int(year), _MONTHS.index(month.lower()) + 1, int(day), int(hour))  # noqa: DTZ001
