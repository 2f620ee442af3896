"""Claims about stored documents as JSON and as text."""

from __future__ import annotations

from matchday.dashboard.documents import cell_text, jsonable


class Int64(int):
    """A store's own integer, as BSON has one."""


def test_number_of_a_stores_own_kind_is_shown_like_any_other():
    assert cell_text(jsonable({"_id": Int64(7)})["_id"]) == "7"
    assert jsonable([True, 1, 1.5, None]) == [True, 1, 1.5, None]


def test_bytes_and_long_texts_are_cut_with_their_length():
    assert jsonable(b"\xff" * 3000).endswith("(3000 bytes)")
    assert jsonable("x" * 3000).endswith("(3000 characters)")
