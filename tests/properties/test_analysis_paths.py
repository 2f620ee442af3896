"""Paths in columns against the same filter written down sample by sample, in plain Python."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.analysis.players.metrics import PlayerMetrics
from matchday.analysis.players.paths import MotionPolicy, Paths, Samples, Steps
from matchday.analysis.players.slopes import LEAPS_MAX
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.finding import Finding
from matchday.domain.reading import Positions, TrackedObject

POLICY = MotionPolicy()
T0 = 1_700_000_000_000
HALF_MS, LAG_MS, GAP_MS = 280.0, 300.0, 1000.0


@dataclass
class Sample:
    t_ms: int
    x: float
    y: float
    path: int = 0
    is_good: bool = True


@dataclass
class Reference:
    """One entity's path, as the docstring of `paths` has it."""

    samples: list[Sample] = field(default_factory=list)
    settled: int = 0
    last: tuple[int, float, int] | None = None
    steps: list[tuple[int, float, float, float]] = field(default_factory=list)

    def see(self, t_ms: int, x: float, y: float) -> None:
        if self.samples and t_ms - self.samples[-1].t_ms > GAP_MS:
            self.end()
        path = self.samples[-1].path if self.samples else 0
        self.samples.append(Sample(t_ms, x, y, path))
        self._judge()
        while self.samples[self.settled].t_ms <= t_ms - LAG_MS:
            self._settle()

    def end(self) -> None:
        if len(self.samples) > 1 and self._into(-1) > POLICY.speed_mps_max:
            self.samples[-1].path += 1
        while self.settled < len(self.samples):
            self._settle()
        self.samples, self.settled, self.last = [], 0, None

    def _into(self, at: int) -> float:
        before = self.samples[at - 1]
        if not before.is_good:
            before = self.samples[at - 2]
        return _speed(before, self.samples[at])

    def _judge(self) -> None:
        if len(self.samples) < 3 or self._into(-2) <= POLICY.speed_mps_max:
            return
        before, judged, newest = self.samples[-3:]
        if not before.is_good:
            before = self.samples[-4]
        is_back = _speed(before, newest) <= POLICY.speed_mps_max
        is_leap = is_back and _speed(judged, newest) > POLICY.speed_mps_max
        if is_leap and self._leaps() <= LEAPS_MAX:
            judged.is_good = False
        else:
            judged.path += 1
            newest.path += 1

    def _leaps(self) -> int:
        """Count the samples in a row, up to the last but one, that lie off their neighbours."""
        count = 0
        for before, judged, after in zip(
            self.samples[-3::-1], self.samples[-2::-1], self.samples[::-1], strict=False
        ):
            is_away = min(_speed(before, judged), _speed(judged, after)) > POLICY.speed_mps_max
            if not is_away or _speed(before, after) > POLICY.speed_mps_max:
                break
            count += 1
        return count

    def _settle(self) -> None:
        centre = self.samples[self.settled]
        near = [
            one
            for place, one in enumerate(self.samples)
            if (abs(one.t_ms - centre.t_ms) <= HALF_MS or abs(place - self.settled) == 1)
            and one.is_good
            and one.path == centre.path
        ]
        speed = math.nan
        if len(near) >= 2:
            t, x, y = (
                np.array([getattr(one, name) - getattr(centre, name) for one in near])
                for name in ("t_ms", "x", "y")
            )
            speed = math.hypot(np.polyfit(t / 1000, x, 1)[0], np.polyfit(t / 1000, y, 1)[0])
        distance, time_s = 0.0, 0.0
        if self.last is not None and self.last[2] == centre.path:
            span_s = (centre.t_ms - self.last[0]) / 1000
            way = 0.5 * (speed + self.last[1]) * span_s
            if math.isfinite(way):
                distance, time_s = way, span_s
        self.steps.append((centre.t_ms, distance, time_s, speed))
        self.last = (centre.t_ms, speed, centre.path)
        self.settled += 1


def _speed(begin: Sample, end: Sample) -> float:
    span_s = max((end.t_ms - begin.t_ms) / 1000, 1e-3)
    return math.hypot(end.x - begin.x, end.y - begin.y) / span_s


def rough_walk(rng: random.Random) -> Iterator[tuple[int, float, float]]:
    """Walk at some rate, with noise, gaps, jumps that stay and jumps that do not."""
    step_ms = rng.choice((20, 40, 100, 400, 1000))
    noise_m = rng.choice((0.0, 0.01, 0.1, 0.4))
    t_ms, x, y = T0 + rng.randrange(1000), 0.0, 0.0
    for _ in range(rng.randrange(1, 160)):
        t_ms += step_ms + (rng.choice((500, 1500, 5000)) if rng.random() < 0.02 else 0)
        x += rng.uniform(-5, 5) * step_ms / 1000 + (9.0 if rng.random() < 0.02 else 0.0)
        y += rng.uniform(-5, 5) * step_ms / 1000
        off = 6.0 if rng.random() < 0.02 else 0.0
        yield t_ms, x + off + rng.gauss(0, noise_m), y + rng.gauss(0, noise_m)


def leaping_walk(rng: random.Random) -> Iterator[tuple[int, float, float]]:
    """Lie now here, now there, nearly always in turn: nearly every step is too fast."""
    step_ms = rng.choice((20, 40, 100, 400))
    turns = rng.choice((0.8, 0.95, 0.99))
    # The far end is too far for one step and too close for two, or too far for both.
    far_m = rng.choice((1.5, 3.0)) * POLICY.speed_mps_max * step_ms / 1000
    t_ms, is_far = T0 + rng.randrange(1000), False
    for number in range(rng.randrange(40, 300)):
        t_ms += step_ms
        is_far ^= rng.random() < turns
        drift_m = number * step_ms / 1000
        yield t_ms, drift_m + is_far * far_m + rng.gauss(0, 0.02), rng.gauss(0, 0.02)


WALKS = (rough_walk, leaping_walk)


def in_columns(
    walks: list[list[tuple[int, float, float]]], rng: random.Random
) -> dict[int, list[tuple[float, ...]]]:
    """Give the steps of walks that are worked through in batches of any size."""
    paths = Paths(POLICY)
    paths.grow(len(walks))
    found: dict[int, list[tuple[float, ...]]] = defaultdict(list)

    def keep(steps: Steps) -> None:
        for row, *values, _since in zip(*(column.tolist() for column in steps), strict=True):
            found[row].append(tuple(values))

    left = [list(walk) for walk in walks]
    while any(left):
        taken = [
            (row, *left[row].pop(0)) for row in range(len(left)) for _ in _some(left[row], rng)
        ]
        if not taken:
            continue
        row, t_ms, x, y = (np.array(column) for column in zip(*taken, strict=True))
        t_ms = t_ms.astype(np.float64)
        for steps in paths.advance(
            Samples(row.astype(np.intp), t_ms, x, y, np.zeros(len(row), dtype=np.int64), t_ms)
        ):
            keep(steps)
    keep(paths.finish(np.arange(len(walks))))
    return found


def _some(items: list[tuple[int, float, float]], rng: random.Random) -> range:
    return range(min(len(items), rng.choice((0, 1, 1, 3, 30, 90))))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_paths_in_columns_are_those_of_the_filter_sample_by_sample(seed: int) -> None:
    rng = random.Random(seed)
    walks = [list(rng.choice(WALKS)(rng)) for _ in range(rng.randrange(1, 6))]
    found = in_columns(walks, rng)
    for row, walk in enumerate(walks):
        reference = Reference()
        for t_ms, x, y in walk:
            reference.see(t_ms, x, y)
        reference.end()
        # The reference solves by another method: equal to rounding, in metres and seconds.
        np.testing.assert_allclose(found[row], reference.steps, rtol=1e-7, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(1, 299), min_size=1, max_size=8))
def test_restart_amid_leaps_gives_the_findings_of_no_restart(seed: int, cuts: list[int]) -> None:
    rng = random.Random(seed)
    readings = [
        Positions(source="s", t_ms=t_ms, objects=(TrackedObject("e", x, y, team="home"),))
        for t_ms, x, y in leaping_walk(rng)
    ]
    plan = Plan(AnalysisPolicy(window_s=rng.choice((0.5, 1.0, 10.0))))

    def findings(ends: list[int]) -> list[Finding]:
        made: list[Finding] = []
        begin = rewind = 0
        for end in [*ends, len(readings)]:
            analysis = PartitionAnalysis(plan)
            for offset in range(rewind, end):
                found = analysis.take(readings[offset], offset=offset, stream_ms=T0)
                made += found if offset >= begin else []
            begin, rewind = end, analysis.rewind_offset(end)
        return made

    assert findings(sorted({cut for cut in cuts if cut < len(readings)})) == findings([])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_when_positions_are_worked_through_changes_no_bit_of_a_finding(seed: int) -> None:
    rng = random.Random(seed)
    readings = [
        Positions(
            source=f"s{number}",
            t_ms=t_ms - rng.choice((0, 0, 30, 1500)),
            objects=(TrackedObject(f"e{rng.randrange(2)}", x, y, team="home"),),
        )
        for number in range(3)
        for t_ms, x, y in rng.choice(WALKS)(rng)
    ]
    readings.sort(key=lambda one: one.t_ms + rng.choice((0, 100)))
    window_s = rng.choice((0.5, 2.0, 10.0))

    def findings(looks: float) -> list[Finding]:
        look = random.Random(seed)
        analyser = PlayerMetrics(AnalysisPolicy(window_s=window_s), {})
        made = []
        for offset, reading in enumerate(readings):
            made.append(analyser.feed(reading, offset=offset, stream_ms=T0))
            if look.random() < looks:
                # Works through all that is pending.
                analyser.provisional()
        analyser.settle()
        return [one for each in made for one in each] + [*analyser.finish()]

    assert findings(0.0) == findings(0.3) == findings(1.0)
