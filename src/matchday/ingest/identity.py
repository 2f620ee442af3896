"""Duplicates, gaps and renumbering: which reading has been accepted before.

A numbered reading is known by (source, quantity or kind, seq, t); a reading with a time of
its own but no number by a digest of its stream record; any other reading has no identity
of content. State lives in memory and is rebuilt from the stream after a restart. Pure: the
caller says what time it is. Does not own the window of one numbering (`numbering`), several
runs of one (`runs`), nor what is in doubt by its packet identifier (`protocols.redelivery`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b
from itertools import accumulate, chain
from operator import itemgetter

from matchday.domain.reading import numbering_told
from matchday.ingest.numbering import Numbering, Verdict, begun
from matchday.ingest.runs import (
    APART,
    DUPLICATE,
    FILLED,
    LATE,
    NEXT,
    UNKNOWN_MS,
    Outcome,
    Runs,
)

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
_Known = Numbering | Runs


class Keys:
    """Source and numbering of all that was known at one moment, for eight bytes each."""

    def __init__(self, numberings: Mapping[str, Mapping[str, _Known]]) -> None:
        self._sources = [source for sources in numberings.values() for source in sources]
        self._numberings = list(numberings)
        self._ends = array("q", accumulate(map(len, numberings.values())))

    def __len__(self) -> int:
        return len(self._sources)

    def between(self, start: int, end: int) -> Iterator[tuple[int, str, str]]:
        """Give place, source and numbering from a place up to before another."""
        group = bisect_right(self._ends, start)
        while start < end:
            stop = min(end, self._ends[group])
            for at in range(start, stop):
                yield at, self._sources[at], self._numberings[group]
            start, group = stop, group + 1


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
        # By numbering and source: no key of its own for each, and texts alone are found sooner.
        self._numberings: dict[str, dict[str, _Known]] = {}
        self._count = 0
        self._digests: set[bytes] = set()
        self._older_digests: set[bytes] = set()
        self._entries = 0
        self._turned_ms: int | None = None
        self._foreign: dict[tuple[str, str], tuple[int, int]] = {}
        self._foreign_turns = 0
        self._holes = 0
        self._older_holes = 0
        self._gap_fill_max = GAP_FILL_MAX
        self._ageing: list[_Known] = []

    def __len__(self) -> int:
        return self._count + len(self._digests) + len(self._older_digests)

    @property
    def numberings_count(self) -> int:
        """Give of how many numberings the last number is known."""
        return self._count

    def observe_number(
        self,
        source: str,
        numbering: str,
        seq: int,
        t_ms: int,
        *,
        is_timed: bool = True,
    ) -> Outcome:
        """Take in a numbered reading; say what it is and what follows.

        Numbers are from 0 to below 2**62, as the gate has it.

        Args:
            source: Who said it.
            numbering: Of which of its numberings.
            seq: The number.
            t_ms: Its event time.
            is_timed: Whether the source stated it; otherwise it is the time of arrival.
        """
        self._entries += 1
        known = self._find(source, numbering)
        if known is None:
            self._put(source, numbering, begun(seq, t_ms))
            return NEXT
        if known.append_next(seq, t_ms):
            return NEXT
        if not isinstance(known, Runs):
            gap = known.skipped_before(seq)
            if 0 < gap <= self._gap_fill_max:
                known.leap(t_ms, gap)
                self._open(gap)
                return Outcome(Verdict.NEW, gap, gap, gap)
            if is_timed and known.has(seq, t_ms):
                self._entries -= 1  # what only comes again must never push out what it repeats
                return DUPLICATE
            if is_timed and known.fill_late(seq, t_ms):
                self._foreign.pop((source, numbering), None)
                return FILLED
            known = Runs((source, numbering), known)
        outcome = known.observe(
            seq,
            t_ms,
            is_timed=is_timed,
            gap_fill_max=self._gap_fill_max,
        )
        self._numberings[numbering][source] = known.only or known
        if outcome.verdict is not Verdict.DUPLICATE:
            # Not all that comes changes the last number, by which a foreign one is told.
            self._foreign.pop((source, numbering), None)
        else:
            self._entries -= 1
        self._open(outcome.opened)
        return outcome

    def replay_number(
        self,
        source: str,
        numbering: str,
        seq: int,
        t_ms: int,
        *,
        place: int,
        is_timed: bool = True,
    ) -> bool:
        """Take in again what was new before a restart, as it was taken in then.

        Args:
            source: Who said it.
            numbering: Of which of its numberings.
            seq: The number.
            t_ms: Its event time.
            place: Its `Outcome.place`.
            is_timed: Whether the source stated its time.

        Returns:
            False where it cannot be, as long as nothing else is known of the numbering.
        """
        known = self._find(source, numbering)
        if known is None:
            if place in (LATE, APART):
                return False
            known = begun(seq - place - 1, UNKNOWN_MS) if 0 < place < seq else begun(seq, t_ms)
            self._put(source, numbering, known)
        self._entries += 1
        if not place and not isinstance(known, Runs) and known.append_next(seq, t_ms):
            return True
        runs = known if isinstance(known, Runs) else Runs((source, numbering), known)
        opened = runs.replay(seq, t_ms, place, is_timed=is_timed, gap_fill_max=self._gap_fill_max)
        self._numberings[numbering][source] = runs.only or runs
        self._open(opened)
        return True

    def _open(self, holes: int) -> None:
        self._holes += holes
        if self._holes + self._older_holes > HOLES_MAX:
            self._gap_fill_max = GAP_FILL_SHORT

    @property
    def windows(self) -> Mapping[str, Mapping[str, Numbering | Runs]]:
        """Give what is known, by numbering and source, for a batch: without a call each.

        What is found there takes a reading in by `append_next` if it is the very next; say in
        the end with `took` how often. Where it does not, nothing has changed, and
        `observe_number` says what the reading is.
        """
        return self._numberings

    def took(self, count: int) -> None:
        """Note how many readings were taken in by `windows`."""
        self._entries += count

    def observe_content(self, record_value: bytes) -> bool:
        """Take in the encoded record of a reading without number; tell whether it is new.

        The digest has 96 bits: two readings of the same window collide with a chance
        below 1e-16 at ten million readings.
        """
        digest = blake2b(record_value, digest_size=12).digest()
        if digest in self._digests or digest in self._older_digests:
            return False
        self._entries += 1
        self._digests.add(digest)
        return True

    def resume(self, source: str, numbering: str, last: tuple[int, int]) -> None:
        """Continue a numbering that the stream's window does not show after its last number."""
        known = self._find(source, numbering)
        if known is None:
            self._put(source, numbering, begun(*last))
        elif known.last[0] < last[0]:
            runs = known if isinstance(known, Runs) else Runs((source, numbering), known)
            runs.recall(*last)
            self._numberings[numbering][source] = runs

    def disown_all_but(self, sources: Collection[str]) -> None:
        """Keep what is known of other sources for two windows only: other slots have them.

        That is enough for a source that has moved here. Kept longer, it would be stale, and a
        source that comes here after years would have skipped all it said elsewhere.
        """
        self._foreign_turns = 0
        self._foreign = {
            (source, numbering): _said_last(known)
            for numbering, all_known in self._numberings.items()
            for source, known in all_known.items()
            if source not in sources
        }

    def keys(self) -> Keys:
        """Give source and numbering of all that is known."""
        return Keys(self._numberings)

    def tell(
        self,
        keys: Keys,
        start: int,
        end: int,
        *,
        into: dict[str, dict[str, tuple[int, int]]],
        most: int,
        chars_max: int,
        is_whole: bool,
    ) -> int:
        """Write last numbers and their event times down, by source and numbering.

        Args:
            keys: From `keys`; those forgotten since are left out, and so are foreign ones.
            start: The first one to look at.
            end: Where to stop at the latest.
            into: Gets what is written, under `numbering_told`.
            most: How many are written at most.
            chars_max: No more are written once their names have so many characters.
            is_whole: Also those that have not changed since they were last written.

        Returns:
            Where to go on.
        """
        for at, source, numbering in keys.between(start, end):
            known = self._find(source, numbering)
            if known is None or (known.is_told and not is_whole):
                continue
            if self._foreign and self._is_foreign((source, numbering), known):
                continue
            if not most or chars_max <= 0:
                return at
            most -= 1
            chars_max -= len(source) + len(numbering)
            into.setdefault(source, {})[numbering_told(numbering)] = known.tell()
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
        self._ageing = list(chain.from_iterable(map(dict.values, self._numberings.values())))
        self._age(arrived_ms)

    def _age(self, arrived_ms: int) -> None:
        due = self._ageing[-AGED_PER_TURN:]
        del self._ageing[-AGED_PER_TURN:]
        for known in due:
            known.forget_before_last_mark()
            if isinstance(known, Runs):
                self._join(known)
        if self._ageing:
            return
        self._turned_ms = arrived_ms
        if self._foreign:
            self._forget_foreign()
        if self._count > self._numberings_max:
            self._forget_quiet()

    def _join(self, runs: Runs) -> None:
        """Keep the last run of a numbering alone when the others are over."""
        source, numbering = runs.key
        if runs.only is not None and self._find(source, numbering) is runs:
            self._numberings[numbering][source] = runs.only

    def _forget_quiet(self) -> None:
        """Forget those silent for longest, a tenth more than needed so that it is rarely due."""
        excess = self._count - self._numberings_max
        quiet = [
            (turns, source, numbering)
            for numbering, sources in self._numberings.items()
            for source, known in sources.items()
            if (turns := known.quiet_turns) >= 2
        ]
        quiet.sort(key=itemgetter(0), reverse=True)
        for _, source, numbering in quiet[: excess + self._numberings_max // _EVICTED_SHARE]:
            self._forget(source, numbering)
            self._foreign.pop((source, numbering), None)

    def _is_foreign(self, key: tuple[str, str], known: _Known) -> bool:
        """Tell whether nothing of a disowned numbering has come here since."""
        return self._foreign.get(key) == _said_last(known)

    def _forget_foreign(self) -> None:
        self._foreign_turns += 1
        if self._foreign_turns < 2:
            return
        for source, numbering in self._foreign:
            known = self._find(source, numbering)
            if known is not None and self._is_foreign((source, numbering), known):
                self._forget(source, numbering)
        self._foreign = {}

    def _find(self, source: str, numbering: str) -> _Known | None:
        sources = self._numberings.get(numbering)
        return None if sources is None else sources.get(source)

    def _put(self, source: str, numbering: str, known: Numbering) -> None:
        self._numberings.setdefault(numbering, {})[source] = known
        self._count += 1

    def _forget(self, source: str, numbering: str) -> None:
        sources = self._numberings[numbering]
        del sources[source]
        self._count -= 1
        if not sources:
            del self._numberings[numbering]


def _said_last(known: _Known) -> tuple[int, int]:
    return known.said_last if isinstance(known, Runs) else known.last


def digest_of(topic: str, payload: bytes) -> str:
    """Give the digest by which a delivery without identity is recognised when in doubt."""
    return blake2b(payload, digest_size=12, key=topic.encode()[:64]).hexdigest()
