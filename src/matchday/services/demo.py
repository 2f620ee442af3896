"""The bundled demo: which real recordings are replayed, where, and how fast."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from matchday.clock import Clock
from matchday.config import Settings
from matchday.dashboard.state import Attribution
from matchday.sensors.outbox import Outbox, claim_slot
from matchday.sensors.publisher import Publisher
from matchday.sensors.recordings import ReadOptions, open_recording
from matchday.sensors.replay import ReplayOptions, replay
from matchday.services.bundled import examples
from matchday.services.lifecycle import Role
from matchday.services.sensor import broker_of

VENUE = "demo.toml"


@dataclass(frozen=True)
class DemoSource:
    """One recording of the demo.

    Attributes:
        name: Names thread, MQTT client and slot.
        file: File below `examples/recordings`.
        speed: Event seconds per second.
        options: What the file does not say itself.
        attribution: Whom to name for the data.
    """

    name: str
    file: str
    speed: float
    options: ReadOptions
    attribution: Attribution


# Series of 5 min and 1 h are replayed fast enough that a forecast shows within minutes.
SOURCES = (
    DemoSource(
        "match",
        "match.csv.gz",
        1.0,
        ReadOptions(source="tracking"),
        Attribution(
            "Football match, optical tracking",
            "Alexander Oonk and Daan Grob, MIT; players and teams are pseudonyms",
            "https://github.com/Alek050/databallpy",
        ),
    ),
    DemoSource(
        "crowd",
        "crowd-bottleneck.txt.gz",
        1.0,
        ReadOptions(source="camera-north", offset_m=(0.0, 44.0)),
        Attribution(
            "Crowd in front of a bottleneck",
            "Forschungszentrum Juelich IAS-7, Wuppertal 2018, MIT; placed at the north gate",
            "https://doi.org/10.34735/ped.2018.1",
        ),
    ),
    DemoSource(
        "weather",
        "yosemite-temperature.csv.gz",
        1800.0,
        ReadOptions(source="weather"),
        Attribution(
            "Outdoor temperature",
            "Facebook, Inc. and its affiliates (Prophet examples), MIT; replayed fast",
            "https://github.com/facebook/prophet",
        ),
    ),
    DemoSource(
        "footfall",
        "footfall-melbourne.csv.gz",
        14_400.0,
        ReadOptions(),
        Attribution(
            "Street footfall round the MCG",
            "City of Melbourne, Pedestrian Counting System, CC BY 4.0; replayed fast",
            "https://data.melbourne.vic.gov.au",
        ),
    ),
    DemoSource(
        "machine",
        "machine-temperature.csv.gz",
        1800.0,
        ReadOptions(source="machine"),
        Attribution(
            "Machine temperature",
            "Numenta Anomaly Benchmark, MIT; replayed fast",
            "https://github.com/numenta/NAB",
        ),
    ),
)


def venue_file() -> Path:
    """Give the demo's venue file."""
    return examples() / "venues" / VENUE


def build_demo(settings: Settings, *, clock: Clock) -> list[Role]:
    """Build one role per recording, each a sensor of its own that connects by MQTT."""
    state_dir = settings.sensor.state_dir or settings.data_dir / "sensors"
    return [_role(settings, source, state_dir, clock) for source in SOURCES]


def _role(settings: Settings, source: DemoSource, state_dir: Path, clock: Clock) -> Role:
    def run(stop: threading.Event) -> None:
        recording = open_recording(examples() / "recordings" / source.file, source.options)
        with claim_slot(state_dir, prefix=f"demo-{source.name}-") as slot:
            publisher = Publisher(
                broker_of(settings), Outbox(slot.outbox_path), clock, client_id=slot.source
            )
            try:
                replay(
                    recording,
                    ReplayOptions(speed=source.speed, is_looped=True),
                    publisher,
                    clock,
                    stop,
                )
                publisher.flush(timeout_s=2.0)
            finally:
                publisher.close()

    return Role(f"demo.{source.name}", run)
