"""What analysis remembers of a source is bounded, and most of it is forgotten in silence."""

from __future__ import annotations

import tracemalloc

from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.reading import Scalar

T_MS = 1_700_000_000_000
KIB_OPEN_MAX = 3.0
KIB_FORGOTTEN_MAX = 1.2


def test_source_that_spoke_once_costs_little_and_less_once_its_windows_are_closed():
    count = 5_000
    analysis = PartitionAnalysis(Plan(policy=AnalysisPolicy(), venues={}))
    tracemalloc.start()
    try:
        for number in range(count):
            analysis.take(reading(f"source-{number}", T_MS), offset=number, stream_ms=T_MS)
        held, _ = tracemalloc.get_traced_memory()
        offset = count
        for later_ms in range(0, 1_200_000, 1000):
            one = reading("steady", T_MS + later_ms)
            analysis.take(one, offset=offset, stream_ms=T_MS + later_ms)
            offset += 1
        rest, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{held / count / 1024:.2f} KiB open, {rest / count / 1024:.2f} KiB forgotten")
    assert held / count / 1024 < KIB_OPEN_MAX
    assert rest / count / 1024 < KIB_FORGOTTEN_MAX


def reading(source: str, t_ms: int) -> Scalar:
    return Scalar(source=source, quantity="q", value=1.0, unit=None, t_ms=t_ms, seq=1)
