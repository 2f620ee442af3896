"""Whether the offsets of records on their way from Kafka can be right.

A batch's checksum leaves out the offset that it begins at. A bit turned there on the way gives
its records other offsets, and the client may go on reading from behind these. Owns telling which
partitions have to be read again from where they were; who holds the client does that.

**What holds:** whatever is taken of a partition follows what was taken before by an ordinary
step, of 1 or over the markers that end transactions, or by one that another reading of the
same place has shown as well. Damage comes by chance; what comes again at its place is there,
as is the hole that an aborted transaction leaves.

**Why it ends:** what is doubted is read again from the same offset, and each doubt is over a step
not seen there before. A log has only so many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import sub
from typing import Final

from matchday.ports import Partition, StreamRecord

STEP: Final = 2
"""From one record to the next, over the marker that ends a transaction."""
STEP_MAX: Final = 17
"""The longest step that becomes ordinary: transactions of so many owners end one after another.
A batch that is lost where its step is ordinary is lost in silence."""


class Order:
    """How far partitions were received, and which of their steps were out of the ordinary.

    Attributes:
        received: Per partition expected, the offset after the last record taken.
        reached: The same, and after the markers behind that record.
    """

    def __init__(self) -> None:
        self.received: dict[Partition, int] = {}
        self.reached: dict[Partition, int] = {}
        self._ordinary = STEP
        """The longest ordinary step so far, in all partitions: they have the same owners."""
        self._seen: dict[Partition, set[tuple[int, int]]] = {}
        """Steps that were longer, or led back, as the offsets before and behind."""

    def begin(self, starts: Mapping[Partition, int]) -> None:
        """Expect these partitions from these offsets on, and no others."""
        self.received = dict(starts)
        self.reached = dict(starts)

    def check(
        self, runs: Mapping[Partition, Sequence[StreamRecord]], positions: Mapping[Partition, int]
    ) -> tuple[list[StreamRecord], list[Partition]]:
        """Take what one poll gave, but nothing of partitions that nothing is expected of.

        A batch that is too low may show only behind it. So where there is a doubt, nothing of
        this partition is taken. A position shows the markers behind the last record.

        Args:
            runs: The records by partition, in the order in which the client gave them.
            positions: The offsets behind what the client gave since `begin`, negative where it
                gave nothing yet; of all partitions in `runs` at least.

        Returns:
            The records taken; and the partitions to read again from `received`.
        """
        taken: list[StreamRecord] = []
        again: list[Partition] = []
        for partition, position in positions.items():
            if partition not in self.received:
                continue
            run = runs.get(partition, ())
            offsets = [record.offset for record in run]
            if not self._can_be(partition, offsets, position):
                again.append(partition)
                continue
            if run:
                taken += run
                self.received[partition] = offsets[-1] + 1
            self.reached[partition] = max(self.received[partition], position)
        return taken, again

    def _can_be(self, partition: Partition, offsets: Sequence[int], position: int) -> bool:
        before = self.received[partition] - 1
        reached = [*offsets, position] if position >= 0 else offsets
        steps = set(map(sub, reached, chain((before,), reached)))
        if not steps or (min(steps) >= 1 and max(steps) <= self._ordinary):
            return True
        odd = {
            (one, following)
            for one, following in zip((before, *reached), reached, strict=False)
            if not 1 <= following - one <= self._ordinary
        }
        seen = self._seen.setdefault(partition, set())
        if not odd <= seen:
            seen |= odd
            return False
        short = [step for step in odd if self._ordinary < step[1] - step[0] <= STEP_MAX]
        if any(following != position for _, following in short):
            # By one each time: what a single aborted transaction leaves stays out of the ordinary.
            self._ordinary += 1
        # The way from the last record to a position may be the way to the next record, too.
        last = offsets[-1] if offsets else before
        self._seen[partition] = {step for step in seen if step[0] >= last}
        return True
