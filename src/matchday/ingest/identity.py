"""Duplicates, gaps and renumbering: which reading has been accepted before.

A numbered reading is known by (source, quantity or kind, seq, t); a reading with a time of
its own but no number by a digest of its stream record; any other reading has no identity
of content. State lives in memory and is rebuilt from the stream after a restart. Pure: the
caller says what time it is.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from enum import Enum
from hashlib import blake2b

from matchday.domain.account import TailEntry

GAP_FILL_MAX = 10_000
"""Longest gap, in numbers, inside which late arrivals are still recognised one by one."""

_HOLE = -(2**62)


class Verdict(Enum):
    """What a numbered reading is in relation to those before it.

    A straggler has a number from before the window: only its content can tell whether it
    is new.
    """

    NEW = "new"
    DUPLICATE = "duplicate"
    RENUMBERED = "renumbered"
    STRAGGLER = "straggler"


class Numbering:
    """The window of one source's own numbering: event times by number.

    Numbers that follow one another cost eight bytes each. `missing` is what the last
    call of `observe` adds to the count of missing numbers; it is -1 when a number that
    was missing has arrived after all.
    """

    __slots__ = ("_base", "_floor", "_is_older_aged", "_older", "_times", "missing")

    def __init__(self, seq: int, t_ms: int) -> None:
        self._base = seq
        self._times = array("q", [t_ms])
        self._older: tuple[int, array[int]] | None = None
        self._is_older_aged = False
        self._floor = 0
        self.missing = 0

    @property
    def last(self) -> tuple[int, int]:
        """Give the highest number seen and its event time."""
        return self._base + len(self._times) - 1, self._times[-1]

    def observe(self, seq: int, t_ms: int) -> Verdict:
        """Take the reading with this number and event time into the window."""
        self.missing = 0
        place = seq - self._base
        length = len(self._times)
        if place == length:
            self._times.append(t_ms)
            return Verdict.NEW
        if self._is_in_older(seq, t_ms):
            return Verdict.DUPLICATE
        if place > length:
            self._leap(seq, t_ms, place - length)
            return Verdict.NEW
        if place < 0:
            return self._below(seq, t_ms)
        known = self._times[place]
        if known == t_ms:
            return Verdict.DUPLICATE
        if known == _HOLE:
            self._times[place] = t_ms
            self.missing = -1
            return Verdict.NEW
        self._restart(seq, t_ms)
        return Verdict.RENUMBERED

    def forget_before_last_mark(self) -> None:
        """Drop what was there at the call before the last one, and set the next mark."""
        drop = min(self._floor, len(self._times) - 1)
        if drop:
            del self._times[:drop]
            self._base += drop
        self._floor = len(self._times)
        if self._is_older_aged:
            self._older = None
        self._is_older_aged = True

    def _leap(self, seq: int, t_ms: int, gap: int) -> None:
        self.missing = gap
        if gap <= GAP_FILL_MAX:
            self._times.extend([_HOLE] * gap)
            self._times.append(t_ms)
        else:
            self._restart(seq, t_ms)

    def _below(self, seq: int, t_ms: int) -> Verdict:
        """Judge a number under the window: newer than all we know, it is a new numbering."""
        if t_ms <= self._times[-1]:
            return Verdict.STRAGGLER
        self._restart(seq, t_ms)
        return Verdict.RENUMBERED

    def _restart(self, seq: int, t_ms: int) -> None:
        self._older = (self._base, self._times)
        self._is_older_aged = False
        self._base = seq
        self._times = array("q", [t_ms])
        self._floor = 0

    def _is_in_older(self, seq: int, t_ms: int) -> bool:
        if self._older is None:
            return False
        base, times = self._older
        place = seq - base
        return 0 <= place < len(times) and times[place] == t_ms


class Identities:
    """All identities of one ingest slot, over at least `window_ms` and `entries_min` readings.

    Args:
        window_ms: How long an identity is remembered at least, in milliseconds of arrival.
        entries_min: How many identities are remembered at least; the receive-maximum, so
            that everything a broker can deliver again is known.
    """

    def __init__(self, *, window_ms: int, entries_min: int) -> None:
        self._window_ms = window_ms
        self._entries_min = entries_min
        self._numberings: dict[tuple[str, str], Numbering] = {}
        self._digests: set[bytes] = set()
        self._older_digests: set[bytes] = set()
        self._entries = 0
        self._turned_ms: int | None = None

    def __len__(self) -> int:
        return len(self._numberings) + len(self._digests) + len(self._older_digests)

    def observe_number(
        self, source: str, numbering: str, seq: int, t_ms: int
    ) -> tuple[Verdict, int]:
        """Take in a numbered reading; gives the verdict and the change in missing numbers."""
        self._entries += 1
        known = self._numberings.get((source, numbering))
        if known is None:
            self._numberings[(source, numbering)] = Numbering(seq, t_ms)
            return Verdict.NEW, 0
        return known.observe(seq, t_ms), known.missing

    def observe_content(self, record_value: bytes) -> bool:
        """Take in the encoded record of a reading without number; tell whether it is new.

        The digest has 96 bits: two readings of the same window collide with a chance
        below 1e-16 at ten million readings.
        """
        self._entries += 1
        digest = blake2b(record_value, digest_size=12).digest()
        if digest in self._digests or digest in self._older_digests:
            return False
        self._digests.add(digest)
        return True

    def resume(self, source: str, numbering: str, last: tuple[int, int]) -> None:
        """Continue a numbering that the stream's window does not show after its last number."""
        self._numberings.setdefault((source, numbering), Numbering(*last))

    def last_numbers(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Give the last number and its event time by source and numbering."""
        last: dict[str, dict[str, tuple[int, int]]] = {}
        for (source, numbering), known in self._numberings.items():
            last.setdefault(source, {})[numbering] = known.last
        return last

    def turn(self, arrived_ms: int) -> None:
        """Forget what is older than two windows, if a window has passed; call once per tick."""
        if self._turned_ms is None or arrived_ms < self._turned_ms:
            self._turned_ms = arrived_ms
        if arrived_ms - self._turned_ms < self._window_ms or self._entries < self._entries_min:
            return
        self._turned_ms = arrived_ms
        self._entries = 0
        self._older_digests, self._digests = self._digests, set()
        for known in self._numberings.values():
            known.forget_before_last_mark()


def digest_of(topic: str, payload: bytes) -> str:
    """Give the digest by which a delivery without identity is recognised when in doubt."""
    return blake2b(payload, digest_size=12, key=topic.encode()[:64]).hexdigest()


class Doubt:
    """Deliveries without content identity whose acknowledgement may have been lost.

    After a restart or a new connection the other side delivers again what it holds for
    unacknowledged, under the same packet ids and before anything else. So each remembered
    delivery is matched once, and only among the first deliveries of a connection.
    """

    def __init__(self, *, entries_max: int) -> None:
        self._entries_max = entries_max
        self._recent: deque[TailEntry] = deque(maxlen=entries_max)
        self._open: dict[str, set[TailEntry]] = {}
        self._left: dict[str, int] = {}
        self._connection: dict[str, int] = {}

    def remember(self, entries: Iterable[TailEntry]) -> None:
        """Keep the deliveries of a committed tick, newest last."""
        self._recent.extend(entries)

    def connected(self, origin: str, connection: int) -> None:
        """Note from which connection deliveries come; a new one of a broker raises the doubt.

        A publisher of its own endpoint numbers its packets anew when it starts again, so
        there the doubt is raised only for what was in flight when ingest itself restarted.
        """
        before = self._connection.get(origin)
        if before == connection:
            return
        self._connection[origin] = connection
        if before is None or not origin:
            self._open[origin] = {item for item in self._recent if item.origin == origin}
            self._left[origin] = self._entries_max
        else:
            self._open.pop(origin, None)

    def is_repeated(self, origin: str, packet_id: int, digest: str) -> bool:
        """Tell whether this delivery is one that had been committed before, once each."""
        entries = self._open.get(origin)
        if not entries:
            return False
        self._left[origin] -= 1
        if self._left[origin] <= 0:
            del self._open[origin]
            return False
        entry = TailEntry(origin, packet_id, digest)
        if entry not in entries:
            return False
        entries.discard(entry)
        return True
