"""The bytes of every MQTT packet but PUBLISH, encoded and decoded one at a time.

Owns their layout in MQTT 3.1.1 and 5. Does no I/O and no framing: `publish.Decoder` cuts
packets out of the stream and hands over the first byte and the body. A layout that the
standard does not allow raises `ProtocolError`; a value that cannot be encoded, ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from matchday.mqtt.codes import (
    CODE_BY_V311,
    V5,
    V311,
    Code,
    PacketType,
    ProtocolError,
    v311_code,
)
from matchday.mqtt.fields import (
    Cursor,
    Properties,
    Property,
    filter_fault,
    pack_binary,
    pack_properties,
    pack_text,
    pack_varint,
)
from matchday.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)

PINGREQ: Final = b"\xc0\x00"
PINGRESP: Final = b"\xd0\x00"


def decode(head: int, body: bytes, *, version: int | None) -> Packet:
    """Decode one packet that is not PUBLISH.

    Args:
        head: Its first byte.
        body: What follows the remaining length.
        version: Protocol level; None where CONNECT is to tell it, and nothing else fits.

    Raises:
        ProtocolError: It is malformed, unknown, or of QoS 2 or enhanced authentication,
            which are not supported.
    """
    kind = head >> 4
    if version is None and kind != PacketType.CONNECT:
        raise ProtocolError(
            f"decoding packet type {kind}: before CONNECT", code=Code.PROTOCOL_ERROR
        )
    known = _DECODERS.get(kind)
    if known is None:
        raise ProtocolError(f"decoding packet type {kind}: not supported", code=Code.PROTOCOL_ERROR)
    what, flags, read = known
    if head & 0x0F != flags:
        raise ProtocolError(f"decoding {what}: flags {head & 0x0F}, not {flags}")
    cursor = Cursor(body, what=what)
    packet = read(cursor, V311 if version is None else version)
    if not cursor.is_at_end:
        raise cursor.malformed("bytes left behind its last field")
    return packet


def encode(packet: Packet, *, version: int = V5) -> bytes:
    """Encode one packet; what 3.1.1 cannot express (codes, properties) is left out.

    Args:
        packet: What to encode; a Connect's own `version` goes before the argument.
        version: Protocol level, `V5` or `V311`.

    Raises:
        ValueError: A field is out of its range.
    """
    head, write = _ENCODERS[type(packet)]
    body = write(packet, version)
    return bytes((head,)) + pack_varint(len(body)) + body


# --- CONNECT and CONNACK --------------------------------------------------------------------

_CONNECT_PROPERTIES: Final = frozenset(
    {
        Property.SESSION_EXPIRY_S,
        Property.AUTHENTICATION_METHOD,
        Property.AUTHENTICATION_DATA,
        Property.REQUEST_PROBLEM,
        Property.REQUEST_RESPONSE,
        Property.RECEIVE_MAX,
        Property.TOPIC_ALIAS_MAX,
        Property.USER_PROPERTY,
        Property.PACKET_BYTES_MAX,
    }
)
_WILL_PROPERTIES: Final = frozenset(
    {
        Property.PAYLOAD_FORMAT,
        Property.MESSAGE_EXPIRY_S,
        Property.CONTENT_TYPE,
        Property.RESPONSE_TOPIC,
        Property.CORRELATION_DATA,
        Property.WILL_DELAY_S,
        Property.USER_PROPERTY,
    }
)
_CONNACK_PROPERTIES: Final = frozenset(
    {
        Property.SESSION_EXPIRY_S,
        Property.ASSIGNED_CLIENT_ID,
        Property.SERVER_KEEP_ALIVE_S,
        Property.AUTHENTICATION_METHOD,
        Property.AUTHENTICATION_DATA,
        Property.RESPONSE_INFORMATION,
        Property.SERVER_REFERENCE,
        Property.REASON_STRING,
        Property.RECEIVE_MAX,
        Property.TOPIC_ALIAS_MAX,
        Property.QOS_MAX,
        Property.RETAIN_AVAILABLE,
        Property.USER_PROPERTY,
        Property.PACKET_BYTES_MAX,
        Property.WILDCARD_AVAILABLE,
        Property.SUBSCRIPTION_ID_AVAILABLE,
        Property.SHARED_AVAILABLE,
    }
)
_REASON: Final = frozenset({Property.REASON_STRING, Property.USER_PROPERTY})


def _decode_connect(cursor: Cursor, _: int) -> Connect:
    name = cursor.text()
    version = cursor.u8()
    if name != "MQTT" or version not in (V311, V5):
        raise cursor.malformed(
            f"protocol {name[:16]!r} level {version}, not 'MQTT' level 4 or 5",
            code=Code.UNSUPPORTED_VERSION,
        )
    flags = cursor.u8()
    has_username, has_password = bool(flags & 0x80), bool(flags & 0x40)
    if flags & 1 or (not flags & 4 and flags & 0x38) or flags & 0x18 == 0x18:
        raise cursor.malformed(f"connect flags 0x{flags:02X}")
    if version == V311 and has_password and not has_username:
        raise cursor.malformed("password without user name")
    keep_alive_s = cursor.u16()
    properties = cursor.properties(_CONNECT_PROPERTIES) if version == V5 else {}
    client_id = cursor.text()
    will = None
    if flags & 4:
        will_properties = cursor.properties(_WILL_PROPERTIES) if version == V5 else {}
        will = Will(
            topic=cursor.text(),
            payload=cursor.binary(),
            qos=flags >> 3 & 3,
            is_retained=bool(flags & 0x20),
            properties=will_properties,
        )
    return Connect(
        client_id=client_id,
        version=version,
        clean_start=bool(flags & 2),
        keep_alive_s=keep_alive_s,
        username=cursor.text() if has_username else None,
        password=cursor.binary() if has_password else None,
        will=will,
        properties=properties,
    )


def _encode_connect(packet: Connect, _: int) -> bytes:
    will = packet.will
    flags = packet.clean_start << 1
    out = packet.keep_alive_s.to_bytes(2, "big")
    if packet.version == V5:
        out += pack_properties(packet.properties)
    out += pack_text(packet.client_id)
    if will is not None:
        flags |= 4 | will.qos << 3 | will.is_retained << 5
        if packet.version == V5:
            out += pack_properties(will.properties)
        out += pack_text(will.topic) + pack_binary(will.payload)
    if packet.username is not None:
        flags |= 0x80
        out += pack_text(packet.username)
    if packet.password is not None:
        flags |= 0x40
        out += pack_binary(packet.password)
    return pack_text("MQTT") + bytes((packet.version, flags)) + out


def _decode_connack(cursor: Cursor, version: int) -> Connack:
    flags, code = cursor.u8(), cursor.u8()
    if flags > 1:
        raise cursor.malformed(f"acknowledge flags 0x{flags:02X}")
    # A server that knows only 3.1.1 refuses version 5 in its own form, without properties.
    if version == V311 or (cursor.is_at_end and code in CODE_BY_V311):
        if code not in CODE_BY_V311:
            raise cursor.malformed(f"return code {code} above 5")
        return Connack(code=CODE_BY_V311[code], is_session_present=bool(flags))
    return Connack(
        code=code,
        is_session_present=bool(flags),
        properties=cursor.properties(_CONNACK_PROPERTIES),
    )


def _encode_connack(packet: Connack, version: int) -> bytes:
    code = packet.code if version == V5 else v311_code(packet.code)
    out = bytes((packet.is_session_present, code))
    return out + pack_properties(packet.properties) if version == V5 else out


# --- the others -----------------------------------------------------------------------------


def _decode_puback(cursor: Cursor, version: int) -> Puback:
    packet_id = cursor.packet_id()
    code, properties = _code_and_properties(cursor, version, _REASON)
    return Puback(packet_id=packet_id, code=code, properties=properties)


def _encode_puback(packet: Puback, version: int) -> bytes:
    return packet.packet_id.to_bytes(2, "big") + _tail(packet.code, packet.properties, version)


def _decode_subscribe(cursor: Cursor, version: int) -> Subscribe:
    packet_id = cursor.packet_id()
    properties = (
        cursor.properties(frozenset({Property.SUBSCRIPTION_ID, Property.USER_PROPERTY}))
        if version == V5
        else {}
    )
    subscriptions: list[Subscription] = []
    while not cursor.is_at_end or not subscriptions:
        topic_filter = _topic_filter(cursor)
        options = cursor.u8()
        reserved = 0xC0 if version == V5 else 0xFC
        if options & reserved or options & 3 == 3 or options & 0x30 == 0x30:
            raise cursor.malformed(f"subscription options 0x{options:02X}")
        subscriptions.append(
            Subscription(
                topic_filter,
                qos=options & 3,
                is_no_local=bool(options & 4),
                is_retain_kept=bool(options & 8),
                retain_handling=options >> 4,
            )
        )
    return Subscribe(packet_id=packet_id, subscriptions=tuple(subscriptions), properties=properties)


def _encode_subscribe(packet: Subscribe, version: int) -> bytes:
    out = packet.packet_id.to_bytes(2, "big")
    if version == V5:
        out += pack_properties(packet.properties)
    for one in packet.subscriptions:
        options = one.qos
        if version == V5:
            options |= one.is_no_local << 2 | one.is_retain_kept << 3 | one.retain_handling << 4
        out += pack_text(one.topic_filter) + bytes((options,))
    return out


def _decode_suback(cursor: Cursor, version: int) -> Suback:
    packet_id = cursor.packet_id()
    properties = cursor.properties(_REASON) if version == V5 else {}
    codes = tuple(cursor.rest())
    if not codes or (version == V311 and not set(codes) <= {0, 1, 2, 0x80}):
        raise cursor.malformed(f"return codes {list(codes)}")
    return Suback(packet_id=packet_id, codes=codes, properties=properties)


def _encode_suback(packet: Suback, version: int) -> bytes:
    out = packet.packet_id.to_bytes(2, "big")
    if version == V5:
        return out + pack_properties(packet.properties) + bytes(packet.codes)
    return out + bytes(min(code, 0x80) for code in packet.codes)


def _decode_unsubscribe(cursor: Cursor, version: int) -> Unsubscribe:
    packet_id = cursor.packet_id()
    properties = cursor.properties(frozenset({Property.USER_PROPERTY})) if version == V5 else {}
    filters = [_topic_filter(cursor)]
    while not cursor.is_at_end:
        filters.append(_topic_filter(cursor))
    return Unsubscribe(packet_id=packet_id, topic_filters=tuple(filters), properties=properties)


def _encode_unsubscribe(packet: Unsubscribe, version: int) -> bytes:
    out = packet.packet_id.to_bytes(2, "big")
    if version == V5:
        out += pack_properties(packet.properties)
    return out + b"".join(pack_text(one) for one in packet.topic_filters)


def _decode_unsuback(cursor: Cursor, version: int) -> Unsuback:
    packet_id = cursor.packet_id()
    if version == V311:
        return Unsuback(packet_id=packet_id)
    properties = cursor.properties(_REASON)
    return Unsuback(packet_id=packet_id, codes=tuple(cursor.rest()), properties=properties)


def _encode_unsuback(packet: Unsuback, version: int) -> bytes:
    out = packet.packet_id.to_bytes(2, "big")
    if version == V311:
        return out
    return out + pack_properties(packet.properties) + bytes(packet.codes)


def _decode_disconnect(cursor: Cursor, version: int) -> Disconnect:
    allowed = _REASON | {Property.SESSION_EXPIRY_S, Property.SERVER_REFERENCE}
    code, properties = _code_and_properties(cursor, version, allowed)
    return Disconnect(code=code, properties=properties)


def _encode_disconnect(packet: Disconnect, version: int) -> bytes:
    return _tail(packet.code, packet.properties, version)


def _code_and_properties(
    cursor: Cursor, version: int, allowed: frozenset[Property]
) -> tuple[int, dict[Property, Any]]:
    """Read the optional end of a packet: both or the properties alone may be left out."""
    if version == V311 or cursor.is_at_end:
        return Code.SUCCESS, {}
    code = cursor.u8()
    return code, {} if cursor.is_at_end else cursor.properties(allowed)


def _tail(code: int, properties: Properties, version: int) -> bytes:
    if version == V311 or (code == Code.SUCCESS and not properties):
        return b""
    return bytes((code,)) + (pack_properties(properties) if properties else b"")


def _topic_filter(cursor: Cursor) -> str:
    topic_filter = cursor.text()
    fault = filter_fault(topic_filter)
    if fault is not None:
        raise cursor.malformed(
            f"topic filter {topic_filter[:80]!r} {fault}", code=Code.TOPIC_FILTER_INVALID
        )
    return topic_filter


_DECODERS: Final[dict[int, tuple[str, int, Callable[[Cursor, int], Packet]]]] = {
    PacketType.CONNECT: ("CONNECT", 0, _decode_connect),
    PacketType.CONNACK: ("CONNACK", 0, _decode_connack),
    PacketType.PUBACK: ("PUBACK", 0, _decode_puback),
    PacketType.SUBSCRIBE: ("SUBSCRIBE", 2, _decode_subscribe),
    PacketType.SUBACK: ("SUBACK", 0, _decode_suback),
    PacketType.UNSUBSCRIBE: ("UNSUBSCRIBE", 2, _decode_unsubscribe),
    PacketType.UNSUBACK: ("UNSUBACK", 0, _decode_unsuback),
    PacketType.PINGREQ: ("PINGREQ", 0, lambda cursor, version: Pingreq()),
    PacketType.PINGRESP: ("PINGRESP", 0, lambda cursor, version: Pingresp()),
    PacketType.DISCONNECT: ("DISCONNECT", 0, _decode_disconnect),
}
_ENCODERS: Final[dict[type, tuple[int, Callable[[Any, int], bytes]]]] = {
    Connect: (0x10, _encode_connect),
    Connack: (0x20, _encode_connack),
    Puback: (0x40, _encode_puback),
    Subscribe: (0x82, _encode_subscribe),
    Suback: (0x90, _encode_suback),
    Unsubscribe: (0xA2, _encode_unsubscribe),
    Unsuback: (0xB0, _encode_unsuback),
    Pingreq: (0xC0, lambda packet, version: b""),
    Pingresp: (0xD0, lambda packet, version: b""),
    Disconnect: (0xE0, _encode_disconnect),
}
