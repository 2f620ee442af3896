"""Rewinding: from any start up to the rewind offset, a fresh analyser goes on the same.

What is needed from before the first reading that counts is the reason why others did not:
each case here is a restart that went on differently because that reason was not read again.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from matchday.analysis.players.metrics import PlayerMetrics
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.finding import Finding
from matchday.domain.reading import Positions, TrackedObject

POLICY = AnalysisPolicy(window_s=2.0, lateness_s=1.5, idle_s=3.0, forget_s=8.0)
T0 = 1_700_000_000_000


class Seen(NamedTuple):
    """One record: event and stream time after `T0`, who was seen, and by which source."""

    t_ms: int
    stream_ms: int = 0
    entity: str = "a"
    source: str = "tag"


def steady(begin_ms: int, end_ms: int, *, stream_ms: int = 0, entity: str = "a") -> list[Seen]:
    """See an entity every 250 ms, at one stream time."""
    return [Seen(t_ms, stream_ms, entity) for t_ms in range(begin_ms, end_ms, 250)]


def take(analyser: PlayerMetrics, seen: Seen, *, offset: int) -> list[Finding]:
    place = TrackedObject(seen.entity, 0.001 * seen.t_ms, 0.0, team="home")
    reading = Positions(source=seen.source, t_ms=T0 + seen.t_ms, objects=(place,))
    stream_ms = T0 + seen.stream_ms
    findings = list(analyser.pass_time(stream_ms))
    completed = analyser.feed(reading, offset=offset, stream_ms=stream_ms)
    analyser.settle()
    return findings + list(completed)


def findings_from(
    start: int, records: list[Seen], *, cut: int, policy: AnalysisPolicy
) -> list[Finding]:
    """Give what an analyser that begins at `start` finds from `cut` on."""
    analyser = PlayerMetrics(policy, {})
    found = []
    for offset, seen in enumerate(records[start:], start):
        findings = take(analyser, seen, offset=offset)
        found += findings if offset >= cut else []
    return found


def assert_every_start_goes_on_the_same(
    before: list[Seen], after: list[Seen], *, policy: AnalysisPolicy = POLICY
) -> None:
    analyser = PlayerMetrics(policy, {})
    for offset, seen in enumerate(before):
        take(analyser, seen, offset=offset)
    cut = len(before)
    rewind = analyser.rewind(cut, stream_ms=T0 + before[-1].stream_ms)
    records = before + after
    expected = findings_from(0, records, cut=cut, policy=policy)
    assert expected
    # Another analyser may ask for less: the start is not ours to choose.
    for start in range(rewind + 1):
        assert findings_from(start, records, cut=cut, policy=policy) == expected, start


def test_path_after_a_silence_does_not_begin_with_a_reading_that_was_late() -> None:
    silence = [*steady(0, 1_750), Seen(0, 5_000, source="other")]
    back = [Seen(1_900, 5_000), *steady(2_000, 4_000, stream_ms=5_000)]
    assert_every_start_goes_on_the_same(silence + back, steady(4_000, 8_000, stream_ms=5_000))


def test_path_does_not_begin_with_a_reading_behind_the_watermark() -> None:
    ahead = [*steady(0, 3_000, entity="b"), Seen(5_600, entity="b")]
    behind = [Seen(3_900), *steady(4_000, 5_000), Seen(6_650, entity="c")]
    assert_every_start_goes_on_the_same(ahead + behind, steady(6_750, 9_000, entity="c"))


def test_samples_behind_a_newer_one_make_no_path_of_their_own() -> None:
    overtaken = [Seen(2_100), Seen(1_500), Seen(1_700), Seen(3_300, entity="b")]
    assert_every_start_goes_on_the_same(overtaken, steady(3_400, 8_000, entity="b"))


def test_silent_track_is_not_closed_before_its_highest_time() -> None:
    open_only_for_its_highest_time = [
        Seen(2_050, entity="b"),
        *steady(1_250, 2_000),
        Seen(0, 5_100, source="other"),
    ]
    back = [Seen(3_100, 5_200)]
    after = steady(3_250, 8_000, stream_ms=5_300)
    assert_every_start_goes_on_the_same(open_only_for_its_highest_time + back, after)


def test_path_goes_on_across_a_silence_that_closed_nothing() -> None:
    brief = dataclasses.replace(POLICY, window_s=0.5)
    open_only_for_its_highest_time = [
        Seen(2_050, entity="b"),
        *steady(1_250, 2_000),
        Seen(0, 5_100, source="other"),
    ]
    back = [Seen(t_ms, 5_200) for t_ms in (2_600, 3_100, 3_550, 4_050)]
    after = steady(4_300, 8_000, stream_ms=5_300)
    assert_every_start_goes_on_the_same(open_only_for_its_highest_time + back, after, policy=brief)


def test_needs_end_with_the_windows_they_are_about() -> None:
    records = [*steady(0, 6_000), Seen(3_900), *steady(6_000, 30_000)]
    lags = []
    for one in (records, steady(0, 30_000)):
        analyser = PlayerMetrics(POLICY, {})
        for offset, seen in enumerate(one):
            take(analyser, seen, offset=offset)
        lags.append(len(one) - analyser.rewind(len(one), stream_ms=T0))
    assert lags[0] == lags[1]
