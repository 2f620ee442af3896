"""Claims about the window of one numbering: how it ages and what it remembers of itself."""

from __future__ import annotations

import tracemalloc

from matchday.ingest.identity import Identities
from matchday.ingest.numbering import begun

WINDOW_MS = 1000


def test_window_ages_to_what_came_since_the_mark_before_and_never_to_nothing():
    one = begun(5, 50)
    for seq in (6, 7):
        assert one.append_next(seq, seq * 10)
    one.forget_before_last_mark()
    assert one.has(5, 50)
    one.append_next(8, 80)
    one.forget_before_last_mark()
    assert not one.has(7, 70)
    assert one.has(8, 80)
    assert one.last == (8, 80)
    for turn in range(1, 4):
        one.forget_before_last_mark()
        assert one.last == (8, 80)
        assert one.quiet_turns == turn


def test_source_that_spoke_after_its_window_aged_is_not_quiet():
    one = begun(5, 50)
    for _ in range(4):
        one.forget_before_last_mark()
    assert one.quiet_turns == 3
    assert one.append_next(6, 60)
    assert one.quiet_turns == 0
    one.forget_before_last_mark()
    assert one.has(6, 60)
    assert one.quiet_turns == 0


def test_number_is_told_until_another_comes_and_a_new_window_is_untold():
    one = begun(0, 10)
    assert not one.is_told
    assert one.tell() == (0, 10)
    assert one.is_told
    one.forget_before_last_mark()
    assert one.is_told
    one.append_next(1, 20)
    assert not one.is_told
    assert not begun(1, 30).is_told


def test_window_that_was_parted_keeps_what_came_since_for_as_long():
    one = begun(0, 0)
    for seq in range(1, 30):
        one.append_next(seq, seq)
    one.leap(50, 10)
    one.forget_before_last_mark()
    upper = one.part(32, 60, 8)
    assert (one.last, upper.last) == ((32, 60), (40, 50))
    for seq in range(33, 100):
        one.append_next(seq, 100 + seq)
    one.forget_before_last_mark()
    upper.forget_before_last_mark()
    assert one.has(32, 60)
    assert one.has(33, 133)
    assert not one.has(29, 29)
    assert upper.has(40, 50)


def test_largest_number_of_the_gate_fits_in_a_window():
    one = begun(2**62 - 2, 1)
    assert one.append_next(2**62 - 1, 2)
    assert one.has(2**62 - 2, 1)


def test_sources_that_each_number_a_quantity_of_their_own_cost_no_more_than_half_a_kilobyte():
    count = 20_000
    tracemalloc.start()
    try:
        identities = Identities(window_ms=WINDOW_MS, entries_min=0)
        for number in range(count):
            identities.observe_number(f"turnstile-{number:06d}", f"entries-{number:06d}", 5, number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{held / count:.0f} bytes a source")
    assert held / count < 512
    assert identities.numberings_count == count
    for turn in range(6):
        identities.turn(turn * WINDOW_MS * 100)
    assert identities.numberings_count == count
