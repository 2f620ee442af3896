"""The commands that answer and end: account, settings, dead letters, analysis, diagnosis.

Turns arguments into one call of `services.answers` or `services.recorded_analysis`, and
what it found into an exit code. `answers` holds commands of the top level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import Parameter

from matchday.cli_options import (
    EXIT_DOES_NOT_ADD_UP,
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    AsJson,
    ConfigFile,
    load_settings,
)
from matchday.clock import SystemClock

answers = cyclopts.App()
config_app = cyclopts.App(name="config", help="Show or check the settings.")
deadletter = cyclopts.App(name="deadletter", help="Look at refused messages.")


@answers.command
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
    from matchday.services import answers as services

    adds_up = services.ledger(
        load_settings(config).settings,
        source=source,
        is_verified=verify,
        as_json=json,
        clock=SystemClock(),
    )
    return 0 if adds_up else EXIT_DOES_NOT_ADD_UP


@config_app.command(name="show")
def config_show(*, json: AsJson = False, config: ConfigFile = None) -> None:
    """Print every setting with its value, origin, bound and meaning; secrets as stars."""
    from matchday.services import answers as services

    services.show_settings(load_settings(config), as_json=json)


@config_app.command(name="check")
def config_check(*, config: ConfigFile = None) -> None:
    """Check all settings and the files they name; exits with 3 if one is wrong."""
    from matchday.services import answers as services

    services.check_settings(load_settings(config).settings)


@deadletter.command(name="list")
def deadletter_list(
    *,
    limit: Annotated[int, Parameter(validator=cyclopts.validators.Number(gte=1, lte=100_000))] = 50,
    json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the newest refused messages with their reasons.

    Parameters
    ----------
    limit
        How many at most.
    """
    from matchday.services import answers as services

    services.list_dead_letters(
        load_settings(config).settings, limit=limit, as_json=json, clock=SystemClock()
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
    from matchday.services import answers as services

    services.show_dead_letter(
        load_settings(config).settings, identity, is_raw=raw, as_json=json, clock=SystemClock()
    )


@answers.command
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
    analyse_file(load_settings(config).settings, request)


@answers.command
def doctor(*, json: AsJson = False, config: ConfigFile = None) -> int:
    """Test every configured connection, permission and topic; say what is wrong.

    Exits with 4 when something cannot be reached, with 1 when something is wrong.
    """
    from matchday.services import answers as services

    worst = services.doctor(load_settings(config).settings, as_json=json, clock=SystemClock())
    return {"well": 0, "wrong": EXIT_FAILED, "unreachable": EXIT_UNAVAILABLE}[worst]
