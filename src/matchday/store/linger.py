"""When persist writes what it has in hand: the one place with the rule of lingering.

A store charges for each write, and MongoDB's time series for each pair of source and write
besides: the more readings of a source come in one write, the less each of them costs. But
whoever lingers makes readings late. So the rule is, since the last write began:

1. After a pause, at once. A record waits for nothing but `linger_s`, counted from the write
   before it, so that the first one after a longer silence goes as it comes.
2. *Grow with the rate.* Below `FULL_RATE_PER_S` records a second little would be gathered:
   the bound on lingering falls in proportion, to a hundredth at one a second.
3. *Grow with the sources.* Linger until a write would hold `PER_SOURCE` readings of each
   source, and `RECORDS` in all, judged by the last write, and no longer than the bound.
4. *A full batch* goes at once; and while records can be had without waiting, nothing else
   does, for at most the bound: behind, the largest batches are the quickest way to catch up.

Does not own how large a full batch is nor how a write is done (`policy`, `persist`).
"""

from __future__ import annotations

from typing import Final

from matchday.store.policy import PersistPolicy

FULL_RATE_PER_S: Final = 100.0
"""Records a second from which on lingering may reach its bound."""

PER_SOURCE: Final = 80.0
"""Readings of a source in a write from which on more of them save little."""

RECORDS: Final = 4000.0
"""Records in a write from which on more of them save little of what a write itself costs."""


class Linger:
    """Says when the batch in hand is due; one thread's. Times are monotonic seconds.

    Attributes:
        linger_s: Least time from the beginning of the last write to that of the next one.
    """

    def __init__(self, policy: PersistPolicy) -> None:
        self._bound_s = policy.batch_linger_s
        self._wrote_s = float("-inf")
        self.linger_s = 0.0

    def due_in_s(self, now_s: float) -> float:
        """Give how long a batch in hand may still gather; 0 when it is due."""
        return max(0.0, self._wrote_s + self.linger_s - now_s)

    def is_due(self, now_s: float, *, is_more_at_hand: bool) -> bool:
        """Tell whether to write a batch that is not full.

        Args:
            now_s: The time.
            is_more_at_hand: The stream gave as many records as were asked for.
        """
        patience_s = self._bound_s if is_more_at_hand else 0.0
        return now_s >= self._wrote_s + self.linger_s + patience_s

    def wrote(self, now_s: float, *, records_count: int, pairs_count: int) -> None:
        """Learn that a write begins.

        Args:
            now_s: The time.
            records_count: Records in it.
            pairs_count: Pairs of partition and source that readings in it have; 0 for none.
        """
        gathered_s = now_s - self._wrote_s
        self._wrote_s = now_s
        if gathered_s <= 0.0 or records_count == 0:
            return
        bound_s = self._bound_s * min(1.0, records_count / gathered_s / FULL_RATE_PER_S)
        per_source = records_count / pairs_count if pairs_count else PER_SOURCE
        wanted = max(PER_SOURCE / per_source, RECORDS / records_count)
        self.linger_s = min(bound_s, gathered_s * wanted)
