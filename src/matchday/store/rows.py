"""From a stream record to the rows it makes, with a short way for what there is most of.

Owns `rows_of`. A scalar reading, nearly all that is ever stored, becomes a `ScalarRow`: it
keeps the reading, and becomes a document only where somebody looks into it, or BSON at once
where a store wants that. Its BSON is packed into a layout that all scalars of one quantity,
unit, venue and session share, which takes a quarter of the time that a dictionary and its
encoding take, and is the same to the byte. Does not own the shapes (`documents`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from struct import Struct
from typing import Any, ClassVar, Final

import msgspec

from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading
from matchday.ports import Row, StreamRecord
from matchday.store.documents import (
    INT64_MAX,
    dead_letter_document,
    finding_document,
    findings_of,
    quantity_field,
    reading_document,
)

LAYOUTS_KEPT: Final = 4096
"""How many layouts are kept, each under 2 kB with the longest names that ingest takes."""

INSTANT_MS_MIN: Final = -62_135_596_800_000
INSTANT_MS_MAX: Final = 253_402_300_799_999
"""The years 1 to 9999, which a document can hold."""

_INT32_END: Final = 2**31
_LENGTH: Final = Struct("<i")
_METADATA_BYTES: Final = 4 + 11 + 4
"""What `metadata` takes before the source: its length, the head of `sensor_id`, its length."""


def rows_of(record: StreamRecord) -> tuple[Row, ...]:
    """Give the rows that a record of `analytics`, `analytics_results` or `dead_letters` makes.

    One for a reading or a dead letter, one per finding otherwise: the original's form may
    hold several, which then share their coordinates and are told apart by their order.

    Raises:
        RefusedError: The record is in no known form, or holds what no store can keep.
    """
    if record.topic is Topic.ANALYTICS:
        return (row_of_reading(record.offset, record.value),)
    if record.topic is Topic.RESULTS:
        return tuple(
            Row(collection, record.offset, document)
            for collection, document in (
                finding_document(finding, appended_ms=record.time_ms)
                for finding in findings_of(record.value)
            )
        )
    if record.topic is Topic.DEAD_LETTERS:
        return (Row("dead_letters", record.offset, dead_letter_document(record)),)
    raise ValueError(f"making rows of a record of {record.topic}: it carries no documents")


def row_of_reading(offset: int, value: bytes) -> Row:
    """Give the row of a reading, from the value of the record at `offset`.

    Raises:
        RefusedError: As `rows_of`.
    """
    reading = decode_reading(value)
    if type(reading) is Scalar:
        seq = reading.seq
        if (
            isfinite(reading.value)
            and INSTANT_MS_MIN <= reading.t_ms <= INSTANT_MS_MAX
            and (seq is None or -INT64_MAX <= seq <= INT64_MAX)
        ):
            layout = layout_of(reading.quantity, reading.unit, reading.venue, reading.session)
            return ScalarRow("sensors", offset, {}, reading.source, reading, layout)
    collection, document = reading_document(reading)
    return Row(collection, offset, document, reading.source)


class ScalarRow(Row, frozen=True, gc=False):
    """A scalar reading as a row; made by `row_of_reading`, which has checked its bounds.

    Attributes:
        reading: What it holds.
        layout: The part of its BSON that it shares with others.
        made: Its document, once somebody has asked for it.
    """

    # Behind a field with a default every field needs one.
    reading: Scalar = None  # type: ignore[assignment]
    layout: Layout = None  # type: ignore[assignment]
    made: dict[str, Any] | None = None

    # The field below it holds nothing: what is read is this.
    @property  # type: ignore[misc]
    def document(self) -> dict[str, Any]:
        """Give the document, made at the first call."""
        made = self.made
        if made is None:
            _, made = reading_document(self.reading)
            msgspec.structs.force_setattr(self, "made", made)
        return made

    def bson(self, record_id: int) -> bytes:
        """Give the document as BSON, with a 64-bit number as `_id` before it."""
        return self.layout.pack(record_id, self.reading)


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A document that is BSON already; the MongoDB client copies `raw` as it stands.

    The client knows such documents by their marker. Its own class for them checks the bytes,
    and takes eight times as long to make.
    """

    raw: bytes
    _type_marker: ClassVar[int] = 101


class Layout:
    """The BSON of a scalar's document, all but `_id`, time, value, number and source.

    By the BSON specification 1.1 (bsonspec.org), little-endian. Fields are in the order of
    `documents.reading_document`.

    Args:
        name: The field that holds the value.
        between: Texts that come behind the value, by field.
        behind: Texts that come behind the source in `metadata`, by field.
    """

    __slots__ = ("_bare", "_between", "_length", "_long", "_metadata", "_name", "_rest", "_short")

    def __init__(self, name: str, *, between: Mapping[str, str], behind: Mapping[str, str]) -> None:
        self._name = b"\x01" + name.encode() + b"\0"
        self._between = _texts(between)
        # First the end of the source's text, last the ends of both documents.
        self._rest = b"\0" + _texts(behind) + b"\0\0"
        head = f"<i5sq14sq{len(self._name)}sd{len(self._between)}s"
        self._bare = Struct(f"{head}10si11si").pack
        self._short = Struct(f"{head}5si10si11si").pack
        self._long = Struct(f"{head}5sq10si11si").pack
        self._length = Struct(f"{head}10si11si").size + len(self._rest)
        self._metadata = _METADATA_BYTES + len(self._rest) - 1

    def pack(self, record_id: int, reading: Scalar) -> bytes:
        """Give the whole document of a reading of this layout, under `_id` `record_id`."""
        source, seq = reading.source.encode(), reading.seq
        size = len(source)
        if seq is None:
            head = self._bare(
                self._length + size,
                b"\x12_id\0",
                record_id,
                b"\x09collected_at\0",
                reading.t_ms,
                self._name,
                reading.value,
                self._between,
                b"\x03metadata\0",
                self._metadata + size,
                b"\x02sensor_id\0",
                size + 1,
            )
            return head + source + self._rest
        is_short = -_INT32_END <= seq < _INT32_END
        head = (self._short if is_short else self._long)(
            self._length + size + (9 if is_short else 13),
            b"\x12_id\0",
            record_id,
            b"\x09collected_at\0",
            reading.t_ms,
            self._name,
            reading.value,
            self._between,
            b"\x10seq\0" if is_short else b"\x12seq\0",
            seq,
            b"\x03metadata\0",
            self._metadata + size,
            b"\x02sensor_id\0",
            size + 1,
        )
        return head + source + self._rest


@lru_cache(maxsize=LAYOUTS_KEPT)
def layout_of(quantity: str, unit: str | None, venue: str | None, session: str | None) -> Layout:
    """Give the layout of scalars that share all this."""
    name = quantity_field(quantity)
    between = {} if name == quantity else {"quantity": quantity}
    if unit is not None:
        between["unit"] = unit
    behind = {} if venue is None else {"venue": venue}
    if session is not None:
        behind["session"] = session
    return Layout(name, between=between, behind=behind)


def _texts(texts: Mapping[str, str]) -> bytes:
    """Encode elements of type text, one after the other."""
    return b"".join(
        b"\x02" + name.encode() + b"\0" + _LENGTH.pack(len(text) + 1) + text + b"\0"
        for name, text in ((name, text.encode()) for name, text in texts.items())
    )
