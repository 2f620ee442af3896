"""How coordinates become sessions, transaction numbers, statement numbers and ids."""

from __future__ import annotations

import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchday.ports import Row
from matchday.protocols.cells import CELL, Piece, pieces
from matchday.store.mongo_cells import (
    OFFSETS,
    SLOTS,
    document_id,
    number_of,
    record_range,
    session_id,
)

INT64_MAX = 2**63 - 1

steps = st.lists(st.one_of(st.just(0), st.integers(1, 5), st.integers(1, 3 * CELL)), min_size=1)
STATEMENTS = 2**31
"""A statement number is an int32 of MongoDB's."""

starts = st.integers(0, OFFSETS - 10**7)
slots = st.integers(0, SLOTS - 1)


def rows_at(start: int, distances: list[int]) -> list[Row]:
    rows = []
    offset = start
    for distance in distances:
        offset += distance
        rows.append(Row("sensors", offset, {}))
    return rows


def coordinates(found: list[Piece]) -> list[tuple[int, int]]:
    return [(piece.cell, number) for piece in found for number in piece.numbers]


@given(starts, steps)
def test_pieces_hold_every_row_in_order(start: int, distances: list[int]):
    rows = rows_at(start, distances)
    assert [row for piece in pieces(rows) for row in piece.rows] == rows


@given(starts, steps)
def test_cells_ascend_strictly_and_statements_are_unique_in_each(start: int, distances: list[int]):
    found = pieces(rows_at(start, distances))
    assert all(before.cell < after.cell for before, after in pairwise(found))
    for piece in found:
        assert len(set(piece.numbers)) == len(piece.numbers)
        assert all(0 <= number < STATEMENTS for number in piece.numbers)


@given(starts, steps, st.data())
def test_a_rows_key_does_not_depend_on_where_batches_begin_and_end(
    start: int, distances: list[int], data: st.DataObject
):
    """Batches are cut between records, never within one."""
    rows = rows_at(start, distances)
    cuts = [at for at in range(1, len(rows)) if rows[at].offset != rows[at - 1].offset]
    cut = data.draw(st.sampled_from([0, *cuts, len(rows)]))
    halves = coordinates(pieces(rows[:cut])) + coordinates(pieces(rows[cut:]))
    assert halves == coordinates(pieces(rows))


@given(slots, starts, steps)
def test_ids_are_unique_and_give_the_statement_back(slot: int, start: int, distances: list[int]):
    seen = set()
    for piece in pieces(rows_at(start, distances)):
        low, high = record_range(slot, piece)
        for row, number in zip(piece.rows, piece.numbers, strict=True):
            stored = document_id(slot, piece.cell, number)
            record = stored["record"] if isinstance(stored, dict) else stored
            assert number_of(stored) == number
            assert low <= record <= high <= INT64_MAX
            assert record == slot << 48 | row.offset
            seen.add(str(stored))
    assert len(seen) == len(distances)


@given(starts, steps.filter(lambda distances: len(distances) > 1))
def test_halves_make_the_whole(start: int, distances: list[int]):
    for piece in pieces(rows_at(start, distances)):
        if len(piece.rows) > 1:
            first, second = piece.halves()
            assert first.rows
            assert second.rows
            assert first.numbers + second.numbers == piece.numbers


def test_rows_out_of_order_are_a_broken_invariant():
    with pytest.raises(ValueError, match="offset 4 after 5"):
        pieces([Row("sensors", 5, {}), Row("sensors", 4, {})])


def test_session_changes_with_topic_collection_and_partition():
    first, second = uuid.UUID(int=1), uuid.UUID(int=2)
    ids = {
        session_id("a", first, 0),
        session_id("b", first, 0),
        session_id("a", second, 0),
        session_id("a", first, 1),
    }
    assert len(ids) == 4


def test_session_of_the_format_never_changes():
    """Another value would store again whatever is in doubt during an update."""
    assert str(session_id("topic", uuid.UUID(int=7), 3)) == "64454466-6ebf-56bd-9b62-8297caf36dab"
    assert CELL == 2000
