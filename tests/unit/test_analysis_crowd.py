"""Zone densities: against independent oracles on recorded crowds, and by hand."""

from __future__ import annotations

import gzip
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
import pytest

from matchday.analysis.crowd.density import ZoneDensity, ZoneShape, is_on_pitch
from matchday.analysis.pipeline import analyse_recording
from matchday.analysis.plan import Plan
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.finding import Finding
from matchday.domain.reading import Count, Positions, TrackedObject
from matchday.domain.venue import Pitch, Venue, Zone

ROOT = Path(__file__).parents[2]
BOTTLENECK = ROOT / "examples/recordings/crowd-bottleneck.txt.gz"
CORNER = ROOT / "tests/golden/analysis_corner.txt.gz"
T0 = 1_700_000_000_000
PITCH = Pitch("rectangle", 0.01, 0.01)


def ground(*polygon: tuple[float, float]) -> Venue:
    return Venue(id="lab", name="Laboratory", pitch=PITCH, zones=(Zone("M", "Square", polygon),))


def crowd(t_ms: int, places: list[tuple[float, float]]) -> Positions:
    people = tuple(TrackedObject(str(n), x, y) for n, (x, y) in enumerate(places))
    return Positions(source="camera", t_ms=T0 + t_ms, objects=people, venue="lab")


def zone_findings(readings: list[Positions] | list[Count], venue: Venue) -> list[Finding]:
    plan = Plan(venues={venue.id: venue})
    return [one for one in analyse_recording(readings, plan) if one.kind == "crowd_metric"]


@cache
def bottleneck() -> dict[int, list[tuple[float, float]]]:
    """Read the shipped crowd by frame; metres, 25 Hz."""
    frames: dict[int, list[tuple[float, float]]] = defaultdict(list)
    with gzip.open(BOTTLENECK, "rt", encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#") and line.strip():
                _, frame, x, y, _ = line.split()
                frames[int(frame)].append((float(x), float(y)))
    return frames


def of_frames(first: int, last: int) -> tuple[float, float]:
    """Give mean and greatest density of the measurement square in these frames."""
    square = ground((-0.4, 0.5), (0.4, 0.5), (0.4, 1.3), (-0.4, 1.3))
    readings = [crowd(40 * n, bottleneck()[n]) for n in sorted(bottleneck()) if first <= n <= last]
    found = zone_findings(readings, square)
    frames = sum(one.values["frame_count"] for one in found)
    assert frames == len(readings)
    heads = sum(one.values["density_mean_per_m2"] * one.values["frame_count"] for one in found)
    return heads / frames, max(one.values["density_max_per_m2"] for one in found)


def test_density_before_the_bottleneck_is_that_of_the_reference() -> None:
    # PedPy 1.5.1, classic density: all frames, and the steady part of the run.
    assert of_frames(0, 1_656) == pytest.approx((6.674, 10.937), abs=0.001)
    assert of_frames(250, 1_000)[0] == pytest.approx(7.898, abs=0.001)


def test_density_at_the_corner_is_that_of_an_independent_program_in_every_frame() -> None:
    shape = ZoneShape(ground((0, 0), (-3, 0), (-3, 2), (0, 2)).zones[0])
    worst = 0.0
    count = 0
    with gzip.open(CORNER, "rt", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            _, density, *heads = line.split()
            points = np.array([[float(part) for part in head.split(",")] for head in heads])
            ours = shape.heads(points.reshape(-1, 2)) / 6.0
            worst = max(worst, abs(ours - float(density)))
            count += 1
    # The oracle prints three decimals.
    assert count > 800
    assert worst < 0.0005


def test_ray_casting_agrees_with_the_domain_for_any_polygon() -> None:
    rng = np.random.default_rng(1)
    corners = [(0, 0), (4, 0), (4, 3), (2, 1), (0, 3)]
    zone = ground(*[(float(x), float(y)) for x, y in corners]).zones[0]
    points = rng.uniform(-1, 5, (2_000, 2))
    inside = sum(zone.contains(x, y) for x, y in points)
    shape = ZoneShape(zone)
    assert shape.heads(points) == inside
    assert sum(shape.holds(x, y) for x, y in points.tolist()) == inside


@pytest.mark.parametrize("shape", ["rectangle", "oval"])
def test_points_are_on_the_pitch_one_by_one_and_together(
    shape: Literal["rectangle", "oval"],
) -> None:
    pitch = Pitch(shape, 100.0, 60.0)
    points = np.random.default_rng(3).uniform(-60, 60, (500, 2))
    together = is_on_pitch(pitch, points[:, 0], points[:, 1]).tolist()
    assert together == [is_on_pitch(pitch, x, y) for x, y in points.tolist()]
    assert together == [pitch.contains(x, y) for x, y in points.tolist()]


SQUARE = ground((0, 0), (2, 0), (2, 2), (0, 2))


def test_window_gives_mean_and_greatest_count_and_density() -> None:
    inside, outside = (1.0, 1.0), (5.0, 5.0)
    readings = [crowd(0, [inside] * 2), crowd(500, [inside] * 4 + [outside])]
    (finding,) = zone_findings(readings, SQUARE)
    assert (finding.subject, finding.sensor, finding.venue) == ("M", "camera", "lab")
    assert finding.values == {
        "frame_count": 2,
        "count_mean": 3,
        "count_max": 4,
        "density_mean_per_m2": 0.75,
        "density_max_per_m2": 1.0,
    }


def test_people_of_one_instant_may_come_in_several_messages() -> None:
    readings = [crowd(0, [(1.0, 1.0)]) for _ in range(5)] + [crowd(40, [])]
    (finding,) = zone_findings(readings, SQUARE)
    assert finding.values["frame_count"] == 2
    assert finding.values["count_max"] == 5
    assert finding.values["count_mean"] == 2.5


def test_empty_frame_says_that_the_zone_is_empty() -> None:
    (finding,) = zone_findings([crowd(0, [])], SQUARE)
    assert finding.values["density_max_per_m2"] == 0.0


def test_player_tracking_says_nothing_about_the_crowd() -> None:
    player = TrackedObject("7", 1.0, 1.0, team="home")
    tracked = Positions(source="optical", t_ms=T0, objects=(player,), venue="lab")
    on_pitch = crowd(0, [(0.0, 0.0)])
    elsewhere = Positions(source="camera", t_ms=T0, objects=(), venue="unknown")
    assert zone_findings([tracked, on_pitch, elsewhere], SQUARE) == []


def counted(t_ms: int, **numbers: float) -> Count:
    return Count(source="counter", t_ms=T0 + t_ms, venue="lab", **{"zone": "M", **numbers})  # type: ignore[arg-type]


def test_occupancy_of_a_known_zone_becomes_density() -> None:
    readings = [counted(0, occupancy=4), counted(1_000, occupancy=8, entered=4)]
    (finding,) = zone_findings(readings, SQUARE)
    assert finding.values["density_mean_per_m2"] == 1.5
    assert finding.values["in_count"] == 4
    assert "out_count" not in finding.values


def test_gate_without_an_area_has_flows_and_no_density() -> None:
    gate = Count(source="counter", t_ms=T0, zone="east", entered=3, left=1, venue="lab")
    (finding,) = zone_findings([gate], SQUARE)
    assert finding.values == {"in_count": 3, "out_count": 1}


def test_mean_over_windows_weighted_by_frames_is_the_mean_of_all() -> None:
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 9, 400)
    readings = [crowd(100 * n, [(1.0, 1.0)] * int(count)) for n, count in enumerate(counts)]
    found = zone_findings(readings, SQUARE)
    assert len(found) == 4
    weighted = sum(one.values["count_mean"] * one.values["frame_count"] for one in found)
    assert weighted / 400 == pytest.approx(fmean(counts))


def test_rewind_is_the_first_reading_of_the_open_window() -> None:
    analyser = ZoneDensity(AnalysisPolicy(), {"lab": SQUARE})
    for index in range(25):
        analyser.feed(crowd(1_000 * index, []), offset=index, stream_ms=0)
    assert analyser.rewind(25, stream_ms=0) == 20
