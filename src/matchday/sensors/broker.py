"""The address of an MQTT broker (or of our own endpoint), and paho clients for it.

Owns the URL, TLS and log-in, the choice between MQTT 5 and 3.1.1, and the texts of reason
codes. Shared by the publisher and the recorder, which own what they send and receive.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from matchday.errors import ConfigError, UnavailableError

KEEPALIVE_S: Final = 20
CONNECT_TIMEOUT_S: Final = 5.0
# Silent closings before a protocol is taken to be unknown to the other side: a broker that
# is starting may well close one or two connections without a word.
SILENT_CLOSINGS_MAX: Final = 3

NO_SUBSCRIBERS: Final = 0x10
FIRST_ERROR: Final = 0x80
_UNSUPPORTED_VERSION: Final = (0x01, 0x84)
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """Where and how to connect. The password is not shown by `repr` or `shown`.

    Attributes:
        host: Name or address.
        port: TCP port.
        is_tls: Encrypt, and check the certificate against `ca_file` or the system's.
        user: Log-in name, None without log-in.
        password: Its password.
        ca_file: Certificate authority in PEM form; None trusts the system's.
    """

    host: str
    port: int
    is_tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def shown(self) -> str:
        """Give the address for people, without secrets."""
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{self.host}:{self.port}"


def parse_broker(url: str, *, ca_file: Path | None = None) -> Broker:
    """Read `mqtt[s]://[user:password@]host[:port]`.

    Raises:
        ConfigError: The text is no such address; the error shows no password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The library's sentence quotes the text, and may take a password for the port.
        raise ConfigError(
            "reading mqtt url: its host or port cannot be read; '/', '?' and '#' of a password"
            " must be percent-encoded"
        ) from None
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in _PORTS or not parts.hostname or rest:
        raise ConfigError(
            f"reading mqtt url with scheme {parts.scheme!r}: must be mqtt[s]://host:port"
        )
    return Broker(
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        is_tls=parts.scheme == "mqtts",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        ca_file=ca_file,
    )


class ProtocolChoice:
    """Which MQTT version to speak: 5, and 3.1.1 to a broker that does not know it."""

    def __init__(self) -> None:
        self.version = MQTTProtocolVersion.MQTTv5
        self._silent_closings = 0

    @property
    def is_v5(self) -> bool:
        """Tell whether the next connection speaks MQTT 5."""
        return self.version == MQTTProtocolVersion.MQTTv5

    def refused(self, reason: ReasonCode) -> bool:
        """Take note of a refused connection; tell whether another version may help at once."""
        if self.is_v5 and reason.value in _UNSUPPORTED_VERSION:
            self.version = MQTTProtocolVersion.MQTTv311
            return True
        return False

    def closed_silently(self) -> None:
        """Take note of a connection that ended before the broker said a word."""
        self._silent_closings += 1
        if self._silent_closings >= SILENT_CLOSINGS_MAX:
            self._silent_closings = 0
            is_v5 = self.is_v5
            self.version = MQTTProtocolVersion.MQTTv311 if is_v5 else MQTTProtocolVersion.MQTTv5

    def accepted(self) -> None:
        """Take note of a connection that was accepted."""
        self._silent_closings = 0


def new_client(broker: Broker, client_id: str, protocol: ProtocolChoice) -> Client:
    """Make a paho client that neither reconnects nor runs a thread by itself.

    Raises:
        ConfigError: The certificate authority cannot be read.
    """
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        # MQTT 5 states it with each connection instead.
        clean_session=None if protocol.is_v5 else True,
        protocol=protocol.version,
        reconnect_on_failure=False,
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.is_tls:
        try:
            client.tls_set_context(ssl.create_default_context(cafile=broker.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"reading mqtt.ca_file {broker.ca_file}: {error}") from error
    return client


def connect(
    client: Client,
    broker: Broker,
    *,
    clean_start: bool = True,
    session_expiry_s: int = 0,
    receive_max: int = 0,
) -> None:
    """Open the connection and send CONNECT; the answer comes through `on_connect`.

    Args:
        client: Made by `new_client`.
        broker: The one it was made for.
        clean_start: Forget an earlier session of that client id (MQTT 3.1.1 always does).
        session_expiry_s: How long the broker keeps the session, seconds (MQTT 5 only).
        receive_max: Messages the broker may have in flight to us; 0 leaves it to the
            broker (MQTT 5 only).

    Raises:
        UnavailableError: Nobody answers there; try again.
    """
    try:
        if client.protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            if session_expiry_s:
                properties.SessionExpiryInterval = session_expiry_s
            if receive_max:
                properties.ReceiveMaximum = receive_max
            client.connect(
                broker.host,
                broker.port,
                KEEPALIVE_S,
                clean_start=clean_start,
                properties=properties,
            )
        else:
            client.connect(broker.host, broker.port, KEEPALIVE_S)
    except OSError as error:
        reason = error.strerror or error
        raise UnavailableError(f"connecting to {broker.shown}: {reason}") from error
    except ValueError as error:
        raise UnavailableError(f"connecting to {broker.shown}: {error}") from error
    link = client.socket()
    if isinstance(link, socket.socket):
        # Otherwise a single message waits for the acknowledgement of the one before.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def is_accepted(code: int) -> bool:
    """Tell whether a PUBACK's reason code means that somebody has the message.

    "No matching subscribers" (0x10) is a success to MQTT and a loss to us.
    """
    return code < FIRST_ERROR and code != NO_SUBSCRIBERS


def describe(reason: ReasonCode) -> str:
    """Spell a reason code: number and name."""
    return f"0x{reason.value:02X} {reason.getName()}"
