"""Duplicates, gaps and renumbering: which reading has been accepted before.

A numbered reading is known by (source, quantity or kind, seq, t); a reading with a time of
its own but no number by a digest of its stream record; any other reading has no identity
of content. State lives in memory and is rebuilt from the stream after a restart. Pure: the
caller says what time it is. Does not own what is in doubt by its packet identifier
(`protocols.redelivery`).
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from enum import Enum
from hashlib import blake2b

GAP_FILL_MAX = 10_000
"""Longest gap, in numbers, inside which late arrivals are still recognised one by one."""

HOLES_MAX = 2_000_000
"""Numbers not there that are kept open in gaps, of all sources and two windows: 16 MB.
Beyond, a gap longer than `GAP_FILL_SHORT` begins a new window instead of being kept open; else
a source that leaps with each message would take 80 kB a message."""

GAP_FILL_SHORT = 16

NUMBERINGS_MAX = 1_000_000
"""Numberings remembered at most, beyond those heard within the last two windows."""

AGED_PER_TURN = 20_000
"""Numberings whose window is moved in one call of `Identities.turn`: about 10 ms."""

_EVICTED_SHARE = 10
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
    was missing has arrived after all. `quiet_turns` counts the marks since its last reading.
    `is_told` is for the owner, who sets it when it has written `last` down; a reading takes it
    back.
    """

    __slots__ = (
        "_base",
        "_floor",
        "_is_older_aged",
        "_older",
        "_times",
        "is_told",
        "missing",
        "quiet_turns",
    )

    def __init__(self, seq: int, t_ms: int) -> None:
        self._base = seq
        self._times = array("q", [t_ms])
        self._older: tuple[int, array[int]] | None = None
        self._is_older_aged = False
        self._floor = 0
        self.is_told = False
        self.missing = 0
        self.quiet_turns = 0

    @property
    def last(self) -> tuple[int, int]:
        """Give the highest number seen and its event time."""
        return self._base + len(self._times) - 1, self._times[-1]

    def observe(self, seq: int, t_ms: int, gap_fill_max: int = GAP_FILL_MAX) -> Verdict:
        """Take the reading with this number and event time into the window.

        A gap up to `gap_fill_max` numbers is kept open for late arrivals.
        """
        self.is_told = False
        self.missing = 0
        place = seq - self._base
        length = len(self._times)
        if place == length:
            self._times.append(t_ms)
            return Verdict.NEW
        if self._is_in_older(seq, t_ms):
            return Verdict.DUPLICATE
        if place > length:
            self._leap(seq, t_ms, place - length, gap_fill_max)
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

    def append_next(self, seq: int, t_ms: int) -> bool:
        """Take the reading in if it is the one after the last; tell whether it was."""
        if seq - self._base != len(self._times):
            return False
        self._times.append(t_ms)
        self.is_told = False
        return True

    def forget_before_last_mark(self) -> None:
        """Drop what was there at the call before the last one, and set the next mark."""
        self.quiet_turns = self.quiet_turns + 1 if self._floor == len(self._times) else 0
        drop = min(self._floor, len(self._times) - 1)
        if drop:
            del self._times[:drop]
            self._base += drop
        self._floor = len(self._times)
        if self._is_older_aged:
            self._older = None
        self._is_older_aged = True

    def _leap(self, seq: int, t_ms: int, gap: int, gap_fill_max: int) -> None:
        self.missing = gap
        if gap <= gap_fill_max:
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
        numberings_max: Of how many numberings the last number is remembered beyond that. Above
            it those silent for longest are forgotten: the first reading of such a source
            counts as a new source's, so the gap before it is not seen, nor that it is the
            twin of its last one.
    """

    def __init__(
        self, *, window_ms: int, entries_min: int, numberings_max: int = NUMBERINGS_MAX
    ) -> None:
        self._window_ms = window_ms
        self._numberings_max = numberings_max
        self._entries_min = entries_min
        self._numberings: dict[tuple[str, str], Numbering] = {}
        self._digests: set[bytes] = set()
        self._older_digests: set[bytes] = set()
        self._entries = 0
        self._turned_ms: int | None = None
        self._foreign: dict[tuple[str, str], tuple[int, int]] = {}
        self._foreign_turns = 0
        self._holes = 0
        self._older_holes = 0
        self._gap_fill_max = GAP_FILL_MAX
        self._ageing: list[Numbering] = []

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
        verdict = known.observe(seq, t_ms, self._gap_fill_max)
        gap = known.missing
        if 0 < gap <= self._gap_fill_max:
            self._holes += gap
            if self._holes + self._older_holes > HOLES_MAX:
                self._gap_fill_max = GAP_FILL_SHORT
        return verdict, gap

    def follows(self, source: str, numbering: str, seq: int, t_ms: int) -> bool:
        """Take in a reading if it is the very next of a known numbering; tell whether it was.

        Otherwise nothing has changed: `observe_number` then says what the reading is. This is
        its commonest answer, "new" and nothing missing, at a third of the cost.
        """
        known = self._numberings.get((source, numbering))
        if known is None or not known.append_next(seq, t_ms):
            return False
        self._entries += 1
        return True

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

    def disown_all_but(self, sources: Collection[str]) -> None:
        """Keep what is known of other sources for two windows only: other slots have them.

        That is enough for a source that has moved here. Kept longer, it would be stale, and a
        source that comes here after years would have skipped all it said elsewhere.
        """
        self._foreign_turns = 0
        self._foreign = {
            key: known.last for key, known in self._numberings.items() if key[0] not in sources
        }

    def keys(self) -> list[tuple[str, str]]:
        """Give source and numbering of all that is known, in the order of first sight."""
        return list(self._numberings)

    def tell(
        self,
        keys: Sequence[tuple[str, str]],
        start: int,
        end: int,
        *,
        into: dict[str, dict[str, tuple[int, int]]],
        most: int,
        is_whole: bool,
    ) -> int:
        """Write last numbers and their event times down, by source and numbering.

        Args:
            keys: From `keys`; those forgotten since are left out, and so are foreign ones.
            start: The first one to look at.
            end: Where to stop at the latest.
            into: Gets what is written.
            most: How many are written at most.
            is_whole: Also those that have not changed since they were last written.

        Returns:
            Where to go on.
        """
        numberings, foreign = self._numberings, self._foreign
        for at in range(start, end):
            key = keys[at]
            known = numberings.get(key)
            if known is None or (known.is_told and not is_whole):
                continue
            if foreign and key in foreign and self._is_foreign(key):
                continue
            if not most:
                return at
            most -= 1
            known.is_told = True
            into.setdefault(key[0], {})[key[1]] = known.last
        return end

    def turn(self, arrived_ms: int) -> None:
        """Forget what is older than two windows, if a window has passed; call once per tick.

        Of a great many numberings some with each call. The next window is counted from the
        end of that, so that between two marks of a numbering there is never less than one.
        """
        if self._ageing:
            self._age(arrived_ms)
            return
        if self._turned_ms is None or arrived_ms < self._turned_ms:
            self._turned_ms = arrived_ms
        if arrived_ms - self._turned_ms < self._window_ms or self._entries < self._entries_min:
            return
        self._entries = 0
        self._older_digests, self._digests = self._digests, set()
        self._older_holes, self._holes = self._holes, 0
        is_free = self._older_holes <= HOLES_MAX // 2
        self._gap_fill_max = GAP_FILL_MAX if is_free else GAP_FILL_SHORT
        self._ageing = list(self._numberings.values())
        self._age(arrived_ms)

    def _age(self, arrived_ms: int) -> None:
        due = self._ageing[-AGED_PER_TURN:]
        del self._ageing[-AGED_PER_TURN:]
        for known in due:
            known.forget_before_last_mark()
        if self._ageing:
            return
        self._turned_ms = arrived_ms
        if self._foreign:
            self._forget_foreign()
        if len(self._numberings) > self._numberings_max:
            self._forget_quiet()

    def _forget_quiet(self) -> None:
        """Forget those silent for longest, a tenth more than needed so that it is rarely due."""
        excess = len(self._numberings) - self._numberings_max
        quiet = [key for key, known in self._numberings.items() if known.quiet_turns >= 2]
        quiet.sort(key=lambda key: self._numberings[key].quiet_turns, reverse=True)
        for key in quiet[: excess + self._numberings_max // _EVICTED_SHARE]:
            del self._numberings[key]
            self._foreign.pop(key, None)

    def _is_foreign(self, key: tuple[str, str]) -> bool:
        """Tell whether nothing of a disowned numbering has come here since."""
        return self._foreign.get(key) == self._numberings[key].last

    def _forget_foreign(self) -> None:
        self._foreign_turns += 1
        if self._foreign_turns < 2:
            return
        for key in [key for key in self._foreign if self._is_foreign(key)]:
            del self._numberings[key]
        self._foreign = {}


def digest_of(topic: str, payload: bytes) -> str:
    """Give the digest by which a delivery without identity is recognised when in doubt."""
    return blake2b(payload, digest_size=12, key=topic.encode()[:64]).hexdigest()
