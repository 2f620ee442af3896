"""Speed and distance of players: against references on the shipped match, and by hand."""

from __future__ import annotations

import csv
import gzip
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from matchday.analysis.pipeline import PartitionAnalysis, analyse_recording
from matchday.analysis.plan import Plan
from matchday.analysis.players.metrics import PlayerMetrics
from matchday.analysis.players.paths import DEPTH, NEVER, MotionPolicy, Paths, Samples, Steps
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.finding import Finding
from matchday.domain.reading import Positions, TrackedObject
from matchday.domain.venue import Pitch, Venue

MATCH = Path(__file__).parents[2] / "examples/recordings/match.csv.gz"
T0 = 1_700_000_000_000
# Savitzky-Golay derivative (15 points, order 2) over the whole extract, computed elsewhere.
DISTANCE_M = {"home_10": 899.38, "home_6": 905.65, "away_1": 270.93}
TOP_SPEED_KMH = {"home_3": 31.12, "home_2": 31.07, "away_7": 30.53, "home_11": 29.91}
HSR_M = {"away_4": 113.36, "home_11": 93.88}
SPRINT_M = {"away_7": 36.63, "home_3": 32.93, "home_2": 26.88}


@cache
def match() -> list[Positions]:
    """Read the shipped match as one reading per frame, 25 Hz, with the ball."""
    with gzip.open(MATCH, "rt", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        header = next(rows)
        columns = {name: index for index, name in enumerate(header)}
        entities = [name[:-2] for name in header if name.endswith("_x")]
        places = [(name, columns[f"{name}_x"], columns[f"{name}_y"]) for name in entities]
        return [
            Positions(
                source="optical",
                t_ms=T0 + 40 * index,
                objects=tuple(
                    TrackedObject(
                        name,
                        float(row[x]),
                        float(row[y]),
                        team=None if name == "ball" else name[:4],
                    )
                    for name, x, y in places
                ),
                venue="demo",
                session="one",
            )
            for index, row in enumerate(rows)
        ]


@cache
def findings() -> list[Finding]:
    return [one for one in analyse_recording(match(), Plan()) if one.kind == "player_metric"]


@cache
def totals() -> dict[str, dict[str, float]]:
    """Sum the windows as a query does: sums of sums, maximum of maxima."""
    summed: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in findings():
        for name, value in one.values.items():
            known = summed[one.subject][name]
            summed[one.subject][name] = max(known, value) if "max" in name else known + value
    return summed


@pytest.mark.parametrize("player", DISTANCE_M)
def test_distance_agrees_with_the_reference_filter(player: str) -> None:
    # 0.05 %: the ends of the path are treated otherwise, and way is summed by trapezoids.
    assert totals()[player]["distance_m"] == pytest.approx(DISTANCE_M[player], rel=5e-4)


@pytest.mark.parametrize("player", TOP_SPEED_KMH)
def test_top_speed_agrees_with_the_reference_filter(player: str) -> None:
    speed_kmh = totals()[player]["speed_max_mps"] * 3.6
    assert speed_kmh == pytest.approx(TOP_SPEED_KMH[player], abs=0.01)


def test_fast_running_agrees_with_the_reference_filter() -> None:
    for player, metres in HSR_M.items():
        assert totals()[player]["hsr_distance_m"] == pytest.approx(metres, abs=0.05)
    for player, metres in SPRINT_M.items():
        assert totals()[player]["sprint_distance_m"] == pytest.approx(metres, abs=0.05)


def test_artefact_of_tracking_is_no_top_speed() -> None:
    # The reference filter gives away_10 37.19 km/h where seven raw steps of 43 to 45 km/h
    # join two places: no running. Without them the player's best is below 29.
    assert totals()["away_10"]["speed_max_mps"] * 3.6 < 29
    # Their way, 3.4 m of 848, is left out with them.
    assert totals()["away_10"]["distance_m"] == pytest.approx(847.89, rel=5e-3)
    assert max(each["speed_max_mps"] for each in totals().values()) * 3.6 < 31.2


def test_every_player_is_in_view_all_the_time_and_the_ball_is_none() -> None:
    assert len(totals()) == 22
    for each in totals().values():
        assert each["time_in_view_s"] == pytest.approx(359.96, abs=0.3)


def test_windows_are_ten_seconds_and_each_comes_once() -> None:
    keys = [(one.subject, one.span_start_ms) for one in findings()]
    assert len(keys) == len(set(keys)) == 22 * 36
    assert {one.span_end_ms - one.span_start_ms for one in findings()} == {10_000}


def test_sums_over_windows_are_the_whole() -> None:
    whole = AnalysisPolicy(window_s=3_600)
    once = {
        one.subject: one.values
        for one in analyse_recording(match()[:2_000], Plan(whole))
        if one.kind == "player_metric"
    }
    parts: dict[str, float] = defaultdict(float)
    for one in analyse_recording(match()[:2_000], Plan()):
        if one.kind == "player_metric":
            parts[one.subject] += one.values["distance_m"]
    for player, metres in parts.items():
        assert metres == pytest.approx(once[player]["distance_m"], rel=1e-12)


# --- by hand --------------------------------------------------------------------------------


class Step(NamedTuple):
    t_ms: float
    distance_m: float
    time_s: float
    speed_mps: float


class Runner:
    """The paths of one entity, sample by sample, as if nothing ever waited."""

    def __init__(self) -> None:
        self._paths = Paths(MotionPolicy())
        self._paths.grow(1)
        self._count = 0

    def see(self, t_ms: int, place: tuple[float, float]) -> list[Step]:
        numbers = (float(t_ms), *place, self._count, float(t_ms))
        self._count += 1
        samples = Samples(np.zeros(1, dtype=np.intp), *(np.array([one]) for one in numbers))
        return [step for steps in self._paths.advance(samples) for step in rows(steps)]

    def end(self) -> list[Step]:
        return rows(self._paths.finish(np.zeros(1, dtype=np.intp)))

    def since(self) -> int:
        return self._paths.since()


def rows(steps: Steps) -> list[Step]:
    columns = (steps.t_ms, steps.distance_m, steps.time_s, steps.speed_mps)
    return [Step(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def run(places: list[tuple[float, float]], *, step_ms: int = 40) -> list[Step]:
    runner = Runner()
    steps = [
        step
        for index, place in enumerate(places)
        for step in runner.see(T0 + step_ms * index, place)
    ]
    return steps + runner.end()


def way(steps: list[Step]) -> float:
    return sum(step.distance_m for step in steps)


@pytest.mark.parametrize("step_ms", [20, 40, 100, 200, 1000])
def test_steady_runner_has_exact_speed_and_distance_at_every_rate(step_ms: int) -> None:
    places = [(4.0 * step_ms / 1000 * n, 3.0 * step_ms / 1000 * n) for n in range(60)]
    steps = run(places, step_ms=step_ms)
    assert [step.t_ms for step in steps] == [T0 + step_ms * n for n in range(60)]
    assert all(step.speed_mps == pytest.approx(5.0, rel=1e-6) for step in steps)
    assert way(steps) == pytest.approx(5.0 * 59 * step_ms / 1000, rel=1e-6)


@pytest.mark.parametrize(("step_ms", "delay_ms"), [(40, 320), (100, 300), (1000, 1000)])
def test_speed_comes_with_the_stated_delay(step_ms: int, delay_ms: int) -> None:
    runner = Runner()
    for index in range(40):
        now_ms = T0 + step_ms * index
        steps = runner.see(now_ms, (0.0, 0.0))
        if steps:
            assert [now_ms - step.t_ms for step in steps] == [delay_ms]


def test_circle_is_as_long_as_a_circle() -> None:
    # Radius 10 m at 5 m/s, 25 Hz: the filter shortens a chord of 0.56 s by 0.3 %.
    turn = [(10 * math.cos(0.02 * n), 10 * math.sin(0.02 * n)) for n in range(315)]
    assert way(run(turn)) == pytest.approx(10 * 0.02 * 314, rel=5e-3)


def test_single_frame_jump_adds_no_way() -> None:
    places = [(0.2 * n, 0.0) for n in range(100)]
    places[50] = (places[50][0], 5.0)
    steps = run(places)
    assert way(steps) == pytest.approx(0.2 * 99, rel=1e-6)
    assert max(step.speed_mps for step in steps) == pytest.approx(5.0, rel=1e-6)


def test_jump_that_stays_begins_a_new_path_without_way_across() -> None:
    places = [(0.2 * n + (30.0 if n >= 50 else 0.0), 0.0) for n in range(100)]
    steps = run(places)
    assert way(steps) == pytest.approx(0.2 * 98, rel=1e-6)
    assert sum(step.time_s == 0 for step in steps) == 2


def test_nothing_is_measured_across_a_gap() -> None:
    runner = Runner()
    steps = []
    for index in range(100):
        t_ms = T0 + 40 * index + (5_000 if index >= 50 else 0)
        steps += runner.see(t_ms, (0.2 * index + (20.0 if index >= 50 else 0.0), 0.0))
    steps += runner.end()
    assert len(steps) == 100
    assert way(steps) == pytest.approx(0.2 * 98, rel=1e-6)
    assert sum(step.time_s for step in steps) == pytest.approx(0.04 * 98)


def test_path_needs_no_more_than_the_samples_its_next_step_depends_on() -> None:
    runner = Runner()
    for index in range(500):
        runner.see(T0 + 40 * index, (0.0, 0.0))
    # The newest with a speed is 0.32 s old.
    assert runner.since() == 499 - 8 + 1 - DEPTH
    runner.end()
    assert runner.since() == NEVER


def whole(readings: Sequence[Positions]) -> dict[str, float]:
    """Give all that one player did in readings."""
    analyser = PlayerMetrics(AnalysisPolicy(window_s=3_600), {})
    for offset, reading in enumerate(readings):
        assert not analyser.feed(reading, offset=offset, stream_ms=0)
    (finding,) = analyser.finish()
    return finding.values


def at(t_ms: int, x: float, y: float = 0.0, *, name: str = "a") -> Positions:
    return Positions(
        source="tag", t_ms=T0 + t_ms, objects=(TrackedObject(name, x, y, team="home"),)
    )


def test_repeated_and_older_samples_are_ignored() -> None:
    readings = [
        at(40 * index + again_ms, 0.2 * index, 9.0 if again_ms else 0.0)
        for index in range(60)
        for again_ms in (0, 0, -400)
    ]
    assert whole(readings)["distance_m"] == pytest.approx(0.2 * 59, rel=1e-6)


def test_fast_source_is_thinned_to_the_rate_the_ring_can_hold() -> None:
    values = whole([at(5 * n, 0.025 * n) for n in range(1_000)])
    assert values["time_in_view_s"] == pytest.approx(0.02 * 249)
    assert values["distance_m"] == pytest.approx(5.0 * 0.02 * 249, rel=1e-6)


def test_entities_that_come_and_go_leave_no_state() -> None:
    analyser = PlayerMetrics(AnalysisPolicy(), {})
    for index in range(3_000):
        for name in (f"p{index}", "q"):
            analyser.feed(at(2_000 * index, 0.0, name=name), offset=index, stream_ms=0)
        analyser.settle()
    assert analyser.rewind(3_000, stream_ms=0) > 2_990
    assert analyser._crews.capacity <= 64


GROUND = Venue(id="demo", name="Demo", pitch=Pitch("rectangle", 100.0, 60.0))


def subjects_seen(*objects: TrackedObject, venue: str | None = "demo") -> set[str]:
    analysis = PartitionAnalysis(Plan(venues={"demo": GROUND}))
    for index in range(30):
        reading = Positions(source="s", t_ms=T0 + 40 * index, objects=objects, venue=venue)
        analysis.take(reading, offset=index, stream_ms=0)
    return {one.subject for one in analysis.finish() if one.kind == "player_metric"}


def test_without_a_team_only_who_is_near_the_pitch_is_a_player() -> None:
    near, far = TrackedObject("near", 0.0, 33.0), TrackedObject("far", 0.0, 45.0)
    named = TrackedObject("named", 0.0, 45.0, team="home")
    assert subjects_seen(near, far, named) == {"near", "named"}
    assert subjects_seen(near, far, venue="elsewhere") == {"near", "far"}


def test_ball_is_no_player_whatever_team_it_names() -> None:
    assert subjects_seen(TrackedObject("ball", 0.0, 0.0, team="ball")) == set()
