"""Keeping the last number of every numbering in the ledger, a piece with each tick.

A sweep goes through all numberings. A *whole* one writes them all, a *short* one those that
have changed since they were last written. So a million silent sources are written once in
`WHOLE_TICKS_MAX`, not every minute, and no tick carries more than a piece. Owns what is
written when, and what follows from a piece that is read back: everything is known from the
newest whole sweep that was ended, what was written since, and the readings since the newest
sweep of either kind began that was ended. Does not own reading back (`tails`, `warmup`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from matchday.domain.account import LedgerRecord, SweepPiece, encode_ledger
from matchday.domain.instants import iso_from_ms
from matchday.ingest.identity import Identities, Keys
from matchday.ports import Record
from matchday.protocols.ticks import SNAPSHOT_MARK

SWEEP_EVERY_S: Final = 60.0
WHOLE_TICKS: Final = 3000
"""A tick costs two offsets of `ledger` on Kafka and a piece one: few numberings are written
whole so often that they lie within `tails.LEDGER_TAIL_COUNT` however short the ticks are."""

WHOLE_TICKS_MAX: Final = 20_000
WHOLE_BYTES_SHARE: Final = 2
"""Many are written whole after so many ticks, or when the ticks have added so many times their
size to the ledger, since all of that is read back after a restart."""

PIECE_MAX: Final = 5000
"""Numberings written with one tick: some milliseconds, and 250 kB. So many or fewer known are
written whole each time, in one piece."""

PIECE_CHARS_MAX: Final = 500_000
"""Characters in the names of a piece, four bytes each at most: with the numbers 2.3 MB, where a
record may have 4. Only names above 100 characters are fewer then."""

VISITS_MAX: Final = 50_000
"""Numberings looked at with one tick."""


class Sweeps:
    """The sweeps of one owner of a slot; its first is a whole one."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._keys: Keys | None = None
        self._visited = 0
        self._piece = 0
        self._is_whole = True
        self._are_few = True
        self._due_s = float("-inf")
        self._ticks_since_whole = WHOLE_TICKS_MAX
        self._bytes_since_whole = 0
        self._whole_bytes = 0

    def is_due(self, now_s: float) -> bool:
        """Tell whether the next tick is to carry a piece, at this monotonic second."""
        is_far = self._are_few and self._ticks_since_whole >= WHOLE_TICKS
        return self._keys is not None or is_far or now_s >= self._due_s

    def records(
        self, *, slot: str, tick: str, ts_ms: int, now_s: float, tick_bytes: int = 0
    ) -> list[Record]:
        """Give the ledger record, if any, that the tick of this name carries.

        Call it once for every tick, after the tick's readings were taken in.

        Args:
            slot: Whose tick.
            tick: Its name.
            ts_ms: Its arrival time, wall clock, milliseconds UTC.
            now_s: Monotonic second.
            tick_bytes: The size of what the tick writes to the ledger besides.
        """
        self._ticks_since_whole += 1
        self._bytes_since_whole += tick_bytes
        if not self.is_due(now_s):
            return []
        keys = self._keys
        if keys is None:
            keys = self._keys = self._begin(now_s)
        found: dict[str, dict[str, tuple[int, int]]] = {}
        end = min(len(keys), self._visited + VISITS_MAX)
        self._visited = self._identities.tell(
            keys,
            self._visited,
            end,
            into=found,
            most=PIECE_MAX,
            chars_max=PIECE_CHARS_MAX,
            is_whole=self._is_whole,
        )
        is_last = self._visited >= len(keys)
        record = LedgerRecord(
            slot=slot,
            tick=f"{tick}{SNAPSHOT_MARK}{self._piece}",
            ts=iso_from_ms(ts_ms),
            last_seq=found,
            sweep=SweepPiece(self._is_whole, self._piece == 0, is_last, is_noted=True),
        )
        self._piece += 1
        if is_last:
            self._keys = None
        value = encode_ledger(record)
        if self._is_whole:
            self._whole_bytes += len(value)
        return [Record(slot.encode(), value)]

    def _begin(self, now_s: float) -> Keys:
        keys = self._identities.keys()
        self._visited = self._piece = 0
        self._are_few = len(keys) <= PIECE_MAX
        self._is_whole = (
            self._are_few
            or self._ticks_since_whole >= WHOLE_TICKS_MAX
            or self._bytes_since_whole >= WHOLE_BYTES_SHARE * self._whole_bytes
        )
        self._due_s = now_s + SWEEP_EVERY_S
        if self._is_whole:
            self._ticks_since_whole = self._bytes_since_whole = self._whole_bytes = 0
        return keys


class SweepsRead:
    """What the pieces say that are read back, oldest first.

    Attributes:
        since_ms: When, by the stream's clock, the newest sweep began that was ended; None
            where none was.
        is_whole: Whether among them is a whole sweep from its beginning to its end.
    """

    def __init__(self, pieces: Iterable[tuple[int, LedgerRecord]]) -> None:
        self.since_ms: int | None = None
        self.is_whole = False
        began_ms: int | None = None
        for time_ms, record in pieces:
            piece = record.sweep or _older_piece(record)
            if piece is None:
                continue
            if piece.is_first:
                began_ms = time_ms
            if piece.is_last and began_ms is not None:
                self.since_ms = began_ms
                self.is_whole = self.is_whole or piece.is_whole


def _older_piece(record: LedgerRecord) -> SweepPiece | None:
    """Read a record from before there were sweeps: all pieces were in one transaction."""
    if record.tick.endswith(f"{SNAPSHOT_MARK}0"):
        return SweepPiece(is_whole=True, is_first=True, is_last=True)
    return None
