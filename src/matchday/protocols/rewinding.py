"""A partition computed again in silence up to its bookmark, and out loud from there on.

Analysis keeps its state in memory. The bookmark, committed in one stream transaction with the
findings, says up to where findings are out; beside it stands `rewind`, the lowest offset that
the state at the bookmark still depends on. Whoever takes the partition over begins at
`rewind` with nothing, works in silence up to the bookmark, and emits from there on. State is a
function of the records from `rewind` on, so what it emits then is what the owner before
would have emitted: each finding once, and a restart equals no restart.

A partition that is given up and comes back to where it was left goes on with its state: that
its bookmark is where this owner stands proves that nobody worked in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from matchday.protocols.ownership import illegal
from matchday.protocols.positions import New, new_part


class Phase(Enum):
    """Where an owner is in its partition.

    REWINDING: below the bookmark; findings are out already. LEVEL: everything that it
    worked through is committed. AHEAD: findings or progress wait for a commit.
    """

    REWINDING = "rewinding"
    LEVEL = "level"
    AHEAD = "ahead"


@dataclass(slots=True)
class Progress:
    """One owner's progress in one partition; all offsets.

    Attributes:
        next_offset: The offset of the next record to work through.
        committed: The bookmark; findings of everything below are out.
        phase: Where it is.
        redone: How many records were worked through in silence since it was last told.
    """

    next_offset: int
    committed: int
    phase: Phase = Phase.LEVEL
    redone: int = 0

    @classmethod
    def begin(cls, bookmark: int | None, rewind: int | None) -> Progress:
        """Take a partition over.

        Args:
            bookmark: Where the group goes on; None where it never was.
            rewind: The offset kept beside the bookmark; None where there is none, for
                example because a person moved the bookmark: then with empty state there.
        """
        committed = bookmark or 0
        start = committed if rewind is None else min(max(rewind, 0), committed)
        phase = Phase.REWINDING if start < committed else Phase.LEVEL
        return cls(start, committed, phase)

    def can_resume(self, bookmark: int | None) -> bool:
        """Tell whether this progress, left behind, is where the group goes on."""
        return self.phase is Phase.LEVEL and bookmark == self.next_offset

    def part_out_loud(self, first: int, last: int) -> New:
        """Tell which part of the records from `first` to `last` has no findings out yet."""
        if first < self.next_offset:
            raise illegal("a partition", self.phase, f"record {first} below {self.next_offset}")
        return new_part(self.committed, first=first, last=last)

    def redid(self, next_offset: int, *, count: int) -> None:
        """Learn that records below the bookmark were worked through in silence."""
        if self.phase is not Phase.REWINDING or next_offset > self.committed:
            raise illegal("a partition", self.phase, f"silent work up to {next_offset}")
        self._go_to(next_offset)
        self.redone += count

    def worked(self, next_offset: int) -> None:
        """Learn that records at or above the bookmark were worked through, findings gathered."""
        if next_offset <= self.committed:
            raise illegal("a partition", self.phase, f"findings below {self.committed}")
        self.next_offset = next_offset
        self.phase = Phase.AHEAD

    def passed_over(self, wanted: int, first: int) -> int:
        """Go on at the oldest record kept; give how many were never worked through.

        Args:
            wanted: The offset that was asked for and is gone.
            first: The offset of the oldest record.
        """
        missed = first - max(wanted, self.committed)
        if self.phase is not Phase.AHEAD:
            self._go_to(first)
        self.next_offset = first
        return max(missed, 0)

    def confirmed(self) -> None:
        """Learn that findings and bookmark are durable, together."""
        if self.phase is Phase.AHEAD:
            self.committed, self.phase = self.next_offset, Phase.LEVEL

    def _go_to(self, offset: int) -> None:
        self.next_offset = offset
        # Up to the bookmark nothing may be emitted, even if retention took what is between.
        self.phase = Phase.REWINDING if offset < self.committed else Phase.LEVEL
