"""Event time as text and as number: integer milliseconds UTC <-> ISO 8601.

Owns the only two spellings of time that leave the process: `2024-09-09T14:01:09.123Z`
on the wire, and integer milliseconds inside. Every reading passes here several times, and
busy sources share milliseconds: what was worked out last is kept, and so are its seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from matchday.errors import RefusedError

INSTANTS_KEPT: Final = 4096
SECONDS_KEPT: Final = 1024

SPELT_MS: Final = range(-30_610_224_000_000, 253_402_300_800_000)
"""The instants that have a spelling: of the years 1000 to 9999, UTC."""

_FRACTIONS: Final = tuple(f".{number:03d}Z" for number in range(1000))
_MILLISECONDS: Final[Mapping[str, int]] = MappingProxyType(
    {text: number for number, text in enumerate(_FRACTIONS)}
)
_SECOND_CHARS: Final = len("2024-09-09T14:01:09")


@lru_cache(maxsize=SECONDS_KEPT)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=SECONDS_KEPT)
def _second_ms(text: str) -> int | None:
    """Read `YYYY-MM-DDTHH:MM:SS` as milliseconds UTC; None for whatever else is as long."""
    # Other spellings of ISO 8601 can be as long, and then the whole text may be none.
    if (text[4], text[7], text[13], text[16]) != ("-", "-", ":", ":"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is not None else ms_from_datetime(moment)


@lru_cache(maxsize=INSTANTS_KEPT)
def iso_from_ms(instant_ms: int) -> str:
    """Spell an instant of `SPELT_MS` (milliseconds UTC) as ISO 8601 with milliseconds and `Z`."""
    return _second_text(instant_ms // 1000) + _FRACTIONS[instant_ms % 1000]


def ms_from_datetime(moment: datetime, *, zone: tzinfo = UTC) -> int:
    """Give milliseconds UTC of `moment`; without an offset of its own it is local to `zone`."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=INSTANTS_KEPT)
def ms_from_iso(text: str, *, zone: tzinfo = UTC) -> int:
    """Read ISO 8601 (`T` or a space between date and time) as milliseconds UTC.

    Raises:
        RefusedError: The text is not a date and time, or not in `SPELT_MS` (reason `bad_time`).
    """
    # Our own spelling, as in every record that we read back, takes half the time this way.
    fraction_ms = _MILLISECONDS.get(text[_SECOND_CHARS:])
    second_ms = None if fraction_ms is None else _second_ms(text[:_SECOND_CHARS])
    try:
        if fraction_ms is not None and second_ms is not None:
            instant_ms = second_ms + fraction_ms
        else:
            instant_ms = ms_from_datetime(datetime.fromisoformat(text), zone=zone)
    except (ValueError, OverflowError) as error:
        raise RefusedError("bad_time", f"reading time {text[:40]!r}: not ISO 8601") from error
    if instant_ms not in SPELT_MS:
        raise RefusedError("bad_time", f"reading time {text[:40]!r}: not of the years 1000 to 9999")
    return instant_ms
