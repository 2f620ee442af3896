"""What every command shares: its common options, its exit codes, the loading of settings.

Knows no command; the command modules (`cli`, `cli_sensor`, `cli_answers`, `cli_deploy`)
import it and never one another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from matchday.config import Loaded, load
from matchday.observe import logs

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_UNAVAILABLE = 4
EXIT_DOES_NOT_ADD_UP = 5
EXIT_INTERRUPTED = 130

ConfigFile = Annotated[
    Path | None, Parameter(name=["--config", "-c"], help="Configuration file (matchday.toml).")
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


def load_settings(file: Path | None, **overrides: Any) -> Loaded:
    """Read the settings and set up the log by them.

    Args:
        file: The configuration file, or None for the usual places.
        **overrides: Values by setting name, with `__` for the dot; None is left out.

    Raises:
        ConfigError: A name is unknown or a value out of bounds.
    """
    texts = {
        name.replace("__", "."): str(value) if isinstance(value, Path) else value
        for name, value in overrides.items()
    }
    loaded = load(file=file, overrides=texts)
    log = loaded.settings.log
    logs.configure(as_json=None if log.format == "auto" else log.format == "json", level=log.level)
    return loaded
