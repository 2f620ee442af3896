"""Arguments in, one service or one answer out.

Results go to standard output (tables for people, `--json` for programs), progress and
events to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 a
dependency cannot be reached, 5 the data does not add up, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from matchday import __version__
from matchday.clock import SystemClock
from matchday.config import Loaded, load
from matchday.errors import ConfigError, MatchdayError, UnavailableError
from matchday.observe import logs
from matchday.services.lifecycle import serve

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_UNAVAILABLE = 4
EXIT_DOES_NOT_ADD_UP = 5
EXIT_INTERRUPTED = 130
EXIT_CODES = (
    (ConfigError, EXIT_CONFIG),
    (UnavailableError, EXIT_UNAVAILABLE),
    (MatchdayError, EXIT_FAILED),
)

app = cyclopts.App(
    name="matchday",
    help="Live data about players and crowds: moved, accounted for, analysed, stored, shown.",
    version=__version__,
)
sensor = cyclopts.App(
    name="sensor", help="Publish simulated or recorded data, or record live data."
)
config_app = cyclopts.App(name="config", help="Show or check the settings.")
deadletter = cyclopts.App(name="deadletter", help="Look at refused messages.")
for _part in (sensor, config_app, deadletter):
    app.command(_part)

ConfigFile = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="Configuration file (matchday.toml).")
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; gives the exit code."""
    try:
        found = app(list(arguments), exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        return EXIT_USAGE
    except MatchdayError as error:
        print(f"matchday: {error}", file=sys.stderr)  # noqa: T201
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except BrokenPipeError:
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return found if isinstance(found, int) else 0


def _load(file: Path | None, **overrides: Any) -> Loaded:
    """Read the settings; override names are dotted with `__` for the dot."""
    loaded = load(
        file=file,
        overrides={name.replace("__", "."): value for name, value in overrides.items()},
    )
    log = loaded.settings.log
    logs.configure(as_json=None if log.format == "auto" else log.format == "json", level=log.level)
    return loaded


@app.command
def up(
    *,
    demo: Annotated[bool, Parameter(negative=())] = False,
    data: Path | None = None,
    http_port: int | None = None,
    mqtt_port: int | None = None,
    config: ConfigFile = None,
) -> int:
    """Run everything in one process, with nothing else installed.

    Parameters
    ----------
    demo
        Also replay the bundled real recordings.
    data
        Folder of stream and store; default ./matchday-data.
    http_port
        Port of the page; default 8081.
    mqtt_port
        Port that MQTT sensors connect to; default 1883.
    """
    from matchday.services.together import build_together

    settings = _load(config, data_dir=data, http__port=http_port, mqtt__port=mqtt_port).settings
    return serve(build_together(settings, demo=demo, clock=SystemClock()))


@app.command
def server(*, role: Literal["ingest", "persist", "all"] = "all", config: ConfigFile = None) -> int:
    """Move messages from MQTT to the stream (ingest) and from the stream to the store (persist).

    Parameters
    ----------
    role
        Which of the two this process does.
    """
    from matchday.services.server import build_server

    return serve(build_server(_load(config).settings, role=role, clock=SystemClock()))


@app.command
def analysis(*, config: ConfigFile = None) -> int:
    """Analyse readings while they happen: stream to stream."""
    from matchday.services.analysis import build_analysis

    return serve(build_analysis(_load(config).settings, clock=SystemClock()))


@app.command
def dashboard(*, http_port: int | None = None, config: ConfigFile = None) -> int:
    """Serve the page and the data browser.

    Parameters
    ----------
    http_port
        Port of the page; default 8081.
    """
    from matchday.services.dashboard import build_dashboard

    settings = _load(config, http__port=http_port).settings
    return serve(build_dashboard(settings, clock=SystemClock()))


@sensor.command
def simulate(
    *,
    count: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1, lte=100_000))] = 1,
    rate: Annotated[float, Parameter(validator=cyclopts.validators.Number(gt=0, lte=10_000))] = 1.0,
    kind: Literal["scalar", "count", "players"] = "scalar",
    venue: Path | None = None,
    seed: int = 1,
    messages: int | None = None,
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
    return serve(build_simulate(_load(config).settings, request, clock=SystemClock()))


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
    return serve(build_replay(_load(config).settings, request, clock=SystemClock()))


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

    return serve(build_record(_load(config).settings, file, filters, clock=SystemClock()))


@app.command
def ledger(
    *,
    source: str | None = None,
    verify: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
    config: ConfigFile = None,
) -> int:
    """Print the account: received = stored + pending + duplicate + refused + expired.

    Exits with 5 when it does not add up.

    Parameters
    ----------
    source
        Only this source.
    verify
        Also count the stored documents one by one.
    """
    from matchday.services import answers

    adds_up = answers.ledger(
        _load(config).settings,
        source=source,
        is_verified=verify,
        as_json=json,
        clock=SystemClock(),
    )
    return 0 if adds_up else EXIT_DOES_NOT_ADD_UP


@config_app.command(name="show")
def config_show(*, json: AsJson = False, config: ConfigFile = None) -> None:
    """Print every setting with its value, origin, bound and meaning; secrets as stars."""
    from matchday.services import answers

    answers.show_settings(_load(config), as_json=json)


@config_app.command(name="check")
def config_check(*, config: ConfigFile = None) -> None:
    """Check all settings and the files they name; exits with 3 if one is wrong."""
    from matchday.services import answers

    answers.check_settings(_load(config).settings)


@deadletter.command(name="list")
def deadletter_list(*, limit: int = 50, json: AsJson = False, config: ConfigFile = None) -> None:
    """List the newest refused messages with their reasons.

    Parameters
    ----------
    limit
        How many at most.
    """
    from matchday.services import answers

    answers.list_dead_letters(
        _load(config).settings, limit=limit, as_json=json, clock=SystemClock()
    )


@deadletter.command(name="show")
def deadletter_show(
    identity: str,
    /,
    *,
    raw: Annotated[bool, Parameter(negative=())] = False,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show one refused message whole.

    Parameters
    ----------
    identity
        Its id as `list` prints it, such as 0-17.
    raw
        Write its bytes, unchanged, to standard output.
    """
    from matchday.services import answers

    answers.show_dead_letter(
        _load(config).settings, identity, is_raw=raw, as_json=json, clock=SystemClock()
    )


@app.command
def analyse(
    recording: Path,
    /,
    *,
    venue: Path | None = None,
    out: Path | None = None,
    unit: Literal["m", "cm"] | None = None,
    fps: float | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
    config: ConfigFile = None,
) -> None:
    """Run a recording through the same analysis with no server, and write the findings.

    Parameters
    ----------
    recording
        As for `matchday sensor replay`.
    venue
        Venue file (TOML) with the zones; default: those of the settings.
    out
        Parquet, CSV or JSON Lines by ending; default: JSON Lines to standard output.
    unit
        Unit of a trajectory file that does not say.
    fps
        Frames per second of a file that does not say.
    offset
        Added to x and y, metres.
    """
    from matchday.services.recorded_analysis import AnalyseRequest, analyse_file

    request = AnalyseRequest(
        recording=recording, venue=venue, out=out, length_unit=unit, fps=fps, offset_m=offset
    )
    analyse_file(_load(config).settings, request)


@app.command
def doctor(*, json: AsJson = False, config: ConfigFile = None) -> int:
    """Test every configured connection, permission and topic; say what is wrong.

    Exits with 4 when something cannot be reached, with 1 when something is wrong.
    """
    from matchday.services import answers

    worst = answers.doctor(_load(config).settings, as_json=json, clock=SystemClock())
    return {"well": 0, "wrong": EXIT_FAILED, "unreachable": EXIT_UNAVAILABLE}[worst]
