"""What the two feeds are told: `BrokerSettings` and `EndpointSettings`.

Owns units, defaults and bounds; the defaults lose no data. Does not own the names of
settings in files and environment (`matchday.config`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matchday.errors import ConfigError
from matchday.mqtt.address import Address
from matchday.mqtt.fields import filter_fault
from matchday.mqtt.publish import PACKET_BYTES_MAX_MIN


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """How to take messages from a broker.

    Attributes:
        address: Where it is, with user and password.
        client_id: Names the persistent session. Filters that are dropped from the settings
            stay in a session kept by the broker: choose another id then.
        filters: Topic filters, subscribed at QoS 1.
        receive_max: Messages given out and not acknowledged, at most. MQTT 5 tells the
            broker; in any case nothing more is read at this bound (overshot by at most
            one read).
        receive_bytes_max: The same for their payloads, in bytes.
        packet_bytes_max: The largest packet, in bytes; announced with MQTT 5, where the
            broker leaves larger messages out.
        keep_alive_s: `receive` or `keep_alive` must be called at least twice as often.
        linger_s: Least time between two reads that give messages, so that a busy session
            is read in large pieces; the first message after a pause is given at once.
        io_timeout_s: The longest wait for an answer (connection, ping), seconds.
        retry_s_min: First pause before connecting again, seconds; doubles every time.
        retry_s_max: The longest such pause; each is shortened by a random half at most.
        ca_file: Certificates to trust for `mqtts://`, PEM; None for the system's.
    """

    address: Address
    client_id: str
    filters: tuple[str, ...]
    receive_max: int = 2000
    receive_bytes_max: int = 64 * 2**20
    packet_bytes_max: int = 16 * 2**20
    keep_alive_s: int = 60
    linger_s: float = 0.005
    io_timeout_s: float = 10.0
    retry_s_min: float = 0.2
    retry_s_max: float = 2.5
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what MQTT cannot express; ConfigError names value and bound."""
        if not self.client_id:
            raise ConfigError("reading MQTT settings: client_id is empty")
        if not self.filters:
            raise ConfigError("reading MQTT settings: no topic filter")
        for one in self.filters:
            fault = filter_fault(one)
            if fault is not None:
                raise ConfigError(f"reading MQTT settings: topic filter {one!r} {fault}")
        _check("receive_max", self.receive_max, low=1, high=65_535)
        _check("keep_alive_s", self.keep_alive_s, low=6, high=65_535)
        _check("packet_bytes_max", self.packet_bytes_max, low=PACKET_BYTES_MAX_MIN)


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """How to take messages from sensors that connect to this process.

    Attributes:
        host: Address to listen on.
        port: TCP port to listen on; 0 chooses a free one.
        receive_max: Messages of all connections read and not yet acknowledged, at most;
            then nothing more is read, and TCP holds the sensors back. The round of reading
            that reaches it is finished: overshot by what 1 MiB holds and a read of 256 KiB.
        receive_bytes_max: The same for their payloads, in bytes; overshot by one read.
        client_receive_max: The same for one connection; announced with MQTT 5.
        packet_bytes_max: The largest packet, in bytes; announced with MQTT 5. A client that
            sends a larger one is disconnected (0x95).
        linger_s: Least time between two rounds of reading that gave messages, so that busy
            sensors are read in large pieces; twice that after a round that gave few. The
            first message after a pause is read at once.
        connections_max: Connections at the same time; more are closed at once.
        greeting_s: How long a new connection may take to send CONNECT, seconds.
        io_timeout_s: How long `close` waits for the sensors to take what is still to be
            sent, seconds.
        authenticate: Tells whether a user name and password are right; None lets everybody
            in. Called in the endpoint's thread, so a slow one delays all sensors.
        tls: Context with certificate and key, for `mqtts://`; None for plain TCP.
        thread_name: Name of the endpoint's thread.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    receive_max: int = 20_000
    receive_bytes_max: int = 64 * 2**20
    client_receive_max: int = 1000
    packet_bytes_max: int = 12 * 2**20 + 2 * 65_536
    linger_s: float = 0.005
    connections_max: int = 2000
    greeting_s: float = 10.0
    io_timeout_s: float = 5.0
    authenticate: Callable[[str, str], bool] | None = None
    tls: ssl.SSLContext | None = None
    thread_name: str = "server.mqtt"

    def __post_init__(self) -> None:
        """Refuse what cannot be; ConfigError names value and bound."""
        _check("port", self.port, low=0, high=65_535)
        _check("receive_max", self.receive_max, low=1)
        _check("client_receive_max", self.client_receive_max, low=1, high=65_535)
        _check("packet_bytes_max", self.packet_bytes_max, low=PACKET_BYTES_MAX_MIN)
        _check("connections_max", self.connections_max, low=1)


def _check(name: str, value: int, *, low: int, high: int | None = None) -> None:
    if value < low or (high is not None and value > high):
        bound = f"at least {low}" if high is None else f"within {low}..{high}"
        raise ConfigError(f"reading MQTT settings: {name} is {value}, must be {bound}")
