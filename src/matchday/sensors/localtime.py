"""Local times without a zone, as sensors write them, to instants.

A day-light saving change makes one local hour missing and another one doubled. The rules
here: a time in the missing hour names no instant; a time in the doubled hour is its first
pass, unless the same series has written that very time before: then it is the second.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from matchday.errors import ConfigError


class LocalClock:
    """Reads the local times of one file; remembers the doubled ones it has seen."""

    def __init__(self, zone_name: str) -> None:
        """Load the zone.

        Raises:
            ConfigError: There is no zone of that name.
        """
        try:
            self._zone = ZoneInfo(zone_name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(f"reading local times: time zone {zone_name!r}: unknown") from error
        self._doubled: set[tuple[str, datetime]] = set()

    def instant_ms(self, local: datetime, *, series: str) -> int | None:
        """Give milliseconds UTC of a local time, or None for one that never was.

        A time with an offset of its own is taken at its word.

        Args:
            local: The time as written.
            series: Which series it belongs to; each may write a doubled time twice.
        """
        if local.tzinfo is not None:
            return round(local.timestamp() * 1000)
        first = local.replace(tzinfo=self._zone, fold=0)
        second = local.replace(tzinfo=self._zone, fold=1)
        if first.utcoffset() == second.utcoffset():
            return round(first.timestamp() * 1000)
        if first.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != local:
            return None
        if (series, local) in self._doubled:
            return round(second.timestamp() * 1000)
        self._doubled.add((series, local))
        return round(first.timestamp() * 1000)
