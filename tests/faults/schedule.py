"""Which faults happen in which order, drawn from a seed: the same seed, the same faults.

Pure: what a fault does to a process is in `campaign`. Moments are drawn too, but how far the
processes are by then depends on the machine, so a seed repeats the faults, not every byte.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Literal

Verb = Literal["kill", "pause", "step_down"]

PAIR_RATIO: Final = 0.3
BURST_RATIO: Final = 0.3


@dataclass(frozen=True)
class Blow:
    """One part of a fault.

    Attributes:
        verb: `kill` is SIGKILL, undone by a start; `pause` is SIGSTOP, undone by SIGCONT;
            `step_down` makes the one member of MongoDB's set give up being its primary.
        part: Whom it hits.
    """

    verb: Verb
    part: str

    def __str__(self) -> str:
        return f"{self.verb} {self.part}"


@dataclass(frozen=True)
class Fault:
    """Blows that fall at the same time and are undone one after another, in their order.

    Attributes:
        blows: At least one, of different parts.
        wait_s: How long readings flow before, seconds.
        hold_s: From the last blow to the first undoing, seconds.
        is_in_burst: Readings come at the burst rate meanwhile.
        must_recover: The next fault waits until readings made after this one are stored.
    """

    blows: tuple[Blow, ...]
    wait_s: float
    hold_s: float
    is_in_burst: bool = False
    must_recover: bool = True

    def __str__(self) -> str:
        burst = " in a burst" if self.is_in_burst else ""
        return f"{' + '.join(map(str, self.blows))} for {self.hold_s:.1f} s{burst}"


def kills(
    seed: int, parts: Sequence[str], *, count: int, calm_every: int = 10, wait_s_max: float = 1.5
) -> Iterator[Fault]:
    """Draw kills at random moments, of single parts and of pairs.

    Every part is hit about equally often. Most faults strike while what was killed before is
    still getting ready; every `calm_every`th waits until everything is well again.
    """
    rng = random.Random(seed)
    turn: list[str] = []
    for number in range(1, count + 1):
        if len(turn) < 2:
            turn += rng.sample(list(parts), len(parts))
        hit = [turn.pop(0)]
        if rng.random() < PAIR_RATIO and turn[0] not in hit:
            hit.append(turn.pop(0))
        yield Fault(
            tuple(Blow("kill", part) for part in hit),
            wait_s=rng.uniform(0.0, wait_s_max),
            hold_s=rng.choice((0.0, 0.0, rng.uniform(0.0, 1.0))),
            is_in_burst=rng.random() < BURST_RATIO,
            must_recover=number % calm_every == 0 or number == count,
        )


def outages(seed: int, servers: Sequence[str], *, pause_s: float) -> Iterator[Fault]:
    """Draw outages of servers: each killed and frozen alone, each pair in both orders.

    Args:
        seed: Of the order, of the moments, and of what happens to which of a pair.
        servers: Those that can be killed and frozen; one called `mongo` also steps down.
        pause_s: How long a frozen server stands still, seconds.
    """
    rng = random.Random(seed)
    drawn = [Fault((Blow("kill", one),), *_moments(rng)) for one in servers]
    drawn += [Fault((Blow("pause", one),), rng.uniform(0.5, 2.0), pause_s) for one in servers]
    if "mongo" in servers:
        drawn.append(Fault((Blow("step_down", "mongo"),), *_moments(rng)))
    for first, second in permutations(servers, 2):
        verbs: tuple[Verb, Verb] = rng.choice(
            (("kill", "kill"), ("kill", "kill"), ("kill", "pause"))
        )
        hold_s = pause_s if "pause" in verbs else rng.uniform(0.5, 2.0)
        blows = (Blow(verbs[0], first), Blow(verbs[1], second))
        drawn.append(Fault(blows, rng.uniform(0.5, 2.0), hold_s))
    rng.shuffle(drawn)
    yield from drawn


@dataclass(frozen=True)
class Move:
    """A process that joins or leaves its group."""

    verb: Literal["start", "stop", "kill"]
    process: str

    def __str__(self) -> str:
        return f"{self.verb} {self.process}"


def moves(seed: int, processes: Sequence[str], *, count: int) -> Iterator[Move]:
    """Draw who joins and who leaves, so that of each role at least one is always at work.

    Args:
        seed: Of everything.
        processes: Roles with a number; those numbered 1 are at work at the beginning.
        count: How many moves.
    """
    rng = random.Random(seed)
    working = {name for name in processes if name.endswith("1")}
    for _ in range(count):
        roles = Counter(name[:-1] for name in working)
        free = [name for name in processes if name not in working]
        leaving = sorted(name for name in working if roles[name[:-1]] > 1)
        if free and (not leaving or rng.random() < 0.5):
            name = rng.choice(free)
            working.add(name)
            yield Move("start", name)
        elif leaving:
            name = rng.choice(leaving)
            working.remove(name)
            yield Move(rng.choice(("stop", "kill")), name)


def mixture(
    seed: int, processes: Sequence[str], servers: Sequence[str], *, every_s: float, pause_s: float
) -> Iterator[Fault]:
    """Draw faults of every kind without end, for long runs; each waits until all is well.

    Args:
        seed: Of everything.
        processes: Of ours.
        servers: Of others.
        every_s: The wait before each fault, seconds.
        pause_s: How long frozen parts stand still, seconds.
    """
    rng = random.Random(seed)
    while True:
        for one in rng.sample([*processes, *servers], len(processes) + len(servers)):
            rest = [other for other in (*processes, *servers) if other != one]
            hit = [one] if rng.random() > PAIR_RATIO or not rest else [one, rng.choice(rest)]
            is_pause = rng.random() < 0.3
            blows = tuple(Blow("pause" if is_pause else "kill", part) for part in hit)
            if hit == ["mongo"] and rng.random() < 0.5:
                blows = (Blow("step_down", "mongo"),)
            hold_s = pause_s if is_pause else rng.uniform(0.0, 3.0)
            yield Fault(blows, every_s, hold_s, is_in_burst=rng.random() < BURST_RATIO)


def _moments(rng: random.Random) -> tuple[float, float]:
    return rng.uniform(0.5, 2.0), rng.uniform(0.0, 2.0)
