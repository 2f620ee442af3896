"""`matchday sensor simulate | replay | record`: one publisher or recorder as a service."""

from __future__ import annotations

import math
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matchday.clock import Clock
from matchday.config import Settings
from matchday.domain.venue import read_venue
from matchday.errors import ConfigError
from matchday.ports import LinkState
from matchday.sensors.broker import Broker, parse_broker
from matchday.sensors.outbox import Outbox, Slot, claim_slot
from matchday.sensors.publisher import Publisher
from matchday.sensors.record import record
from matchday.sensors.recordings import ReadOptions, open_recording
from matchday.sensors.replay import ReplayOptions, replay
from matchday.sensors.simulator import SimulateOptions, simulate
from matchday.services.bundled import examples
from matchday.services.health import health_of
from matchday.services.lifecycle import Role, Service
from matchday.services.links import is_embedded

FLUSH_S = 10.0

_SIMULATED: dict[str, Literal["scalars", "counts", "players"]] = {
    "scalar": "scalars",
    "count": "counts",
    "players": "players",
}


@dataclass(frozen=True)
class SimulateRequest:
    """What `matchday sensor simulate` was asked for; `rate_hz` is per source."""

    count: int
    rate_hz: float
    kind: Literal["scalar", "count", "players"]
    venue: Path | None
    seed: int
    messages: int | None


@dataclass(frozen=True)
class ReplayRequest:
    """What `matchday sensor replay` was asked for; see `ReadOptions` and `ReplayOptions`."""

    file: Path
    speed: str
    keeps_recorded_time: bool
    is_looped: bool
    venue: str
    source: str | None
    length_unit: Literal["m", "cm"] | None
    fps: float | None
    offset_m: tuple[float, float]


def broker_of(settings: Settings) -> Broker:
    """Give where sensors publish: the broker, or our own endpoint on this machine."""
    url = settings.mqtt.url.get_secret_value()
    if is_embedded(url):
        return Broker("127.0.0.1", settings.mqtt.port)
    return parse_broker(url, ca_file=settings.mqtt.ca_file)


def speed_of(text: str) -> float:
    """Read a replay speed: a positive number, or `max`.

    Raises:
        ConfigError: It is neither.
    """
    try:
        speed = math.inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise ConfigError(f"reading --speed {text!r}: a number above 0, or max, wanted")
    return speed


def build_simulate(settings: Settings, request: SimulateRequest, *, clock: Clock) -> Service:
    """Build the simulating sensor."""
    venue = read_venue(request.venue or examples() / "venues" / "oval.toml")
    if request.messages is not None and request.messages % request.count:
        raise ConfigError(
            f"reading --messages {request.messages}: not a multiple of --count {request.count}"
        )

    def work(publisher: Publisher, source: str, stop: threading.Event) -> None:
        """Publish made-up readings; of several sources `source` is the stem."""
        options = SimulateOptions(
            source=source,
            count=request.count,
            rate_hz=request.rate_hz,
            kind=_SIMULATED[request.kind],
            venue=venue,
            seed=request.seed,
            messages_max=None if request.messages is None else request.messages // request.count,
        )
        simulate(options, publisher, clock, stop)

    return _publishing(settings, "sim-", work, clock=clock)


def build_replay(settings: Settings, request: ReplayRequest, *, clock: Clock) -> Service:
    """Build the replaying sensor."""
    recording = open_recording(
        request.file,
        ReadOptions(
            venue=request.venue,
            source=request.source,
            length_unit=request.length_unit,
            fps=request.fps,
            offset_m=request.offset_m,
        ),
    )
    speed = speed_of(request.speed)

    def work(publisher: Publisher, source: str, stop: threading.Event) -> None:
        """Publish the recording; replicas beside the first one give its sources a suffix."""
        number = source.rpartition("-")[2]
        options = ReplayOptions(
            speed=speed,
            keeps_recorded_time=request.keeps_recorded_time,
            is_looped=request.is_looped,
            source_suffix="" if number == "0" else f"-{number}",
        )
        replay(recording, options, publisher, clock, stop)

    return _publishing(settings, "replay-", work, clock=clock)


def build_record(
    settings: Settings, path: Path, filters: tuple[str, ...], *, clock: Clock
) -> Service:
    """Build the recorder; it ends when asked to stop.

    Raises:
        ConfigError: Messages go to our own endpoint, which hands none out.
    """
    if is_embedded(settings.mqtt.url.get_secret_value()):
        raise ConfigError(
            "recording: mqtt.url is embedded:, an ingest endpoint that hands no messages out; "
            "record from a broker (MATCHDAY_MQTT__URL=mqtt://host:port)"
        )
    broker = broker_of(settings)

    def run(stop: threading.Event) -> None:
        """Record until stopped, then say how much."""
        recorded = record(broker, filters, path, clock, stop)
        _tell(f"recorded {recorded.messages} messages, {recorded.bytes} bytes, in {path}")

    return Service("sensor", [Role("sensor.record", run)], clock=clock)


def _publishing(
    settings: Settings,
    prefix: str,
    work: Callable[[Publisher, str, threading.Event], None],
    *,
    clock: Clock,
) -> Service:
    slot = _slot(settings, prefix)
    source = f"{prefix}0" if slot is None else slot.source
    outbox = Outbox(None if slot is None else slot.outbox_path)
    publisher = Publisher(
        broker_of(settings), outbox, clock, client_id=f"matchday-{socket.gethostname()}-{source}"
    )

    def run(stop: threading.Event) -> None:
        """Publish, then wait for acknowledgements; once stopped, `FLUSH_S` seconds at most."""
        work(publisher, source, stop)
        publisher.flush(timeout_s=FLUSH_S if stop.is_set() else math.inf, stop=_later(stop))

    def close() -> None:
        """Close connection and slot, then say what became of the messages."""
        published = publisher.published()
        fate = "kept" if slot is not None else "given up (sensor.state_dir would keep them)"
        publisher.close()
        if slot is not None:
            slot.close()
        _tell(
            f"{source}: {published.acknowledged} messages acknowledged, "
            f"{publisher.pending_count} {fate}, {published.refused} refused and tried again"
        )

    def links() -> list[LinkState]:
        """Give the state of the connection to the broker."""
        return [publisher.link()]

    roles = [Role("sensor.publish", run, close=close)]
    if settings.health.port is not None or settings.sensor.state_dir is not None:
        roles.append(Role("sensor.health", health_of(settings, "sensor", links).run))
    return Service("sensor", roles, clock=clock)


def _later(stop: threading.Event) -> threading.Event | None:
    """Let a first stop still flush: only a stop that comes while flushing ends it."""
    return None if stop.is_set() else stop


def _slot(settings: Settings, prefix: str) -> Slot | None:
    state_dir = settings.sensor.state_dir
    return None if state_dir is None else claim_slot(state_dir, prefix=prefix)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
