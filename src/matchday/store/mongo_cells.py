"""The names under which MongoDB keeps rows apart: session ids and document ids, without I/O.

A retryable write carries a session id, a transaction number and a statement number. The
numbers come from `protocols.cells`; the session id, here, is one per topic identity,
collection and partition. `_id` is made of the same coordinates, so that a look-up can tell
which statements are stored. Does not own sending (`mongo_fence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid5

from bson import Int64

from matchday.ports import Row
from matchday.protocols.cells import CELL, Piece
from matchday.store.documents import coordinates_id
from matchday.store.rows import Encoded, ScalarRow

SLOTS: Final = 2**15
"""How many slots the bits above the offset can tell apart."""

OFFSETS: Final = 2**48

DocumentId: TypeAlias = Int64 | dict[str, Int64]

_NAMESPACE: Final = UUID("5c1e7f3a-9a3c-4f0e-8f57-0d9f2b6f4a11")


def session_id(topic_id: str, collection_id: UUID, partition: int) -> UUID:
    """Give the session of what one partition writes to one collection.

    Another identity of topic or collection gives another session: offset 0 of a topic made
    anew is not the old one's.
    """
    return uuid5(_NAMESPACE, f"{topic_id}/{collection_id}/{CELL}/{partition}")


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


def documents_of(slot: int, piece: Piece) -> list[dict[str, Any] | Encoded]:
    """Give the documents of a piece with their `document_id`; scalars as BSON, which is the same.

    Args:
        slot: As in `document_id`.
        piece: What is to be sent.
    """
    first = coordinates_id(slot, piece.cell * CELL)
    return [
        Encoded(row.bson(first + number))
        if type(row) is ScalarRow and number < CELL
        else {"_id": document_id(slot, piece.cell, number), **row.document}
        for row, number in zip(piece.rows, piece.numbers, strict=True)
    ]


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
