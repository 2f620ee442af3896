"""What a client sends as bytes: PUBLISH packets, which the product itself only reads."""

from __future__ import annotations

from matchday.mqtt.codes import V5
from matchday.mqtt.fields import Properties, pack_properties, pack_text, pack_varint


def pack_publish(
    topic: str,
    payload: bytes,
    *,
    packet_id: int = 0,
    version: int = V5,
    is_retained: bool = False,
    is_repeated: bool = False,
    properties: Properties | None = None,
) -> bytes:
    """Encode a PUBLISH, QoS 1 if `packet_id` is not 0, else QoS 0."""
    assert version == V5 or not properties, "MQTT 3.1.1 has no properties"
    head = 0x30 | (is_repeated << 3) | (2 if packet_id else 0) | is_retained
    body = pack_text(topic)
    if packet_id:
        body += packet_id.to_bytes(2, "big")
    if version == V5:
        body += pack_properties(properties or {})
    return bytes((head,)) + pack_varint(len(body) + len(payload)) + body + payload
