"""Arguments in, one service or one answer out.

Results go to standard output (tables for people, `--json` for programs), progress and
events to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 a
dependency cannot be reached, 5 the data does not add up, 130 interrupted.

Holds the entry point and the services' commands; `cli_sensor`, `cli_answers` and
`cli_deploy` hold the others.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

from matchday import __version__
from matchday.cli_answers import answers, config_app, deadletter
from matchday.cli_deploy import deploy, secrets
from matchday.cli_options import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    ConfigFile,
    load_settings,
)
from matchday.cli_sensor import sensor
from matchday.clock import SystemClock
from matchday.errors import ConfigError, DeniedError, MatchdayError, UnavailableError
from matchday.services.lifecycle import serve
from matchday.services.memory import spare_arenas

EXIT_CODES = (
    (ConfigError, EXIT_CONFIG),
    (DeniedError, EXIT_CONFIG),
    (UnavailableError, EXIT_UNAVAILABLE),
    (MatchdayError, EXIT_FAILED),
)

app = cyclopts.App(
    name="matchday",
    help="Live data about players and crowds: moved, accounted for, analysed, stored, shown.",
    version=__version__,
)
for _part in (sensor, config_app, deadletter, secrets):
    if any(not _name.startswith("-") for _name in _part):  # an empty group is not shown
        app.command(_part)
for _commands in (answers, deploy):
    app.command(_commands, name="*")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # As a container's first process we would otherwise not notice a SIGTERM at all until the
    # service is up, and be killed when the patience of whoever stops it is at its end.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; gives the exit code."""
    try:
        found = app(list(arguments), exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        return EXIT_USAGE
    except MatchdayError as error:
        # Only who prints needs what it takes to print.
        from matchday.services.printing import say

        say(f"matchday: {error}")
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except BrokenPipeError:
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return found if isinstance(found, int) else 0


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
    from matchday.services.links import is_embedded
    from matchday.services.together import build_together

    settings = load_settings(
        config, data_dir=data, http__port=http_port, mqtt__port=mqtt_port
    ).settings
    if is_embedded(settings.stream.url.get_secret_value()):
        spare_arenas()
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

    return serve(build_server(load_settings(config).settings, role=role, clock=SystemClock()))


@app.command
def analysis(*, config: ConfigFile = None) -> int:
    """Analyse readings while they happen: stream to stream."""
    from matchday.services.analysis import build_analysis

    return serve(build_analysis(load_settings(config).settings, clock=SystemClock()))


@app.command
def dashboard(*, http_port: int | None = None, config: ConfigFile = None) -> int:
    """Serve the page and the data browser.

    Parameters
    ----------
    http_port
        Port of the page; default 8081.
    """
    from matchday.services.dashboard import build_dashboard

    settings = load_settings(config, http__port=http_port).settings
    return serve(build_dashboard(settings, clock=SystemClock()))
