"""The fields inside MQTT packets: integers, strings, and the properties of version 5.

Owns their encoding and every bound check on them; a field cut short or out of its range
raises `ProtocolError`. Does not own packets (`packets`, `publish`). Sections are those of
MQTT 5.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final

from matchday.mqtt.codes import Code, ProtocolError

VARINT_MAX: Final = 268_435_455
"""The largest variable byte integer, four bytes of seven bits (section 1.5.5)."""

TEXT_BYTES_MAX: Final = 65_535


class Property(IntEnum):
    """Identifiers of properties (section 2.2.2.2)."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY_S = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY_S = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE_S = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM = 0x17
    WILL_DELAY_S = 0x18
    REQUEST_RESPONSE = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAX = 0x21
    TOPIC_ALIAS_MAX = 0x22
    TOPIC_ALIAS = 0x23
    QOS_MAX = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    PACKET_BYTES_MAX = 0x27
    WILDCARD_AVAILABLE = 0x28
    SUBSCRIPTION_ID_AVAILABLE = 0x29
    SHARED_AVAILABLE = 0x2A


Properties = Mapping[Property, Any]
"""Values by property: int, str or bytes; lists for the two that may come repeatedly."""


class Cursor:
    """Reads the fields of one packet body from front to back."""

    __slots__ = ("_at", "_data", "_end", "_what")

    def __init__(self, data: bytes, *, what: str, at: int = 0, end: int | None = None) -> None:
        self._data = data
        self._at = at
        self._end = len(data) if end is None else end
        self._what = what

    @property
    def at(self) -> int:
        """Give the index of the next byte."""
        return self._at

    @property
    def is_at_end(self) -> bool:
        """Tell whether every byte was read."""
        return self._at >= self._end

    def malformed(self, text: str, *, code: int = Code.MALFORMED_PACKET) -> ProtocolError:
        """Make the error for this packet; the caller raises it."""
        return ProtocolError(f"decoding {self._what}: {text}", code=code)

    def raw(self, size: int) -> bytes:
        """Read `size` bytes."""
        stop = self._at + size
        if stop > self._end:
            raise self.malformed(f"{self._end - self._at} bytes left where {size} must come")
        piece = self._data[self._at : stop]
        self._at = stop
        return piece

    def rest(self) -> bytes:
        """Read everything that is left."""
        return self.raw(self._end - self._at)

    def u8(self) -> int:
        """Read a byte."""
        return self.raw(1)[0]

    def u16(self) -> int:
        """Read a two-byte integer."""
        return int.from_bytes(self.raw(2), "big")

    def u32(self) -> int:
        """Read a four-byte integer."""
        return int.from_bytes(self.raw(4), "big")

    def packet_id(self) -> int:
        """Read a packet identifier, which is never 0 (section 2.2.1)."""
        number = self.u16()
        if number == 0:
            raise self.malformed("packet identifier 0 is not allowed", code=Code.PROTOCOL_ERROR)
        return number

    def varint(self) -> int:
        """Read a variable byte integer."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self.malformed("variable byte integer longer than 4 bytes")

    def binary(self) -> bytes:
        """Read bytes that are preceded by their length in two bytes."""
        return self.raw(self.u16())

    def text(self) -> str:
        """Read a UTF-8 string without NUL (section 1.5.4)."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError as error:
            raise self.malformed(f"text is not UTF-8 at byte {error.start}") from error
        if "\0" in text:
            raise self.malformed("text contains NUL")
        return text

    def properties(self, allowed: frozenset[Property]) -> dict[Property, Any]:
        """Read a property section; a property not in `allowed` is an error."""
        size = self.varint()
        inner = Cursor(
            self._data, what=f"properties of {self._what}", at=self._at, end=self._at + size
        )
        self.raw(size)
        values: dict[Property, Any] = {}
        while not inner.is_at_end:
            inner._property_into(values, allowed)
        return values

    def _property_into(self, values: dict[Property, Any], allowed: frozenset[Property]) -> None:
        number = self.varint()
        if number not in allowed:
            raise self.malformed(f"property 0x{number:02X} is not allowed here")
        name = Property(number)
        value = _READERS[_KINDS[name]](self)
        if name in REPEATABLE:
            values.setdefault(name, []).append(value)
            return
        if name in values:
            raise self.malformed(f"{name.name} comes twice", code=Code.PROTOCOL_ERROR)
        if (name in _SWITCHES and value > 1) or (name in _POSITIVE and value == 0):
            raise self.malformed(f"{name.name} is {value}", code=Code.PROTOCOL_ERROR)
        values[name] = value


def pack_varint(value: int) -> bytes:
    """Encode a variable byte integer; ValueError above `VARINT_MAX`."""
    if not 0 <= value <= VARINT_MAX:
        raise ValueError(f"encoding length {value}: not within 0..{VARINT_MAX}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_binary(data: bytes) -> bytes:
    """Encode bytes preceded by their length; ValueError above 65,535 bytes."""
    if len(data) > TEXT_BYTES_MAX:
        raise ValueError(f"encoding {len(data)} bytes: a field takes {TEXT_BYTES_MAX}")
    return len(data).to_bytes(2, "big") + data


def pack_text(text: str) -> bytes:
    """Encode a string; ValueError if it contains NUL or is too long."""
    if "\0" in text:
        raise ValueError(f"encoding text {text[:40]!r}: it contains NUL")
    return pack_binary(text.encode())


def pack_properties(properties: Properties) -> bytes:
    """Encode a property section with its length."""
    out = bytearray()
    for name, value in properties.items():
        write = _WRITERS[_KINDS[name]]
        for one in value if name in REPEATABLE else (value,):
            out.append(name)
            out += write(one)
    return pack_varint(len(out)) + bytes(out)


def topic_fault(topic: str) -> str | None:
    """Tell what makes a text unfit as the topic of a PUBLISH, or None (section 4.7)."""
    if not topic:
        return "is empty"
    if "\0" in topic:
        return "contains NUL"
    if "+" in topic or "#" in topic:
        return "contains a wildcard"
    return None


def filter_fault(topic_filter: str) -> str | None:
    """Tell what makes a text unfit as a topic filter, or None (section 4.7.1)."""
    if not topic_filter:
        return "is empty"
    if "\0" in topic_filter:
        return "contains NUL"
    levels = topic_filter.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index + 1 < len(levels)):
            return "has # elsewhere than alone at the end"
        if "+" in level and level != "+":
            return "has + beside other characters of a level"
    return None


REPEATABLE: Final = frozenset({Property.USER_PROPERTY, Property.SUBSCRIPTION_ID})
"""Properties that may come more than once; their value is a list."""

_KINDS: Final[dict[Property, str]] = {
    Property.PAYLOAD_FORMAT: "u8",
    Property.MESSAGE_EXPIRY_S: "u32",
    Property.CONTENT_TYPE: "text",
    Property.RESPONSE_TOPIC: "text",
    Property.CORRELATION_DATA: "binary",
    Property.SUBSCRIPTION_ID: "varint",
    Property.SESSION_EXPIRY_S: "u32",
    Property.ASSIGNED_CLIENT_ID: "text",
    Property.SERVER_KEEP_ALIVE_S: "u16",
    Property.AUTHENTICATION_METHOD: "text",
    Property.AUTHENTICATION_DATA: "binary",
    Property.REQUEST_PROBLEM: "u8",
    Property.WILL_DELAY_S: "u32",
    Property.REQUEST_RESPONSE: "u8",
    Property.RESPONSE_INFORMATION: "text",
    Property.SERVER_REFERENCE: "text",
    Property.REASON_STRING: "text",
    Property.RECEIVE_MAX: "u16",
    Property.TOPIC_ALIAS_MAX: "u16",
    Property.TOPIC_ALIAS: "u16",
    Property.QOS_MAX: "u8",
    Property.RETAIN_AVAILABLE: "u8",
    Property.USER_PROPERTY: "pair",
    Property.PACKET_BYTES_MAX: "u32",
    Property.WILDCARD_AVAILABLE: "u8",
    Property.SUBSCRIPTION_ID_AVAILABLE: "u8",
    Property.SHARED_AVAILABLE: "u8",
}

_SWITCHES: Final = frozenset(
    {
        Property.PAYLOAD_FORMAT,
        Property.REQUEST_PROBLEM,
        Property.REQUEST_RESPONSE,
        Property.QOS_MAX,
        Property.RETAIN_AVAILABLE,
        Property.WILDCARD_AVAILABLE,
        Property.SUBSCRIPTION_ID_AVAILABLE,
        Property.SHARED_AVAILABLE,
    }
)
_POSITIVE: Final = frozenset({Property.RECEIVE_MAX, Property.PACKET_BYTES_MAX})

_READERS: Final[dict[str, Callable[[Cursor], Any]]] = {
    "u8": Cursor.u8,
    "u16": Cursor.u16,
    "u32": Cursor.u32,
    "varint": Cursor.varint,
    "text": Cursor.text,
    "binary": Cursor.binary,
    "pair": lambda cursor: (cursor.text(), cursor.text()),
}
_WRITERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "u8": lambda value: int(value).to_bytes(1, "big"),
    "u16": lambda value: int(value).to_bytes(2, "big"),
    "u32": lambda value: int(value).to_bytes(4, "big"),
    "varint": pack_varint,
    "text": pack_text,
    "binary": pack_binary,
    "pair": lambda pair: pack_text(pair[0]) + pack_text(pair[1]),
}
