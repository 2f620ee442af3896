"""Readings: one observation by one source, in its three kinds, normalised.

A reading is what every adapter produces and every stage consumes. Positions are metres in
the venue frame (origin at the centre of the pitch, x along it, y across, z up). Event time
is integer milliseconds UTC.

Make readings with keywords. The places that make one for every message (`ingest.native`,
`domain.wire`) give the values by position, in half the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec


class TrackedObject(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One entity (player, ball, person) in a positions reading.

    Attributes:
        id: The entity, unique within its venue and session.
        x: Metres along the pitch, venue frame.
        y: Metres across the pitch, venue frame.
        z: Height in metres, where the source knows it.
        team: The side it belongs to, where known, such as "home".
        confidence: 0..1, where the source states one.
    """

    id: str
    x: float
    y: float
    z: float | None = None
    team: str | None = None
    confidence: float | None = None


class Scalar(msgspec.Struct, frozen=True, gc=False):
    """A number measured by a source: a quantity, its value and its unit.

    Attributes:
        source: The publishing device or system.
        t_ms: Event time, milliseconds UTC.
        quantity: What was measured, such as "temperature".
        value: The number, in `unit`.
        unit: Symbol such as "degC"; None where the source names none.
        seq: The source's own running number, where it numbers its messages.
        venue: Where it was measured; None for a source outside any venue.
        session: The match, event or run it belongs to; None where not stated.
        is_timed: The source stated `t_ms` itself; otherwise it is the arrival time.
    """

    source: str
    t_ms: int
    quantity: str
    value: float
    unit: str | None = None
    seq: int | None = None
    venue: str | None = None
    session: str | None = None
    is_timed: bool = True


class Positions(msgspec.Struct, frozen=True, gc=False):
    """Where one or many objects are at one instant. Attributes as in `Scalar`."""

    source: str
    t_ms: int
    objects: tuple[TrackedObject, ...]
    seq: int | None = None
    venue: str | None = None
    session: str | None = None
    is_timed: bool = True


class Count(msgspec.Struct, frozen=True, gc=False):
    """People counted at a zone or gate.

    Attributes:
        zone: The zone or gate counted.
        entered: People who went in since the last message (wire name `in`).
        left: People who went out since the last message (wire name `out`).
        occupancy: People inside at `t_ms`.

    At least one of the three numbers is present. The rest is as in `Scalar`.
    """

    source: str
    t_ms: int
    zone: str
    entered: float | None = None
    left: float | None = None
    occupancy: float | None = None
    seq: int | None = None
    venue: str | None = None
    session: str | None = None
    is_timed: bool = True


Reading: TypeAlias = Scalar | Positions | Count

KINDS = ("scalar", "positions", "count")


def kind_of(reading: Reading) -> str:
    """Name the kind of a reading: "scalar", "positions" or "count"."""
    if type(reading) is Scalar:
        return "scalar"
    return "positions" if type(reading) is Positions else "count"


_POSITIONS_NUMBERING: Final = "positions\n"
_COUNT_NUMBERING: Final = "count\n"
_TOLD: Final[Mapping[str, str]] = MappingProxyType(
    {
        _POSITIONS_NUMBERING: "positions",
        _COUNT_NUMBERING: "count",
        "positions": _POSITIONS_NUMBERING,
        "count": _COUNT_NUMBERING,
    }
)


def numbering_of(reading: Reading) -> str:
    """Name the series that the source numbers on its own: the quantity, else the kind.

    A kind's name ends in what no quantity has: quantities are printable.
    """
    if type(reading) is Scalar:
        return reading.quantity
    return _POSITIONS_NUMBERING if type(reading) is Positions else _COUNT_NUMBERING


def numbering_told(name: str) -> str:
    """Give a numbering's name in the ledger, and of that name the numbering.

    There a kind has its own name, as it ever had, and a quantity called so has the other.
    """
    return _TOLD.get(name, name)


def partition_key(reading: Reading) -> str:
    """Give the stream key: the venue for positions and counts, else the source.

    The key decides the partition, and the partition is the unit of analysis state: all
    that is tracked in one venue is analysed in one place.
    """
    if type(reading) is Scalar or reading.venue is None:
        return reading.source
    return reading.venue
