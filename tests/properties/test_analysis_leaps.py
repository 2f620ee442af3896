"""Clocks that leap to and fro, and little reach: whoever began to read later goes on the same."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis_scenario import PLAN, START_MS, records_of
from matchday.analysis import windows
from matchday.analysis.forecast.baseline import CADENCE_SPAN
from matchday.analysis.forecast.seasonal import SeasonalForecast, _Series
from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading, Scalar
from matchday.domain.wire import decode_reading, encode_reading
from matchday.errors import RefusedError
from matchday.ports import StreamRecord

SEEDS = st.integers(0, 2**32)
DAY_MS = 86_400_000
A_POLICY = [
    AnalysisPolicy(
        baseline_season_s=season_s,
        baseline_points_max=30,
        baseline_forget_s=10.0,
        rewind_records_max=reach,
        rest_records_max=20,
    )
    for season_s, reach in ((1.5, 150), (3.0, 150), (3.0, 400))
]


class Heard(NamedTuple):
    """One record: a reading and the stream's time."""

    reading: Reading
    stream_ms: int


class Clock:
    """A clock that is off by something else now and then, for a moment or for long."""

    def __init__(self, rng: random.Random, leaps_ms: tuple[int, ...]) -> None:
        self._rng, self._leaps_ms = rng, leaps_ms
        self._off_ms = 0

    def shows(self, t_ms: int) -> int:
        luck = self._rng.random()
        if luck < 0.02:
            self._off_ms += self._rng.choice(self._leaps_ms)
        if luck < 0.06:
            return t_ms + self._off_ms + self._rng.choice(self._leaps_ms)
        return t_ms + self._off_ms


def leaping(seed: int, count: int) -> list[Heard]:
    """Give records of a few sources, some of them slow, silent, frozen, or begun again."""
    rng = random.Random(seed)
    clocks = [Clock(rng, (0, 300, 4_000, -4_000, -900, 20_000)) for _ in range(6)]
    stream = Clock(rng, (0, 0, 0, 3_000, 60_000, -3_000, 90_000_000))
    sessions = [0] * len(clocks)
    last_ms = START_MS
    heard = []
    for offset in range(count):
        number = min(int(rng.paretovariate(0.8)) - 1, len(clocks) - 1)
        now_ms = START_MS + offset * 100
        if rng.random() < 0.003:
            sessions[number] += 1
        if rng.random() < 0.002:
            clocks[number] = Clock(rng, (0, 500, -2 * DAY_MS, 5 * DAY_MS))
        # Times on a grid, and some are told twice.
        last_ms = clocks[number].shows(now_ms) // 100 * 100 if rng.random() < 0.9 else last_ms
        session = f"{sessions[number]}"
        one = Scalar(
            source=f"s{number}", quantity="q", value=rng.gauss(5, 2), t_ms=last_ms, session=session
        )
        heard.append(Heard(one, stream.shows(now_ms)))
    return heard


@st.composite
def policies(draw: st.DrawFn) -> AnalysisPolicy:
    """Give rules of a baseline with little reach, so that all of them apply within a run."""
    return AnalysisPolicy(
        baseline_season_s=draw(st.sampled_from((1.5, 3.0, 6.0))),
        baseline_points_max=draw(st.sampled_from((12, 30, 60))),
        baseline_forget_s=draw(st.sampled_from((10.0, 60.0))),
        baseline_series_max=draw(st.sampled_from((3, 100))),
        rewind_records_max=draw(st.sampled_from((40, 150, 400))),
        rest_records_max=draw(st.sampled_from((20, 100))),
    )


def goes_on(
    analyser: SeasonalForecast, heard: list[Heard], begin: int, end: int
) -> list[list[Finding]]:
    return [
        [*analyser.feed(heard[offset].reading, offset=offset, stream_ms=heard[offset].stream_ms)]
        for offset in range(begin, end)
    ]


def points_of(analyser: SeasonalForecast) -> dict[str, int]:
    return {status.subject: status.points for status in analyser.statuses()}


def has_a_start_that_differs(seed: int, policy: AnalysisPolicy) -> bool:
    """Tell whether who began at the rewind offset, or before, went on in another way."""
    heard, rng = leaping(seed, 1_200), random.Random(seed)
    never_asked = goes_on(SeasonalForecast(policy), heard, 0, len(heard))
    whole, done = SeasonalForecast(policy), 0
    for cut in sorted(rng.sample(range(1, len(heard)), 12)):
        goes_on(whole, heard, done, cut)
        done = cut
        rewind = whole.rewind(cut, stream_ms=heard[cut - 1].stream_ms)
        assert cut - policy.rewind_records_max <= rewind <= cut
        # Another analyser may ask for less: the start is not ours to choose.
        for start in {rewind, *(rng.randint(max(rewind - 300, 0), rewind) for _ in range(2))}:
            later = SeasonalForecast(policy)
            goes_on(later, heard, start, cut)
            end = min(cut + 200, len(heard))
            if points_of(later) != points_of(whole):
                return True
            if goes_on(later, heard, cut, end) != never_asked[cut:end]:
                return True
    return False


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, policy=policies())
# A leap ahead out of reach: what it had held back was learnt by who began behind it.
@example(seed=1, policy=AnalysisPolicy(baseline_season_s=3.0, rewind_records_max=150))
def test_baseline_is_the_same_from_any_start_up_to_the_rewind_offset(
    seed: int, policy: AnalysisPolicy
) -> None:
    assert not has_a_start_that_differs(seed, policy)


def learn_the_newer_only(series: _Series, t_ms: int, value: float, offset: int) -> None:
    if series.is_newer(t_ms):
        LEARN(series, t_ms, value, offset)


def learn_the_first_of_equal_times(series: _Series, t_ms: int, value: float, offset: int) -> None:
    if t_ms not in series.times_ms:
        LEARN(series, t_ms, value, offset)


def cut_until_one_is_newer(series: _Series, t_ms: int) -> None:
    spare = len(series.times_ms) - CADENCE_SPAN - 1
    old = itertools.takewhile(lambda time_ms: time_ms < t_ms, series.times_ms)
    series.cut(min(len(list(old)), spare))


def cut_the_pace_too(series: _Series, t_ms: int) -> None:
    old = itertools.takewhile(lambda time_ms: time_ms < t_ms, series.times_ms[:-2])
    series.cut(len(list(old)))


def rewind_and_forget(baseline: SeasonalForecast, next_offset: int, *, stream_ms: int) -> int:
    for key, series in [*baseline._series.items()]:
        if stream_ms > series.seen_ms + baseline._forget_ms:
            baseline._drop(key)
    return REWIND(baseline, next_offset, stream_ms=stream_ms)


LEARN, REWIND = _Series.learn, SeasonalForecast.rewind
MUTANTS = {
    "a reading behind a newer one is passed over": (_Series, "learn", learn_the_newer_only),
    "of equal times the first counts": (_Series, "learn", learn_the_first_of_equal_times),
    "a newer reading keeps older ones": (_Series, "cut_older", cut_until_one_is_newer),
    "what tells the pace is forgotten by it": (_Series, "cut_older", cut_the_pace_too),
    "forgotten at commits": (SeasonalForecast, "rewind", rewind_and_forget),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_part_of_the_rule_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, mutant = MUTANTS[name]
    monkeypatch.setattr(owner, method, mutant)
    assert any(has_a_start_that_differs(seed, A_POLICY[seed % 3]) for seed in range(150))


def test_leaping_histories_have_forecasts_and_late_readings() -> None:
    policy = AnalysisPolicy(baseline_season_s=3.0, rewind_records_max=150)
    heard = leaping(1, 1_200)
    made = goes_on(SeasonalForecast(policy), heard, 0, len(heard))
    assert sum(map(bool, made)) > 50
    high_ms, late = 0, 0
    for one in heard:
        late += one.reading.source == "s0" and one.reading.t_ms <= high_ms
        if one.reading.source == "s0":
            high_ms = max(high_ms, one.reading.t_ms)
    assert late > 50


def with_leaping_sources(seed: int, count: int) -> list[StreamRecord]:
    """Give a lively hour whose sources' clocks leap, ahead by most, and the stream's as well."""
    rng = random.Random(seed)
    clocks: dict[str, Clock] = {}
    stream = Clock(rng, (0, 0, 0, 2_000, 10_000, -2_000, 100_000))
    records = []
    for record in records_of(seed, count):
        value = record.value
        try:
            reading = decode_reading(value)
        except RefusedError:
            pass
        else:
            clock = clocks.setdefault(reading.source, Clock(rng, (0, 700, 3_000, -3_000, 30_000)))
            t_ms = clock.shows(reading.t_ms)
            value = encode_reading(msgspec.structs.replace(reading, t_ms=t_ms))
        time_ms = stream.shows(record.time_ms)
        records.append(msgspec.structs.replace(record, value=value, time_ms=time_ms))
    return records


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, reach=st.sampled_from((60, 200, 400)), rest=st.sampled_from((30, 100)))
def test_findings_and_late_counts_are_the_same_from_any_start_up_to_the_rewind_offset(
    seed: int, reach: int, rest: int
) -> None:
    policy = dataclasses.replace(PLAN.policy, rewind_records_max=reach, rest_records_max=rest)
    plan = dataclasses.replace(PLAN, policy=policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "FORGET_RECORDS", 20)
        assert_every_start_goes_on_the_same(seed, plan)


def assert_every_start_goes_on_the_same(seed: int, plan: Plan) -> None:
    records, rng = with_leaping_sources(seed, 900), random.Random(seed)
    whole, done = PartitionAnalysis(plan), 0
    for cut in range(rng.randint(1, 200), len(records), 200):
        whole.consume(records[done:cut])
        whole.take_tally()
        done = min(cut + 150, len(records))
        rewind = whole.rewind_offset(cut)
        others = []
        for start in {rewind, rng.randint(0, rewind)}:
            later = PartitionAnalysis(plan)
            later.consume(records[start:cut])
            later.take_tally()
            others.append((later.consume(records[cut:done]), later.take_tally()))
        found = whole.consume(records[cut:done]), whole.take_tally()
        assert others == [found] * len(others)
