"""Venues: the geometry in which positions have meaning, in metres.

The venue frame has its origin at the centre of the pitch, x along it, y across it
(towards the stand that the file calls north), z up. A venue is a small TOML file; the
geometry here is pure arithmetic on it.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from matchday.errors import ConfigError

FORMAT = 1

Point: TypeAlias = tuple[float, float]


class Pitch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The playing field, centred on the origin.

    Attributes:
        shape: A rectangle, or an oval (ellipse) as in Australian football.
        length_m: Extent along x, metres.
        width_m: Extent along y, metres.
    """

    shape: Literal["rectangle", "oval"]
    length_m: float
    width_m: float

    def contains(self, x: float, y: float) -> bool:
        """Tell whether a point (metres, venue frame) is on the field or its line."""
        half_x, half_y = self.length_m / 2, self.width_m / 2
        if self.shape == "rectangle":
            return abs(x) <= half_x and abs(y) <= half_y
        return (x / half_x) ** 2 + (y / half_y) ** 2 <= 1.0


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An area in which people are counted.

    Attributes:
        id: Unique within the venue.
        name: For people.
        polygon: Corners in order, metres, venue frame; not closed.
        capacity: How many persons it is licensed for; None where nobody said.
    """

    id: str
    name: str
    polygon: tuple[Point, ...]
    capacity: int | None = None

    @property
    def area_m2(self) -> float:
        """Give the area in square metres by the shoelace formula (Meister 1769)."""
        twice = 0.0
        for (x1, y1), (x2, y2) in zip(
            self.polygon, self.polygon[1:] + self.polygon[:1], strict=True
        ):
            twice += x1 * y2 - x2 * y1
        return abs(twice) / 2

    def contains(self, x: float, y: float) -> bool:
        """Tell whether a point is inside, by ray casting; points on an edge may go either way."""
        inside = False
        last_x, last_y = self.polygon[-1]
        for corner_x, corner_y in self.polygon:
            if (corner_y > y) != (last_y > y):
                crossing = (last_x - corner_x) * (y - corner_y) / (last_y - corner_y) + corner_x
                if x < crossing:
                    inside = not inside
            last_x, last_y = corner_x, corner_y
        return inside


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line across which people come and go.

    Attributes:
        id: Unique within the venue.
        name: For people.
        line: Its two ends, metres, venue frame.
    """

    id: str
    name: str
    line: tuple[Point, Point]


class Venue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ground: its pitch, its zones and its gates."""

    id: str
    name: str
    pitch: Pitch
    zones: tuple[Zone, ...] = ()
    gates: tuple[Gate, ...] = ()
    format: int = FORMAT


def read_venue(path: Path) -> Venue:
    """Read a venue file.

    Raises:
        ConfigError: The file cannot be read, is no venue, or is of a newer format.
    """
    try:
        venue = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Venue)
    except (
        OSError,
        UnicodeDecodeError,
        RecursionError,
        tomllib.TOMLDecodeError,
        msgspec.ValidationError,
    ) as error:
        raise ConfigError(f"reading venue {path}: {error}") from error
    if venue.format > FORMAT:
        raise ConfigError(f"reading venue {path}: format {venue.format} above {FORMAT}")
    for zone in venue.zones:
        if len(zone.polygon) < 3 or not all(
            math.isfinite(value) for point in zone.polygon for value in point
        ):
            raise ConfigError(f"reading venue {path}: zone {zone.id} is no polygon")
    return venue
