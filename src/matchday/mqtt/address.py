"""Addresses of MQTT servers as settings write them: `mqtt://user:pass@host:1883`, `mqtts://`.

Owns parsing and the form without secrets. Does not open connections (`dial`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from matchday.errors import ConfigError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an MQTT server is and who we are there; its text never shows the password."""

    host: str
    port: int = 1883
    is_tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read an MQTT address; ports default to 1883 (`mqtt`) and 8883 (`mqtts`).

    User name and password may be percent-encoded; IPv6 hosts stand in brackets.

    Raises:
        ConfigError: The address is not of that form. The text leaves out what precedes
            the host, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        # The text of this error may quote the whole address.
        raise ConfigError("reading MQTT address: its host or port cannot be read") from error
    if parts.scheme not in _PORTS:
        raise ConfigError(
            f"reading MQTT address: scheme {parts.scheme[:16]!r}, not 'mqtt' or 'mqtts'"
        )
    if not host:
        raise ConfigError(f"reading MQTT address: no host after {parts.scheme}://")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"reading MQTT address of {host}: something follows the port")
    if parts.password is not None and not parts.username:
        raise ConfigError(f"reading MQTT address of {host}: a password without a user name")
    return Address(
        host=host,
        port=_PORTS[parts.scheme] if port is None else port,
        is_tls=parts.scheme == "mqtts",
        username=unquote(parts.username) if parts.username else None,
        password=None if parts.password is None else unquote(parts.password),
    )
