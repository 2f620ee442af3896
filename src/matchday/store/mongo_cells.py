"""How coordinates become MongoDB's retry keys: the arithmetic of exactly once, without I/O.

A retryable write carries a session id, a transaction number and a statement number. The
server skips a statement it has executed and refuses a transaction number older than the
newest of that session. Here these three are functions of where a row comes from:

    session id          one per topic identity, collection and partition
    transaction number  offset // CELL: the cell
    statement number    offset % CELL, plus CELL for each further row of the same record

so that a repeated row is skipped and a writer that was frozen while another went on is
refused, atomically with the write. Does not own sending (`mongo_fence`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid5

from bson import Int64

from matchday.ports import Row
from matchday.store.documents import coordinates_id

CELL: Final = 2000
"""Offsets per transaction number; a constant of the format, never to be changed in place."""

SLOTS: Final = 2**15
"""How many slots the bits above the offset can tell apart."""

OFFSETS: Final = 2**48
STATEMENTS: Final = 2**31

DocumentId: TypeAlias = Int64 | dict[str, Int64]

_NAMESPACE: Final = UUID("5c1e7f3a-9a3c-4f0e-8f57-0d9f2b6f4a11")


@dataclass(slots=True)
class Piece:
    """Rows of one cell, in offset order, with their statement numbers.

    Attributes:
        cell: The transaction number.
        rows: At least one row.
        numbers: The statement number of each row, all different.
    """

    cell: int
    rows: list[Row] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def has_shared_records(self) -> bool:
        """Tell whether several rows may have come from one record."""
        return max(self.numbers) >= CELL

    def halves(self) -> tuple[Piece, Piece]:
        """Cut a piece of two or more rows in the middle."""
        middle = len(self.rows) // 2
        return (
            Piece(self.cell, self.rows[:middle], self.numbers[:middle]),
            Piece(self.cell, self.rows[middle:], self.numbers[middle:]),
        )

    def without(self, numbers: Collection[int]) -> Piece:
        """Give what is left without the rows of these statement numbers."""
        if not numbers:
            return self
        rest = Piece(self.cell)
        for row, number in zip(self.rows, self.numbers, strict=True):
            if number not in numbers:
                rest.rows.append(row)
                rest.numbers.append(number)
        return rest


def session_id(topic_id: str, collection_id: UUID, partition: int) -> UUID:
    """Give the session of what one partition writes to one collection.

    Another identity of topic or collection gives another session: offset 0 of a topic made
    anew is not the old one's.
    """
    return uuid5(_NAMESPACE, f"{topic_id}/{collection_id}/{CELL}/{partition}")


def pieces(rows: Iterable[Row]) -> list[Piece]:
    """Split rows of one partition and collection by cell, keeping their order.

    Raises:
        ValueError: The rows are not in offset order.
    """
    found: list[Piece] = []
    current: Piece | None = None
    last = -1
    order = 0
    for row in rows:
        offset = row.offset
        if offset == last:
            order += 1
        elif offset > last:
            last, order = offset, 0
        else:
            raise ValueError(f"splitting rows by cell: offset {offset} after {last}")
        cell, place = divmod(offset, CELL)
        if current is None or current.cell != cell:
            current = Piece(cell)
            found.append(current)
        current.rows.append(row)
        current.numbers.append(place + order * CELL)
    return found


def document_id(slot: int, cell: int, number: int) -> DocumentId:
    """Give the `_id` of a statement's document: its coordinates, hence free.

    A plain int64, slot << 48 | offset, for the first row of a record. Further rows of the
    same record, which only other programs' records have, get a document with their order.

    Args:
        slot: Stands for topic identity and partition, see `mongo_streams`.
        cell: Transaction number.
        number: Statement number.
    """
    order, place = divmod(number, CELL)
    record = Int64(coordinates_id(slot, cell * CELL + place))
    return {"record": record, "order": Int64(order)} if order else record


def number_of(stored: Any) -> int:
    """Give the statement number back from an `_id`; the inverse of `document_id`."""
    if isinstance(stored, dict):
        return int(stored["record"] % OFFSETS % CELL + stored["order"] * CELL)
    return int(stored % OFFSETS % CELL)


def record_range(slot: int, piece: Piece) -> tuple[Int64, Int64]:
    """Give the lowest and the highest coordinates of a piece's records, inclusive."""
    rows: Sequence[Row] = piece.rows
    return (
        Int64(coordinates_id(slot, rows[0].offset)),
        Int64(coordinates_id(slot, rows[-1].offset)),
    )
