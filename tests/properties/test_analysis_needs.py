"""The lowest need of many holders, found without asking all: the same as asking all."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from matchday.analysis.needs import Needs


@dataclass(eq=False)
class Holder:
    needed: int | None
    is_queued: bool = False


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_lowest_need_is_that_of_all_holders_whose_needs_rise(seed: int) -> None:
    rng = random.Random(seed)
    needs: Needs[Holder] = Needs()
    holders = [Holder(None) for _ in range(rng.randrange(1, 20))]
    for offset in range(300):
        holder = rng.choice(holders)
        luck = rng.random()
        if holder.needed is None:
            holder.needed = offset
            needs.add(holder, offset)
        elif luck < 0.6:
            holder.needed = rng.randint(holder.needed, offset)
        elif luck < 0.7:
            holder.needed = None
        if rng.random() < 0.3:
            wanted = min((one.needed for one in holders if one.needed is not None), default=None)
            assert needs.lowest(lambda one: one.needed) == wanted


def test_only_holders_at_the_top_are_asked() -> None:
    needs: Needs[Holder] = Needs()
    for offset in range(10_000):
        needs.add(Holder(offset), offset)
    asked: list[Holder] = []

    def ask(holder: Holder) -> int | None:
        asked.append(holder)
        return holder.needed

    assert needs.lowest(ask) == 0
    assert len(asked) == 1
