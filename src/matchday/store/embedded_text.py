"""The text in which the embedded store keeps a document: JSON, with a short way for scalars.

Owns `text_of`. The JSON of a scalar reading, nearly all that is ever stored, is put together
from what all scalars of one quantity, unit, venue and session share, without making its
document: a fifth of the time. Does not own the shape of documents (`documents`, whose order of
fields it keeps), nor the way back (`embedded_query`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from matchday.domain.instants import iso_from_ms
from matchday.ports import Row
from matchday.store.documents import DOCUMENT_BYTES_MAX, bson_bytes, quantity_field
from matchday.store.rows import LAYOUTS_KEPT, ScalarRow

# An array of digits is 6.5 times as long in BSON as in JSON: below this none can be too long.
JSON_BYTES_UNCHECKED: Final = DOCUMENT_BYTES_MAX // 8

_encode = msgspec.json.Encoder().encode


def text_of(row: Row) -> bytes | str:
    """Give the document as JSON, or as text the reason why no store can take it."""
    try:
        # Before 1970 a time may have less than four digits of a year, which only the encoder of
        # whole documents spells in full.
        if type(row) is ScalarRow and row.reading.t_ms >= 0:
            encoded = _scalar_text(row)
        else:
            encoded = _encode(row.document)
        if len(encoded) > JSON_BYTES_UNCHECKED:
            size = bson_bytes(row.document)
            if size > DOCUMENT_BYTES_MAX:
                return f"document of {size} bytes above {DOCUMENT_BYTES_MAX}"
    except (UnicodeEncodeError, TypeError) as error:
        return f"document cannot be encoded: {error}"
    return encoded


def _scalar_text(row: ScalarRow) -> bytes:
    reading = row.reading
    before, behind, end = _shared(reading.quantity, reading.unit, reading.venue, reading.session)
    seq = b"" if reading.seq is None else b',"seq":%d' % reading.seq
    return b'{"collected_at":"%b"%b%b%b%b,"metadata":{"sensor_id":%b%b' % (
        iso_from_ms(reading.t_ms).encode(),
        before,
        _encode(reading.value),
        behind,
        seq,
        _encode(reading.source),
        end,
    )


@lru_cache(maxsize=LAYOUTS_KEPT)
def _shared(
    quantity: str, unit: str | None, venue: str | None, session: str | None
) -> tuple[bytes, bytes, bytes]:
    """Give what comes before the value, between it and the number, and after the source."""
    name = quantity_field(quantity)
    behind = b"" if name == quantity else _named("quantity", quantity)
    if unit is not None:
        behind += _named("unit", unit)
    end = b"" if venue is None else _named("venue", venue)
    if session is not None:
        end += _named("session", session)
    return b"," + _encode(name) + b":", behind, end + b"}}"


def _named(name: str, text: str) -> bytes:
    return b"," + _encode(name) + b":" + _encode(text)
