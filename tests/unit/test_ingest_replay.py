"""Claims about what is noted beside readings, and about a restart that begins in the middle."""

from __future__ import annotations

import pytest

from matchday.ingest.identity import GAP_FILL_MAX, HOLES_MAX, Identities
from matchday.ingest.numbering import Verdict
from matchday.ingest.replay import HEADER, Replay, noted, place_of
from matchday.ingest.runs import APART, BEGINS, LATE

T0_MS = 1_700_000_000_000


def read_back(*said: tuple[int, int, int], is_noted: bool = True) -> Identities:
    """Give what a restart knows from these numbers, times and places."""
    known = Identities(window_ms=120_000, entries_min=1)
    replay = Replay(known, is_noted=is_noted)
    for seq, t_ms, place in said:
        replay.take("s", "q", seq, T0_MS + t_ms, place=place, is_timed=True)
    replay.end()
    return known


def see(known: Identities, seq: int, t_ms: int) -> tuple[Verdict, int]:
    return known.observe_number("s", "q", seq, T0_MS + t_ms)[:2]


@pytest.mark.parametrize("place", [0, 1, 17, 2**62, LATE, BEGINS, APART])
def test_place_is_read_as_it_was_noted(place: int):
    assert place_of((("other", b"1"), *noted(place))) == place


def test_nothing_is_noted_of_a_reading_that_goes_on():
    assert noted(0) == ()


@pytest.mark.parametrize("value", [b"", b"-1", b"soon", b"1.5", b"9" * 5000, "\u0663".encode()])
def test_note_in_no_known_form_is_passed_over(value: bytes):
    assert place_of(((HEADER, value),)) == 0


@pytest.mark.parametrize("gap", [3, GAP_FILL_MAX + 1])
def test_gap_is_known_where_what_came_before_it_is_not_read_back(gap: int):
    for first in ((), ((7, 0, BEGINS),)):
        known = read_back(*first, (100_000, 10, gap))
        assert see(known, 99_999 if gap == 3 else 100_000 - gap, 5) == (Verdict.NEW, -1)
        assert see(known, 100_001, 11) == (Verdict.NEW, 0)


def test_late_reading_that_is_read_first_opens_no_gap_to_what_follows():
    known = read_back((95, 5, LATE), (106, 16, 0))
    assert see(known, 100, 10) == (Verdict.NEW, 0)
    assert see(known, 95, 5) == (Verdict.DUPLICATE, 0)
    assert see(known, 107, 17) == (Verdict.NEW, 0)


def test_late_reading_that_is_read_first_fills_no_gap_that_is_younger():
    known = read_back((14, 4, LATE), (20, 10, 0), (0, 20, BEGINS), (16, 36, 15))
    assert see(known, 14, 34) == (Verdict.NEW, -1)


def test_late_readings_alone_are_known():
    known = read_back((95, 5, LATE), (93, 3, LATE))
    assert see(known, 95, 5) == (Verdict.DUPLICATE, 0)
    assert see(known, 93, 3) == (Verdict.DUPLICATE, 0)


def test_two_senders_far_apart_open_no_gap_where_reading_back_begins():
    known = read_back((10, 0, 0), (5000, 1, 0), (11, 2, 0))
    assert see(known, 5001, 3) == (Verdict.NEW, 0)
    assert see(known, 14, 4) == (Verdict.NEW, 2)


def test_note_that_leaves_out_more_numbers_than_there_are_is_passed_over():
    known = read_back((5, 0, 9), (6, 1, 0), (3, 2, 7))
    assert see(known, 7, 3) == (Verdict.NEW, 0)


def test_without_notes_gaps_are_made_out_by_numbers():
    known = read_back((100, 0, 0), (105, 5, 0), is_noted=False)
    assert see(known, 103, 3) == (Verdict.NEW, -1)


def test_numbers_kept_open_again_count_against_their_bound():
    sources = 1 + HOLES_MAX // GAP_FILL_MAX
    known = Identities(window_ms=120_000, entries_min=1)
    replay = Replay(known, is_noted=True)
    for number in range(sources):
        name = f"s{number}"
        replay.take(name, "q", 0, T0_MS, place=0, is_timed=True)
        replay.take(name, "q", GAP_FILL_MAX + 1, T0_MS, place=GAP_FILL_MAX, is_timed=True)
    known.observe_number("another", "q", 0, T0_MS)
    assert known.observe_number("another", "q", 100, T0_MS).opened == 0
