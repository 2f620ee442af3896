"""Several runs of one numbering: a sensor that began anew, or two senders under one name.

A *run* is what counts on from a number of its own, in a window of its own. Whether a reading is
new does not depend on runs: its number and time are looked for in all of them. Which run a new
one belongs to matters for what is missing only, and is decided by numbers: it fills a gap where
there is one, else it goes on from the nearest run below, else it begins one. So no number
counts as missing that came, in whatever order, as often as its source began at the same number
(docs/explanation/account.md has the proof). Times decide one thing: a number said later than
what came after its gap shows that two senders are there, and the gap is taken back.

Owns which run a reading belongs to and what follows for the account. Does not own one window
(`numbering`), readings outside of all (`strays`), nor bounds over all sources (`identity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from matchday.ingest.numbering import HOLE, Numbering, Verdict, begun
from matchday.ingest.strays import Strays

RUNS_MAX: Final = 8
"""Runs of one numbering at most. Beyond, the readings of that which spoke longest ago are
remembered one by one, at 120 B instead of 8, and its gaps no more."""

QUIET_TURNS_MAX: Final = 30
"""Windows for which one of two senders is remembered that says nothing: an hour."""

ALTERNATIONS_MIN: Final = 4
"""So often one run goes on later than another has, until they are taken for two senders: a
sensor that began anew does not go back to where it was. They are remembered for longer then."""


LATE: Final = -1
"""Place of a reading that fills a gap."""

BEGINS: Final = -2
"""Place of a reading that begins a run."""

APART: Final = -3
"""Place of a reading outside of all runs."""

UNKNOWN_MS: Final = 0
"""Stands for the event time of a number that came before what is read back."""


class Outcome(NamedTuple):
    """What a reading is, and what follows.

    Attributes:
        verdict: New, known, or the begin of a new run.
        missing: The change in missing numbers.
        place: Where a new one stands: how many numbers are left out between it and the run
            that it goes on, or `LATE`, `BEGINS` or `APART`.
        opened: Numbers that are kept open from now on.
    """

    verdict: Verdict
    missing: int = 0
    place: int = 0
    opened: int = 0


DUPLICATE: Final = Outcome(Verdict.DUPLICATE)
NEXT: Final = Outcome(Verdict.NEW)
FILLED: Final = Outcome(Verdict.NEW, -1, LATE)


@dataclass(slots=True, eq=False)
class _Run:
    """A run's window, and a gap after its last number too long to be kept open.

    Attributes:
        window: Its readings.
        owed: How many numbers right after its last are counted as missing.
        until_ms: Event time of the reading that came after these.
        parted_at: The number that it began with when it was parted from the run below.
    """

    window: Numbering
    owed: int = 0
    until_ms: int = 0
    parted_at: int = -1


class Runs:
    """The runs of one numbering of one source; the one that spoke last is the first of them.

    Args:
        key: The source and its numbering.
        window: Its only run so far.
    """

    __slots__ = ("_alternations", "_latest_ms", "_runs", "_strays", "key")

    def __init__(self, key: tuple[str, str], window: Numbering) -> None:
        self.key = key
        self._runs = [_Run(window)]
        self._alternations = 0
        self._latest_ms: int | None = None
        self._strays = Strays()

    @property
    def only(self) -> Numbering | None:
        """Give the window of the only run, if it is all that is left to know."""
        run = self._runs[0]
        if len(self._runs) > 1 or run.owed or self._strays:
            return None
        return run.window

    @property
    def last(self) -> tuple[int, int]:
        """Give the highest last number and its event time."""
        return self._highest.window.last

    @property
    def said_last(self) -> tuple[int, int]:
        """Give the last number of the run that spoke last and its event time."""
        return self._runs[0].window.last

    @property
    def is_told(self) -> bool:
        """Tell whether that number was written down."""
        return self._highest.window.is_told

    @property
    def quiet_turns(self) -> int:
        """Give how often all have aged since the last reading."""
        if self._strays:
            return 0
        return min(run.window.quiet_turns for run in self._runs)

    @property
    def _highest(self) -> _Run:
        return max(self._runs, key=_last_number)

    def tell(self) -> tuple[int, int]:
        """Give the highest last number and its event time, to be written down now."""
        return self._highest.window.tell()

    def forget_before_last_mark(self) -> None:
        """Age every window, and forget the runs that are over."""
        self._strays.age()
        self._latest_ms = None
        quiet_max = QUIET_TURNS_MAX if self._alternations >= ALTERNATIONS_MIN else 1
        for run in self._runs:
            run.window.forget_before_last_mark()
        highest = self._highest
        alive = [run for run in self._runs if run.window.quiet_turns < quiet_max]
        self._runs = alive or [highest]

    def append_next(self, seq: int, t_ms: int) -> bool:
        """Take the reading in if it is the next of a run, and nothing else."""
        if self._strays.has(seq, t_ms):
            return False
        found = None
        for run in self._runs:
            skipped = run.window.skipped_before(seq)
            if skipped < 0:
                if run.window.at(seq) in (t_ms, HOLE):
                    return False
            elif skipped < run.owed:
                return False
            elif not skipped and found is None:
                found = run
        if found is None:
            return False
        if found is self._runs[0]:
            found.window.append_next(seq, t_ms)
        else:
            self._follow(found, seq, t_ms, gap_fill_max=0)
        self._note_latest(t_ms)
        return True

    def observe(
        self,
        seq: int,
        t_ms: int,
        *,
        is_timed: bool = True,
        gap_fill_max: int,
    ) -> Outcome:
        """Take in a reading.

        Args:
            seq: Its number.
            t_ms: Its event time.
            is_timed: Whether the source stated that time. If not it is the time of arrival,
                and late ones look later than they are.
            gap_fill_max: Longest gap whose numbers are kept open one by one.
        """
        there = [run.window.at(seq) for run in self._runs]
        # The time of an arrival is that of all that came with it: it proves nothing.
        if is_timed and (t_ms in there or self._strays.has(seq, t_ms)):
            return DUPLICATE
        outcome = self._take(there, seq, t_ms, is_timed, gap_fill_max)
        self._note_latest(t_ms)
        return outcome

    def replay(
        self, seq: int, t_ms: int, place: int, *, is_timed: bool = True, gap_fill_max: int
    ) -> int:
        """Take in again what was new before a restart, as it was taken in then.

        What is read back begins in the middle: runs and gaps from before are not known.

        Returns:
            How many numbers are kept open from now on.
        """
        there = [run.window.at(seq) for run in self._runs]
        if is_timed and (t_ms in there or self._strays.has(seq, t_ms)):
            return 0
        outcome = NEXT
        if place == BEGINS:
            self._begin(seq, t_ms)
        elif place >= 0:
            outcome = self._replay_after(place, seq, t_ms, is_timed, gap_fill_max)
        elif place == LATE and HOLE in there:
            self._take(there, seq, t_ms, is_timed, gap_fill_max)
        else:
            self._strays.add(seq, t_ms)
        self._note_latest(t_ms)
        return outcome.opened

    def recall(self, seq: int, t_ms: int) -> None:
        """Know of a run by its last number, which is all that was written down of it.

        Not of one that was given up since: its readings are remembered one by one.
        """
        if len(self._runs) < RUNS_MAX and not self._strays.has(seq, t_ms):
            self._runs.append(_Run(begun(seq, t_ms)))
            self._latest_ms = None

    def _replay_after(
        self, gap: int, seq: int, t_ms: int, is_timed: bool, gap_fill_max: int
    ) -> Outcome:
        """Take in a reading again that went on a run, after leaving so many numbers out."""
        before = seq - gap - 1
        nearest = [run for run in self._runs if run.window.last[0] == before]
        for run in nearest:
            if _owes(run, seq):
                return self._go_on(run, seq, t_ms, is_timed, gap_fill_max)
        if not nearest and gap and before >= 0:
            nearest.append(_Run(begun(before, UNKNOWN_MS)))
            self._put_first(nearest[0])
        if nearest:
            return self._follow(nearest[0], seq, t_ms, gap_fill_max)
        self._begin(seq, t_ms)
        return NEXT

    def _take(
        self, there: list[int | None], seq: int, t_ms: int, is_timed: bool, gap_fill_max: int
    ) -> Outcome:
        """Take in a reading that is new; `there` is what the runs have at its number."""
        if HOLE in there:
            lacking = [one for one, at in zip(self._runs, there, strict=True) if at == HOLE]
            return self._fill(lacking, seq, t_ms, is_timed)
        owing = next((run for run in self._runs if _owes(run, seq)), None)
        if owing is not None:
            return self._go_on(owing, seq, t_ms, is_timed, gap_fill_max)
        below = [run for run in self._runs if run.window.last[0] < seq]
        if below:
            return self._leap(max(below, key=_last_number), seq, t_ms, gap_fill_max)
        is_taken = any(at is not None for at in there)
        if is_timed and not is_taken and t_ms <= self._latest():
            self._strays.add(seq, t_ms)
            return Outcome(Verdict.NEW, place=APART)
        return Outcome(Verdict.RENUMBERED, self._begin(seq, t_ms), BEGINS)

    def _latest(self) -> int:
        """Give the latest event time known; until they age it is looked for once.

        Of runs that were given up, too: whether somebody has looked before makes no difference.
        """
        if self._latest_ms is None:
            latest_ms = max(run.window.latest_ms for run in self._runs)
            self._latest_ms = max(latest_ms, self._strays.latest_ms)
        return self._latest_ms

    def _note_latest(self, t_ms: int) -> None:
        if self._latest_ms is not None and t_ms > self._latest_ms:
            self._latest_ms = t_ms

    def _fill(self, lacking: list[_Run], seq: int, t_ms: int, is_timed: bool) -> Outcome:
        """Take in a reading that these runs lack.

        One said later than what came after the gap, in every one of them, is no late one:
        another sender is there, which goes on where it was before the gap.
        """
        for run in lacking:
            count, above_ms = run.window.above_gap(seq)
            if count == 1 or not is_timed or t_ms <= above_ms:
                if not run.window.fill(seq, t_ms):
                    self._strays.add(seq, t_ms)
                return FILLED
        run = lacking[0]
        count, _ = run.window.above_gap(seq)
        upper = _Run(run.window.part(seq, t_ms, count), run.owed, run.until_ms, seq + count)
        run.owed = 0
        self._alternations = ALTERNATIONS_MIN
        return Outcome(Verdict.NEW, self._put_first(upper) - count, LATE)

    def _go_on(self, run: _Run, seq: int, t_ms: int, is_timed: bool, gap_fill_max: int) -> Outcome:
        """Take in one of the numbers that a run owes: a late one, or of another sender."""
        skipped, until_ms = run.window.skipped_before(seq), run.until_ms
        owed, missing = run.owed - skipped - 1, -1
        if is_timed and t_ms > until_ms and owed:
            missing -= owed
            owed = 0
            self._alternations = ALTERNATIONS_MIN
        if skipped > gap_fill_max:
            run.owed, run.until_ms = skipped, t_ms
            missing += self._put_first(_Run(begun(seq, t_ms), owed, until_ms))
            return Outcome(Verdict.NEW, missing, skipped)
        run.owed = owed
        run.window.leap(t_ms, skipped)
        self._put_first(run)
        return Outcome(Verdict.NEW, missing, skipped, skipped)

    def _leap(self, run: _Run, seq: int, t_ms: int, gap_fill_max: int) -> Outcome:
        """Take in a number above a run, if it is of that run."""
        gap = run.window.skipped_before(seq)
        if gap and self._strays.may_be_between(run.window.last[0], seq):
            return Outcome(Verdict.NEW, self._begin(seq, t_ms), BEGINS)
        return self._follow(run, seq, t_ms, gap_fill_max)

    def _follow(self, run: _Run, seq: int, t_ms: int, gap_fill_max: int) -> Outcome:
        """Take in the number right after the last of a run or further up."""
        first = self._runs[0]
        if run is not first and t_ms > first.window.last[1]:
            self._alternations += 1
        gap = run.window.skipped_before(seq)
        missing = gap - run.owed
        if gap > gap_fill_max:
            run.owed, run.until_ms = gap, t_ms
            return Outcome(Verdict.NEW, missing + self._begin(seq, t_ms), gap)
        run.owed = 0
        run.window.leap(t_ms, gap)
        self._put_first(run)
        return Outcome(Verdict.NEW, missing, gap, gap)

    def _begin(self, seq: int, t_ms: int) -> int:
        """Begin a run; give the change in missing numbers."""
        return self._put_first(_Run(begun(seq, t_ms)))

    def _put_first(self, run: _Run) -> int:
        """Note that a run spoke last, and keep no more of them than there may be.

        Returns:
            The change in missing numbers: what a run that is dropped lacks could not be
            known again when it comes, so it is taken back.
        """
        if run in self._runs:
            self._runs.remove(run)
        for upper in self._runs:
            if upper.parted_at == run.window.last[0] + 1:
                # One sender's late readings, as it turns out: its clock was set back.
                self._alternations, upper.parted_at = 0, -1
        self._runs.insert(0, run)
        if len(self._runs) <= RUNS_MAX:
            return 0
        dropped = self._runs.pop()
        for one in dropped.window.readings():
            self._strays.add(*one)
        return -dropped.window.holes - dropped.owed


def _owes(run: _Run, seq: int) -> bool:
    return 0 <= run.window.skipped_before(seq) < run.owed


def _last_number(run: _Run) -> int:
    return run.window.last[0]
