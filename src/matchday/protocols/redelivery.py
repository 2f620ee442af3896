"""Deliveries in doubt: those whose acknowledgement may have been lost, known by packet.

For what has no time of its own, with a number or not, the only sign of a repetition is the MQTT
packet identifier, which belongs to a session of one origin: a broker's (origin "") outlives
connections and restarts of ingest, a publisher's at our own endpoint begins anew when the
publisher does. Owns when a packet identifier proves something. Does not own what identifies
a reading by itself (`ingest.identity`), nor that acknowledgements of an older connection are
dropped, which the feeds do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from matchday.domain.account import LedgerRecord, TailEntry

TAIL_TICKS: Final = 2
"""Ticks of a publisher at our own endpoint that are in doubt after a restart."""


def in_doubt(ticks: Sequence[LedgerRecord]) -> list[TailEntry]:
    """Give the deliveries in doubt after a restart: all of a broker's, the last ticks' of others.

    A broker keeps what it has no acknowledgement for as long as its session lives, so any of
    its deliveries may come again. A publisher waits for its acknowledgements, so only what it
    had in flight can: one tick that was being acknowledged, and one committed behind it.

    Args:
        ticks: The slot's ledger records from the tail, oldest first.
    """
    last = {tick.tick for tick in ticks if tick.counts}
    newest = {tick.tick for tick in [tick for tick in ticks if tick.counts][-TAIL_TICKS:]}
    return [
        entry
        for tick in ticks
        if tick.tick in last
        for entry in tick.tail
        if not entry.origin or tick.tick in newest
    ]


@dataclass(slots=True)
class _Suspicion:
    """What may come again on one connection: entries, each once, among so many deliveries."""

    connection: int
    entries: set[TailEntry]
    left: int


class Doubt:
    """Deliveries without content identity whose acknowledgement may have been lost.

    After a restart or a new connection the other side delivers again what it holds for
    unacknowledged, under the same packet ids and before anything else. So each remembered
    delivery is matched once, and only among the first deliveries of a connection. Memory is
    bounded by `entries_max` and what `restarted` was given, however many origins come.

    Args:
        entries_max: How many deliveries can be unacknowledged at most: the receive-maximum.
    """

    def __init__(self, *, entries_max: int) -> None:
        self._entries_max = entries_max
        self._recent: deque[TailEntry] = deque(maxlen=entries_max)
        self._connection: int | None = None
        self._before_restart: dict[str, set[TailEntry]] = {}
        self._open: dict[str, _Suspicion] = {}

    def restarted(self, entries: Iterable[TailEntry]) -> None:
        """Take over the deliveries in doubt after a restart, see `in_doubt`, newest last."""
        for entry in entries:
            if entry.origin:
                self._before_restart.setdefault(entry.origin, set()).add(entry)
            else:
                self._recent.append(entry)

    def committed(self, entries: Iterable[TailEntry]) -> None:
        """Remember the deliveries of a tick that is durable, before they are acknowledged.

        Of a publisher at our own endpoint nothing is kept: it numbers its packets anew when
        it starts again, so after a new connection to a running process they prove nothing.
        """
        self._recent.extend(entry for entry in entries if not entry.origin)

    def connected(self, origin: str, connection: int) -> None:
        """Note from which connection deliveries come; a new one of a broker raises the doubt.

        Of a publisher at our own endpoint only the first one after our restart does.
        """
        if not origin:
            if connection != self._connection:
                self._connection = connection
                self._suspect("", connection, set(self._recent))
            return
        known = self._open.get(origin)
        if known is not None and known.connection != connection:
            del self._open[origin]
        elif known is None and origin in self._before_restart:
            self._suspect(origin, connection, self._before_restart.pop(origin))

    def is_repeated(self, origin: str, packet_id: int, digest: str) -> bool:
        """Tell whether this delivery is one that had been committed before, once each."""
        known = self._open.get(origin)
        if known is None or not known.entries:
            return False
        known.left -= 1
        if known.left < 0:
            del self._open[origin]
            return False
        entry = TailEntry(origin, packet_id, digest)
        if entry not in known.entries:
            return False
        known.entries.discard(entry)
        return True

    def _suspect(self, origin: str, connection: int, entries: set[TailEntry]) -> None:
        self._open[origin] = _Suspicion(connection, entries, self._entries_max)
