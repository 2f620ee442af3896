"""Claims about several runs of one numbering: what is missing, and what is known again."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ingest_following import follows
from matchday.ingest.identity import GAP_FILL_MAX, Identities
from matchday.ingest.numbering import Verdict
from matchday.ingest.runs import QUIET_TURNS_MAX, RUNS_MAX

T0_MS = 1_700_000_000_000
WINDOW_MS = 120_000


def identities() -> Identities:
    known = Identities(window_ms=WINDOW_MS, entries_min=1)
    known.turn(T0_MS)
    return known


def see(known: Identities, seq: int, t_ms: int) -> tuple[Verdict, int]:
    return known.observe_number("s", "q", seq, T0_MS + t_ms)[:2]


def in_turn(known: Identities, one: Iterable[int], other: Iterable[int], *, at_ms: int) -> int:
    """Let two senders speak in turn, a second apart each; give the change in missing numbers."""
    missing = 0
    for turn, (first, second) in enumerate(zip(one, other, strict=True)):
        missing += see(known, first, at_ms + 1000 * turn)[1]
        missing += see(known, second, at_ms + 1000 * turn + 500)[1]
    return missing


def test_two_senders_with_the_same_numbers_miss_nothing_and_begin_anew_once():
    known = identities()
    verdicts = [see(known, turn // 2, turn)[0] for turn in range(200)]
    assert verdicts.count(Verdict.RENUMBERED) == 1
    assert verdicts.count(Verdict.NEW) == 199
    assert {see(known, turn // 2, turn) for turn in range(200)} == {(Verdict.DUPLICATE, 0)}


@pytest.mark.parametrize("ahead", [17, 5000, GAP_FILL_MAX + 1, 10**12])
def test_gap_to_a_sender_ahead_is_taken_back_whole_when_the_one_behind_goes_on(ahead: int):
    known = identities()
    for seq in range(10):
        see(known, seq, seq)
    assert see(known, 9 + ahead, 100) == (Verdict.NEW, ahead - 1)
    assert see(known, 10, 101) == (Verdict.NEW, 1 - ahead)
    assert in_turn(known, range(10 + ahead, 50 + ahead), range(11, 51), at_ms=1000) == 0


@pytest.mark.parametrize("ahead", [40, 5000, GAP_FILL_MAX + 1])
def test_what_the_one_behind_has_left_out_stays_missing(ahead: int):
    known = identities()
    for seq in range(10):
        see(known, seq, seq)
    assert see(known, 9 + ahead, 100) == (Verdict.NEW, ahead - 1)
    assert see(known, 12, 101) == (Verdict.NEW, 3 - ahead)
    assert see(known, 11, 11) == (Verdict.NEW, -1)


@pytest.mark.parametrize("ahead", [5000, GAP_FILL_MAX + 1, 10**12])
def test_late_number_of_a_lone_sender_is_taken_back_alone(ahead: int):
    known = identities()
    see(known, 1, 1)
    assert see(known, ahead, ahead)[1] == ahead - 2
    assert see(known, 2, 2)[1] == -1
    assert see(known, 2, 2) == (Verdict.DUPLICATE, 0)
    assert see(known, ahead + 1, ahead + 1) == (Verdict.NEW, 0)
    assert see(known, 4, 4)[1] == -1
    assert see(known, 3, 3) == (Verdict.NEW, -1)


@pytest.mark.parametrize("ahead", [20, 400])
def test_late_numbers_from_before_a_clock_was_set_back_leave_nothing_missing(ahead: int):
    known = identities()
    see(known, 0, 3_600_000)
    missing = see(known, ahead, 0)[1]
    for seq in (*range(2, ahead, 2), *range(ahead + 1, ahead + 20), *range(1, ahead, 2)):
        missing += see(known, seq, seq if seq > ahead else 3_600_000 + seq)[1]
    assert missing == 0
    assert see(known, ahead + 22, ahead + 22) == (Verdict.NEW, 2)


def test_late_number_without_a_time_of_its_own_is_no_sign_of_another_sender():
    known = identities()
    see(known, 1, 1)
    assert see(known, 5, 2) == (Verdict.NEW, 3)
    late = known.observe_number("s", "q", 2, T0_MS + 9, is_timed=False)
    assert late[:2] == (Verdict.NEW, -1)
    assert see(known, 6, 10) == (Verdict.NEW, 0)


def test_each_of_two_senders_misses_what_it_has_left_out_itself():
    known = identities()
    assert in_turn(known, range(5000, 5010), range(10), at_ms=0) == 0
    assert see(known, 5013, 20_000) == (Verdict.NEW, 3)
    assert see(known, 12, 20_500) == (Verdict.NEW, 2)
    assert see(known, 5014, 21_000) == (Verdict.NEW, 0)
    assert see(known, 13, 21_500) == (Verdict.NEW, 0)
    assert see(known, 5011, 11_000) == (Verdict.NEW, -1)


def test_reading_of_a_run_before_is_known_when_its_number_is_the_next_of_the_new_run():
    known = identities()
    for seq in range(10):
        see(known, seq, seq)
    for seq in range(5):
        see(known, seq, 100 + seq)
    assert not follows(known, "s", "q", 5, T0_MS + 5)
    assert see(known, 5, 5) == (Verdict.DUPLICATE, 0)
    assert follows(known, "s", "q", 5, T0_MS + 105)


def test_every_run_of_a_sensor_that_keeps_beginning_anew_is_known():
    known = identities()
    for run in range(RUNS_MAX):
        for seq in range(3):
            see(known, seq, 10 * run + seq)
    for run in range(RUNS_MAX):
        for seq in range(3):
            assert see(known, seq, 10 * run + seq) == (Verdict.DUPLICATE, 0), (run, seq)


def test_late_number_is_known_for_a_whole_window_wherever_its_gap_was():
    known = identities()
    for seq in (0, 1, 3, 4):
        see(known, seq, seq)
    known.turn(T0_MS + WINDOW_MS)
    see(known, 5, 5)
    # Its gap is about to be forgotten, and it is not.
    assert see(known, 2, 2) == (Verdict.NEW, -1)
    assert see(known, 2, 2) == (Verdict.DUPLICATE, 0)
    known.turn(T0_MS + 2 * WINDOW_MS)
    assert see(known, 2, 2) == (Verdict.DUPLICATE, 0)
    see(known, 6, 6)
    known.turn(T0_MS + 3 * WINDOW_MS)
    assert see(known, 2, 2) == (Verdict.NEW, 0)


def test_number_from_before_the_window_is_known_when_it_would_go_on_a_new_run():
    known = identities()
    see(known, 100, 1000)
    assert see(known, 5, 5) == (Verdict.NEW, 0)
    for seq in range(5):
        see(known, seq, 2000 + seq)
    assert not follows(known, "s", "q", 5, T0_MS + 5)
    assert see(known, 5, 5) == (Verdict.DUPLICATE, 0)
    assert see(known, 5, 2005) == (Verdict.NEW, 0)


def test_run_that_is_over_is_forgotten_after_two_windows():
    known = identities()
    for seq in range(5):
        see(known, 1000 + seq, seq)
    for turn in range(4):
        see(known, turn, 100 + turn)
        known.turn(T0_MS + (turn + 1) * WINDOW_MS)
    assert follows(known, "s", "q", 4, T0_MS + 104)
    assert see(known, 1005, 105) == (Verdict.NEW, 1000)


def test_gap_is_not_counted_twice_when_what_came_after_it_is_forgotten():
    known = identities()
    see(known, 0, 0)
    missing = see(known, 20_001, 20_001)[1]
    assert missing == 20_000
    for turn in range(1, 5):
        missing += see(known, turn, turn)[1]
        known.turn(T0_MS + turn * WINDOW_MS)
    assert see(known, 20_005, 20_005)[1] == 4
    assert missing == 20_000 - 4


def test_two_senders_are_remembered_over_a_pause_of_many_windows():
    known = identities()
    assert in_turn(known, range(5000, 5010), range(10), at_ms=0) == 0
    for turn in range(1, QUIET_TURNS_MAX):
        see(known, 9 + turn, 20_000 + turn)
        known.turn(T0_MS + turn * WINDOW_MS)
    assert see(known, 5010, 30_000) == (Verdict.NEW, 0)


def test_last_number_told_is_the_highest():
    known = identities()
    in_turn(known, range(5000, 5010), range(10), at_ms=0)
    into: dict[str, dict[str, tuple[int, int]]] = {}
    keys = known.keys()
    known.tell(keys, 0, len(keys), into=into, most=9, chars_max=99, is_whole=False)
    assert into == {"s": {"q": (5009, T0_MS + 9000)}}
    into.clear()
    see(known, 10, 20_000)
    known.tell(keys, 0, len(keys), into=into, most=9, chars_max=99, is_whole=False)
    assert not into


def test_source_that_moved_here_is_kept_whatever_run_it_goes_on():
    known = identities()
    in_turn(known, range(5000, 5010), range(10), at_ms=0)
    known.disown_all_but(())
    see(known, 10, 20_000)
    for turn in range(1, 3):
        known.turn(T0_MS + turn * WINDOW_MS)
        known.observe_content(b"something else")
    assert see(known, 10, 20_000) == (Verdict.DUPLICATE, 0)


@pytest.mark.parametrize("late", [2, 5])
def test_source_that_moved_here_is_kept_where_only_late_numbers_of_it_came(late: int):
    known = identities()
    for seq in (3, 4, 6):
        see(known, seq, seq)
    known.disown_all_but(())
    assert see(known, late, late)[0] is Verdict.NEW
    for turn in range(1, 3):
        known.turn(T0_MS + turn * WINDOW_MS)
        known.observe_content(b"something else")
    assert see(known, 6, 6) == (Verdict.DUPLICATE, 0)


def test_late_number_fills_the_gap_whose_time_it_fits():
    known = identities()
    for seq, t_ms in ((0, 0), (5, 1), (0, 100), (5, 200), (6, 209), (6, 210)):
        see(known, seq, t_ms)
    assert see(known, 1, 150) == (Verdict.NEW, -1)
    assert see(known, 1, 300) == (Verdict.NEW, -4)


def test_more_runs_than_are_kept_are_known_and_make_nothing_missing():
    known = identities()
    runs = 3 * RUNS_MAX
    missing = 0
    for run in range(runs):
        for seq in (0, 1, 2, 4, 3, 5):
            missing += see(known, seq, 10 * run + seq)[1]
    for run in range(runs):
        for seq in range(6):
            assert see(known, seq, 10 * run + seq) == (Verdict.DUPLICATE, 0), (run, seq)
    assert missing == 0


@pytest.mark.parametrize("ahead", [GAP_FILL_MAX, GAP_FILL_MAX + 2])
def test_gap_is_taken_back_with_its_run_whether_it_is_kept_open_or_not(ahead: int):
    known = identities()
    see(known, 0, 0)
    missing = see(known, ahead, 1)[1]
    assert missing == ahead - 1
    for begun_anew in range(RUNS_MAX):
        missing += see(known, 0, 10 + begun_anew)[1]
    assert missing == 0
