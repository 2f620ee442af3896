"""Wrong tokens: by address, and over all of them."""

from __future__ import annotations

from matchday.clock import ManualClock
from matchday.dashboard.attempts import (
    ALL_FAILURES_MAX,
    CLIENTS_MAX,
    FAILURES_MAX,
    WINDOW_S,
    Attempts,
    bearer_of,
)


def test_after_a_minute_another_token_may_be_offered():
    clock = ManualClock()
    attempts = Attempts(clock=clock)
    for _ in range(FAILURES_MAX):
        assert not attempts.are_too_many("a")
        attempts.note("a")
    assert attempts.are_too_many("a")
    assert not attempts.are_too_many("b")
    clock.advance(WINDOW_S + 1)
    assert not attempts.are_too_many("a")


def test_addresses_without_number_do_not_lift_the_bound():
    clock = ManualClock()
    attempts = Attempts(clock=clock)
    for number in range(ALL_FAILURES_MAX):
        assert not attempts.are_too_many("new")
        attempts.note(f"2001:db8::{number:x}")
    assert attempts.are_too_many("new")
    clock.advance(WINDOW_S + 1)
    assert not attempts.are_too_many("new")


def test_addresses_are_forgotten_beyond_a_bound():
    attempts = Attempts(clock=ManualClock())
    for number in range(CLIENTS_MAX + 50):
        attempts.note(f"client {number}")
    assert len(attempts._of_client) == CLIENTS_MAX


def test_a_wrong_token_counts_once_however_often_it_is_offered():
    attempts = Attempts(clock=ManualClock())
    assert attempts.note("a", b"digest")
    assert not any(attempts.note("a", b"digest") for _ in range(2 * FAILURES_MAX))
    assert not attempts.are_too_many("a")


def test_what_others_were_let_in_with_is_no_help_to_who_guesses():
    attempts = Attempts(clock=ManualClock())
    assert attempts.judged("a", "the token", is_right=True)
    for number in range(FAILURES_MAX):
        for client in "ab":
            assert not attempts.judged(client, f"guess {number}", is_right=False)
    assert not attempts.is_looked_at("b", "the token")
    assert attempts.is_looked_at("a", "the token")
    assert not attempts.is_looked_at("a", "another")


def test_only_a_bearer_header_carries_a_token_and_it_may_be_empty():
    assert bearer_of("bearer  the token ") == "the token"
    assert bearer_of("Bearer") == ""
    assert bearer_of("Basic Zm9v") is None
    assert bearer_of("") is None
