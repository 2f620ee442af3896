"""What analysis remembers of a source is bounded, and most of it is forgotten in silence."""

from __future__ import annotations

import random
import sys
import tracemalloc
from types import FrameType

from matchday.analysis.forecast.seasonal import SeasonalForecast
from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.analysis.players.metrics import PlayerMetrics
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.rolling import WindowStatistics
from matchday.domain.instants import SPELT_MS
from matchday.domain.reading import Positions, Scalar, TrackedObject
from matchday.domain.wire import encode_finding

T_MS = 1_700_000_000_000
KIB_OPEN_MAX = 3.0
KIB_FORGOTTEN_MAX = 1.2
KIB_IN_VIEW_MAX = 9.0
KIB_GONE_MAX = 1.2


def test_source_that_spoke_once_costs_little_and_less_once_its_windows_are_closed() -> None:
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
            # As a worker does with every commit.
            analysis.rewind_offset(offset)
        rest, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{held / count / 1024:.2f} KiB open, {rest / count / 1024:.2f} KiB forgotten")
    assert held / count / 1024 < KIB_OPEN_MAX
    assert rest / count / 1024 < KIB_FORGOTTEN_MAX


def reading(source: str, t_ms: int) -> Scalar:
    return Scalar(source=source, quantity="q", value=1.0, unit=None, t_ms=t_ms, seq=1)


def test_finding_whose_span_ends_after_all_spellings_of_time_is_left_out_and_counted() -> None:
    policy = AnalysisPolicy(rest_records_max=50, rewind_records_max=100)
    analysis = PartitionAnalysis(Plan(policy=policy, venues={}))
    made = analysis.take(reading("far", SPELT_MS[-1]), offset=0, stream_ms=T_MS)
    for offset in range(1, 400):
        one, stream_ms = reading("near", T_MS + 100 * offset), T_MS + 500 * offset
        made += analysis.take(one, offset=offset, stream_ms=stream_ms)
    assert {finding.sensor for finding in made if encode_finding(finding)} == {"near"}
    assert analysis.take_tally().unusable > 0
    assert analysis.rewind_offset(400) > 0


def test_baseline_keeps_the_series_heard_of_last_and_no_more() -> None:
    baseline = SeasonalForecast(AnalysisPolicy(baseline_series_max=50))
    for number in range(1_000):
        # One speaks all the time, the others once each.
        for source in ("steady", f"source-{number}"):
            baseline.feed(reading(source, T_MS + number), offset=number, stream_ms=T_MS)
    subjects = {status.subject for status in baseline.statuses()}
    assert subjects == {"steady/q", *(f"source-{n}/q" for n in range(951, 1_000))}
    assert baseline.rewind(1_000, stream_ms=T_MS) == 951


def test_forgotten_series_are_the_same_for_one_who_began_to_read_later() -> None:
    rng = random.Random(5)
    sources = [f"source-{rng.randrange(30)}" for _ in range(2_000)]
    policy = AnalysisPolicy(baseline_series_max=12)
    whole, later = SeasonalForecast(policy), SeasonalForecast(policy)
    begin = None
    for offset, source in enumerate(sources):
        one = reading(source, T_MS + offset)
        whole.feed(one, offset=offset, stream_ms=T_MS)
        if offset == 1_500:
            begin = whole.rewind(offset + 1, stream_ms=T_MS)
    assert begin is not None
    for offset, source in enumerate(sources[begin:], begin):
        later.feed(reading(source, T_MS + offset), offset=offset, stream_ms=T_MS)
    assert later.statuses() == whole.statuses()
    assert later.rewind(2_000, stream_ms=T_MS) == whole.rewind(2_000, stream_ms=T_MS)


def test_rewind_is_the_lowest_offset_of_all_series() -> None:
    rng = random.Random(7)
    policy = AnalysisPolicy(rewind_records_max=900, baseline_season_s=0.05)
    baseline = SeasonalForecast(policy)
    needed: dict[str, list[int]] = {}
    for offset in range(3_000):
        # Few are heard of often, many seldom.
        source = f"source-{int(rng.paretovariate(0.7)) % 200}"
        baseline.feed(reading(source, T_MS + offset), offset=offset, stream_ms=T_MS)
        needed.setdefault(source, []).append(offset)
        if offset % 37 == 0:
            oldest = offset + 1 - policy.rewind_records_max
            found = baseline.rewind(offset + 1, stream_ms=T_MS)
            points = {status.subject: status.points for status in baseline.statuses()}
            lowest = min(
                at
                for name, offsets in needed.items()
                for at in offsets[len(offsets) - points.get(f"{name}/q", 0) :]
                if at >= oldest
            )
            assert found == lowest


def test_windows_of_sources_at_rest_hold_a_restart_back_by_a_bounded_number_of_records() -> None:
    policy = AnalysisPolicy(rest_records_max=1_000, window_s=1.0, idle_s=3.0)
    statistics = WindowStatistics(policy)
    lags = []
    for offset in range(20_000):
        # A thousand a second; now and then another source speaks once and never again.
        source = f"once-{offset}" if offset % 2_500 == 7 else "steady"
        if T_MS + offset >= statistics.deadline_ms:
            statistics.pass_time(T_MS + offset)
        statistics.feed(reading(source, T_MS + offset), offset=offset, stream_ms=T_MS + offset)
        if offset % 100 == 0:
            lags.append(offset - statistics.rewind(offset, stream_ms=T_MS + offset))
    window, silence, closing_late = 1_000, 3_000, 1_100
    assert 1_000 < max(lags) <= window + silence + closing_late


def lags_of_a_stream_with_silent_series(*, step_ms: int) -> list[int]:
    """Give how far the baseline holds a restart back, in a stream of one record every `step_ms`."""
    baseline = SeasonalForecast(AnalysisPolicy(rest_records_max=1_000, rewind_records_max=5_000))
    lags = []
    for offset in range(20_000):
        # Now and then a source speaks once and never again.
        source = f"once-{offset}" if offset % 2_500 == 7 else "steady"
        t_ms = T_MS + offset * step_ms
        baseline.feed(reading(source, t_ms), offset=offset, stream_ms=t_ms)
        if offset % 100 == 0:
            lags.append(offset - baseline.rewind(offset, stream_ms=t_ms))
    return lags


def test_silent_series_of_a_fast_stream_do_not_hold_a_restart_back_for_long() -> None:
    assert 900 < max(lags_of_a_stream_with_silent_series(step_ms=1)) <= 1_100


def test_silent_series_is_kept_where_a_season_and_a_half_is_within_reach() -> None:
    least_s = 1.5 * 86_400
    assert max(lags_of_a_stream_with_silent_series(step_ms=round(least_s / 5) + 100)) > 4_000
    assert max(lags_of_a_stream_with_silent_series(step_ms=round(least_s / 5) - 100)) <= 1_100


def test_series_at_rest_are_the_same_for_one_who_began_to_read_later() -> None:
    rng = random.Random(6)
    policy = AnalysisPolicy(rest_records_max=60)
    sources = [f"source-{int(rng.paretovariate(0.7)) % 60}" for _ in range(1_500)]
    # Clocks that leap to and fro: not all that is heard is learnt, and not the same by everybody.
    records = [
        reading(source, T_MS + offset + rng.choice((0, 0, 50, 900)))
        for offset, source in enumerate(sources)
    ]
    whole = SeasonalForecast(policy)
    others: list[SeasonalForecast] = []
    for offset, one in enumerate(records):
        for analyser in (whole, *others):
            analyser.feed(one, offset=offset, stream_ms=T_MS + offset)
        if offset % 50 == 49:
            begin = whole.rewind(offset + 1, stream_ms=T_MS + offset)
            later = SeasonalForecast(policy)
            for before in range(begin, offset + 1):
                later.feed(records[before], offset=before, stream_ms=T_MS + before)
            others.append(later)
    known = {status.subject for status in whole.statuses()}
    assert 1 < len(known) < len(set(sources))
    for later in others:
        assert later.statuses() == whole.statuses()


def test_looking_for_the_rewind_offset_does_not_look_at_every_series() -> None:
    count = 20_000
    baseline = SeasonalForecast(AnalysisPolicy())
    for number in range(count):
        baseline.feed(reading(f"source-{number}", T_MS), offset=number, stream_ms=T_MS)
    calls = 0

    def count_calls(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_calls)
    try:
        for _ in range(10):
            baseline.rewind(count, stream_ms=T_MS)
    finally:
        sys.setprofile(None)
    assert calls < 200


def test_entity_in_view_costs_a_ring_and_one_that_has_gone_little() -> None:
    count = 5_000
    analyser = PlayerMetrics(AnalysisPolicy(), {})
    tracemalloc.start()
    try:
        for number in range(count):
            analyser.feed(seen(f"entity-{number}", T_MS), offset=number, stream_ms=T_MS)
        analyser.provisional()
        held, _ = tracemalloc.get_traced_memory()
        # The rings of those who have gone serve those who come.
        for number in range(count):
            one = seen(f"other-{number}", T_MS + 2_000)
            analyser.feed(one, offset=count + number, stream_ms=T_MS)
        analyser.provisional()
        gone, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each_kib, more_kib = held / count / 1024, (gone - held) / count / 1024
    print(f"{each_kib:.2f} KiB in view, {more_kib:.2f} KiB gone")
    assert each_kib < KIB_IN_VIEW_MAX
    assert more_kib < KIB_GONE_MAX


def seen(entity: str, t_ms: int) -> Positions:
    objects = (TrackedObject(entity, 1.0, 1.0, team="home"),)
    return Positions(source="tag", t_ms=t_ms, objects=objects)
