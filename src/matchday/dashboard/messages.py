"""The shapes of everything sent to browsers: live messages and REST answers.

Pure types, encoded by msgspec; schemas are generated from them. Instants are integer
milliseconds UTC; positions are metres in the venue frame, rounded to the centimetre.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

ObjectRow: TypeAlias = tuple[str, float, float, str | None]
"""One object: id, x in metres, y in metres, team."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Where the objects of one positions source are; only those that moved since the last.

    Attributes:
        source: The publishing source.
        session: Its session; another one means that older positions are void.
        t_ms: Event time of the newest reading in it.
        objects: The objects.
    """

    source: str
    session: str | None
    t_ms: int
    objects: list[ObjectRow]


class PositionsMessage(msgspec.Struct, frozen=True, tag="positions", tag_field="kind"):
    """New positions of one venue, sent at most every 40 ms."""

    venue: str
    frames: list[Frame]


class SeriesPoint(msgspec.Struct, frozen=True, gc=False):
    """The newest value of one measured series.

    Attributes:
        key: `<source>/<quantity>`, for counts `<source>/[<zone>/]<in|out|occupancy>`.
        source: The publishing source.
        quantity: What was measured.
        zone: The zone or gate, for counts.
        unit: Its unit, where the source names one.
        t_ms: Event time.
        value: The number.
        session: The session it belongs to.
        count: Readings of the series seen by this dashboard since it started.
    """

    key: str
    source: str
    quantity: str
    zone: str | None
    unit: str | None
    t_ms: int
    value: float
    session: str | None
    count: int


class ForecastPoint(msgspec.Struct, frozen=True, gc=False):
    """The newest forecast about one subject, with its band.

    Attributes:
        subject: The finding's subject: a source and quantity, or a source alone.
        sensor: The source.
        t_ms: The instant forecast.
        yhat: The forecast.
        yhat_lower: Lower end of the band.
        yhat_upper: Upper end of the band.
        model: Name and version of the model.
    """

    subject: str
    sensor: str
    t_ms: int
    yhat: float
    yhat_lower: float | None
    yhat_upper: float | None
    model: str


class ZoneWindow(msgspec.Struct, frozen=True, gc=False):
    """A finding about a zone: final, for a closed window of event time."""

    density_per_m2: float
    persons: float
    start_ms: int
    end_ms: int
    model: str


class ZoneNow(msgspec.Struct, frozen=True, gc=False):
    """A zone at this moment.

    Attributes:
        zone: Its id.
        persons: Persons inside now; None when nothing tells.
        density_per_m2: Persons per square metre of the zone.
        basis: "positions": counted here from live positions, provisional; "count": stated
            by a counting sensor; None when nothing tells.
        at_ms: Event time of what was counted.
        window: The newest final window, where analysis has given one.
    """

    zone: str
    persons: float | None
    density_per_m2: float | None
    basis: Literal["positions", "count"] | None
    at_ms: int | None
    window: ZoneWindow | None


class MetricValues(msgspec.Struct, frozen=True, gc=False):
    """The newest finding about one player: final, for a closed window of event time.

    `sensor` and `subject` are the source and the object's id in `Frame`.
    """

    sensor: str
    subject: str
    values: dict[str, float]
    start_ms: int
    end_ms: int
    model: str


class SourceState(msgspec.Struct, frozen=True, gc=False):
    """What one source sent lately, as seen at the stream's end."""

    source: str
    kind: str
    venue: str | None
    session: str | None
    last_t_ms: int
    readings_per_s: float
    count: int


class Sources(msgspec.Struct, frozen=True, gc=False):
    """Some of the sources that are remembered, by name.

    Attributes:
        sources: Those given.
        source_count: How many there are.
        next: The name after which the next ones come; None where there are no more.
    """

    sources: list[SourceState]
    source_count: int
    next: str | None


class Tiles(msgspec.Struct, frozen=True, gc=False):
    """The figures at the top of the page.

    Attributes:
        objects: Objects of the venue seen within the last seconds.
        position_hz: Readings per second of the venue's busiest positions source.
        readings_per_s: Readings per second of all sources.
        newest_ms: Newest event time of the venue's positions, without any of all sources;
            None before the first reading.
        now_ms: Wall clock of the server.
        clients: Open live connections.
        dropped: Live messages dropped for slow clients since the start.
    """

    objects: int
    position_hz: float
    readings_per_s: float
    newest_ms: int | None
    now_ms: int
    clients: int
    dropped: int


class Line(msgspec.Struct, frozen=True, gc=False):
    """The account of one source, in messages."""

    source: str
    received: int
    stored: int
    pending: int
    duplicate: int
    refused: int
    expired: int
    missing: int
    adds_up: bool


class Ledger(msgspec.Struct, frozen=True):
    """The account: received is the sum of the five fates.

    Attributes:
        sources: The lines given, which may be fewer than there are sources.
        totals: Of all sources.
        adds_up: Whether the line of every source adds up.
        source_count: How many sources there are.
    """

    sources: list[Line]
    totals: Line
    adds_up: bool
    source_count: int


class Link(msgspec.Struct, frozen=True, gc=False):
    """The state of one dependency."""

    name: str
    is_up: bool
    since_ms: int
    detail: str


class StateMessage(msgspec.Struct, frozen=True, tag="state", tag_field="kind", omit_defaults=True):
    """What changed since the last one, sent at most every 60 ms.

    Attributes:
        tiles: The figures at the top, of the client's venue.
        series: Series with a new value.
        forecasts: Subjects with a new forecast.
        zones: All zones of the client's venue, about four times a second.
        metrics: Players with a new finding.
        sources: The first sources, about once a second, and how many there are.
        ledger: The account, when it changed.
        ledger_error: Why there is no account at present.
        links: All links, when one changed.
    """

    tiles: Tiles
    series: list[SeriesPoint] = []
    forecasts: list[ForecastPoint] = []
    zones: list[ZoneNow] = []
    metrics: list[MetricValues] = []
    sources: Sources | None = None
    ledger: Ledger | None = None
    ledger_error: str | None = None
    links: list[Link] | None = None


LiveMessage: TypeAlias = PositionsMessage | StateMessage
