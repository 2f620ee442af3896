"""Event time as text and as number: integer milliseconds UTC <-> ISO 8601.

Owns the only two spellings of time that leave the process: `2024-09-09T14:01:09.123Z`
on the wire, and integer milliseconds inside.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache

from matchday.errors import RefusedError


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def iso_from_ms(instant_ms: int) -> str:
    """Spell an instant (milliseconds UTC) as ISO 8601 with milliseconds and `Z`.

    The part up to the second is cached: readings of one batch share it.
    """
    return f"{_second_text(instant_ms // 1000)}.{instant_ms % 1000:03d}Z"


def ms_from_datetime(moment: datetime, *, zone: tzinfo = UTC) -> int:
    """Give milliseconds UTC of `moment`; without an offset of its own it is local to `zone`."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return round(moment.timestamp() * 1000)


def ms_from_iso(text: str, *, zone: tzinfo = UTC) -> int:
    """Read ISO 8601 (`T` or a space between date and time) as milliseconds UTC.

    Raises:
        RefusedError: The text is not a date and time (reason `bad_time`).
    """
    try:
        return ms_from_datetime(datetime.fromisoformat(text), zone=zone)
    except (ValueError, OverflowError) as error:
        raise RefusedError("bad_time", f"reading time {text[:40]!r}: not ISO 8601") from error
