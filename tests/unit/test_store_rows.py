"""Rows made the short way are the rows made the long way, to the byte."""

from __future__ import annotations

import bson
import pytest
from bson import Int64
from hypothesis import given
from hypothesis import strategies as st

from matchday.domain.reading import Count, Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.errors import RefusedError
from matchday.ports import Row, StreamRecord
from matchday.protocols.cells import CELL, Piece
from matchday.store.documents import INT64_MAX, reading_document
from matchday.store.mongo_cells import documents_of
from matchday.store.rows import Encoded, ScalarRow, row_of_reading, rows_of

FIRST_MS = -30_610_224_000_000  # the year 1000: earlier ones are not spelt in four digits
LAST_MS = 253_402_300_799_999

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
own_names = st.sampled_from(["", "seq", "_id", "collected_at", "metadata", "unit", "a.b", "$x"])
numbers = st.one_of(
    st.integers(-INT64_MAX, INT64_MAX),
    st.sampled_from([0, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, INT64_MAX, -INT64_MAX]),
)
scalars = st.builds(
    Scalar,
    source=texts,
    t_ms=st.integers(FIRST_MS, LAST_MS),
    quantity=st.one_of(texts, own_names),
    value=st.floats(allow_nan=False, allow_infinity=False),
    unit=st.none() | texts,
    seq=st.none() | numbers,
    venue=st.none() | texts,
    session=st.none() | texts,
)


def scalar_row(scalar: Scalar, offset: int = 7) -> ScalarRow:
    row = row_of_reading(offset, encode_reading(scalar))
    assert type(row) is ScalarRow
    return row


@given(scalars, st.integers(0, INT64_MAX))
def test_packed_scalar_is_what_the_clients_own_encoder_gives(scalar: Scalar, record_id: int):
    row = scalar_row(scalar)
    # A quantity without a name is read back as the original's.
    _, document = reading_document(row.reading)
    assert row.bson(record_id) == bson.encode({"_id": Int64(record_id), **document})


@given(scalars)
def test_document_of_a_scalar_row_is_that_of_its_reading(scalar: Scalar):
    row = scalar_row(scalar)
    assert row.document == reading_document(row.reading)[1]
    assert row.document is row.document
    assert (row.collection, row.offset, row.source) == ("sensors", 7, scalar.source)


@given(st.lists(scalars, min_size=1, max_size=4), st.integers(0, 2**40), st.integers(0, 2**15 - 1))
def test_documents_of_a_piece_are_the_same_packed_or_not(
    readings: list[Scalar], cell: int, slot: int
):
    rows: list[Row] = [scalar_row(one, cell * CELL + at) for at, one in enumerate(readings)]
    plain: list[Row] = [Row(row.collection, row.offset, row.document) for row in rows]
    numbers = list(range(len(rows)))
    packed = documents_of(slot, Piece(cell, rows, numbers))
    for one, wanted in zip(packed, documents_of(slot, Piece(cell, plain, numbers)), strict=True):
        assert isinstance(one, Encoded)
        assert bson.encode({"at": one}) == bson.encode({"at": wanted})


def test_client_copies_an_encoded_document_as_it_stands():
    row = scalar_row(Scalar(source="s", t_ms=1, quantity="q", value=1.5, seq=3))
    inner = bson.decode(bson.encode({"documents": [Encoded(row.bson(9))]}))["documents"][0]
    assert inner["_id"] == 9
    assert inner["metadata"] == {"sensor_id": "s"}


def test_further_rows_of_one_record_get_ids_that_tell_them_apart():
    row = scalar_row(Scalar(source="s", t_ms=1, quantity="q", value=1.5))
    first, second = documents_of(0, Piece(0, [row, row], [7, 7 + CELL]))
    assert isinstance(first, Encoded)
    assert isinstance(second, dict)
    assert second["_id"] == {"record": 7, "order": 1}


@pytest.mark.parametrize("seq", [2**63, -(2**63)])
def test_number_that_no_document_holds_is_refused(seq: int):
    scalar = Scalar(source="s", t_ms=1, quantity="q", value=1.0, seq=seq)
    with pytest.raises(RefusedError, match="seq above"):
        row_of_reading(7, encode_reading(scalar))


def test_readings_of_other_kinds_are_plain_rows():
    count = Count(source="gate-3", t_ms=1, zone="north", entered=1.0)
    (row,) = rows_of(StreamRecord(Topic.ANALYTICS, 0, 7, 1, b"k", encode_reading(count)))
    assert type(row) is Row
    assert (row.collection, row.document["zone"]) == ("sensors", "north")
