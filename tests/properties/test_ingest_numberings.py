"""Claims about numbered readings in any order: against a plain model that forgets nothing."""

from __future__ import annotations

import random
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_following import follows
from matchday.ingest.identity import Identities
from matchday.ingest.numbering import Verdict

WINDOW_MS = 1000
T0_MS = 1_700_000_000_000
SOURCES = 3
QUANTITIES = 2

Said = tuple[str, str, int, int]
"""Source, quantity, number, event time."""


def known() -> Identities:
    return Identities(window_ms=WINDOW_MS, entries_min=1)


def is_accepted(by: Identities, said: Said) -> tuple[bool, int]:
    """Take a reading in as a tick does; gives whether it is new, and the change in missing."""
    source, quantity, seq, t_ms = said
    if follows(by, source, quantity, seq, t_ms):
        return True, 0
    outcome = by.observe_number(source, quantity, seq, t_ms)
    return outcome.verdict is not Verdict.DUPLICATE, outcome.missing


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 200),
    late=st.floats(0, 0.5),
    twice=st.floats(0, 0.5),
    turned=st.floats(0, 0.2),
)
def test_in_any_order_each_reading_is_accepted_once_and_missing_ends_at_what_never_came(
    seed: int, steps: int, late: float, twice: float, turned: float
):
    rng = random.Random(seed)
    by = known()
    next_seq: dict[tuple[str, str], int] = defaultdict(lambda: rng.randrange(100))
    said: list[Said] = []
    held: list[Said] = []
    accepted: set[Said] = set()
    missing: dict[tuple[str, str], int] = defaultdict(int)

    def deliver(one: Said) -> None:
        is_new, change = is_accepted(by, one)
        missing[one[0], one[1]] += change
        assert is_new == (one not in accepted), one
        accepted.add(one)
        said.append(one)

    now_ms, mark_ms = T0_MS, T0_MS
    by.turn(now_ms)
    for step in range(steps):
        key = f"s{rng.randrange(SOURCES)}", f"q{rng.randrange(QUANTITIES)}"
        seq = next_seq[key]
        next_seq[key] = seq + 1
        one = (*key, seq, T0_MS + step)
        # The first of a source is not late: before it nothing can be missing.
        is_first = not any(other[:2] == key for other in said)
        held.append(one) if not is_first and rng.random() < late else deliver(one)
        while held and rng.random() < 0.3:
            deliver(held.pop(rng.randrange(len(held))))
        if said and rng.random() < twice:
            deliver(rng.choice(said))
        # Whatever is late or comes twice comes within one window of its first delivery.
        if rng.random() < turned and mark_ms == T0_MS:
            mark_ms = now_ms = now_ms + WINDOW_MS
            by.turn(now_ms)
    for one in held:
        deliver(one)
    assert not any(missing.values())


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_last_numbers_told_are_the_last_ones_and_only_changed_ones_are_told_again(
    seed: int, steps: int
):
    rng = random.Random(seed)
    by = known()
    last: dict[str, dict[str, tuple[int, int]]] = {}
    changed: dict[str, dict[str, tuple[int, int]]] = {}
    for step in range(steps):
        source, quantity = f"s{rng.randrange(5)}", f"q{rng.randrange(3)}"
        before = last.get(source, {}).get(quantity, (0, 0))[0]
        now = before + rng.randrange(1, 4), T0_MS + step
        by.observe_number(source, quantity, *now)
        for one in (last, changed):
            one.setdefault(source, {})[quantity] = now
        if rng.random() < 0.2:
            by.turn(T0_MS + step * WINDOW_MS)
        if rng.random() < 0.3:
            keys, told = by.keys(), dict[str, dict[str, tuple[int, int]]]()
            is_whole, most = rng.random() < 0.3, rng.randrange(1, 5)
            chars_max = rng.randrange(1, 12)
            at = 0
            while at < len(keys):
                at = by.tell(
                    keys,
                    at,
                    len(keys),
                    into=told,
                    most=most,
                    chars_max=chars_max,
                    is_whole=is_whole,
                )
            assert told == (last if is_whole else changed)
            changed = {}
