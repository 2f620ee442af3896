"""The analyser of crowds: persons and persons per square metre in each zone, per window.

Density is the classic one: heads inside an area over the area (Steffen & Seyfried 2010,
"classical" method; persons/m2). Two kinds of readings tell: positions, counted per frame
(all messages of a source with one event time), and counts, whose occupancy is divided by
the zone's area where the venue knows it.

Positions in which any object names a team, or in which all are on the pitch, come from
player tracking: they say nothing about the crowd, not even that a zone is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.analyser import Track
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.windows import Closed, Lane, Windows
from matchday.domain.finding import Finding
from matchday.domain.reading import Count, Positions, Reading
from matchday.domain.venue import Pitch, Venue, Zone

MODEL = "zone-density/1"

FEW = 8
"""For so many points plain numbers take less time than arrays."""

Floats = NDArray[np.float64]


class ZoneTotals:
    """What was counted in one zone in one window, frame by frame."""

    __slots__ = ("_at_ms", "_heads", "entered", "frames", "greatest", "left", "total")

    def __init__(self) -> None:
        self.frames = 0
        self.total = 0.0
        self.greatest = 0.0
        self.entered: float | None = None
        self.left: float | None = None
        self._at_ms: int | None = None
        self._heads = 0.0

    def see(self, t_ms: int, heads: float) -> None:
        """Count heads at an instant; a further message of the same instant adds to it."""
        if t_ms == self._at_ms:
            self.total += heads
            self._heads += heads
        else:
            self._at_ms, self._heads = t_ms, heads
            self.frames += 1
            self.total += heads
        self.greatest = max(self.greatest, self._heads)

    def flow(self, entered: float | None, left: float | None) -> None:
        """Add people who went in and out."""
        if entered is not None:
            self.entered = (self.entered or 0.0) + entered
        if left is not None:
            self.left = (self.left or 0.0) + left

    def values(self, area_m2: float | None) -> dict[str, float]:
        """Give means and maxima over the frames, and the flows where there were any."""
        values: dict[str, float] = {}
        if self.frames:
            mean = self.total / self.frames
            values = {
                "frame_count": float(self.frames),
                "count_mean": mean,
                "count_max": self.greatest,
            }
            if area_m2:
                values["density_mean_per_m2"] = mean / area_m2
                values["density_max_per_m2"] = self.greatest / area_m2
        if self.entered is not None:
            values["in_count"] = self.entered
        if self.left is not None:
            values["out_count"] = self.left
        return values


class ZoneShape:
    """A zone prepared for testing many points at once."""

    def __init__(self, zone: Zone) -> None:
        self.id = zone.id
        corners = np.array(zone.polygon)
        self._low, self._high = corners.min(axis=0), corners.max(axis=0)
        self._x2, self._y2 = corners[:, 0], corners[:, 1]
        self._x1, self._y1 = np.roll(self._x2, 1), np.roll(self._y2, 1)
        rise = self._y2 - self._y1
        # A level edge is never crossed by a level ray: its slope is not used.
        self._slope = np.where(rise == 0.0, 0.0, (self._x2 - self._x1) / np.where(rise, rise, 1.0))
        self._box = (*self._low.tolist(), *self._high.tolist())
        columns = (self._x1, self._y1, self._y2, self._slope)
        self._edges = list(zip(*(column.tolist() for column in columns), strict=True))

    def holds(self, x: float, y: float) -> bool:
        """Tell of one point what `heads` tells of many, by the same arithmetic."""
        low_x, low_y, high_x, high_y = self._box
        if not (low_x <= x <= high_x and low_y <= y <= high_y):
            return False
        is_inside = False
        for x1, y1, y2, slope in self._edges:
            if (y1 > y) != (y2 > y) and x < x1 + slope * (y - y1):
                is_inside = not is_inside
        return is_inside

    def heads(self, points: Floats) -> int:
        """Count the points, (n, 2), inside the polygon by ray casting (Shimrat 1962)."""
        is_near = ((points >= self._low) & (points <= self._high)).all(axis=1)
        if not is_near.any():
            return 0
        x, y = points[is_near, 0][:, None], points[is_near, 1][:, None]
        spans = (self._y1 > y) != (self._y2 > y)
        crosses = spans & (x < self._x1 + self._slope * (y - self._y1))
        return int((crosses.sum(axis=1) % 2).sum())


class ZoneDensity:
    """Makes a `crowd_metric` per zone and window; the subject is the zone."""

    def __init__(self, policy: AnalysisPolicy, venues: Mapping[str, Venue]) -> None:
        self._shapes = {
            venue.id: [ZoneShape(zone) for zone in venue.zones] for venue in venues.values()
        }
        self._pitches = {venue.id: venue.pitch for venue in venues.values()}
        self._areas = {
            (venue.id, zone.id): zone.area_m2 for venue in venues.values() for zone in venue.zones
        }
        self._windows: Windows[ZoneTotals] = Windows.by(policy, ZoneTotals)

    @property
    def deadline_ms(self) -> int:
        """Give a stream time before which no track can be silent."""
        return self._windows.deadline_ms

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Count the reading's people into zones; see `Analyser.feed`."""
        heads: list[tuple[str, float]] = []
        flow: Count | None = None
        if type(reading) is Count:
            flow = reading
        elif type(reading) is Positions:
            heads = self._heads(reading)
            if not heads:
                return ()
        track = Track(reading.source, reading.session, reading.venue)
        windows = self._windows
        lane = windows.lane(track, stream_ms=stream_ms, offset=offset)
        if windows.is_late(lane, reading.t_ms):
            windows.count_late(lane)
        else:
            for zone, count in heads:
                self._totals(lane, zone, reading.t_ms, offset).see(reading.t_ms, count)
            if flow is not None:
                totals = self._totals(lane, flow.zone, flow.t_ms, offset)
                if flow.occupancy is not None:
                    totals.see(flow.t_ms, flow.occupancy)
                totals.flow(flow.entered, flow.left)
        return self._findings(windows.observe(lane, reading.t_ms, offset=offset))

    def settle(self) -> None:
        """Do nothing: no finding is promised."""

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Close the windows of silent tracks; see `Analyser.pass_time`."""
        closed, _ = self._windows.pass_time(stream_ms)
        return self._findings(closed)

    def finish(self) -> Sequence[Finding]:
        """Close every window."""
        return self._findings(self._windows.finish())

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the lowest offset still needed; see `Analyser.rewind`."""
        return self._windows.rewind(next_offset)

    def provisional(self) -> Sequence[Finding]:
        """Give the densities of the open windows so far."""
        return self._findings(self._windows.provisional())

    def take_late(self) -> dict[str, int]:
        """Give the late readings per source since the last call."""
        return self._windows.take_late()

    def _totals(self, lane: Lane[ZoneTotals], zone: str, t_ms: int, offset: int) -> ZoneTotals:
        held = self._windows.held(lane, zone, t_ms)
        if held is None:
            held = self._windows.open(lane, zone, t_ms, since=offset)
        return held.totals

    def _heads(self, reading: Positions) -> list[tuple[str, float]]:
        """Count the heads of one message per zone; empty where it tells nothing of crowds."""
        shapes = self._shapes.get(reading.venue or "")
        if not shapes:
            return []
        if any(item.team is not None for item in reading.objects):
            return []
        pitch, places = self._pitches[reading.venue or ""], [(p.x, p.y) for p in reading.objects]
        if len(places) <= FEW:
            if places and all(is_on_pitch(pitch, x, y) for x, y in places):
                return []
            return [
                (shape.id, float(sum(shape.holds(x, y) for x, y in places))) for shape in shapes
            ]
        points = np.array(places)
        if is_on_pitch(pitch, points[:, 0], points[:, 1]).all():
            return []
        return [(shape.id, float(shape.heads(points))) for shape in shapes]

    def _findings(self, closed: Sequence[Closed[ZoneTotals]]) -> list[Finding]:
        findings = []
        for item in closed:
            area_m2 = self._areas.get((item.track.venue or "", item.subject))
            finding = Finding(
                subject=item.subject,
                kind="crowd_metric",
                span_start_ms=item.start_ms,
                span_end_ms=item.end_ms,
                model=MODEL,
                values=item.totals.values(area_m2),
                sensor=item.track.source,
                venue=item.track.venue,
                session=item.track.session,
            )
            findings.append(finding)
        return findings


@overload
def is_on_pitch(pitch: Pitch, x: float, y: float) -> bool: ...
@overload
def is_on_pitch(pitch: Pitch, x: Floats, y: Floats) -> NDArray[np.bool_]: ...
def is_on_pitch(pitch: Pitch, x: Any, y: Any) -> Any:
    """Tell whether places, metres in the venue frame, are on a pitch or its line."""
    x, y = x / (pitch.length_m / 2), y / (pitch.width_m / 2)
    if pitch.shape == "rectangle":
        return (abs(x) <= 1.0) & (abs(y) <= 1.0)
    return x * x + y * y <= 1.0
