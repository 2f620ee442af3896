"""What writes owe the account until it is settled: by partition, without the documents.

Owns which source each stored or refused row and each entry counts to, and at which offset: as
much as it takes to add any end of it, where another owner has folded the beginning. Does not
own how it is added (`mongo_ledger`) nor when (`mongo`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from matchday.domain.account import Counts
from matchday.ports import Entry, PartitionWrite


@dataclass(slots=True)
class Share:
    """What one partition changes in the counts of one source.

    Attributes:
        first: The lowest offset that changes something.
        last: The highest.
        counts: The sum.
    """

    first: int
    last: int = field(default=-1)
    counts: Counts = field(default_factory=Counts)


class Owed:
    """What one partition's writes owe the account; one thread's.

    Attributes:
        key: Name of the stream partition in `folded`.
        next_offset: Where the last write ended. What lies below and comes again is owed
            already.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.next_offset = 0
        self._sources: list[str] = []
        self._offsets: list[int] = []
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._sources) + len(self._entries)

    def add(self, write: PartitionWrite, refused: Collection[int] = ()) -> None:
        """Owe what a write of this partition changes.

        Args:
            write: Its rows are stored, or refused for good.
            refused: `id` of each row that was refused.
        """
        known_to, rows, entries = self.next_offset, write.rows, write.entries
        if refused:
            self._entries += [
                Entry(row.offset, row.source, Counts(refused=1, accepted=-1))
                for row in rows
                if row.offset >= known_to and row.source is not None and id(row) in refused
            ]
            rows = [row for row in rows if id(row) not in refused]
        if rows and rows[0].offset < known_to:
            rows = [row for row in rows if row.offset >= known_to]
        sources = [row.source for row in rows]
        offsets = [row.offset for row in rows]
        if None in sources:
            pairs = zip(sources, offsets, strict=True)
            counted = [(one, at) for one, at in pairs if one is not None]
            sources, offsets = [one for one, _ in counted], [at for _, at in counted]
        self._sources += sources  # type: ignore[arg-type]
        self._offsets += offsets
        self._entries += [one for one in entries if one.offset >= known_to]
        self.next_offset = max(known_to, write.next_offset)

    def shares(self) -> dict[str, Share]:
        """Sum up the changes by source."""
        return _sum(self._sources, self._offsets, self._entries)

    def share_above(self, offset: int, source: str) -> Share | None:
        """Sum up what comes after `offset` for one source; None if there is nothing."""
        rows = zip(self._sources, self._offsets, strict=True)
        offsets = [at for one, at in rows if one == source and at > offset]
        entries = [one for one in self._entries if one.source == source and one.offset > offset]
        return _sum([source] * len(offsets), offsets, entries).get(source)


def _sum(
    sources: Sequence[str], offsets: Sequence[int], entries: Sequence[Entry]
) -> dict[str, Share]:
    # Rows come in offset order: of what a source has, the last one stays, and the first one
    # when they are gone through backwards.
    last = dict(zip(sources, offsets, strict=True))
    first = dict(zip(reversed(sources), reversed(offsets), strict=True))
    shares = {
        source: Share(first[source], last[source], Counts(stored=count))
        for source, count in Counter(sources).items()
    }
    for entry in entries:
        share = shares.get(entry.source)
        if share is None:
            share = shares[entry.source] = Share(entry.offset)
        share.first = min(share.first, entry.offset)
        share.last = max(share.last, entry.offset)
        share.counts.add(entry.counts)
    return shares
