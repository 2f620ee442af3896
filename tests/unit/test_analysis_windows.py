"""Windows in event time: watermark, lateness, silence, bounded state."""

from __future__ import annotations

import pytest

from matchday.analysis import windows
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.rolling import Moments, WindowStatistics
from matchday.analysis.windows import FORGET_RECORDS, NEVER_MS
from matchday.domain.finding import Finding
from matchday.domain.reading import Scalar
from matchday.errors import ConfigError

POLICY = AnalysisPolicy(window_s=10, lateness_s=2, idle_s=30, forget_s=300)
HOUR_MS = 3_600_000
T0 = 1_700_000_000_000


class Feeder:
    """Feeds scalars of named sources with rising offsets; stream time is given or stands."""

    def __init__(self, policy: AnalysisPolicy = POLICY) -> None:
        self.analyser = WindowStatistics(policy)
        self.offset = 0
        self.stream_ms = T0

    def feed(
        self, t_ms: int, value: float = 1.0, *, source: str = "a", session: str | None = None
    ) -> list[Finding]:
        findings = list(self.analyser.pass_time(self.stream_ms))
        reading = Scalar(source=source, t_ms=T0 + t_ms, quantity="q", value=value, session=session)
        findings += self.analyser.feed(reading, offset=self.offset, stream_ms=self.stream_ms)
        self.offset += 1
        return findings

    def rewind(self) -> int:
        return self.analyser.rewind(self.offset, stream_ms=self.stream_ms)


def spans(findings: list[Finding]) -> list[tuple[int, int]]:
    return [(one.span_start_ms - T0, one.span_end_ms - T0) for one in findings]


def test_window_is_emitted_when_the_watermark_reaches_its_end() -> None:
    feeder = Feeder()
    assert feeder.feed(3_000, 1.0) == []
    assert feeder.feed(9_000, 3.0) == []
    assert feeder.feed(11_999, 9.0) == []
    (finding,) = feeder.feed(12_000, 9.0)
    assert spans([finding]) == [(0, 10_000)]
    assert finding.values == {"count": 2, "mean": 2, "min": 1, "max": 3, "std": 2**0.5}


def test_reading_within_the_lateness_still_counts() -> None:
    feeder = Feeder()
    feeder.feed(9_000)
    feeder.feed(11_500)
    feeder.feed(8_000)
    (finding,) = feeder.feed(12_000)
    assert finding.values["count"] == 2


def test_late_reading_is_counted_not_lost_and_changes_no_finding() -> None:
    feeder = Feeder()
    feeder.feed(5_000)
    assert len(feeder.feed(20_000)) == 1
    assert feeder.feed(6_000, 99.0) == []
    assert feeder.analyser.take_late() == {"a": 1}
    assert feeder.analyser.take_late() == {}
    (finding,) = feeder.feed(40_000)
    assert spans([finding]) == [(20_000, 30_000)]


def test_an_hour_of_readings_makes_each_window_once() -> None:
    feeder = Feeder()
    findings = [one for t in range(0, HOUR_MS + 2_001, 500) for one in feeder.feed(t)]
    assert spans(findings) == [(t, t + 10_000) for t in range(0, HOUR_MS, 10_000)]
    assert {one.values["count"] for one in findings} == {20}


def test_sources_and_sessions_have_watermarks_of_their_own() -> None:
    feeder = Feeder()
    feeder.feed(5_000, source="a", session="one")
    feeder.feed(5_000, source="b")
    assert feeder.feed(60_000, source="a", session="two") == []
    assert [one.sensor for one in feeder.feed(60_000, source="b")] == ["b"]


def test_silent_source_is_closed_by_the_records_of_others() -> None:
    feeder = Feeder()
    feeder.feed(5_000, source="silent")
    feeder.stream_ms += 39_999
    assert feeder.feed(6_000, source="other") == []
    feeder.stream_ms += 1
    (finding,) = feeder.feed(7_000, source="other")
    assert (finding.sensor, spans([finding])) == ("silent", [(0, 10_000)])


def test_silence_of_a_recorded_past_is_measured_by_record_times_alone() -> None:
    feeder = Feeder()
    feeder.feed(-10 * HOUR_MS, source="silent")
    feeder.stream_ms += 29_999
    assert feeder.feed(0, source="other") == []
    feeder.stream_ms += 1
    assert [one.sensor for one in feeder.feed(1, source="other")] == ["silent"]


def test_window_closed_by_silence_stays_closed_when_the_source_returns() -> None:
    feeder = Feeder()
    feeder.feed(2_000, source="a")
    feeder.stream_ms += 100_000
    assert len(feeder.feed(0, source="b")) == 1
    assert feeder.feed(3_000, source="a") == []
    assert feeder.analyser.take_late() == {"a": 1}
    feeder.feed(15_000, source="a")
    assert spans(feeder.feed(25_000, source="a")) == [(10_000, 20_000)]


def test_long_silent_track_is_forgotten_and_holds_nothing_back() -> None:
    feeder = Feeder()
    feeder.feed(2_000, source="gone")
    feeder.stream_ms += 100_000
    feeder.feed(0, source="b")
    assert feeder.rewind() == 0
    feeder.stream_ms += 300_000
    for number in range(FORGET_RECORDS):
        feeder.feed(300_000 + number, source="b")
    feeder.stream_ms += 30_000
    feeder.feed(400_000, source="b")
    assert feeder.rewind() == feeder.offset - 1


def test_jump_of_the_streams_clock_opens_no_window_anew() -> None:
    feeder = Feeder()
    findings = [*feeder.feed(1_000, source="a"), *feeder.feed(1_000, source="b")]
    feeder.stream_ms += 24 * HOUR_MS
    for t in range(2_000, 30_000, 1_000):
        findings += [*feeder.feed(t, source="a"), *feeder.feed(t, source="b")]
    feeder.stream_ms -= 24 * HOUR_MS
    for t in range(30_000, 60_000, 1_000):
        findings += [*feeder.feed(t, source="a"), *feeder.feed(t, source="b")]
    found = [(one.sensor, one.span_start_ms) for one in findings]
    assert len(found) == len(set(found)) == 10


def test_silent_track_is_forgotten_alike_by_one_who_never_knew_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other track's own end was a look at all tracks, which only who knew it had taken."""
    monkeypatch.setattr(windows, "FORGET_RECORDS", 10)
    policy = AnalysisPolicy(window_s=2, lateness_s=1.5, idle_s=3, forget_s=8)
    records = [("other", 2_500, 0), ("steady", 500, 100), ("silent", 0, 500)]
    # Its clock stands still, so that a restart begins with its second record.
    records += [("steady", 500, stream_ms) for stream_ms in 5 * [9_000] + 6 * [10_100] + [12_100]]
    records += [("silent", 100, 12_300), ("silent", 9_000, 12_300)]

    def findings(start: int) -> list[Finding]:
        feeder = Feeder(policy)
        made = []
        for source, t_ms, stream_ms in records[start:]:
            feeder.stream_ms = T0 + stream_ms
            made.append(feeder.feed(t_ms, source=source))
        return [one for each in made[-2:] for one in each]

    assert findings(0)
    assert findings(1) == findings(0)


def test_rewind_is_the_first_reading_of_the_oldest_open_window() -> None:
    feeder = Feeder()
    for t in range(0, 25_000, 1_000):
        feeder.feed(t)
    assert feeder.rewind() == 20


def test_clock_that_was_set_back_holds_the_rewind_until_it_is_where_it_was() -> None:
    feeder = Feeder()
    feeder.feed(100_000)
    for t in range(0, 113_000, 1_000):
        assert feeder.rewind() == 0
        feeder.feed(t)
    assert feeder.rewind() > 90
    assert sum(feeder.analyser.take_late().values()) == 90


def test_new_session_frees_a_clock_that_was_set_back_once_the_old_one_is_silent() -> None:
    feeder = Feeder(AnalysisPolicy(window_s=10, lateness_s=2, idle_s=30, rest_records_max=50))
    feeder.feed(100_000, session="one")
    for t in range(0, 80_000, 1_000):
        feeder.stream_ms = T0 + t
        feeder.feed(t, session="two")
    assert feeder.rewind() > 60


def test_provisional_values_are_shown_and_not_emitted() -> None:
    feeder = Feeder()
    feeder.feed(1_000, 4.0)
    (finding,) = feeder.analyser.provisional()
    assert finding.values["mean"] == 4.0
    assert len(feeder.feed(13_000)) == 1


def test_idle_analyser_asks_for_no_time() -> None:
    assert Feeder().analyser.deadline_ms == NEVER_MS


def test_spread_of_large_values_keeps_its_digits() -> None:
    moments = Moments()
    for value in (1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16):
        moments.add(value)
    # Sums of squares would lose this: variance 30, worked out by hand.
    assert moments.values()["std"] == pytest.approx(30**0.5, rel=1e-12)


def test_spread_of_values_whose_squares_no_float_can_say_is_a_number_or_said_not_to_be_one() -> (
    None
):
    moments = Moments()
    for value in (1e308, -1e308):
        moments.add(value)
    assert not moments.values()["std"] < 0


def test_lateness_too_short_for_the_speed_filter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"analysis.lateness_s: 0.5 must be >= 1.3"):
        AnalysisPolicy(lateness_s=0.5)
