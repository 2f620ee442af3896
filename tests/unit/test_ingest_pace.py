"""Claims about when a tick of ingest is due."""

from __future__ import annotations

from matchday.ingest.pace import BUSY_SHARE, STRETCH_MAX, STRETCH_PER_S, Pace

TICK_S = 0.025


def pace() -> Pace:
    made = Pace(tick_s=TICK_S, window=2000)
    made.filled(1, 100.0)
    return made


def test_at_a_low_rate_a_tick_is_due_one_tick_after_the_last():
    by = pace()
    by.filled(50, 100.025)
    assert abs(by.due_s - 100.05) < 1e-9
    assert not by.is_busy


def test_a_tick_grows_with_the_rate_up_to_its_bound():
    lengths_s = []
    for rate_per_s in (STRETCH_PER_S, STRETCH_PER_S * 1.5, STRETCH_PER_S * 100):
        by = pace()
        by.filled(round(rate_per_s), 101.0)
        lengths_s.append(round((by.due_s - 101.0) / TICK_S, 6))
    assert lengths_s == [1.0, 1.5, STRETCH_MAX]


def test_after_a_silence_nothing_has_to_wait():
    by = pace()
    by.filled(2000, 100.02)
    by.filled(0, 101.0)
    assert by.due_s <= 101.0
    assert not by.is_busy


def test_a_quarter_of_the_window_is_busy():
    by = pace()
    by.filled(2000 // BUSY_SHARE - 1, 100.03)
    assert not by.is_busy
    by.filled(2000 // BUSY_SHARE, 100.06)
    assert by.is_busy
    assert by.until_s > by.due_s
