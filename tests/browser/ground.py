"""A whole small ground for tests of the dashboard: embedded stream and store, and feeders.

Owns a data folder with a real embedded stream, store and query, and functions that put
readings and findings into both as ingest, analysis and persist would. The movement is
made up and seeded; it knows no service.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matchday.clock import Clock, SystemClock
from matchday.dashboard.state import Attribution, DashboardState
from matchday.domain.account import Account, Counts, account_of
from matchday.domain.finding import Finding
from matchday.domain.reading import Positions, Reading, Scalar, TrackedObject, partition_key
from matchday.domain.topics import Topic
from matchday.domain.venue import Venue, read_venue
from matchday.domain.wire import encode_finding, encode_reading
from matchday.ports import LinkState, Partition, PartitionWrite, Record, Start
from matchday.sqlite import DataFolder
from matchday.store.embedded import EmbeddedStore
from matchday.store.embedded_query import EmbeddedQuery
from matchday.store.rows import rows_of
from matchday.stream.embedded import EmbeddedStream

VENUES = Path(__file__).parents[2] / "examples" / "venues"
START_MS = 1_700_000_000_000


@dataclass
class Ground:
    """Stream, store and account of one data folder; close it when done."""

    folder: Path
    clock: Clock = field(default_factory=SystemClock)
    venue_names: tuple[str, ...] = ("demo", "oval")

    def __post_init__(self) -> None:
        self.owned = DataFolder(self.folder)
        self.stream = EmbeddedStream(self.folder, clock=self.clock)
        self.stream.prepare()
        self.store = EmbeddedStore(self.folder, clock=self.clock)
        self.store.prepare()
        self.query = EmbeddedQuery(self.folder, clock=self.clock)
        self.producer = self.stream.producer("test-feeder")
        self.counts: dict[str, Counts] = {}
        self.links: list[LinkState] = []
        self.venues: list[Venue] = [
            read_venue(VENUES / f"{name}.toml") for name in self.venue_names
        ]
        self._next: dict[Partition, int] = {}

    def state(self, **changes: object) -> DashboardState:
        """Give what a dashboard of this ground needs; any field can be replaced."""
        fields: dict[str, object] = {
            "query": self.query,
            "account": self.account,
            "links": self.link_states,
            "stream": lambda: self.stream,
            "venues": self.venues,
            "clock": self.clock,
            "title": "Demo ground",
            "endpoint_note": "127.0.0.1:1883",
            "attributions": [
                Attribution("Match", "recorded by a provider, MIT", "https://example.org/match")
            ],
        }
        return DashboardState(**{**fields, **changes})  # type: ignore[arg-type]

    def account(self) -> Account:
        """Give the account of what was fed."""
        return account_of(dict(self.counts))

    def link_states(self) -> Sequence[LinkState]:
        """Give the links of stream and store, and whatever a test added."""
        return [self.stream.link(), self.store.link(), *self.links]

    def publish(self, *readings: Reading) -> None:
        """Append readings to the stream, as accepted."""
        records = [
            Record(partition_key(reading).encode(), encode_reading(reading)) for reading in readings
        ]
        self.producer.commit({Topic.ANALYTICS: records})
        for reading in readings:
            self.counts.setdefault(reading.source, Counts()).accepted += 1

    def find(self, *findings: Finding) -> None:
        """Append findings to the stream."""
        records = [
            Record((finding.venue or finding.sensor).encode(), encode_finding(finding))
            for finding in findings
        ]
        self.producer.commit({Topic.RESULTS: records})

    def refuse(self, source: str, raw: bytes, *, reason: str) -> None:
        """Append a dead letter, as the gate would."""
        headers = (("reason", reason.encode()), ("topic", b"matchday/demo/scalar/x"))
        self.producer.commit({Topic.DEAD_LETTERS: [Record(source.encode(), raw, headers)]})
        self.counts.setdefault(source, Counts()).refused += 1

    def persist(self) -> None:
        """Store everything in the stream that is not stored yet, as persist would."""
        reader = self.stream.reader(
            (Topic.ANALYTICS, Topic.RESULTS, Topic.DEAD_LETTERS), Start.beginning()
        )
        found: dict[Partition, list] = {}
        while not reader.is_at_end():
            for record in reader.poll(timeout_s=0.1, records_max=10_000):
                place = Partition(record.topic, record.partition)
                if record.offset >= self._next.get(place, 0):
                    found.setdefault(place, []).append(record)
        reader.close()
        for place, records in found.items():
            self.store.claim(place, self.stream.topic_id(place.topic))
            rows = [row for record in records for row in rows_of(record)]
            self._next[place] = records[-1].offset + 1
            self.store.write([PartitionWrite(place, self._next[place], rows=rows)])
            for row in rows:
                if row.source is not None and place.topic is Topic.ANALYTICS:
                    self.counts.setdefault(row.source, Counts()).stored += 1

    def close(self) -> None:
        """Close stream and store."""
        self.producer.close()
        self.query.close()
        self.store.close()
        self.stream.close()
        self.owned.close()


def players_at(t_ms: int, *, rng_seed: int = 7) -> tuple[TrackedObject, ...]:
    """Give 22 players and the ball on smooth paths at event time `t_ms`."""
    rng = random.Random(rng_seed)
    objects = []
    s = t_ms / 1000
    for team, side in (("home", -1), ("away", 1)):
        for number in range(1, 12):
            x0, y0 = side * rng.uniform(4, 42), rng.uniform(-28, 28)
            phase, size = rng.uniform(0, 6), rng.uniform(3, 9)
            objects.append(
                TrackedObject(
                    id=f"{team}_{number}",
                    x=x0 + size * math.sin(s / 3 + phase),
                    y=y0 + size * math.cos(s / 4 + phase),
                    team=team,
                )
            )
    x, y = 38 * math.sin(s / 5), 24 * math.sin(s / 3.1)
    return (*objects, TrackedObject(id="ball", x=x, y=y))


def crowd_at(t_ms: int, *, count: int = 75, rng_seed: int = 3) -> tuple[TrackedObject, ...]:
    """Give people who shuffle in front of the demo ground's north gate."""
    rng = random.Random(rng_seed)
    s = t_ms / 1000
    return tuple(
        TrackedObject(
            id=f"p{index}",
            x=rng.gauss(0, 1.4) + 0.2 * math.sin(s + index),
            y=45 + abs(rng.gauss(0, 3)) + 0.2 * math.cos(s / 2 + index),
        )
        for index in range(count)
    )


def positions(source: str, t_ms: int, objects: Iterable[TrackedObject], seq: int) -> Positions:
    """Make one positions reading of the demo ground."""
    return Positions(
        source=source, t_ms=t_ms, objects=tuple(objects), seq=seq, venue="demo", session="one"
    )


def scalar(source: str, t_ms: int, value: float, *, seq: int = 1, unit: str = "degC") -> Scalar:
    """Make one temperature reading."""
    return Scalar(
        source=source,
        t_ms=t_ms,
        quantity="temperature",
        value=value,
        unit=unit,
        seq=seq,
        venue="demo",
    )


def forecast(source: str, t_ms: int, yhat: float, half_width: float) -> Finding:
    """Make one forecast about a temperature."""
    return Finding(
        subject=f"{source}/temperature",
        kind="forecast",
        span_start_ms=t_ms,
        span_end_ms=t_ms,
        model="seasonal-baseline/1",
        values={"yhat": yhat, "yhat_lower": yhat - half_width, "yhat_upper": yhat + half_width},
        sensor=source,
        venue="demo",
    )
