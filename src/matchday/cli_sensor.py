"""The commands under `matchday sensor`: publish made-up or recorded data, or record.

Turns arguments into one service; what a sensor does is in `services.sensor` and
`services.demo`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

from matchday.cli_options import ConfigFile, load_settings
from matchday.clock import SystemClock
from matchday.services.lifecycle import serve

sensor = cyclopts.App(
    name="sensor", help="Publish simulated or recorded data, or record live data."
)


@sensor.command
def simulate(
    *,
    count: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1, lte=100_000))] = 1,
    rate: Annotated[float, Parameter(validator=cyclopts.validators.Number(gt=0, lte=10_000))] = 1.0,
    kind: Literal["scalar", "count", "players"] = "scalar",
    venue: Path | None = None,
    seed: int = 1,
    messages: Annotated[int | None, Parameter(validator=cyclopts.validators.Number(gte=1))] = None,
    config: ConfigFile = None,
) -> int:
    """Publish made-up but plausible data from several sources.

    Parameters
    ----------
    count
        How many sources.
    rate
        Readings per second of each source, hertz.
    kind
        What they measure: numbers, people at gates, or players on the venue's pitch.
    venue
        Venue file (TOML); default: the bundled oval.
    seed
        Equal seeds give equal data.
    messages
        Stop after so many messages of all sources together.
    """
    from matchday.services.sensor import SimulateRequest, build_simulate

    request = SimulateRequest(
        count=count, rate_hz=rate, kind=kind, venue=venue, seed=seed, messages=messages
    )
    return serve(build_simulate(load_settings(config).settings, request, clock=SystemClock()))


@sensor.command
def replay(
    file: Path,
    /,
    *,
    speed: str = "1",
    start: Literal["now", "recorded"] = "now",
    loop: Annotated[bool, Parameter(negative=())] = False,
    venue: str = "demo",
    source: str | None = None,
    unit: Literal["m", "cm"] | None = None,
    fps: float | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
    config: ConfigFile = None,
) -> int:
    """Publish a recording at its own pace or another.

    Parameters
    ----------
    file
        Tracking CSV or Parquet, trajectory text, footfall or series CSV, or JSON Lines.
    speed
        Event seconds per second, or `max`.
    start
        `now` moves the recording so that its last reading falls on now; `recorded` keeps
        its times.
    loop
        Begin again at the end, as a new session.
    venue
        Venue level of the topics.
    source
        Name of the source; default: from the format or file.
    unit
        Unit of a trajectory file that does not say.
    fps
        Frames per second of a file that does not say.
    offset
        Added to x and y, metres: places recorded people at a venue.
    """
    from matchday.services.sensor import ReplayRequest, build_replay

    request = ReplayRequest(
        file=file,
        speed=speed,
        keeps_recorded_time=start == "recorded",
        is_looped=loop,
        venue=venue,
        source=source,
        length_unit=unit,
        fps=fps,
        offset_m=offset,
    )
    return serve(build_replay(load_settings(config).settings, request, clock=SystemClock()))


@sensor.command
def demo(*, config: ConfigFile = None) -> int:
    """Publish the bundled real recordings, again and again, until stopped."""
    from matchday.services.demo import build_demo_sensor

    return serve(build_demo_sensor(load_settings(config).settings, clock=SystemClock()))


@sensor.command
def record(
    file: Path,
    /,
    *,
    filters: Annotated[tuple[str, ...], Parameter(name="--filter")] = ("#",),
    config: ConfigFile = None,
) -> int:
    """Capture live MQTT traffic into a recording that `replay` understands.

    Parameters
    ----------
    file
        Where to write: JSON Lines, compressed if it ends in .gz.
    filters
        MQTT topic filters; may be given several times.
    """
    from matchday.services.sensor import build_record

    return serve(build_record(load_settings(config).settings, file, filters, clock=SystemClock()))
