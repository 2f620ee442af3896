"""What several settings have to say together, beyond the bounds of each.

Owns refusing combinations that would expose data or contradict one another. Opens nothing;
whether files and servers are right is found out where they are used.
"""

from __future__ import annotations

from typing import Final

from matchday.config.sections import IngestSettings, Settings
from matchday.errors import ConfigError

ENV_PREFIX: Final = "MATCHDAY_"
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
EMBEDDED: Final = "embedded:"


def check_together(settings: Settings) -> None:
    """Check what no setting can say alone.

    Raises:
        ConfigError: Something would listen beyond loopback without credentials, or settings
            contradict one another; names them.
    """
    _check_exposure(settings)
    _check_slots(settings)


def _check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond loopback without credentials on every door."""
    if settings.bind not in LOOPBACK:
        # A broker asks sensors for their log-in itself.
        if settings.mqtt.url.get_secret_value() == EMBEDDED:
            _need("bind", settings.bind, "mqtt.users_file", settings.mqtt.users_file)
        _need("bind", settings.bind, "http.token_file", settings.http.token_file)
    if settings.health.bind not in LOOPBACK:
        _need("health.bind", settings.health.bind, "http.token_file", settings.http.token_file)


def _need(door: str, address: str, name: str, value: object) -> None:
    if value is None:
        raise ConfigError(
            f"checking {door} {address}: listening beyond {LOOPBACK[0]} needs {name} "
            f"({ENV_PREFIX}{name.upper().replace('.', '__')})"
        )


def _check_slots(settings: Settings) -> None:
    ingest = settings.ingest
    if not ingest.slots:
        return
    plain = IngestSettings()
    if ingest.slot != plain.slot or ingest.filters != plain.filters:
        raise ConfigError(
            "checking ingest.slots: they replace ingest.slot and ingest.filters; set one or the "
            "other"
        )
