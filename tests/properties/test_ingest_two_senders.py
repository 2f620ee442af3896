"""Claims about two senders under one name, against a plain model: the numbers of each run.

Missing is what a run has left out between its first and its last number. What another run has
said changes nothing of it, and no reading is accepted twice, whoever says what in between.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from matchday.ingest.identity import Identities
from matchday.ingest.numbering import Verdict

WINDOW_MS = 120_000
T0_MS = 1_700_000_000_000
STEP_MS = 20
SETTLING = 12
"""Rounds without loss at the beginning and the end, in which every run shows itself."""

REPEATED = 40
"""Of so many readings one may come twice; more are read back after a restart."""

Said = tuple[int, int]
"""Number and event time."""


@dataclass
class Sender:
    """Numbers its messages; `runs` are the numbers of its that came, one list per numbering."""

    next_seq: int
    runs: list[list[int]] = field(default_factory=lambda: [[]])

    def say(self, t_ms: int, *, is_lost: bool) -> Said | None:
        seq = self.next_seq
        self.next_seq += 1
        if is_lost:
            return None
        self.runs[-1].append(seq)
        return seq, t_ms

    def begin_anew(self, seq: int) -> None:
        self.next_seq = seq
        self.runs.append([])

    def missing(self) -> int:
        return sum(max(run) - min(run) + 1 - len(run) for run in self.runs if run)


class Ingest:
    """Takes readings as a tick does, writes what is accepted, and can lose its memory."""

    def __init__(self) -> None:
        self.stream: list[tuple[Said, bool, int]] = []
        self.accepted: Counter[Said] = Counter()
        self.missing = self.renumbered = 0
        self._begin()

    def _begin(self) -> None:
        self.known = Identities(window_ms=WINDOW_MS, entries_min=1)
        self._contents: set[Said] = set()

    def _observe(self, said: Said, *, is_timed: bool) -> tuple[bool, int]:
        if self.known.follows("s", "q", *said):
            return True, 0
        verdict, missing = self.known.observe_number("s", "q", *said, is_timed=is_timed)
        self.renumbered += verdict is Verdict.RENUMBERED
        if verdict is Verdict.STRAGGLER:
            is_new = said not in self._contents
            self._contents.add(said)
            return is_new, missing
        return verdict is not Verdict.DUPLICATE, missing

    def take(self, said: Said, *, is_timed: bool = True) -> None:
        is_new, missing = self._observe(said, is_timed=is_timed)
        self.missing += missing
        if is_new:
            self.accepted[said] += 1
            self.stream.append((said, is_timed, missing))
        elif missing and self.stream:
            self.stream[-1] = (*self.stream[-1][:2], self.stream[-1][2] + missing)

    def restart(self, *, read_back: int) -> None:
        """Begin again with what the end of the stream and of the ledger say."""
        self._begin()
        is_gapped, counted, renumbered = False, 0, self.renumbered
        for said, is_timed, missing in self.stream[-read_back:]:
            is_gapped |= self._observe(said, is_timed=is_timed)[1] > 0
            counted += missing
        self.renumbered = renumbered
        self.known.recall({"s": counted} if is_gapped else {})


def play(
    rng: random.Random,
    senders: list[Sender],
    ingest: Ingest,
    *,
    rounds: int,
    loss: float,
    twice: float = 0.0,
    at_ms: int,
) -> int:
    """Let the senders speak, at random which and how often; give the time at the end."""
    said: list[Said] = [one for one, *_ in ingest.stream]
    for _ in range(rounds):
        for sender in rng.sample(senders, len(senders)):
            for _ in range(1 if loss == 0 else rng.choice((0, 1, 1, 1, 2, 5))):
                at_ms += STEP_MS
                one = sender.say(at_ms, is_lost=rng.random() < loss)
                if one is not None:
                    said.append(one)
                    ingest.take(one)
                if said and rng.random() < twice:
                    ingest.take(rng.choice(said[-REPEATED:]))
    return at_ms


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    ahead=st.sampled_from((0, 1, 30, 500, 5000, 20_000, 10**9)),
    is_first_ahead=st.booleans(),
    rounds=st.integers(0, 60),
    loss=st.sampled_from((0.0, 0.02, 0.2)),
    restarts=st.integers(0, 2),
)
def test_missing_is_what_each_sender_has_left_out_and_nothing_else(
    seed: int, ahead: int, is_first_ahead: bool, rounds: int, loss: float, restarts: int
):
    rng, ingest = random.Random(seed), Ingest()
    first, second = Sender(ahead if is_first_ahead else 0), Sender(0 if is_first_ahead else ahead)
    at_ms = play(rng, [first], ingest, rounds=rng.randrange(1, 30), loss=0, at_ms=T0_MS)
    senders = [first, second]
    for _ in range(1 + restarts):
        at_ms = play(rng, senders, ingest, rounds=SETTLING, loss=0, twice=0.1, at_ms=at_ms)
        at_ms = play(rng, senders, ingest, rounds=rounds, loss=loss, twice=0.1, at_ms=at_ms)
        at_ms = play(rng, senders, ingest, rounds=SETTLING, loss=0, twice=0.1, at_ms=at_ms)
        assert ingest.missing == first.missing() + second.missing()
        ingest.restart(read_back=rng.randrange(REPEATED + 8, 2 * len(ingest.stream) + 50))
    assert set(ingest.accepted.values()) == {1}
    assert ingest.renumbered <= 1


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    rounds=st.integers(1, 100),
    loss=st.sampled_from((0.0, 0.02, 0.2)),
    late=st.sampled_from((0.0, 0.1, 0.4)),
    anew=st.sampled_from((0.0, 0.05)),
    restarts=st.sampled_from((0.0, 0.02)),
    lag_ms=st.sampled_from((0, 1, 1000, 10**9)),
    turned=st.booleans(),
)
def test_no_reading_is_accepted_twice_or_lost_whatever_two_senders_say(
    seed: int,
    rounds: int,
    loss: float,
    late: float,
    anew: float,
    restarts: float,
    lag_ms: int,
    turned: bool,
):
    rng, ingest = random.Random(seed), Ingest()
    senders = [Sender(rng.choice((0, 3, 20, 5000))) for _ in range(2)]
    said: list[Said] = []
    held: list[Said] = []
    ingest.known.turn(T0_MS)
    for step in range(rounds):
        which = rng.randrange(2)
        if rng.random() < anew:
            senders[which].begin_anew(rng.choice((0, 1, 7)))
        # A time is said once, so that each reading is one of its own.
        t_ms = T0_MS + STEP_MS * step - which * (lag_ms * STEP_MS + 1)
        one = senders[which].say(t_ms, is_lost=rng.random() < loss)
        if one is None:
            continue
        said.append(one)
        held.append(one) if rng.random() < late else ingest.take(one)
        while held and rng.random() < 0.3:
            ingest.take(held.pop(rng.randrange(len(held))))
        if rng.random() < 0.3:
            again = rng.choice(said)
            if again not in held:
                ingest.take(again)
        if rng.random() < restarts:
            ingest.restart(read_back=len(ingest.stream) + 1)
        if turned and step == rounds // 2:
            ingest.known.turn(T0_MS + WINDOW_MS)
    for one in held:
        ingest.take(one)
    assert ingest.accepted == Counter(said)


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    rounds=st.integers(1, 300),
    loss=st.sampled_from((0.0, 0.02, 0.3)),
    anew=st.sampled_from((0.01, 0.05)),
)
def test_loss_of_a_lone_sender_that_begins_anew_is_never_taken_for_another_sender(
    seed: int, rounds: int, loss: float, anew: float
):
    rng, ingest = random.Random(seed), Ingest()
    sender = Sender(rng.choice((0, 5, 100)))
    for step in range(rounds):
        if rng.random() < anew:
            sender.begin_anew(0)
        is_lost = bool(sender.runs[-1]) and rng.random() < loss
        one = sender.say(T0_MS + STEP_MS * step, is_lost=is_lost)
        if one is not None:
            ingest.take(one)
    assert ingest.missing == sender.missing()
    assert ingest.known.shared_names() == []
