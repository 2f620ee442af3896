"""How protocol tests choose: a script of small numbers decides every interleaving and fault."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import Phase, find, settings
from hypothesis import strategies as st

T = TypeVar("T")

SCRIPTS = st.lists(st.integers(0, 255), max_size=220)


class Violated(Exception):
    """A promise of the protocol was broken in the model world."""


class Script:
    """Chooses by the numbers of a script; when they are used up, always the first option."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)
        self.is_over = False

    def pick(self, options: Sequence[T]) -> T:
        number = next(self._numbers, None)
        if number is None:
            self.is_over = True
            return options[0]
        return options[number % len(options)]


def demand(holds: bool, promise: str) -> None:
    if not holds:
        raise Violated(promise)


def finds_violation(run: Callable[[Sequence[int]], None]) -> Sequence[int]:
    """Give a script under which the promise is broken; raises NoSuchExample if none is found."""

    def is_violated(numbers: Sequence[int]) -> bool:
        try:
            run(numbers)
        except Violated:
            return True
        return False

    return find(
        st.lists(st.integers(0, 255), min_size=100, max_size=300),
        is_violated,
        settings=settings(
            max_examples=20_000, deadline=None, database=None, phases=[Phase.generate]
        ),
        random=random.Random(1),
    )
