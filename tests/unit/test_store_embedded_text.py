"""The text of a scalar made the short way is read back as the document it stands for."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from matchday.domain.reading import Scalar
from matchday.domain.wire import encode_reading
from matchday.ports import Row
from matchday.store.documents import COLLECTIONS, INT64_MAX
from matchday.store.embedded_query import document_from
from matchday.store.embedded_text import text_of
from matchday.store.rows import ScalarRow, row_of_reading

FIRST_MS = -30_610_224_000_000  # the year 1000: earlier ones are not spelt in four digits
LAST_MS = 253_402_300_799_999

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.one_of(texts, st.sampled_from(["", "seq", "_id", "metadata", "a.b", "$x", '"', "\\"]))
scalars = st.builds(
    Scalar,
    source=texts,
    t_ms=st.integers(FIRST_MS, LAST_MS),
    quantity=names,
    value=st.floats(allow_nan=False, allow_infinity=False),
    unit=st.none() | texts,
    seq=st.none() | st.integers(-INT64_MAX, INT64_MAX),
    venue=st.none() | texts,
    session=st.none() | texts,
)


@given(scalars)
def test_text_of_a_scalar_is_read_back_as_its_document(scalar: Scalar):
    row = row_of_reading(7, encode_reading(scalar))
    assert type(row) is ScalarRow
    text = text_of(row)
    assert isinstance(text, bytes)
    assert document_from(COLLECTIONS["sensors"], 3, text) == {"_id": 3, **row.document}


def test_document_above_what_any_store_takes_is_refused_with_its_size():
    document = {"collected_at": datetime(2026, 3, 1, tzinfo=UTC), "note": "x" * 2**24}
    assert text_of(Row("sensors", 0, document, "s")) == "document of 16777254 bytes above 16777216"


def test_document_that_cannot_be_text_is_refused():
    told = text_of(Row("sensors", 0, {"note": "\ud800"}, "s"))
    assert isinstance(told, str)
    assert told.startswith("document cannot be encoded: ")
