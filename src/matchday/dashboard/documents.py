"""Stored documents as JSON and as text, whatever types a store puts in them. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from matchday.domain.instants import iso_from_ms, ms_from_datetime

TEXT_CHARS_MAX = 2_000
"""Longer text and bytes are cut, with their length told."""


def jsonable(value: Any) -> Any:
    """Give a document or part of one in JSON's own types; instants as ISO 8601 UTC."""
    if isinstance(value, dict):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, datetime):
        return iso_from_ms(ms_from_datetime(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _cut(bytes(value).decode("utf-8", "replace"), len(value), "bytes")
    if isinstance(value, str):
        return _cut(value, len(value), "characters")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        # A store's own kind of number (BSON has one of 64 bits) becomes Python's.
        return int(value) if isinstance(value, int) else float(value)
    return str(value)


def flatten(document: dict[str, Any]) -> dict[str, Any]:
    """Give a document with nested objects spread out under dotted names, for a table."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict) and value:
            for inner, item in flatten(value).items():
                flat[f"{name}.{inner}"] = item
        else:
            flat[name] = value
    return flat


def cell_text(value: Any) -> str:
    """Give one value of a `jsonable` document as the text of a table cell."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _cut(text: str, length: int, unit: str) -> str:
    if len(text) <= TEXT_CHARS_MAX:
        return text
    return f"{text[:TEXT_CHARS_MAX]}… ({length} {unit})"
