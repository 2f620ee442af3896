"""A lively hour of one partition, seeded: players, crowd, gate, thermometer; some rubbish.

Used by the property and flow tests of the analysis: late and repeated readings, silences,
new sessions, clocks set back, corrections of the clock of the stream.
"""

from __future__ import annotations

import random

from matchday.analysis.plan import Plan
from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.reading import Count, Positions, Reading, Scalar, TrackedObject
from matchday.domain.topics import Topic
from matchday.domain.venue import Pitch, Venue, Zone
from matchday.domain.wire import encode_reading
from matchday.ports import StreamRecord

START_MS = 1_700_000_000_000
GROUND = Venue(
    id="g",
    name="Ground",
    pitch=Pitch("rectangle", 100.0, 60.0),
    zones=(Zone("N", "North", ((-5.0, 40.0), (5.0, 40.0), (5.0, 50.0), (-5.0, 50.0))),),
)
PLAN = Plan(
    AnalysisPolicy(
        window_s=2.0,
        lateness_s=1.5,
        idle_s=3.0,
        forget_s=8.0,
        baseline_season_s=6.0,
        baseline_points_max=30,
        baseline_forget_s=20.0,
        rewind_records_max=400,
    ),
    {"g": GROUND},
)


class Source:
    """A source that walks through event time, now and then late, silent, or back at the start."""

    def __init__(self, name: str, rng: random.Random, *, step_ms: int, is_steady: bool) -> None:
        self.name, self._rng, self._step_ms = name, rng, step_ms
        self._is_steady = is_steady
        self.t_ms = START_MS + rng.randrange(5000)
        self.session = 0
        self.silent_until = 0
        self._places = {f"{name}{n}": [rng.uniform(-40, 40), rng.uniform(-25, 25)] for n in "abc"}

    def read(self) -> Reading:
        rng = self._rng
        luck = rng.random()
        self.t_ms += self._step_ms if luck > 0.02 else rng.choice((2500, 9000))
        if luck < 0.004:
            self.session += 1
        t_ms = self.t_ms - (rng.randrange(6000) if rng.random() < 0.06 else 0)
        if rng.random() < 0.002 and not self._is_steady:
            self.t_ms -= 100_000_000
        session = f"s{self.session}"
        if self.name.startswith("tag"):
            return Positions(
                source=self.name, t_ms=t_ms, objects=self._players(), venue="g", session=session
            )
        if self.name.startswith("camera"):
            count = rng.randrange(6)
            people = tuple(
                TrackedObject(f"p{n}", rng.uniform(-6, 6), rng.uniform(39, 51))
                for n in range(count)
            )
            return Positions(
                source=self.name, t_ms=t_ms, objects=people, venue="g", session=session
            )
        if self.name.startswith("gate"):
            return Count(
                source=self.name,
                t_ms=t_ms,
                zone="N",
                entered=float(rng.randrange(9)),
                occupancy=float(rng.randrange(50)),
                venue="g",
                session=session,
            )
        return Scalar(
            source=self.name, t_ms=t_ms, quantity="q", value=rng.gauss(5, 2), session=session
        )

    def _players(self) -> tuple[TrackedObject, ...]:
        rng = self._rng
        seen = []
        for name, place in self._places.items():
            place[0] += rng.gauss(0, 0.15)
            place[1] += rng.gauss(0, 0.15)
            jump = 3.0 if rng.random() < 0.02 else 0.0
            if rng.random() < 0.95:
                seen.append(TrackedObject(name, place[0] + jump, place[1], team="home"))
        return tuple(seen)


def records_of(seed: int, count: int, *, is_steady: bool = False) -> list[StreamRecord]:
    """Make one partition's records of five sources, interleaved at random.

    A steady scenario has no silence and no clock set back by a day: what analysis forgets by
    design is out of its reach.
    """
    rng = random.Random(seed)
    sources = [
        Source("tag1", rng, step_ms=40, is_steady=is_steady),
        Source("tag2", rng, step_ms=250, is_steady=is_steady),
        Source("camera", rng, step_ms=120, is_steady=is_steady),
        Source("gate", rng, step_ms=300, is_steady=is_steady),
        Source("thermometer", rng, step_ms=300, is_steady=is_steady),
    ]
    records = []
    stream_ms = START_MS + 50_000
    for offset in range(count):
        stream_ms += rng.choice((5, 20, 60, -3)) if rng.random() > 0.004 or is_steady else 6000
        awake = [source for source in sources if source.silent_until <= offset]
        source = rng.choice(awake or sources)
        if rng.random() < 0.01 and not is_steady:
            source.silent_until = offset + rng.randrange(400)
        value = encode_reading(source.read()) if rng.random() > 0.002 else b"rubbish"
        records.append(StreamRecord(Topic.ANALYTICS, 0, offset, stream_ms, b"g", value))
    return records
