"""Where the data that ships with the product lies: venues, recordings, models."""

from __future__ import annotations

from pathlib import Path

import matchday
from matchday.errors import ConfigError


def examples() -> Path:
    """Give the folder of the bundled examples, of a wheel or of a checkout.

    Raises:
        ConfigError: Neither has them.
    """
    package = Path(matchday.__file__).parent
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / "recordings").is_dir():
            return folder
    raise ConfigError(f"looking for the bundled examples: not beside {package}")
