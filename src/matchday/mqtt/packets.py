"""Every MQTT packet but PUBLISH, as an immutable value.

Owns what a packet says, for MQTT 3.1.1 and 5 alike; `layouts` owns its bytes. PUBLISH has
no class, as messages are handled in batches (`publish`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from matchday.mqtt.codes import V5, Code
from matchday.mqtt.fields import Properties


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """The message a server publishes when the client vanishes (section 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A client's greeting; `keep_alive_s` 0 switches keep-alive off."""

    client_id: str
    version: int = V5
    clean_start: bool = False
    keep_alive_s: int = 60
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """The server's answer; `code` is always one of version 5."""

    code: int = Code.SUCCESS
    is_session_present: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Puback:
    """The acknowledgement of one message; 3.1.1 knows only success."""

    packet_id: int
    code: int = Code.SUCCESS
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One filter of a SUBSCRIBE; everything but `qos` is lost in 3.1.1.

    Attributes:
        topic_filter: What to receive; `+` and `#` are wildcards.
        qos: The highest quality of service wanted.
        is_no_local: Leave out what this client itself publishes.
        is_retain_kept: Keep the publisher's retain flag.
        retain_handling: Send retained messages: 0 always, 1 only if the subscription is
            new, 2 never (section 3.8.3.1).
    """

    topic_filter: str
    qos: int = 1
    is_no_local: bool = False
    is_retain_kept: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """A request to receive what matches."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suback:
    """The answer to a SUBSCRIBE: per filter the granted QoS, or a code from 0x80."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """A request to receive no longer what matches."""

    packet_id: int
    topic_filters: tuple[str, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsuback:
    """The answer to an UNSUBSCRIBE; in 3.1.1 it carries no codes."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pingreq:
    """A client's sign of life."""


@dataclass(frozen=True, slots=True)
class Pingresp:
    """The server's answer to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The announced end of a connection; in 3.1.1 only clients send it, without a code."""

    code: int = Code.SUCCESS
    properties: Properties = field(default_factory=dict)


Packet = (
    Connect
    | Connack
    | Puback
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
)
