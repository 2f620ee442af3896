"""Where persist stands in each partition that is its own: begun, stored, confirmed.

Pure bookkeeping: decides where reading starts and knows how far behind the store is. Does
not talk to stream or store (`persist`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matchday.ports import Bookmark, Partition


@dataclass
class Position:
    """Where one partition stands; all offsets.

    Attributes:
        start: Where reading began at this assignment.
        stored_to: The offset after the last record stored.
        claim: Where the store stood at the assignment; None where it does not say.
        is_claimed: The store has been asked.
        has_bookmark: The group has a bookmark here; without one a crash after the first
            write would start where the store stands, past dead letters still due.
    """

    start: int
    stored_to: int
    claim: int | None
    is_claimed: bool
    has_bookmark: bool


class Positions:
    """The partitions of one member and where they stand; one thread's."""

    def __init__(self) -> None:
        self._positions: dict[Partition, Position] = {}

    def take(
        self,
        partition: Partition,
        bookmark: Bookmark | None,
        *,
        claim: int | None,
        is_claimed: bool,
    ) -> int:
        """Take a partition over and give the offset to read from.

        That is the stream's bookmark, or where the store stands if that is lower or the only
        one known: records between a lower bookmark and the store come again, so that the
        store names once more what it refused of them.
        """
        known = [offset for offset in (claim, bookmark and bookmark.offset) if offset is not None]
        start = min(known, default=0)
        self._positions[partition] = Position(
            start=start,
            stored_to=start,
            claim=claim,
            is_claimed=is_claimed,
            has_bookmark=bookmark is not None,
        )
        return start

    def note_claim(self, partition: Partition, claim: int | None) -> bool:
        """Note a claim that came late; tell whether reading began where the store can follow."""
        position = self._positions[partition]
        position.claim = claim
        position.is_claimed = True
        return claim is None or claim >= position.start

    def unclaimed(self) -> list[Partition]:
        """Give the partitions for which the store has yet to be asked."""
        return [partition for partition, at in self._positions.items() if not at.is_claimed]

    def without_bookmark(self, partitions: Iterable[Partition]) -> list[Partition]:
        """Give those of `partitions` in which the group has no bookmark yet."""
        return [
            partition
            for partition in partitions
            if partition in self._positions and not self._positions[partition].has_bookmark
        ]

    def note_bookmarks(self, partitions: Iterable[Partition]) -> None:
        """Note that the group has bookmarks in these partitions."""
        for partition in partitions:
            if partition in self._positions:
                self._positions[partition].has_bookmark = True

    def note_stored(self, bookmarks: Mapping[Partition, Bookmark]) -> None:
        """Note how far the store has come."""
        for partition, bookmark in bookmarks.items():
            if partition in self._positions:
                self._positions[partition].stored_to = bookmark.offset

    def lost_between(self, partition: Partition, wanted: int, first: int) -> int:
        """Give how many deleted offsets from `wanted` to `first` the store does not have."""
        position = self._positions.get(partition)
        stored_to = position.claim if position is not None and position.claim else 0
        return max(0, first - max(wanted, stored_to))

    def lag(self, ends: Mapping[Partition, int]) -> int:
        """Give how many offsets lie between what is stored and the stream's ends."""
        return sum(
            max(0, end - self._positions[partition].stored_to)
            for partition, end in ends.items()
            if partition in self._positions
        )

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Give partitions up."""
        for partition in partitions:
            self._positions.pop(partition, None)

    def __bool__(self) -> bool:
        return bool(self._positions)
