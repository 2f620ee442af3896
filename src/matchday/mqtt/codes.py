"""MQTT reason codes, packet types and the one error of the codec.

Owns the numbers of the standard and their translation between versions. Does not own any
encoding. Sources: OASIS MQTT 3.1.1 (2014) and MQTT 5.0 (2019); sections are named by the
latter unless "3.1.1" stands before them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from matchday.errors import UnavailableError

V311: Final = 4
"""Protocol level of MQTT 3.1.1."""

V5: Final = 5
"""Protocol level of MQTT 5."""


class PacketType(IntEnum):
    """The four upper bits of a packet's first byte (section 2.1.2)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Code(IntEnum):
    """Reason codes (section 2.4) that this package sends or tells apart.

    A peer may send others: packets carry them as plain integers.
    """

    SUCCESS = 0x00
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    QOS_NOT_SUPPORTED = 0x9B


# Return codes of a 3.1.1 CONNACK (3.1.1 section 3.2.2.3) as codes of version 5.
CODE_BY_V311: Final = {
    0: Code.SUCCESS,
    1: Code.UNSUPPORTED_VERSION,
    2: Code.CLIENT_ID_NOT_VALID,
    3: Code.SERVER_UNAVAILABLE,
    4: Code.BAD_CREDENTIALS,
    5: Code.NOT_AUTHORIZED,
}

_V311_BY_CODE: Final = {
    Code.SUCCESS: 0,
    Code.UNSUPPORTED_VERSION: 1,
    Code.CLIENT_ID_NOT_VALID: 2,
    Code.SERVER_UNAVAILABLE: 3,
    # 4 is for credentials that cannot be read at all; wrong ones are 5.
    Code.BAD_CREDENTIALS: 5,
    Code.NOT_AUTHORIZED: 5,
    Code.BAD_AUTHENTICATION_METHOD: 5,
}


class ProtocolError(UnavailableError):
    """The peer broke the MQTT protocol: the connection cannot go on, make a new one.

    Attributes:
        code: The reason code to tell the peer before closing.
    """

    def __init__(self, text: str, *, code: int = Code.MALFORMED_PACKET) -> None:
        super().__init__(text)
        self.code = code


def v311_code(code: int) -> int:
    """Give the 3.1.1 CONNACK return code nearest to a version 5 code; 3 for all others."""
    return _V311_BY_CODE.get(Code(code), 3) if code in Code._value2member_map_ else 3


def code_text(code: int) -> str:
    """Spell a reason code for people, such as `0x87 not authorized`."""
    known = Code._value2member_map_.get(code)
    words = known.name.lower().replace("_", " ") if isinstance(known, Code) else "reason unknown"
    return f"0x{code:02X} {words}"


def code_name(code: int) -> str:
    """Give the name of a reason code for a label, such as `not_authorized`."""
    known = Code._value2member_map_.get(code)
    return known.name.lower() if isinstance(known, Code) else "unknown"
