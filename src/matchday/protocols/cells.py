"""Rows by transaction and statement number: the two that a retry log tells repetitions by.

A server that keeps a log of retryable writes skips a statement number that it has executed
under a transaction number, and refuses a transaction number older than the newest of its
session. Here both are functions of where a row comes from:

    transaction number  offset // CELL: the cell
    statement number    offset % CELL, plus CELL for each further row of the same record

so that whoever sends a row sends it under the same numbers, and whoever begins the next cell
fences everybody who is still in the one before. Does not own session and document ids
(`store.mongo_cells`) nor when something is sent (`protocols.lanes`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import lt
from typing import Final

from matchday.ports import Row

CELL: Final = 2000
"""Offsets per transaction number; a constant of the format, never to be changed in place."""


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


def pieces(rows: Sequence[Row]) -> list[Piece]:
    """Split rows of one partition and collection by cell, keeping their order.

    Raises:
        ValueError: The rows are not in offset order.
    """
    offsets = [row.offset for row in rows]
    # One row a record, as readings are: whole cells are cut out, nothing is done row by row.
    if all(map(lt, offsets, islice(offsets, 1, None))):
        return _cut(rows, offsets)
    return _numbered(rows)


def _cut(rows: Sequence[Row], offsets: list[int]) -> list[Piece]:
    """Split rows of which each has an offset of its own."""
    found: list[Piece] = []
    begin = 0
    while begin < len(offsets):
        cell = offsets[begin] // CELL
        first = cell * CELL
        end = bisect_left(offsets, first + CELL, begin)
        numbers = [offset - first for offset in offsets[begin:end]]
        found.append(Piece(cell, list(rows[begin:end]), numbers))
        begin = end
    return found


def _numbered(rows: Iterable[Row]) -> list[Piece]:
    """Split rows of which several may share an offset."""
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
