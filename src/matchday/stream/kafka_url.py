"""The address of a Kafka cluster: from one URL to the client's connection settings.

Owns the grammar of `kafka://` and `kafkas://` and keeps secrets out of every text. Does
not connect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from matchday.errors import ConfigError

PORT: Final = 9092
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_FORM: Final = "kafka://[user:password@]host[:port][,host[:port]...][?mechanism=...&ca=...]"
_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mechanism": "sasl.mechanism",
        "ca": "ssl.ca.location",
        "certificate": "ssl.certificate.location",
        "key": "ssl.key.location",
    }
)


@dataclass(frozen=True)
class KafkaAddress:
    """Where a cluster is and how to log in.

    Attributes:
        servers: "host:port" of one or more brokers, separated by commas.
        is_encrypted: Connect by TLS (`kafkas://`).
        user: Name to log in with; empty for none.
        password: Kept out of `repr` and `str`.
        settings: More connection settings by the client's own names.
    """

    servers: str
    is_encrypted: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """Read an address from its URL.

        The form is `kafka://[user:password@]host[:port][,host[:port]...]`, with `kafkas`
        for TLS; the port is 9092 unless given. User and password are percent-decoded.
        Parameters: `mechanism` (PLAIN unless given, SCRAM-SHA-256, SCRAM-SHA-512), and
        with `kafkas` the PEM files `ca`, `certificate` and `key`.

        Raises:
            ConfigError: The URL has another form; the text never shows the password.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            # The library's sentence would show the login.
            raise ConfigError(f"reading stream URL: it cannot be read; expected {_FORM}") from None
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        # An unencoded '/', '?' or '#' in a password ends the part that is known to be secret.
        is_cut = "@" in url.partition("://")[2] and not login
        shown = f"{parts.scheme}://***" if is_cut else f"{parts.scheme}://{hosts}{parts.path}"

        def refuse(what: str) -> NoReturn:
            """Raise ConfigError: what is wrong, and the form that is wanted."""
            raise ConfigError(f"reading stream URL {shown!r}: {what}; expected {_FORM}")

        if is_cut:
            refuse("its login holds '/', '?' or '#', which must be percent-encoded")
        if parts.scheme not in ("kafka", "kafkas"):
            refuse(f"scheme {parts.scheme!r} is neither 'kafka' nor 'kafkas'")
        if parts.path.strip("/") or parts.fragment:
            refuse(f"nothing may follow the hosts, found {parts.path!r}")
        if login and not (user and password):
            refuse("a login needs both user and password")
        servers = ",".join(_server(host, refuse) for host in hosts.split(","))
        is_encrypted = parts.scheme == "kafkas"
        settings = _settings(parts.query, refuse, is_encrypted=is_encrypted, has_login=bool(login))
        return cls(servers, is_encrypted, unquote(user), unquote(password), settings)

    def __str__(self) -> str:
        return f"{'kafkas' if self.is_encrypted else 'kafka'}://{self.servers}"

    def client_settings(self) -> dict[str, str]:
        """Give the connection settings in the client's own names, secrets included."""
        found = {"bootstrap.servers": self.servers, **self.settings}
        transport = "SSL" if self.is_encrypted else "PLAINTEXT"
        if self.user:
            found["security.protocol"] = f"SASL_{transport}"
            found["sasl.username"] = self.user
            found["sasl.password"] = self.password
            found.setdefault("sasl.mechanism", "PLAIN")
        else:
            found["security.protocol"] = transport
        return found


def _server(text: str, refuse: Callable[[str], NoReturn]) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, str(PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        refuse(f"{text!r} is no host with a port from 1 to 65535")
    return f"{host}:{port}"


def _settings(
    query: str, refuse: Callable[[str], NoReturn], *, is_encrypted: bool, has_login: bool
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _PARAMETERS:
            refuse(f"parameter {name!r} is none of {', '.join(_PARAMETERS)}")
        if name == "mechanism" and (value not in MECHANISMS or not has_login):
            refuse(f"mechanism {value!r} needs a login and is one of {', '.join(MECHANISMS)}")
        if name != "mechanism" and not is_encrypted:
            refuse(f"parameter {name!r} needs 'kafkas'")
        found[_PARAMETERS[name]] = value
    return found
