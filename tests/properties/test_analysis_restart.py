"""A restart at any point equals no restart: the same findings, each once, bit for bit."""

from __future__ import annotations

import dataclasses
import random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis_scenario import PLAN, records_of
from matchday.analysis import windows
from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.domain.finding import Finding
from matchday.ports import StreamRecord

SEEDS = st.integers(0, 2**32)


def restarts(below: int, *, count_max: int) -> st.SearchStrategy[list[int]]:
    """Give offsets below a bound, at which a run is cut off."""
    return st.lists(st.integers(1, below - 1), min_size=1, max_size=count_max, unique=True)


def uninterrupted(records: list[StreamRecord], *, plan: Plan = PLAN) -> list[Finding]:
    return PartitionAnalysis(plan).consume(records)


def with_restarts(
    records: list[StreamRecord], commits: list[int], *, plan: Plan = PLAN
) -> list[Finding]:
    """Work up to each commit, die there, and rebuild from the rewind offset in silence."""
    findings: list[Finding] = []
    begin = rewind = 0
    for end in [*commits, len(records)]:
        analysis = PartitionAnalysis(plan)
        analysis.consume(records[rewind:begin])
        findings += analysis.consume(records[begin:end])
        rewind = analysis.rewind_offset(end)
        assert rewind <= end
        begin = end
    return findings


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, cuts=restarts(1400, count_max=12))
# A path that, after a silence, began with readings the uninterrupted run had found late.
@example(seed=5329851, cuts=[175, 1, 496])
def test_restarts_at_any_points_give_the_findings_of_no_restart(seed: int, cuts: list[int]) -> None:
    records = records_of(seed, 1400)
    assert with_restarts(records, sorted(cuts)) == uninterrupted(records)


@pytest.mark.parametrize("seed", range(2))
def test_a_restart_after_every_few_records_changes_nothing(seed: int) -> None:
    records = records_of(seed, 1200)
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(1, 1200), 60))
    assert with_restarts(records, cuts) == uninterrupted(records)


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, batch=st.integers(1, 500))
def test_findings_do_not_depend_on_how_records_are_batched(seed: int, batch: int) -> None:
    records = records_of(seed, 1000)
    analysis = PartitionAnalysis(PLAN)
    findings = [
        one
        for begin in range(0, len(records), batch)
        for one in analysis.consume(records[begin : begin + batch])
    ]
    assert findings == uninterrupted(records)


@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_no_finding_is_made_twice(seed: int) -> None:
    findings = uninterrupted(records_of(seed, 1500, is_steady=True))
    identities = [
        (one.sensor, one.session, one.subject, one.kind, one.span_start_ms, one.model)
        for one in findings
    ]
    assert identities
    assert len(identities) == len(set(identities))


def with_jumping_clock(seed: int) -> list[StreamRecord]:
    """Give 900 records of a stream whose clock is wrong by far for some stretches."""
    records, rng = records_of(seed, 900), random.Random(seed)
    jumps = {rng.randrange(len(records)): rng.choice((0, 0, 30_000, 100_000)) for _ in range(8)}
    jumped, off_ms = [], 0
    for place, record in enumerate(records):
        off_ms = jumps.get(place, off_ms)
        jumped.append(msgspec.structs.replace(record, time_ms=record.time_ms + off_ms))
    return jumped


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, cuts=restarts(900, count_max=8), forget_records=st.integers(1, 60))
# The run without a restart forgot a silent camera at a look that the other did not take.
def test_silent_track_is_forgotten_at_the_same_record_whoever_reads(
    seed: int, cuts: list[int], forget_records: int
) -> None:
    records = with_jumping_clock(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "FORGET_RECORDS", forget_records)
        assert with_restarts(records, sorted(cuts)) == uninterrupted(records)


@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, cuts=restarts(900, count_max=8), rest_records=st.integers(1, 200))
def test_what_is_at_rest_is_forgotten_at_the_same_record_whoever_reads(
    seed: int, cuts: list[int], rest_records: int
) -> None:
    records = with_jumping_clock(seed)
    policy = dataclasses.replace(PLAN.policy, rest_records_max=rest_records, forget_s=60.0)
    plan = dataclasses.replace(PLAN, policy=policy)
    whole = uninterrupted(records, plan=plan)
    assert with_restarts(records, sorted(cuts), plan=plan) == whole


def test_the_scenario_reaches_every_kind_of_finding() -> None:
    findings = [one for seed in range(3) for one in uninterrupted(records_of(seed, 2500))]
    kinds = {one.kind for one in findings}
    assert kinds == {"sensor_metric", "forecast", "player_metric", "crowd_metric"}
