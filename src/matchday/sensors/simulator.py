"""The simulator: any number of seeded sources that publish like real ones.

Owns what a simulated source says and when. Every source draws from a generator of its own,
made from the seed and its name, so that what one says does not depend on how many others
there are. How players move is in `players`; numbers and delivery are the outlet's.
"""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np

from matchday.clock import Clock
from matchday.domain.instants import iso_from_ms
from matchday.domain.topics import DAY_MS, NativeTopic
from matchday.domain.venue import Pitch, Venue, Zone
from matchday.errors import ConfigError
from matchday.sensors.outbox import Draft
from matchday.sensors.outlet import BATCH_MAX, Outlet, hand_over, wait_until
from matchday.sensors.players import Match

STAY_S: Final = 900.0
CAPACITY: Final = 1_000

SourceKind: TypeAlias = Literal["players", "counts", "scalars", "mixed"]

_KINDS: Final = ("players", "counts", "scalars")
_NO_VENUE: Final = Venue("demo", "Demo ground", Pitch("rectangle", 105.0, 68.0))


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """What to simulate.

    Attributes:
        source: Name of the source; of several sources the stem, followed by "-0", "-1", ...
        count: How many sources.
        rate_hz: Messages of each source per second.
        kind: What they are; "mixed" takes players, counts, scalars in turn.
        venue: Its pitch holds the players, its zones are counted in turn.
        seed: Together with a source's name it decides all that the source says.
        messages_max: Messages of each source; None goes on until stopped.

    Raises:
        ConfigError: A number is out of its bounds or the kind is unknown.
    """

    source: str
    count: int = 1
    rate_hz: float = 1.0
    kind: SourceKind = "mixed"
    venue: Venue = _NO_VENUE
    seed: int = 0
    messages_max: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 100_000:
            raise ConfigError(f"simulating: {self.count} sources: not within 1 to 100000")
        if not 0 < self.rate_hz <= 100_000:
            raise ConfigError(f"simulating: rate {self.rate_hz} Hz: not within 0 to 100000")
        if self.kind not in (*_KINDS, "mixed"):
            raise ConfigError(
                f"simulating: kind {self.kind!r}: not players, counts, scalars, mixed"
            )


class Model(Protocol):
    """What a source says: one call per message, in order."""

    kind: str

    def fields(self, t_ms: int, passed_s: float) -> dict[str, Any]:
        """Give the payload's own fields at event time `t_ms`, `passed_s` after the last."""


def simulate(options: SimulateOptions, outlet: Outlet, clock: Clock, stop: threading.Event) -> int:
    """Publish until `stop` is set or every source has said `messages_max` messages.

    All sources speak at the same instants, `1 / rate_hz` apart, beginning now; `t` is that
    instant. When the outlet is full or the machine too slow, nothing is left out: the
    messages come later than their `t`. Each call is a new session per source.

    Returns:
        How many messages were handed over; some may be unacknowledged: flush the outlet.

    Raises:
        UnavailableError: The disk of the outbox is full.
    """
    names = (
        [options.source]
        if options.count == 1
        else [f"{options.source}-{index}" for index in range(options.count)]
    )
    started_ms, started_s = clock.wall_ms(), clock.monotonic_s()
    stamp = iso_from_ms(started_ms).replace("-", "").replace(":", "").replace(".", "")
    speakers = [
        _Speaker(name, _model(options, name, index), options.venue.id, stamp)
        for index, name in enumerate(names)
    ]
    total = tick = 0
    batch: list[Draft] = []
    while options.messages_max is None or tick < options.messages_max:
        due_s = started_s + tick / options.rate_hz
        # Whoever is late hands over several ticks at once: one commit for all of them.
        if batch and due_s > clock.monotonic_s():
            if not hand_over(batch, outlet, stop):
                return total
            total += len(batch)
            batch = []
        if not wait_until(due_s, outlet, clock, stop):
            return total
        t_ms = started_ms + round(tick * 1000 / options.rate_hz)
        passed_s = 1 / options.rate_hz if tick else 0.0
        for speaker in speakers:
            batch.append(speaker.draft(t_ms, passed_s))
            if len(batch) >= BATCH_MAX:
                if not hand_over(batch, outlet, stop):
                    return total
                total += len(batch)
                batch = []
        tick += 1
    if batch and hand_over(batch, outlet, stop):
        total += len(batch)
    return total


def generator_of(seed: int, source: str) -> np.random.Generator:
    """Give the random generator of a source: the same for the same seed and name, anywhere."""
    digest = hashlib.sha256(f"{seed}/{source}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


class Players:
    """A match, see `players.Match`."""

    kind = "positions"

    def __init__(self, pitch: Pitch, generator: np.random.Generator) -> None:
        self._match = Match(pitch, generator)

    def fields(self, t_ms: int, passed_s: float) -> dict[str, Any]:
        """Give the objects."""
        self._match.advance(passed_s)
        return {"objects": self._match.objects()}


class ZoneCount:
    """People entering and leaving a zone: `occupancy` is always the sum of all in and out.

    Arrivals are a Poisson process whose rate swells and ebbs within an hour; everybody
    stays for an exponentially distributed time of 15 min on average; a full zone takes
    nobody in.
    """

    kind = "count"

    def __init__(self, zone: Zone | None, generator: np.random.Generator) -> None:
        self._zone_id = "Z1" if zone is None else zone.id
        self._capacity = CAPACITY if zone is None or zone.capacity is None else zone.capacity
        self._random = generator
        self._occupancy = 0

    def fields(self, t_ms: int, passed_s: float) -> dict[str, Any]:
        """Give in, out and occupancy."""
        swell = 1.0 - math.cos(2 * math.pi * (t_ms % 3_600_000) / 3_600_000)
        rate_per_s = 0.6 * self._capacity / STAY_S * swell
        left = int(self._random.binomial(self._occupancy, -math.expm1(-passed_s / STAY_S)))
        arriving = int(self._random.poisson(rate_per_s * passed_s))
        entered = min(arriving, self._capacity - self._occupancy + left)
        self._occupancy += entered - left
        return {"zone": self._zone_id, "in": entered, "out": left, "occupancy": self._occupancy}


class Thermometer:
    """An outdoor temperature: a daily wave, warmest at 15:00 UTC, and slow noise."""

    kind = "scalar"

    def __init__(self, generator: np.random.Generator) -> None:
        self._random = generator
        self._mean_c = float(generator.uniform(14.0, 22.0))
        self._swing_c = float(generator.uniform(4.0, 8.0))
        self._noise_c = float(generator.normal(0.0, 0.5))

    def fields(self, t_ms: int, passed_s: float) -> dict[str, Any]:
        """Give the temperature in degrees Celsius."""
        decay = math.exp(-passed_s / 1800.0)
        self._noise_c = self._noise_c * decay + float(
            self._random.normal(0.0, 0.5 * math.sqrt(1 - decay**2))
        )
        phase = 2 * math.pi * (t_ms % DAY_MS - 15 * 3_600_000) / DAY_MS
        value_c = self._mean_c + self._swing_c * math.cos(phase) + self._noise_c
        return {"quantity": "temperature", "value": round(value_c, 2), "unit": "degC"}


def _model(options: SimulateOptions, source: str, index: int) -> Model:
    generator = generator_of(options.seed, source)
    kind = _KINDS[index % len(_KINDS)] if options.kind == "mixed" else options.kind
    if kind == "players":
        return Players(options.venue.pitch, generator)
    if kind == "counts":
        zones = options.venue.zones
        turn = index // len(_KINDS) if options.kind == "mixed" else index
        return ZoneCount(zones[turn % len(zones)] if zones else None, generator)
    return Thermometer(generator)


class _Speaker:
    """A source: its model under its topic and session."""

    def __init__(self, source: str, model: Model, venue_id: str, stamp: str) -> None:
        self._topic = str(NativeTopic(venue_id, model.kind, source))
        self._session = f"{source}-{stamp}"
        self._model = model
        quantity = "temperature" if model.kind == "scalar" else model.kind
        self._series = f"{self._topic} {quantity}"

    def draft(self, t_ms: int, passed_s: float) -> Draft:
        """Give the message of event time `t_ms`, `passed_s` seconds after the one before."""
        fields = {"t": t_ms, "session": self._session, **self._model.fields(t_ms, passed_s)}
        return Draft(self._topic, fields, self._series)
