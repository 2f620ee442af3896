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
from itertools import chain, groupby
from typing import Final

from matchday.domain.account import LedgerRecord, TailEntry
from matchday.protocols.ticks import run_of

TAIL_TICKS: Final = 2
"""Newest ticks of a run of ingest whose acknowledgements a publisher at our own endpoint may
not have got: one that was being acknowledged, and one committed behind it."""

SESSION_LOST: Final = TailEntry("", 0, "")
"""Stands in the tail of a tick before what a broker delivered first after it lost its session."""


def in_doubt(ticks: Sequence[LedgerRecord]) -> list[TailEntry]:
    """Give the deliveries in doubt after a restart: those that may come again.

    A broker keeps what it has no acknowledgement for as long as its session lives, so any of
    its deliveries since that began may come again.

    A publisher waits for its acknowledgements, so only what it had in flight when a run of
    ingest ended can: what it said in that run's newest ticks. It stays in doubt over further
    runs until the publisher has delivered it again, or anything else: that comes after all it
    had in flight. What came again is noted again, in the run where it did.

    Args:
        ticks: The slot's ledger records from the tail, oldest first.
    """
    of_broker: list[TailEntry] = []
    of_publishers: dict[str, list[TailEntry]] = {}
    for _, records in groupby(ticks, key=lambda record: run_of(record.tick)):
        run = [record for record in records if record.counts or record.tail]
        newest = set(list(dict.fromkeys(record.tick for record in run))[-TAIL_TICKS:])
        said: dict[str, dict[TailEntry, bool]] = {}
        for record in run:
            for entry in record.tail:
                if entry == SESSION_LOST:
                    of_broker.clear()
                elif not entry.origin:
                    of_broker.append(entry)
                else:
                    said.setdefault(entry.origin, {})[entry] = record.tick in newest
        for origin, entries in said.items():
            before = of_publishers.get(origin, [])
            is_all_repeated = entries.keys() <= set(before)
            of_publishers[origin] = [
                *(entry for entry in before if is_all_repeated and entry not in entries),
                *(entry for entry, is_newest in entries.items() if is_newest),
            ]
    return of_broker + list(chain.from_iterable(of_publishers.values()))


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
        self._recent.extend(
            entry for entry in entries if not entry.origin and entry != SESSION_LOST
        )

    def connected(self, origin: str, connection: int, *, is_resumed: bool = True) -> bool:
        """Note from which connection deliveries come; a new one of a broker raises the doubt.

        Not where the broker has lost its session: it numbers packets anew then, and nothing
        of before comes again. Of a publisher at our own endpoint only the first connection
        after our restart raises it.

        Returns:
            Whether the tick has to note `SESSION_LOST` before these deliveries.
        """
        if not origin:
            if connection == self._connection:
                return False
            self._connection = connection
            if not is_resumed:
                self._recent.clear()
            self._suspect("", connection, set(self._recent))
            return not is_resumed
        known = self._open.get(origin)
        if known is not None and known.connection != connection:
            del self._open[origin]
        elif known is None and origin in self._before_restart:
            self._suspect(origin, connection, self._before_restart.pop(origin))
        return False

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
