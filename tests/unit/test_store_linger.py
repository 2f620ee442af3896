"""When persist writes, by a clock that moves only when told."""

from __future__ import annotations

import pytest

from matchday.clock import ManualClock
from matchday.store.linger import FULL_RATE_PER_S, Linger
from matchday.store.policy import PersistPolicy

BOUND_S = 0.15
POLICY = PersistPolicy(batch_linger_s=BOUND_S, batch_records_max=8000)
FULL = POLICY.batch_records_max


class Run:
    """Records at an even rate, written when the rule says so; no write takes time."""

    def __init__(self) -> None:
        self.clock = ManualClock(monotonic_s=1000.0)
        self.linger = Linger(POLICY)
        self.waited_s: list[float] = []
        self.sizes: list[int] = []

    def feed(self, rate_per_s: float, *, sources: int, for_s: float) -> None:
        self.waited_s, self.sizes = [], []
        hand: list[float] = []
        for _ in range(round(rate_per_s * for_s)):
            arrived_s = self.clock.monotonic_s()
            hand.append(arrived_s)
            next_s = arrived_s + 1 / rate_per_s
            due_s = arrived_s + self.linger.due_in_s(arrived_s)
            if due_s < next_s or len(hand) >= FULL:
                self.clock.advance(min(due_s, next_s) - arrived_s)
                self._write(hand, sources)
                hand = []
            self.clock.advance(next_s - self.clock.monotonic_s())

    def _write(self, hand: list[float], sources: int) -> None:
        now_s = self.clock.monotonic_s()
        assert self.linger.is_due(now_s, is_more_at_hand=False) or len(hand) >= FULL
        self.waited_s += [now_s - arrived_s for arrived_s in hand]
        self.sizes.append(len(hand))
        pairs_count = min(sources, len(hand))
        self.linger.wrote(now_s, records_count=len(hand), pairs_count=pairs_count)


@pytest.fixture
def run() -> Run:
    return Run()


def test_first_record_of_all_is_due_at_once(run: Run):
    assert run.linger.due_in_s(run.clock.monotonic_s()) == 0.0


def test_one_message_a_second_waits_for_nothing(run: Run):
    run.feed(1.0, sources=1, for_s=20)
    assert max(run.waited_s) == 0.0
    assert run.sizes == [1] * 20


def test_ten_messages_a_second_wait_for_nothing_either(run: Run):
    run.feed(10.0, sources=3, for_s=20)
    assert max(run.waited_s) == 0.0


def test_first_record_after_a_pause_is_due_at_once_however_busy_it_was(run: Run):
    run.feed(2000.0, sources=100, for_s=2)
    run.clock.advance(BOUND_S + 0.01)
    assert run.linger.due_in_s(run.clock.monotonic_s()) == 0.0


def test_busy_stream_of_many_sources_gathers_up_to_the_bound(run: Run):
    run.feed(2000.0, sources=100, for_s=5)
    assert max(run.waited_s) <= BOUND_S + 1e-6
    # Two writes and a half second after the beginning the rule has settled.
    assert min(run.sizes[3:]) >= 0.95 * 2000 * BOUND_S


def test_no_record_waits_longer_than_the_bound_at_any_rate(run: Run):
    for rate_per_s in (3.0, 30.0, 300.0, 3000.0, 1.0):
        run.feed(rate_per_s, sources=40, for_s=4)
        assert max(run.waited_s) <= BOUND_S + 1e-6


def test_lingering_grows_with_the_rate(run: Run):
    lingers_s = []
    for rate_per_s in (1.0, 10.0, 40.0, FULL_RATE_PER_S):
        run.feed(rate_per_s, sources=1000, for_s=20)
        lingers_s.append(run.linger.linger_s)
    assert lingers_s == sorted(lingers_s)
    assert lingers_s[0] <= 0.01 * BOUND_S + 1e-9
    assert lingers_s[-1] >= 0.9 * BOUND_S


def test_lingering_ends_sooner_where_fewer_sources_fill_a_write(run: Run):
    run.feed(50_000.0, sources=50, for_s=2)
    few_s = run.linger.linger_s
    run.feed(50_000.0, sources=80, for_s=2)
    more_s = run.linger.linger_s
    run.feed(50_000.0, sources=5000, for_s=2)
    assert few_s < more_s < run.linger.linger_s <= BOUND_S
    assert few_s == pytest.approx(0.08, rel=0.05)  # 80 of each of 50 sources, at 50,000/s


def test_few_sources_gather_what_a_write_itself_is_worth(run: Run):
    run.feed(50_000.0, sources=2, for_s=2)
    assert run.linger.linger_s == pytest.approx(0.08, rel=0.05)  # 4,000 records, at 50,000/s


def test_records_at_hand_are_taken_before_a_write_for_at_most_the_bound(run: Run):
    now_s = run.clock.monotonic_s()
    run.linger.wrote(now_s, records_count=8000, pairs_count=100)
    run.clock.advance(run.linger.linger_s + BOUND_S / 2)
    now_s = run.clock.monotonic_s()
    assert run.linger.is_due(now_s, is_more_at_hand=False)
    assert not run.linger.is_due(now_s, is_more_at_hand=True)
    run.clock.advance(BOUND_S)
    assert run.linger.is_due(run.clock.monotonic_s(), is_more_at_hand=True)


def test_without_a_bound_nothing_lingers(run: Run):
    linger = Linger(PersistPolicy(batch_linger_s=0.0))
    for at_s in (1.0, 1.001, 1.002):
        assert linger.due_in_s(at_s) == 0.0
        linger.wrote(at_s, records_count=100, pairs_count=100)
