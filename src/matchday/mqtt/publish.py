"""The hot path of MQTT: many PUBLISH packets in, one run of PUBACKs out.

Owns framing (bytes of a connection -> whole packets), the decoding of PUBLISH and the
encoding of PUBACK runs. Does no I/O. Every other packet is only cut out here
and decoded by `packets`. About 0.6 us per message: one buffer, one loop, no object per
packet; per-packet classes and a C extension were measured and not worth it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from matchday.mqtt.codes import V5, Code, ProtocolError
from matchday.mqtt.fields import Cursor, Property, topic_fault

PACKET_BYTES_MAX_MIN: Final = 16_386
"""The least bound on packets: what a length of two bytes can express."""

PUBLISH_PROPERTIES: Final = frozenset(
    {
        Property.PAYLOAD_FORMAT,
        Property.MESSAGE_EXPIRY_S,
        Property.CONTENT_TYPE,
        Property.RESPONSE_TOPIC,
        Property.CORRELATION_DATA,
        Property.SUBSCRIPTION_ID,
        Property.TOPIC_ALIAS,
        Property.USER_PROPERTY,
    }
)

_CONNECT_HEAD: Final = 0x10
_PUBACK: Final = 0x4002_0000


class Batch:
    """What was decoded: messages as parallel lists, other packets cut out whole.

    Attributes:
        topics: Topic of each message.
        payloads: Payload of each message.
        packet_ids: Packet identifier of each message; 0 exactly for QoS 0.
        others: First byte and body of every other packet, in order.
        error: What made decoding end after all this, or None.
    """

    __slots__ = ("error", "others", "packet_ids", "payloads", "topics")

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.packet_ids: list[int] = []
        self.others: list[tuple[int, bytes]] = []
        self.error: ProtocolError | None = None

    def __len__(self) -> int:
        return len(self.topics)


class Decoder:
    """Cuts one direction of one connection into packets, however its bytes were split.

    Bytes of an incomplete packet are kept, at most `packet_bytes_max` and one chunk.

    Attributes:
        version: Protocol level; None on a server until CONNECT has told it. Decoding
            then pauses after that first packet; set the level and call `decode(b"")`.
        packet_bytes_max: The largest packet taken, in bytes with its header; checked
            as soon as the header is there.
    """

    def __init__(self, *, version: int | None, packet_bytes_max: int) -> None:
        if packet_bytes_max < PACKET_BYTES_MAX_MIN:
            raise ValueError(f"packet_bytes_max {packet_bytes_max} under {PACKET_BYTES_MAX_MIN}")
        self.version = version
        self.packet_bytes_max = packet_bytes_max
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = 0
        self._failure: ProtocolError | None = None

    @property
    def is_between_packets(self) -> bool:
        """Tell whether no part of a packet is waiting for the rest."""
        return self._held_bytes == 0

    def decode(self, chunk: bytes, batch: Batch | None = None) -> Batch:
        """Add the packets completed by `chunk` to `batch` (a new one if None) and give it.

        A malformed packet does not take away what came before it: it is reported in
        `Batch.error`, and the next call raises it.

        Raises:
            ProtocolError: The stream was found malformed by an earlier call.
        """
        if self._failure is not None:
            raise self._failure
        if batch is None:
            batch = Batch()
        if chunk:
            self._chunks.append(chunk)
            self._held_bytes += len(chunk)
        # Joining at every chunk would copy a packet of n chunks n/2 times.
        if self._held_bytes < self._wanted_bytes or not self._held_bytes:
            return batch
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._wanted_bytes = 0
        try:
            at = self._scan(data, batch)
        except ProtocolError as error:
            self._failure = batch.error = error
            at = len(data)
        rest = data[at:]
        self._chunks = [rest] if rest else []
        self._held_bytes = len(rest)
        return batch

    def _scan(self, data: bytes, batch: Batch) -> int:
        """Decode all whole packets of `data`; give the index after the last of them."""
        if self.version is None:
            return self._scan_first(data, batch)
        at, end, last = 0, len(data), len(data) - 1
        has_properties = self.version == V5
        names: list[bytes] = []
        add_name, add_payload = names.append, batch.payloads.append
        add_packet_id = batch.packet_ids.append
        try:
            while at < last:
                length = data[at + 1]
                body = at + 2
                if length > 127:
                    # Two length bytes, the common case, are read in place.
                    if body < end and (high := data[body]) < 128:
                        length += (high << 7) - 128
                        body += 1
                    else:
                        body, length = self._long_length(data, at)
                        if body == 0:
                            break
                stop = body + length
                if stop > end:
                    self._wanted_bytes = stop - at
                    break
                head = data[at]
                if head >> 4 != 3:
                    _add_topics(batch, names)
                    batch.others.append((head, data[body:stop]))
                    at = stop
                    continue
                begin = body + 2
                start = begin + (data[body] << 8 | data[body + 1])
                name = data[begin:start]
                packet_id = 0
                if head & 6:
                    packet_id = data[start] << 8 | data[start + 1]
                    start += 2
                    if head & 4 or not packet_id:
                        raise _bad_publish(head, is_whole=start <= stop)
                if has_properties:
                    start = _after_properties(data, start, stop) if data[start] else start + 1
                if start > stop:
                    raise _too_long()
                add_name(name)
                add_payload(data[start:stop])
                add_packet_id(packet_id)
                at = stop
        except IndexError:
            raise _too_long() from None
        finally:
            # What is wrong with a topic lies before whatever else was found wrong.
            _add_topics(batch, names)
        return at

    def _scan_first(self, data: bytes, batch: Batch) -> int:
        if data[0] != _CONNECT_HEAD:
            raise ProtocolError(
                f"decoding first packet: begins with 0x{data[0]:02X}, not CONNECT",
                code=Code.PROTOCOL_ERROR,
            )
        body, length = self._long_length(data, 0)
        if body == 0:
            return 0
        stop = body + length
        if stop > len(data):
            self._wanted_bytes = stop
            return 0
        batch.others.append((data[0], data[body:stop]))
        return stop

    def _long_length(self, data: bytes, at: int) -> tuple[int, int]:
        """Give (index of the body, its length) of the packet at `at`; (0, 0) if cut short."""
        length = 0
        for place in range(4):
            index = at + 1 + place
            if index >= len(data):
                return 0, 0
            length |= (data[index] & 0x7F) << 7 * place
            if data[index] < 0x80:
                break
        else:
            raise ProtocolError("decoding packet: remaining length is longer than 4 bytes")
        size = index + 1 - at + length
        if size > self.packet_bytes_max:
            raise ProtocolError(
                f"decoding packet: {size} bytes above {self.packet_bytes_max}",
                code=Code.PACKET_TOO_LARGE,
            )
        return index + 1, length


def _add_topics(batch: Batch, names: list[bytes]) -> None:
    """Add the topics of the messages just cut out to their batch, and forget their names.

    Raises:
        ProtocolError: One is wrong; its message and those behind it are taken back.
    """
    given = names.copy()
    names.clear()
    topics = _read_together(given) if given else []
    if topics is not None:
        batch.topics += topics
        return
    try:
        for name in given:
            batch.topics.append(_read_topic(name))
    finally:
        del batch.payloads[len(batch) :], batch.packet_ids[len(batch) :]


def _read_together(names: Sequence[bytes]) -> list[str] | None:
    """Read topics as one text, in a tenth of the time; give None if one of them is wrong.

    To know them from before would save no more, and nothing where there are very many.
    """
    try:
        text = b"\0".join(names).decode()
    except UnicodeDecodeError:
        return None
    topics = text.split("\0")
    is_right = len(topics) == len(names) and all(topics) and "+" not in text and "#" not in text
    return topics if is_right else None


def _read_topic(name: bytes) -> str:
    try:
        topic = name.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(
            f"decoding PUBLISH: topic is not UTF-8 at byte {error.start}"
        ) from error
    fault = topic_fault(topic)
    if fault is not None:
        code = Code.MALFORMED_PACKET if "\0" in topic else Code.TOPIC_NAME_INVALID
        raise ProtocolError(f"decoding PUBLISH: topic {topic[:80]!r} {fault}", code=code)
    return topic


def pack_pubacks(packet_ids: Sequence[int]) -> bytearray:
    """Encode one PUBACK (success) for every packet identifier that is not 0, in order.

    The four bytes are the same in both versions: version 5 may leave out reason code 0.
    """
    numbers = [_PUBACK | packet_id for packet_id in packet_ids if packet_id]
    out = bytearray(4 * len(numbers))
    struct.pack_into(f">{len(numbers)}I", out, 0, *numbers)
    return out


def _after_properties(data: bytes, start: int, stop: int) -> int:
    if start > stop:
        raise _too_long()
    cursor = Cursor(data, what="PUBLISH", at=start, end=stop)
    if Property.TOPIC_ALIAS in cursor.properties(PUBLISH_PROPERTIES):
        raise ProtocolError(
            "decoding PUBLISH: topic alias, where Topic Alias Maximum is 0",
            code=Code.TOPIC_ALIAS_INVALID,
        )
    return cursor.at


def _too_long() -> ProtocolError:
    return ProtocolError("decoding PUBLISH: a field is longer than the packet")


def _bad_publish(head: int, *, is_whole: bool) -> ProtocolError:
    # First what the packet's own length tells: what lies behind it may not be there yet,
    # and the verdict must not depend on how the bytes were split.
    if not is_whole:
        return _too_long()
    if head & 6 == 6:
        return ProtocolError("decoding PUBLISH: QoS 3 does not exist")
    if head & 6 == 4:
        return ProtocolError(
            "decoding PUBLISH: QoS 2, where at most 1 is taken", code=Code.QOS_NOT_SUPPORTED
        )
    return ProtocolError("decoding PUBLISH: packet identifier 0 at QoS 1")
