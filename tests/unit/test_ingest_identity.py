"""Claims about duplicates, gaps and renumbering."""

from __future__ import annotations

from matchday.ingest.identity import GAP_FILL_MAX, Identities
from matchday.ingest.numbering import Verdict

T0 = 1_700_000_000_000


def identities(entries_min: int = 1) -> Identities:
    return Identities(window_ms=120_000, entries_min=entries_min)


def see(known: Identities, seq: int, t_ms: int | None = None) -> tuple[Verdict, int]:
    return known.observe_number("s", "q", seq, T0 + seq if t_ms is None else t_ms)[:2]


def test_first_number_seen_is_new_and_leaves_no_gap():
    assert see(identities(), 17) == (Verdict.NEW, 0)


def test_same_number_and_time_is_a_duplicate():
    known = identities()
    see(known, 1)
    assert see(known, 1) == (Verdict.DUPLICATE, 0)


def test_gap_is_counted_and_taken_back_when_the_number_arrives_after_all():
    known = identities()
    see(known, 1)
    assert see(known, 5) == (Verdict.NEW, 3)
    assert see(known, 3) == (Verdict.NEW, -1)
    assert see(known, 3) == (Verdict.DUPLICATE, 0)


def test_same_number_with_another_time_is_a_restart_of_the_numbering_without_gap():
    known = identities()
    for seq in range(5):
        see(known, seq)
    assert see(known, 0, T0 + 10_000) == (Verdict.RENUMBERED, 0)
    assert see(known, 1, T0 + 10_001) == (Verdict.NEW, 0)


def test_reading_of_the_numbering_before_a_restart_is_still_a_duplicate():
    known = identities()
    for seq in range(5):
        see(known, seq)
    see(known, 0, T0 + 10_000)
    assert see(known, 4) == (Verdict.DUPLICATE, 0)
    assert see(known, 1, T0 + 10_001) == (Verdict.NEW, 0)


def test_leap_beyond_the_fill_bound_is_counted_whole():
    known = identities()
    see(known, 0)
    assert see(known, GAP_FILL_MAX + 100) == (Verdict.NEW, GAP_FILL_MAX + 99)
    assert see(known, GAP_FILL_MAX + 100) == (Verdict.DUPLICATE, 0)
    assert see(known, 0) == (Verdict.DUPLICATE, 0)


def test_number_from_before_the_window_is_accepted_once_and_fills_no_gap():
    known = identities()
    see(known, 100)
    assert see(known, 5) == (Verdict.NEW, 0)
    assert see(known, 5) == (Verdict.DUPLICATE, 0)


def test_lower_number_with_a_later_time_is_a_restart():
    known = identities()
    see(known, 100)
    assert see(known, 5, T0 + 500) == (Verdict.RENUMBERED, 0)


def test_numberings_of_two_quantities_of_one_source_are_apart():
    known = identities()
    known.observe_number("s", "temperature", 1, T0)
    assert known.observe_number("s", "humidity", 1, T0)[:2] == (Verdict.NEW, 0)


def test_content_is_known_for_a_whole_window_and_forgotten_after_two():
    known = identities()
    known.turn(T0)
    assert known.observe_content(b"a")
    known.turn(T0 + 119_000)
    assert not known.observe_content(b"a")
    known.turn(T0 + 120_000)
    assert not known.observe_content(b"a")
    known.observe_content(b"b")
    known.turn(T0 + 240_000)
    known.observe_content(b"b")
    known.turn(T0 + 360_000)
    assert known.observe_content(b"a")


def test_window_is_kept_while_fewer_readings_than_the_receive_maximum_came():
    known = identities(entries_min=100)
    known.turn(T0)
    known.observe_content(b"a")
    known.turn(T0 + 1_000_000)
    known.turn(T0 + 2_000_000)
    assert not known.observe_content(b"a")


def test_numbers_older_than_two_windows_are_forgotten_but_the_numbering_goes_on():
    known = identities()
    known.turn(T0)
    for seq in range(10):
        see(known, seq)
    known.turn(T0 + 120_000)
    see(known, 10)
    known.turn(T0 + 240_000)
    assert see(known, 3) == (Verdict.NEW, 0)
    assert see(known, 10) == (Verdict.DUPLICATE, 0)
    assert see(known, 11) == (Verdict.NEW, 0)


def test_numbering_resumed_from_a_snapshot_finds_the_gap_across_a_restart():
    known = identities()
    known.resume("s", "q", (41, T0))
    assert see(known, 44) == (Verdict.NEW, 2)


def test_window_read_from_the_stream_wins_over_the_snapshot():
    known = identities()
    see(known, 50)
    known.resume("s", "q", (41, T0))
    assert see(known, 51) == (Verdict.NEW, 0)


def test_what_only_comes_again_turns_no_window():
    known = identities(entries_min=20)
    for turn in range(6):
        for seq in range(10):
            # Half of them are of a run begun anew.
            verdict, _ = see(known, seq % 5, T0 + seq)
            assert (verdict is Verdict.DUPLICATE) == (turn > 0)
            assert known.observe_content(b"%d" % seq) == (turn == 0)
        known.turn(T0 + turn * 130_000)


def test_numbers_without_times_of_their_own_that_arrive_together_are_all_new():
    known = identities()
    verdicts = [
        known.observe_number("s", "q", seq, T0, is_timed=False).verdict
        for seq in [1, 2, 3, 1, 2, 3, 3, 2]
    ]
    assert Verdict.DUPLICATE not in verdicts
