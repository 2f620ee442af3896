"""The bundled demo: which real recordings are replayed, where, and how fast."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from matchday.clock import Clock
from matchday.config import Settings
from matchday.dashboard.state import Attribution
from matchday.errors import UnavailableError
from matchday.observe.events import LinkLost, emit
from matchday.ports import LinkState
from matchday.sensors.recorded import ReadOptions
from matchday.services.bundled import examples
from matchday.services.health import health_of
from matchday.services.lifecycle import Role, Service

# What publishes is imported when something is published: services that only name the demo's
# sources would carry an MQTT client, 5 MB, for nothing.
if TYPE_CHECKING:
    from matchday.sensors.broker import Broker
    from matchday.sensors.publisher import Publisher

VENUE = "demo.toml"
FLUSH_S = 0.5
"""Of each recording, one after the other; what is not acknowledged stays in its outbox."""


START_LOOK_S = 0.05
"""How often a recording looks whether messages are taken yet."""


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


# Names that only the demo's recordings have; its other sources might be somebody's own.
_TELLING = frozenset({"tracking", "camera-north"})


def demo_attributions() -> list[Attribution]:
    """Give whom to name for the demo's data, once it is there."""
    return [replace(source.attribution, sources=_TELLING) for source in SOURCES]


def venue_file() -> Path:
    """Give the demo's venue file."""
    return examples() / "venues" / VENUE


def build_demo(
    settings: Settings, *, clock: Clock, is_taken: Callable[[], bool] = lambda: True
) -> list[Role]:
    """Build one role per recording, each a sensor of its own that connects by MQTT.

    Args:
        settings: Where to publish, and where outboxes are kept.
        clock: For pacing.
        is_taken: Tells whether messages are taken; where the same process takes them, trying
            before that would only warn of what is about to start.
    """
    return [part.role(is_taken) for part in _parts(settings, clock)]


def build_demo_sensor(settings: Settings, *, clock: Clock) -> Service:
    """Build the sensor that publishes all recordings to `mqtt.url` until it is stopped.

    Its health port says of each recording's connection whether it is up. With
    `sensor.state_dir`, numbers and unacknowledged messages survive a restart.

    Raises:
        MatchdayError: The health port is in use.
    """
    parts = _parts(settings, clock)
    health = health_of(settings, "sensor", lambda: [part.link() for part in parts])
    roles = [*(part.role() for part in parts), Role("sensor.health", health.run)]
    return Service("sensor", roles, clock=clock)


def _parts(settings: Settings, clock: Clock) -> list[_Part]:
    from matchday.services.sensor import broker_of

    state_dir = settings.sensor.state_dir or settings.data_dir / "sensors"
    return [_Part(source, broker_of(settings), state_dir, clock) for source in SOURCES]


class _Part:
    """One recording being replayed in a loop, and the state of its connection."""

    def __init__(self, source: DemoSource, broker: Broker, state_dir: Path, clock: Clock) -> None:
        self._source = source
        self._broker = broker
        self._state_dir = state_dir
        self._clock = clock
        self._began_ms = clock.wall_ms()
        self._publisher: Publisher | None = None

    def role(self, is_taken: Callable[[], bool] = lambda: True) -> Role:
        """Give the role that replays it, as soon as messages are taken."""

        def run(stop: threading.Event) -> None:
            """Wait until messages are taken, then replay until stopped."""
            while not is_taken():
                if self._clock.wait(stop, START_LOOK_S):
                    return
            is_told = False
            while not stop.is_set():
                try:
                    self._run(stop)
                except UnavailableError as error:
                    # Its disk is full: all else in this process waits for room, so does this.
                    if not is_told:
                        emit(LinkLost(link=f"outbox.{self._source.name}", detail=str(error)))
                    is_told = True
                    self._clock.wait(stop, error.retry_after_s)

        return Role(f"demo.{self._source.name}", run)

    def link(self) -> LinkState:
        """Tell the state of the connection under the recording's own name; from any thread."""
        name = f"mqtt.{self._source.name}"
        publisher = self._publisher
        if publisher is None:
            return LinkState(name, False, self._began_ms, f"{self._broker.shown}: not tried yet")
        return replace(publisher.link(), name=name)

    def _run(self, stop: threading.Event) -> None:
        from matchday.sensors.outbox import Outbox, claim_slot
        from matchday.sensors.publisher import Publisher
        from matchday.sensors.recordings import open_recording
        from matchday.sensors.replay import ReplayOptions, replay

        source = self._source
        recording = open_recording(examples() / "recordings" / source.file, source.options)
        with claim_slot(self._state_dir, prefix=f"demo-{source.name}-") as slot:
            outbox = Outbox(slot.outbox_path)
            publisher = Publisher(self._broker, outbox, self._clock, client_id=slot.source)
            self._publisher = publisher
            try:
                replay(
                    recording,
                    ReplayOptions(speed=source.speed, is_looped=True),
                    publisher,
                    self._clock,
                    stop,
                )
                publisher.flush(timeout_s=FLUSH_S)
            finally:
                publisher.close()
