"""Several runs of one numbering: a sensor that began anew, or two senders under one name.

A *run* is what counts on from a number of its own. What one sender has said is not missing in
what another says, so every run has its own window and its own gaps. Numbers and event times
are all there is to tell runs apart by; which of two senders said a number that both say next
does not matter, for the sum of what is missing is the same. Owns which run a reading belongs
to and what follows for the account. Does not own one window (`numbering`), nor bounds over all
sources, nor what was counted before a restart (`identity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from matchday.ingest.numbering import LACKING, Numbering, Verdict, begun

RUNS_MAX: Final = 16
"""Runs of one numbering at most: each message that is not the next one of its run is compared
with all. Beyond, what was said longest ago is forgotten before its time."""

ALTERNATIONS_MIN: Final = 4
"""So often one run goes on after another has, until they are taken for two senders: a sensor
that began anew does not go back to where it was."""

LOSS_MAX: Final = 16
"""Longest gap that is taken for a loss where there is another way to see it."""

QUIET_TURNS_MAX: Final = 30
"""Windows for which a second sender that says nothing is remembered: an hour and more."""


class Outcome(NamedTuple):
    """What a reading is, and what follows.

    Attributes:
        verdict: New, seen before, or what else.
        missing: The change in missing numbers.
        uncounted: What the change is instead if the gap into which the number falls was never
            counted as missing.
        opened: Numbers that are kept open from now on.
    """

    verdict: Verdict
    missing: int = 0
    uncounted: int = 0
    opened: int = 0


@dataclass(slots=True, eq=False)
class _Run:
    """A run's window, and how many numbers right after its last were counted as missing."""

    window: Numbering
    owed: int = 0


class Runs:
    """The runs of one numbering of one source; the one that spoke last is the first of them.

    It stands where a single `Numbering` stands otherwise, and answers for the one that spoke
    last what that would answer.

    Args:
        key: The source and its numbering.
        window: Its only run so far.
    """

    __slots__ = ("_alternations", "_runs", "key")

    def __init__(self, key: tuple[str, str], window: Numbering) -> None:
        self.key = key
        self._runs = [_Run(window)]
        self._alternations = 0

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def only(self) -> Numbering | None:
        """Give the window of the only run, if no other is left."""
        return self._runs[0].window if len(self._runs) == 1 else None

    @property
    def are_senders(self) -> bool:
        """Tell whether they have gone on in turn so often that there must be two senders."""
        return self._alternations >= ALTERNATIONS_MIN

    @property
    def last(self) -> tuple[int, int]:
        """Give the last number and its event time."""
        return self._runs[0].window.last

    @property
    def is_told(self) -> bool:
        """Tell whether the last number was written down."""
        return self._runs[0].window.is_told

    @property
    def quiet_turns(self) -> int:
        """Give how often all have aged since the last reading."""
        return self._runs[0].window.quiet_turns

    def tell(self) -> tuple[int, int]:
        """Give the last number and its event time, to be written down now."""
        return self._runs[0].window.tell()

    def forget_before_last_mark(self) -> None:
        """Age every window, and forget the runs that are over."""
        quiet_max = QUIET_TURNS_MAX if self.are_senders else 1
        first, *others = self._runs
        first.window.forget_before_last_mark()
        self._runs = [first]
        for run in others:
            run.window.forget_before_last_mark()
            if run.window.quiet_turns < quiet_max:
                self._runs.append(run)

    def append_next(self, seq: int, t_ms: int) -> bool:
        """Take the reading in if it is the next of the run that spoke last, and not known."""
        if any(run.window.has(seq, t_ms) for run in self._runs):
            return False
        return self._runs[0].window.append_next(seq, t_ms)

    def observe(
        self,
        seq: int,
        t_ms: int,
        *,
        is_timed: bool = True,
        gap_fill_max: int,
        runs_max: int = RUNS_MAX,
    ) -> Outcome:
        """Take in a reading.

        Args:
            seq: Its number.
            t_ms: Its event time.
            is_timed: Whether the source stated that time. If not it is the time of arrival,
                and late ones look later than they are.
            gap_fill_max: Longest gap whose numbers are kept open one by one.
            runs_max: How many runs are kept at most.
        """
        first = self._runs[0]
        there = [run.window.at(seq) for run in self._runs]
        if t_ms in there:
            return Outcome(Verdict.DUPLICATE)
        if first.window.append_next(seq, t_ms):
            return Outcome(Verdict.NEW)
        lacking = [one for one, at in zip(self._runs, there, strict=True) if at == LACKING]
        for run in lacking:
            if t_ms <= run.window.last[1] or not is_timed:
                return Outcome(run.window.fill(seq, t_ms), -1)
        is_later = is_timed and t_ms > self.last[1]
        if not self.are_senders and there[0] == LACKING:
            outcome = self._part(first, seq, t_ms, is_later)
        elif (reaching := self._reaching(seq)) is not None:
            outcome = self._go_on(reaching, seq, t_ms, is_later, gap_fill_max)
        elif below := self._nearest_below(seq, t_ms):
            outcome = self._leap(below, lacking, seq, t_ms, is_later, gap_fill_max)
        elif lacking:
            outcome = self._part(lacking[0], seq, t_ms, is_later)
        else:
            outcome = self._begin(seq, t_ms, is_taken=any(at is not None for at in there))
        del self._runs[runs_max:]
        return outcome

    def _reaching(self, seq: int) -> _Run | None:
        """Give the run of which the number is the next, or one of those that it owes.

        Unless there are two senders, a few lost by the one that spoke last are likelier than
        that a run before it goes on just there.
        """
        found = None
        for run in self._runs:
            skipped = run.window.skipped_before(seq)
            if skipped == 0:
                return run
            if 0 < skipped < run.owed:
                found = run
            elif run is self._runs[0] and not self.are_senders and 0 < skipped <= LOSS_MAX:
                return None
        return found

    def _go_on(self, run: _Run, seq: int, t_ms: int, is_later: bool, gap_fill_max: int) -> Outcome:
        """Take in the next number of a run, or one of those that it owes.

        A run that goes on later than the one that seemed to have left it behind had left
        out nothing: what was counted as missing after it is taken back.
        """
        skipped, owed = run.window.skipped_before(seq), run.owed
        still = 0 if is_later else max(0, owed - skipped - 1)
        opened, new = 0, None
        if skipped > gap_fill_max:
            run.owed, new = skipped, _Run(begun(seq, t_ms), still)
        else:
            run.owed, opened = still, skipped
            run.window.leap(t_ms, skipped)
        self._spoke(run, new, is_later)
        if is_later:
            return Outcome(Verdict.NEW, min(0, skipped - owed), skipped, opened)
        # What goes on in the past may also be what was said there once before.
        verdict = Verdict.NEW if self.are_senders or run is self._runs[0] else Verdict.STRAGGLER
        return Outcome(verdict, -1 if owed else 0, 0, opened)

    def _leap(
        self,
        below: _Run,
        lacking: Sequence[_Run],
        seq: int,
        t_ms: int,
        is_later: bool,
        gap_fill_max: int,
    ) -> Outcome:
        """Take in a number that is far above a run, or in a long gap of another just there."""
        gap = below.window.skipped_before(seq)
        for run in lacking:
            under, above = run.window.lacking_about(seq)
            if under < gap and above > LOSS_MAX:
                return self._part(run, seq, t_ms, is_later)
        counted, below.owed = below.owed, 0
        if gap > gap_fill_max:
            below.owed = gap
            self._spoke(below, _Run(begun(seq, t_ms)), is_later)
            return Outcome(Verdict.NEW, gap - counted, gap)
        below.window.leap(t_ms, gap)
        self._spoke(below, None, is_later)
        return Outcome(Verdict.NEW, gap - counted, gap, gap)

    def _part(self, run: _Run, seq: int, t_ms: int, is_later: bool) -> Outcome:
        """Take in a number that its run has left out, later than what came after the gap.

        So it is no gap: another run began there, and what was counted is taken back.
        """
        under, above = run.window.lacking_about(seq)
        upper = _Run(run.window.part(seq, t_ms, above), run.owed)
        run.owed = 0
        lost = self._join(upper, run)
        self._alternations += is_later
        self._spoke(run, None, is_later)
        return Outcome(Verdict.NEW, lost - above, under + lost, lost)

    def _join(self, upper: _Run, parted: _Run) -> int:
        """Give what was parted to the run that it goes on, or make it one; give what is lost."""
        number, said_ms = upper.window.first
        for run in self._runs:
            lost = run.window.skipped_before(number)
            if run is not parted and 0 <= lost <= LOSS_MAX and run.window.last[1] < said_ms:
                run.window.join(upper.window, lost)
                run.owed = upper.owed
                return lost
        self._runs.insert(self._runs.index(parted) + 1, upper)
        return 0

    def _begin(self, seq: int, t_ms: int, *, is_taken: bool) -> Outcome:
        """Take in a number that is below all or that another reading has."""
        if not is_taken and t_ms <= max(run.window.last[1] for run in self._runs):
            self._runs.append(_Run(begun(seq, t_ms)))
            return Outcome(Verdict.STRAGGLER)
        self._runs.insert(0, _Run(begun(seq, t_ms)))
        return Outcome(Verdict.RENUMBERED)

    def _nearest_below(self, seq: int, t_ms: int) -> _Run | None:
        """Give the run that the number may have leapt from.

        The one that spoke last; any of two senders; or, where the first is far away, one of
        which only a few would be lost. Another than the first is not left for the past.
        """
        first = self._runs[0]
        is_near = 0 <= first.window.skipped_before(seq) <= LOSS_MAX
        nearest = first if first.window.skipped_before(seq) >= 0 else None
        for run in self._runs[1:]:
            number, said_ms = run.window.last
            if number >= seq or said_ms >= t_ms:
                continue
            may = self.are_senders or (not is_near and seq - number <= LOSS_MAX)
            if may and (nearest is None or number > nearest.window.last[0]):
                nearest = run
        return nearest

    def _spoke(self, run: _Run, new: _Run | None, is_later: bool) -> None:
        """Note that a run has gone on, or a new one that follows it.

        What goes on in the past, such as messages kept for long and sent between new ones,
        does not come first, and is no sign of another sender.
        """
        first = self._runs[0]
        if new is not None:
            self._runs.insert(self._runs.index(run), new)
        if is_later and run is not first:
            self._runs.remove(new or run)
            self._runs.insert(0, new or run)
            self._alternations += 1
