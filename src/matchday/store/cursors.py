"""The cursor of a document in a list: its time and what tells it from others of that instant.

Owns the text of a cursor. Does not own what identity a store has for its documents.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from matchday.errors import RefusedError

CHARS_MAX: Final = 8000
"""That of a name of 1,000 characters may have 5,400."""
_DIGITS_MAX: Final = 17


def cursor_of(time_ms: int, identity: bytes) -> str:
    """Give the cursor of a document with this time, milliseconds UTC, and identity."""
    return urlsafe_b64encode(b"%d %b" % (time_ms, identity)).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[int, bytes]:
    """Give time and identity of a cursor.

    Raises:
        RefusedError: It is none (`bad_cursor`).
    """
    try:
        if len(cursor) > CHARS_MAX:
            raise bad_cursor(cursor)
        text = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        time, _, identity = text.partition(b" ")
        if len(time) > _DIGITS_MAX or not identity:
            raise bad_cursor(cursor)
        return int(time), identity
    except (ValueError, binascii.Error) as error:
        raise bad_cursor(cursor) from error


def name_cursor(name: str) -> str:
    """Give the cursor of a document in a list that goes by name, whatever its time."""
    return cursor_of(0, name.encode())


def read_name_cursor(cursor: str) -> str:
    """Give the name of a cursor.

    Raises:
        RefusedError: It is none (`bad_cursor`).
    """
    _, name = read_cursor(cursor)
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise bad_cursor(cursor) from error


def bad_cursor(cursor: str) -> RefusedError:
    """Give the error for a text that is no cursor."""
    return RefusedError(
        "bad_cursor", f"reading on after {cursor[:80]!r}: it is no cursor of a list"
    )
