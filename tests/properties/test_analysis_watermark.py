"""Windows under shuffled and late input: nothing is lost, nothing counted twice."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from matchday.analysis.pipeline import analyse_recording
from matchday.analysis.plan import Plan
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.rolling import WindowStatistics
from matchday.domain.reading import Scalar

POLICY = AnalysisPolicy(window_s=10, lateness_s=2)
T0 = 1_700_000_000_000


def scalar(t_ms: int) -> Scalar:
    return Scalar(source="a", t_ms=T0 + t_ms, quantity="q", value=float(t_ms))


@settings(max_examples=60, deadline=None)
@given(times=st.lists(st.integers(0, 200_000), min_size=1, max_size=200), seed=st.integers())
def test_every_reading_is_in_exactly_one_window_or_counted_late(
    times: list[int], seed: int
) -> None:
    random.Random(seed).shuffle(times)
    analyser = WindowStatistics(POLICY)
    findings = []
    for offset, t_ms in enumerate(times):
        findings += analyser.feed(scalar(t_ms), offset=offset, stream_ms=0)
    findings += analyser.finish()
    late = analyser.take_late().get("a", 0)
    assert sum(one.values["count"] for one in findings) + late == len(times)
    assert max(Counter(one.span_start_ms for one in findings).values()) == 1


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 100_000), min_size=1, max_size=150, unique=True),
    delays=st.randoms(use_true_random=False),
)
def test_disorder_within_the_lateness_changes_nothing(
    times: list[int], delays: random.Random
) -> None:
    ordered = sorted(times)
    # Each reading comes at most 2 s of event time after a newer one: not late.
    disordered = sorted(ordered, key=lambda t_ms: t_ms + delays.uniform(0, 2_000))
    plan = Plan(POLICY)
    calm, stirred = (
        [
            (one.span_start_ms, one.values["count"], one.values["min"], one.values["max"])
            for one in analyse_recording(map(scalar, each), plan)
            if one.kind == "sensor_metric"
        ]
        for each in (ordered, disordered)
    )
    assert stirred == calm
