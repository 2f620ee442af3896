"""What ingest remembers is bounded, and what it forgets is what nobody asks for any more."""

from __future__ import annotations

import tracemalloc

from matchday.domain.topics import NativeTopic, parse_native
from matchday.ingest import identity
from matchday.ingest.adapters import ROUTE_CHARS_MAX, ROUTES_MAX, Adapters, RefusedSources
from matchday.ingest.identity import HOLES_MAX, Identities
from matchday.ingest.numbering import Verdict

WINDOW_MS = 1000


def test_sources_silent_for_longest_are_forgotten_first_and_active_ones_never():
    identities = Identities(window_ms=WINDOW_MS, entries_min=0, numberings_max=100)
    for turn in range(10):
        for number in range(20):  # twenty new sources in each window
            identities.observe_number(f"passing-{turn}-{number}", "q", 1, turn)
        for number in range(150):
            identities.observe_number(f"steady-{number}", "q", turn, turn)
        identities.turn(turn * WINDOW_MS)
    assert identities.observe_number("steady-7", "q", 9, 9)[0] is Verdict.DUPLICATE
    # Not yet two windows silent: kept although there are too many.
    assert identities.observe_number("passing-9-3", "q", 1, 9)[0] is Verdict.DUPLICATE
    # Long silent: taken for a new source.
    assert identities.observe_number("passing-0-3", "q", 1, 0)[0] is Verdict.NEW
    assert len(identities) < 100 + 150 + 3 * 20


def test_last_numbers_are_kept_as_long_as_there_are_no_more_than_the_bound():
    identities = Identities(window_ms=WINDOW_MS, entries_min=0, numberings_max=100)
    identities.observe_number("rare", "q", 1, 0)
    for turn in range(50):
        for number in range(99):
            identities.observe_number(f"steady-{number}", "q", turn, turn)
        identities.turn(turn * WINDOW_MS)
    assert identities.observe_number("rare", "q", 5, 50)[:2] == (Verdict.NEW, 3)


def test_known_source_costs_less_than_half_a_kilobyte():
    count = 20_000
    tracemalloc.start()
    try:
        identities = Identities(window_ms=WINDOW_MS, entries_min=0)
        for number in range(count):
            identities.observe_number(f"venue-7/turnstile-{number:06d}", "entries", 5, number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / count < 512


def test_source_that_leaps_with_each_message_costs_no_more_than_the_holes_allowed():
    tracemalloc.start()
    try:
        identities = Identities(window_ms=WINDOW_MS, entries_min=0)
        for number in range(3000):
            identities.observe_number("leaping", "q", number * 10_000, number)
            identities.observe_number(f"leaping-{number}", "q", 0, 0)
            identities.observe_number(f"leaping-{number}", "q", 10_000, 1)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * HOLES_MAX * 1.2 + 6000 * 512


def test_source_that_begins_anew_with_each_message_costs_a_bounded_sum_for_two_windows():
    count = 20_000
    tracemalloc.start()
    try:
        identities = Identities(window_ms=WINDOW_MS, entries_min=0)
        identities.turn(0)
        for number in range(count):
            identities.observe_number("anew", "q", 0, number)
        held, _ = tracemalloc.get_traced_memory()
        for turn in range(1, 6):
            identities.turn(turn * WINDOW_MS)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{held / count:.0f} bytes a message, {left} bytes after two windows")
    assert held / count < 256
    assert left < 4096


def test_gaps_are_kept_open_again_once_leaping_has_ended():
    identities = Identities(window_ms=WINDOW_MS, entries_min=0)
    for number in range(300):
        identities.observe_number("leaping", "q", number * 10_000, number)
    identities.observe_number("steady", "q", 0, 0)
    identities.observe_number("steady", "q", 100, 100)
    assert identities.observe_number("steady", "q", 50, 50)[:2] == (Verdict.NEW, -1)
    for turn in range(3):
        identities.turn(turn * WINDOW_MS)
    identities.observe_number("steady", "q", 300, 300)
    assert identities.observe_number("steady", "q", 250, 250)[:2] == (Verdict.NEW, -1)


def test_routes_are_bounded_in_number_and_in_length():
    adapters = Adapters()
    value = b'{"quantity": "q", "value": 1}'
    for number in range(ROUTES_MAX + 10):
        adapters.decode(f"matchday/v/scalar/s{number}", value, 0)
    longest = "x" * 65_000
    adapters.decode(longest, b'{"sensorId": "a", "q": 1, "collectedAt": "2024-01-01 00:00:00"}', 0)
    assert len(adapters._routes) <= ROUTES_MAX
    assert max(map(len, adapters._routes)) <= ROUTE_CHARS_MAX


def test_refused_topics_are_named_up_to_a_bound():
    sources = RefusedSources()
    names = {sources.name(f"rubbish/{number}") for number in range(5000)}
    assert len(names) == 1001
    assert "topic:other" in names


def test_a_great_many_numberings_age_some_with_each_turn_and_none_too_early(monkeypatch):
    monkeypatch.setattr(identity, "AGED_PER_TURN", 10)
    identities = Identities(window_ms=WINDOW_MS, entries_min=0)
    for number in range(95):
        identities.observe_number(f"s{number}", "q", 1, 1)
    at_ms = 0
    for turn in range(25):
        # A tick in each tenth of a window: ten ticks to go through all, then a window's pause.
        at_ms = turn * WINDOW_MS // 10
        identities.turn(at_ms)
        for number in range(95):
            identities.observe_number(f"s{number}", "q", 2 + turn, at_ms)
            older = max(2, 2 + turn - 10)
            known = identities.observe_number(
                f"s{number}", "q", older, (older - 2) * WINDOW_MS // 10
            )
            assert known.verdict is Verdict.DUPLICATE, (turn, number)
    for _ in range(200):
        at_ms += WINDOW_MS // 10
        identities.turn(at_ms)
    assert identities.observe_number("s7", "q", 2, 0)[:2] == (Verdict.NEW, 0)


def test_parts_of_topics_are_remembered_of_short_ones_only():
    tracemalloc.start()
    try:
        for number in range(500):
            source = f"{number}-" + "x" * 60_000
            assert parse_native(f"matchday/v/scalar/{source}") == NativeTopic("v", "scalar", source)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 2_000_000
    short = parse_native("matchday/v/scalar/s")
    assert short is parse_native("matchday/v/scalar/s")
