"""The latest value of everything shown live: written by the tail, read by the fan-out.

Owns coalescing (latest value wins between two ticks), the expiry of objects that are no
longer seen and the count of persons per zone. Knows neither the stream nor any client.
Every table is bounded: a source too many evicts the one not heard for longest.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from matchday.clock import Clock
from matchday.dashboard import messages
from matchday.dashboard.bounded import put
from matchday.dashboard.latest import Latest
from matchday.dashboard.rates import Rate
from matchday.domain.finding import Finding
from matchday.domain.reading import Count, Positions, Reading, Scalar, TrackedObject, kind_of
from matchday.domain.venue import Venue, Zone

OBJECT_EXPIRY_S = 3.0
"""An object not reported for this long is no longer shown."""

SOURCES_MAX = 2_000
SERIES_MAX = 1_000
OBJECTS_MAX = 4_000
METRICS_MAX = 2_000
SOURCES_SHOWN_MAX = 500


@dataclass
class _Source:
    kind: str
    venue: str | None
    session: str | None
    last_t_ms: int
    rate: Rate = field(default_factory=Rate)
    count: int = 0


@dataclass
class _Seen:
    row: TrackedObject
    t_ms: int
    at_s: float


@dataclass
class _Track:
    """The objects of one positions source; `changed` holds ids moved since the last tick."""

    venue: str
    session: str | None
    t_ms: int = 0
    objects: dict[str, _Seen] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def forget(self, object_ids: Iterable[str]) -> None:
        """Drop objects, moved or not: while nobody looks, `changed` must not grow for ever."""
        for object_id in object_ids:
            del self.objects[object_id]
            self.changed.discard(object_id)


@dataclass(frozen=True)
class Changes:
    """What changed between two slow ticks, the same for every client."""

    series: list[messages.SeriesPoint]
    forecasts: list[messages.ForecastPoint]
    metrics: list[messages.MetricValues]


def _nobody() -> None:
    """Tell nobody that something has changed."""


class Board:
    """The latest values; safe to share between threads, no call blocks for long.

    Attributes:
        on_change: Called after each batch that was taken, in the thread that took it.
    """

    def __init__(self, venues: Sequence[Venue], *, clock: Clock) -> None:
        self._venues = {venue.id: venue for venue in venues}
        self._only_venue = venues[0].id if len(venues) == 1 else ""
        self._clock = clock
        self._lock = threading.Lock()
        self._sources: dict[str, _Source] = {}
        self._tracks: dict[str, _Track] = {}
        self._series: Latest[str, messages.SeriesPoint] = Latest(SERIES_MAX)
        self._forecasts: Latest[str, messages.ForecastPoint] = Latest(SERIES_MAX)
        self._metrics: Latest[tuple[str, str], messages.MetricValues] = Latest(METRICS_MAX)
        self._windows: dict[tuple[str, str], messages.ZoneWindow] = {}
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}
        self._rate = Rate()
        self._expired_s = clock.monotonic_s()
        self.on_change: Callable[[], None] = _nobody

    # --- written by the tail ---------------------------------------------------------------

    def take_readings(self, readings: Iterable[Reading]) -> None:
        """Take readings in stream order; an older value never replaces a newer one."""
        now_s = self._clock.monotonic_s()
        by_source: dict[str, list[Reading]] = {}
        for reading in readings:
            by_source.setdefault(reading.source, []).append(reading)
        with self._lock:
            for own in by_source.values():
                self._note_source(own[-1], len(own), now_s)
                scalars: dict[str, list[Scalar]] = {}
                for reading in own:
                    if isinstance(reading, Scalar):
                        scalars.setdefault(reading.quantity, []).append(reading)
                    elif isinstance(reading, Positions):
                        self._take_positions(reading, now_s)
                    else:
                        self._take_count(reading)
                for quantity, found in scalars.items():
                    self._take_values(f"{found[0].source}/{quantity}", quantity, found)
            # Here as well: while nobody looks, nobody asks for the figures.
            if now_s - self._expired_s >= OBJECT_EXPIRY_S:
                self._expire(now_s)
        self.on_change()

    def take_findings(self, findings: Iterable[Finding]) -> None:
        """Take findings in stream order; kinds that no part of the page shows are ignored."""
        with self._lock:
            for finding in findings:
                if finding.kind == "forecast":
                    self._take_forecast(finding)
                elif finding.kind == "player_metric":
                    self._metrics.put((finding.sensor, finding.subject), _metric_of(finding))
                elif finding.kind == "crowd_metric":
                    self._take_window(finding)
        self.on_change()

    # --- read by the fan-out ---------------------------------------------------------------

    def positions(self, venue: str, *, everything: bool = False) -> messages.PositionsMessage:
        """Give the positions of a venue that changed since the last call, or all of them.

        Asking for everything leaves the changes as they are.
        """
        frames = []
        with self._lock:
            for source, track in self._tracks.items():
                if track.venue != venue:
                    continue
                wanted = list(track.objects) if everything else track.changed
                rows = [_row_of(track.objects[object_id].row) for object_id in wanted]
                if rows:
                    frames.append(messages.Frame(source, track.session, track.t_ms, rows))
                if not everything:
                    track.changed = set()
        return messages.PositionsMessage(venue, frames)

    def changes(self) -> Changes:
        """Give what changed since the last call."""
        with self._lock:
            return Changes(
                self._series.take_news(), self._forecasts.take_news(), self._metrics.take_news()
            )

    def everything(self) -> Changes:
        """Give all latest values, as a client needs that has just come or lost messages."""
        with self._lock:
            return Changes(self._series.values(), self._forecasts.values(), self._metrics.values())

    def tiles(self, venue: str, *, clients: int, dropped: int) -> messages.Tiles:
        """Give the figures at the top of the page for one venue; forgets expired objects."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._expire(now_s)
            tracks = [(name, track) for name, track in self._tracks.items() if track.venue == venue]
            seen = {object_id for _, track in tracks for object_id in track.objects}
            rates = [self._sources[name].rate.per_s(now_s) for name, _ in tracks]
            # The map's own data where there is a map; otherwise whatever came last.
            times = [track.t_ms for _, track in tracks] or [
                item.last_t_ms for item in self._sources.values()
            ]
            return messages.Tiles(
                objects=len(seen),
                position_hz=round(max(rates, default=0.0), 1),
                readings_per_s=round(self._rate.per_s(now_s), 1),
                newest_ms=max(times, default=None),
                now_ms=self._clock.wall_ms(),
                clients=clients,
                dropped=dropped,
            )

    def zones(self, venue_id: str) -> list[messages.ZoneNow]:
        """Give all zones of a venue: persons now (provisional) and the last final window."""
        venue = self._venues.get(venue_id)
        if venue is None or not venue.zones:
            return []
        with self._lock:
            points: list[tuple[float, float]] = []
            at_ms = 0
            for track in self._tracks.values():
                if track.venue == venue_id and track.objects:
                    at_ms = max(at_ms, track.t_ms)
                    points += [
                        (seen.row.x, seen.row.y)
                        for seen in track.objects.values()
                        if not is_ball(seen.row)
                    ]
            return [self._zone_now(venue_id, zone, points, at_ms) for zone in venue.zones]

    def sources(self, *, after: str = "", limit: int = SOURCES_SHOWN_MAX) -> messages.Sources:
        """Give sources heard since the start, by name; at most `SOURCES_MAX` are remembered.

        Args:
            after: Only those whose names come after this one.
            limit: How many at most.
        """
        now_s = self._clock.monotonic_s()
        with self._lock:
            names = sorted(self._sources)
            begin = bisect_right(names, after)
            given = names[begin : begin + limit]
            return messages.Sources(
                [self._source_state(name, now_s) for name in given],
                len(names),
                given[-1] if begin + limit < len(names) else None,
            )

    # --- private; the lock is held -----------------------------------------------------------

    def _source_state(self, name: str, now_s: float) -> messages.SourceState:
        item = self._sources[name]
        per_s = round(item.rate.per_s(now_s), 1)
        return messages.SourceState(
            name, item.kind, item.venue, item.session, item.last_t_ms, per_s, item.count
        )

    def _note_source(self, reading: Reading, count: int, now_s: float) -> None:
        item = self._sources.get(reading.source)
        if item is None:
            item = _Source(kind_of(reading), reading.venue, reading.session, reading.t_ms)
        gone = put(self._sources, reading.source, item, SOURCES_MAX)
        if gone is not None:
            self._tracks.pop(gone, None)
        item.kind, item.venue, item.session = kind_of(reading), reading.venue, reading.session
        item.last_t_ms = reading.t_ms
        item.count += count
        item.rate.add(count, at_s=now_s)
        self._rate.add(count, at_s=now_s)

    def _take_positions(self, reading: Positions, now_s: float) -> None:
        venue = reading.venue or self._only_venue
        track = self._tracks.get(reading.source)
        if track is None or (track.venue, track.session) != (venue, reading.session):
            track = self._tracks[reading.source] = _Track(venue, reading.session)
        if reading.t_ms < track.t_ms:
            return
        track.t_ms = reading.t_ms
        for item in reading.objects[:OBJECTS_MAX]:
            track.objects[item.id] = _Seen(item, reading.t_ms, now_s)
            track.changed.add(item.id)
        if len(track.objects) > OBJECTS_MAX:
            track.forget(list(track.objects)[: len(track.objects) - OBJECTS_MAX])

    def _take_values(
        self, key: str, quantity: str, found: Sequence[Scalar | Count], value: float = 0.0
    ) -> None:
        """Take readings of one series in stream order; `value` is that of a count."""
        last = self._series.get(key)
        newest: messages.SeriesPoint | Scalar | Count | None = last
        count = 0
        for reading in found:
            if newest is None or newest.t_ms <= reading.t_ms or newest.session != reading.session:
                newest = reading
                count += 1
        if newest is None or isinstance(newest, messages.SeriesPoint):
            return
        zone, unit, number = (
            (newest.zone, "persons", value)
            if isinstance(newest, Count)
            else (None, newest.unit, newest.value)
        )
        point = messages.SeriesPoint(
            key=key,
            source=newest.source,
            quantity=quantity,
            zone=zone,
            unit=unit,
            t_ms=newest.t_ms,
            value=number,
            session=newest.session,
            count=count + (0 if last is None else last.count),
        )
        self._series.put(key, point)

    def _take_count(self, reading: Count) -> None:
        # The names that analysis gives to series, so that forecasts find them.
        is_own_zone = reading.zone == reading.source
        prefix = reading.source if is_own_zone else f"{reading.source}/{reading.zone}"
        for name, value in (
            ("in", reading.entered),
            ("out", reading.left),
            ("occupancy", reading.occupancy),
        ):
            if value is not None:
                self._take_values(f"{prefix}/{name}", name, [reading], value)
        if reading.occupancy is not None:
            place = (reading.venue or self._only_venue, reading.zone)
            if place[0] in self._venues:
                put(self._counts, place, (reading.occupancy, reading.t_ms), SERIES_MAX)

    def _take_forecast(self, finding: Finding) -> None:
        yhat = finding.values.get("yhat")
        if yhat is None:
            return
        point = messages.ForecastPoint(
            subject=finding.subject,
            sensor=finding.sensor,
            t_ms=finding.span_start_ms,
            yhat=yhat,
            yhat_lower=finding.values.get("yhat_lower"),
            yhat_upper=finding.values.get("yhat_upper"),
            model=finding.model,
        )
        self._forecasts.put(finding.subject, point)

    def _take_window(self, finding: Finding) -> None:
        venue = self._venues.get(finding.venue or self._only_venue)
        zone = next((z for z in venue.zones if z.id == finding.subject), None) if venue else None
        if venue is None or zone is None:
            return
        numbers = _density_and_persons(finding.values, zone)
        if numbers is not None:
            self._windows[venue.id, zone.id] = messages.ZoneWindow(
                numbers[0], numbers[1], finding.span_start_ms, finding.span_end_ms, finding.model
            )

    def _zone_now(
        self, venue_id: str, zone: Zone, points: list[tuple[float, float]], at_ms: int
    ) -> messages.ZoneNow:
        window = self._windows.get((venue_id, zone.id))
        counted = self._counts.get((venue_id, zone.id))
        inside = sum(1 for x, y in points if zone.contains(x, y))
        if counted is not None and inside == 0:
            persons, t_ms = counted
            return messages.ZoneNow(zone.id, persons, persons / zone.area_m2, "count", t_ms, window)
        if not points:
            return messages.ZoneNow(zone.id, None, None, None, None, window)
        return messages.ZoneNow(zone.id, inside, inside / zone.area_m2, "positions", at_ms, window)

    def _expire(self, now_s: float) -> None:
        self._expired_s = now_s
        for track in self._tracks.values():
            track.forget(
                [
                    object_id
                    for object_id, seen in track.objects.items()
                    if now_s - seen.at_s > OBJECT_EXPIRY_S
                ]
            )


def is_ball(item: TrackedObject) -> bool:
    """Tell whether an object is the ball, by its team or id."""
    return item.team == "ball" or item.id.lower() == "ball"


def _row_of(item: TrackedObject) -> messages.ObjectRow:
    return (item.id, round(item.x, 2), round(item.y, 2), item.team)


def _metric_of(finding: Finding) -> messages.MetricValues:
    return messages.MetricValues(
        finding.sensor,
        finding.subject,
        finding.values,
        finding.span_start_ms,
        finding.span_end_ms,
        finding.model,
    )


def _density_and_persons(values: dict[str, float], zone: Zone) -> tuple[float, float] | None:
    """Find mean density (persons/m2) and persons; one follows from the other and the area."""
    density = _first(values, "density_mean_per_m2", "density_per_m2")
    persons = _first(values, "count_mean", "persons", "count")
    if density is None and persons is None:
        return None
    if density is None:
        assert persons is not None
        density = persons / zone.area_m2
    return density, persons if persons is not None else density * zone.area_m2


def _first(values: dict[str, float], *names: str) -> float | None:
    return next((values[name] for name in names if name in values), None)
