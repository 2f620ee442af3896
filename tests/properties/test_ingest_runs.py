"""Claims about runs of numbers under one name, against what the senders know themselves.

A reading is its number and its time: each is accepted once, however often it comes, in whatever
order, whether ingest restarts in between or not. No number counts as missing that came, and as
many do as without a restart. Nothing here tells ingest which sender or which run of numbers a
reading is of.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest_following import follows
from matchday.ingest import identity
from matchday.ingest.identity import GAP_FILL_MAX, Identities
from matchday.ingest.numbering import Verdict
from matchday.ingest.replay import Headers, Replay, noted, place_of

WINDOW_MS = 120_000
T0_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
STEP_MS = 3
"""Times of up to three senders are apart: each has a remainder of its own."""

Said = tuple[int, int]
"""Number and event time."""


@dataclass
class Ingest:
    """Takes readings as a tick does, writes what is accepted, and can lose its memory.

    A message comes each millisecond, so the window is a number of messages, too.
    """

    window_ms: int = 10**9
    read_back: int = 10**9
    entries_min: int = 1
    stream: list[tuple[Said, Headers]] = field(default_factory=list)
    accepted: Counter[Said] = field(default_factory=Counter)
    missing: int = 0
    renumbered: int = 0
    now_ms: int = 0
    told: tuple[int, int] | None = None
    told_at: int = 0
    known: Identities = field(init=False)

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.known = Identities(window_ms=self.window_ms, entries_min=self.entries_min)
        self.known.turn(self.now_ms)

    def take(self, said: Said) -> None:
        self.now_ms += 1
        if follows(self.known, "s", "q", *said):
            verdict, missing, place = Verdict.NEW, 0, 0
        else:
            verdict, missing, place, _ = self.known.observe_number("s", "q", *said)
        assert (verdict is Verdict.DUPLICATE) == (said in self.accepted), said
        self.missing += missing
        assert self.missing >= 0
        self.renumbered += verdict is Verdict.RENUMBERED
        if verdict is not Verdict.DUPLICATE:
            self.accepted[said] += 1
            self.stream.append((said, noted(place)))
        self.known.turn(self.now_ms)

    def take_all(self, said: Iterable[Said]) -> None:
        for one in said:
            self.take(one)

    def tell(self) -> None:
        """Write the last number down, as a sweep does."""
        into: dict[str, dict[str, tuple[int, int]]] = {}
        keys = self.known.keys()
        self.known.tell(keys, 0, 1, into=into, most=1, chars_max=9, is_whole=True)
        self.told, self.told_at = into["s"]["q"], len(self.stream)

    def restart(self, *, read_back: int) -> None:
        """Begin again with what the end of the stream says, and the last number told before."""
        self._begin()
        replay = Replay(self.known, is_noted=True)
        since = max(0, len(self.stream) - read_back)
        if self.told is not None:
            since = min(since, self.told_at)
        for said, headers in self.stream[since:]:
            replay.take("s", "q", *said, place=place_of(headers), is_timed=True)
        if self.told is not None:
            self.known.resume("s", "q", self.told)
        replay.end()

    def take_amid_restarts(
        self, came: list[Said], rng: random.Random, restarts: int, *, told_every: int = 0
    ) -> None:
        """Take what comes and lose the memory so often, of which a window is read back."""
        restart_at = {rng.randrange(len(came)) for _ in range(restarts)}
        for place, one in enumerate(came):
            self.take(one)
            if told_every and place % told_every == 0:
                self.tell()
            if place in restart_at:
                self.restart(read_back=self.read_back + rng.randrange(100))


@dataclass
class Sensor:
    """Numbers its readings, with a clock that may be set; no number and time is said twice."""

    rng: random.Random
    t_ms: int
    begin: int = 0
    runs: list[list[Said]] = field(default_factory=lambda: [[]])
    times: set[int] = field(default_factory=set)

    def say(self) -> Said:
        self.t_ms += STEP_MS * self.rng.randrange(1, 25)
        while self.t_ms in self.times:
            self.t_ms += STEP_MS
        self.times.add(self.t_ms)
        said = self.begin + len(self.runs[-1]), self.t_ms
        self.runs[-1].append(said)
        return said

    def begin_anew(self) -> None:
        self.runs.append([])

    def set_clock(self, by_ms: int) -> None:
        self.t_ms += by_ms // STEP_MS * STEP_MS


def disordered(
    rng: random.Random, said: list[Said], *, reach: float, twice: float, twice_reach: float
) -> list[Said]:
    """Give readings as a bad network delivers them: some twice, all a little in disorder."""
    placed = [(place + rng.random() * reach, one) for place, one in enumerate(said)]
    placed += [(at + rng.random() * twice_reach, one) for at, one in placed if rng.random() < twice]
    return [one for _, one in sorted(placed, key=lambda item: item[0])]


def history(
    rng: random.Random, sensors: list[Sensor], *, steps: int, leaps: float, anew: float
) -> list[Said]:
    """Let sensors speak at random, set their clocks, and begin their numbers anew."""
    said = []
    for _ in range(steps):
        sensor = rng.choice(sensors)
        if rng.random() < leaps:
            sensor.set_clock(rng.choice((-1, 1)) * rng.choice((0, 1, 100, 5000, HOUR_MS)))
        if rng.random() < anew:
            sensor.begin_anew()
        said.append(sensor.say())
    return said


def delivered(
    rng: random.Random,
    sensors: list[Sensor],
    *,
    steps: int,
    leaps: float,
    anew: float,
    reach: float,
    restarts: int = 0,
    is_aged: bool = True,
    told_every: int = 0,
) -> Ingest:
    """Let sensors speak, a network deliver, and ingest take it; all of it is accepted once.

    All that is late or comes again does so within the window.
    """
    window = int(4 * reach) + 90
    ingest = Ingest(window_ms=window if is_aged else 10**9, read_back=window)
    said = history(rng, sensors, steps=steps, leaps=leaps, anew=anew)
    came = disordered(rng, said, reach=reach, twice=0.2, twice_reach=2 * reach + 40)
    ingest.take_amid_restarts(came, rng, restarts, told_every=told_every)
    assert ingest.accepted == Counter(said)
    return ingest


def told(rng: random.Random, *, count: int, restart_at: int) -> list[Said]:
    """Give the readings of tests/faults/test_clocks.py: clock set, set back, numbers begun anew."""
    t_ms, said = T0_MS, []
    for number in range(count):
        t_ms += rng.randrange(1, 50)
        if number == count // 3:
            t_ms += HOUR_MS
        if number == count // 2:
            t_ms -= HOUR_MS
        if number < restart_at:
            said.append((number, t_ms))
        else:
            said.append((number - restart_at, t_ms + 2 * HOUR_MS))
    return said


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32), is_mixed=st.booleans())
@example(seed=1, is_mixed=False)
@example(seed=1, is_mixed=True)
def test_history_of_the_clocks_that_jump_misses_nothing(seed: int, is_mixed: bool):
    rng, restart_at = random.Random(seed), 250
    said = told(rng, count=400, restart_at=restart_at)
    parts = [said] if is_mixed else [said[:restart_at], said[restart_at:]]
    ingest = Ingest()
    for part in parts:
        ingest.take_all(disordered(rng, part, reach=20, twice=0.2, twice_reach=200))
    assert ingest.accepted == Counter(said)
    assert ingest.missing == 0


@settings(deadline=None, max_examples=500)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 300),
    senders=st.integers(1, 2),
    leaps=st.sampled_from((0.0, 0.02, 0.2)),
    anew=st.sampled_from((0.0, 0.01, 0.03)),
    reach=st.sampled_from((0.0, 3.0, 20.0, 100.0, 1000.0)),
    restarts=st.integers(0, 3),
    is_aged=st.booleans(),
    told_every=st.sampled_from((0, 1, 7, 60)),
)
@example(
    seed=12_748,
    steps=213,
    senders=1,
    leaps=0.02,
    anew=0.03,
    reach=20.0,
    restarts=3,
    is_aged=False,
    told_every=0,
)
def test_all_that_came_once_or_twice_in_any_order_is_accepted_once_and_nothing_is_missing(
    seed: int,
    steps: int,
    senders: int,
    leaps: float,
    anew: float,
    reach: float,
    restarts: int,
    is_aged: bool,
    told_every: int,
):
    rng = random.Random(seed)
    ingest = delivered(
        rng,
        [Sensor(rng, t_ms=T0_MS + which) for which in range(senders)],
        steps=steps,
        leaps=leaps,
        anew=anew,
        reach=reach,
        restarts=restarts,
        is_aged=is_aged,
        told_every=told_every,
    )
    assert ingest.missing == 0


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 300),
    anew=st.sampled_from((0.05, 0.1, 0.3)),
    leaps=st.sampled_from((0.0, 0.2)),
    reach=st.sampled_from((0.0, 3.0, 20.0)),
    restarts=st.integers(0, 2),
    gap_fill_max=st.sampled_from((0, 2, GAP_FILL_MAX)),
)
def test_nothing_is_missing_of_more_runs_than_are_kept_whether_gaps_are_kept_open_or_not(
    seed: int,
    steps: int,
    anew: float,
    leaps: float,
    reach: float,
    restarts: int,
    gap_fill_max: int,
):
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "GAP_FILL_MAX", gap_fill_max)
        ingest = delivered(
            rng,
            [Sensor(rng, t_ms=T0_MS)],
            steps=steps,
            leaps=leaps,
            anew=anew,
            reach=reach,
            restarts=restarts,
            is_aged=False,
        )
    assert ingest.missing == 0


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 300),
    begins=st.lists(st.sampled_from((0, 3, 30, 15_000, 10**9)), min_size=1, max_size=3),
    leaps=st.sampled_from((0.0, 0.02, 0.2)),
    anew=st.sampled_from((0.0, 0.03)),
    reach=st.sampled_from((0.0, 3.0, 20.0)),
    restarts=st.integers(0, 3),
)
def test_each_reading_is_accepted_once_wherever_numbers_begin(
    seed: int,
    steps: int,
    begins: list[int],
    leaps: float,
    anew: float,
    reach: float,
    restarts: int,
):
    rng = random.Random(seed)
    sensors = [Sensor(rng, T0_MS + which, begin) for which, begin in enumerate(begins)]
    delivered(rng, sensors, steps=steps, leaps=leaps, anew=anew, reach=reach, restarts=restarts)


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 150),
    begins=st.lists(st.sampled_from((0, 3, 30, 15_000, 10**9)), min_size=1, max_size=3),
    leaps=st.sampled_from((0.0, 0.02, 0.2)),
    anew=st.sampled_from((0.0, 0.03, 0.2)),
    reach=st.sampled_from((0.0, 3.0, 20.0)),
    loss=st.sampled_from((0.0, 0.1, 0.5)),
    restarts=st.integers(1, 10),
)
@example(
    seed=8372983, steps=144, begins=[0], leaps=0.02, anew=0.2, reach=20.0, loss=0.0, restarts=2
)
@example(
    seed=289, steps=31, begins=[0, 0, 15000], leaps=0.0, anew=0.03, reach=0.0, loss=0.0, restarts=9
)
def test_restart_that_reads_all_back_changes_nothing_of_what_counts_as_missing(
    seed: int,
    steps: int,
    begins: list[int],
    leaps: float,
    anew: float,
    reach: float,
    loss: float,
    restarts: int,
):
    rng = random.Random(seed)
    sensors = [Sensor(rng, T0_MS + which, begin) for which, begin in enumerate(begins)]
    said = history(rng, sensors, steps=steps, leaps=leaps, anew=anew)
    kept = [one for one in said if rng.random() >= loss] or said
    came = disordered(rng, kept, reach=reach, twice=0.2, twice_reach=2 * reach + 40)
    ingest, other = Ingest(), Ingest()
    restart_at = {rng.randrange(len(came)) for _ in range(restarts)}
    for place, one in enumerate(came):
        ingest.take(one)
        other.take(one)
        assert ingest.missing == other.missing
        if place in restart_at:
            ingest.restart(read_back=10**9)


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 200),
    begins=st.sampled_from(((0, 400), (0, 15_000), (0, 10**9), (5000, 0), (10**9, 0))),
    loss=st.sampled_from((0.0, 0.02, 0.2)),
)
def test_missing_is_what_each_of_two_senders_far_apart_has_left_out(
    seed: int, steps: int, begins: tuple[int, int], loss: float
):
    rng, ingest = random.Random(seed), Ingest()
    now_ms, lost = T0_MS, 0
    numbers = list(begins)
    for step in range(steps + 24):
        is_settling = step < 12 or step >= steps + 12
        for which in rng.sample((0, 1), 2) if step >= 5 else (0,):
            now_ms += 10
            seq = numbers[which]
            numbers[which] += 1
            if not is_settling and rng.random() < loss:
                lost += 1
            else:
                ingest.take((seq, now_ms))
    assert ingest.missing == lost
    assert ingest.renumbered <= 1


@settings(deadline=None, max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 300),
    senders=st.integers(1, 2),
    leaps=st.sampled_from((0.0, 0.02, 0.2)),
    anew=st.sampled_from((0.0, 0.01)),
    reach=st.sampled_from((0.0, 3.0, 20.0, 100.0)),
    loss=st.sampled_from((0.01, 0.1, 0.5)),
    restarts=st.integers(0, 3),
)
def test_what_is_lost_is_missing_and_never_more_than_that(
    seed: int,
    steps: int,
    senders: int,
    leaps: float,
    anew: float,
    reach: float,
    loss: float,
    restarts: int,
):
    rng, ingest = random.Random(seed), Ingest(read_back=int(4 * reach) + 100)
    sensors = [Sensor(rng, t_ms=T0_MS + which) for which in range(senders)]
    said = history(rng, sensors, steps=steps, leaps=leaps, anew=anew)
    firsts = {run[0] for sensor in sensors for run in sensor.runs if run}
    lost = {one for one in said if one not in firsts and rng.random() < loss}
    kept = [one for one in said if one not in lost]
    came = disordered(rng, kept, reach=reach, twice=0.2, twice_reach=2 * reach + 50)
    ingest.take(kept[0])
    ingest.take_amid_restarts(came, rng, restarts)
    assert ingest.accepted == Counter(kept)
    gaps = [
        sum(one in lost and one[0] < max(n for n, t in run if (n, t) not in lost) for one in run)
        for sensor in sensors
        for run in sensor.runs
        if run
    ]
    assert 0 <= ingest.missing <= sum(gaps)
    if len(gaps) == 1 and not leaps and reach <= 20:
        assert ingest.missing == sum(gaps)


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 200),
    anew=st.sampled_from((0.0, 0.05, 0.3)),
    together=st.sampled_from((1, 5, 200)),
    restarts=st.integers(0, 3),
)
@example(seed=401, steps=65, anew=0.05, together=200, restarts=1)
def test_every_reading_without_a_time_is_new_and_none_is_missing_however_many_arrive_at_once(
    seed: int, steps: int, anew: float, together: int, restarts: int
):
    rng, now_ms, seq = random.Random(seed), T0_MS, -1
    restart_at = {rng.randrange(steps) for _ in range(restarts)}
    known = Identities(window_ms=10**9, entries_min=1)
    stream: list[tuple[int, int, int]] = []
    for step in range(steps):
        now_ms += rng.randrange(together) == 0
        seq = 0 if rng.random() < anew else seq + 1
        outcome = known.observe_number("s", "q", seq, now_ms, is_timed=False)
        assert outcome.verdict is not Verdict.DUPLICATE
        assert outcome.missing == 0
        stream.append((seq, now_ms, outcome.place))
        if step in restart_at:
            known = Identities(window_ms=10**9, entries_min=1)
            replay = Replay(known, is_noted=True)
            for said_seq, at_ms, place in stream:
                replay.take("s", "q", said_seq, at_ms, place=place, is_timed=False)
            replay.end()


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 200),
    entries_min=st.integers(1, 20),
    twice=st.sampled_from((0.5, 0.9)),
)
def test_the_newest_readings_are_known_however_often_and_late_they_come_again(
    seed: int, steps: int, entries_min: int, twice: float
):
    rng, now_ms = random.Random(seed), T0_MS
    known = Identities(window_ms=WINDOW_MS, entries_min=entries_min)
    newest: list[int] = []

    def is_new(which: int) -> bool:
        if which % 2:
            return known.observe_content(b"%d" % which)
        outcome = known.observe_number("s", "q", which // 2, T0_MS + which)
        return outcome.verdict is not Verdict.DUPLICATE

    for step in range(steps):
        if newest and rng.random() < twice:
            assert not is_new(rng.choice(newest))
        else:
            assert is_new(step)
            newest = [*newest, step][-entries_min:]
        now_ms += rng.choice((1, WINDOW_MS // 2, WINDOW_MS))
        known.turn(now_ms)
