"""The MQTT codec against bytes worked out from the standard, packet by packet."""

from __future__ import annotations

import pytest

from matchday.mqtt.codes import V5, V311, Code, ProtocolError
from matchday.mqtt.fields import Cursor, Property, filter_fault, pack_varint, topic_fault
from matchday.mqtt.layouts import decode, encode
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
from matchday.mqtt.publish import Decoder, pack_pubacks
from mqtt_packing import pack_publish

MAX = 2**20

# Each row: packet, version, bytes written by hand after the tables of the standard.
TABLE: list[tuple[Packet, int, str]] = [
    (
        Connect(client_id="a", version=V311, keep_alive_s=10),
        V311,
        "100d 0004 4d515454 04 00 000a 0001 61",
    ),
    (
        Connect(client_id="a", version=V311, clean_start=True, username="u", password=b"p"),
        V311,
        "1013 0004 4d515454 04 c2 003c 0001 61 0001 75 0001 70",
    ),
    (
        Connect(client_id="", properties={Property.SESSION_EXPIRY_S: 0xFFFFFFFF}),
        V5,
        "1012 0004 4d515454 05 00 003c 05 11 ffffffff 0000",
    ),
    (
        Connect(client_id="a", will=Will(topic="w", payload=b"x", qos=1, is_retained=True)),
        V5,
        "1015 0004 4d515454 05 2c 003c 00 0001 61 00 0001 77 0001 78",
    ),
    (Connack(), V311, "2002 00 00"),
    (Connack(is_session_present=True), V311, "2002 01 00"),
    (Connack(code=Code.NOT_AUTHORIZED), V311, "2002 00 05"),
    (
        Connack(properties={Property.RECEIVE_MAX: 1000, Property.QOS_MAX: 1}),
        V5,
        "2008 00 00 05 21 03e8 24 01",
    ),
    (Connack(code=Code.BAD_CREDENTIALS), V5, "2003 00 86 00"),
    (Puback(packet_id=258), V311, "4002 0102"),
    (Puback(packet_id=258), V5, "4002 0102"),
    (Puback(packet_id=1, code=Code.NO_MATCHING_SUBSCRIBERS), V5, "4003 0001 10"),
    (
        Puback(packet_id=1, code=0x87, properties={Property.REASON_STRING: "no"}),
        V5,
        "4009 0001 87 05 1f 0002 6e6f",
    ),
    (
        Subscribe(packet_id=1, subscriptions=(Subscription("a/#", qos=1),)),
        V311,
        "8208 0001 0003 612f23 01",
    ),
    (
        Subscribe(packet_id=1, subscriptions=(Subscription("+", qos=1, retain_handling=2),)),
        V5,
        "8207 0001 00 0001 2b 21",
    ),
    (Suback(packet_id=1, codes=(1, 0x80)), V311, "9004 0001 01 80"),
    (Suback(packet_id=1, codes=(0x83,)), V5, "9004 0001 00 83"),
    (Unsubscribe(packet_id=2, topic_filters=("a",)), V311, "a205 0002 0001 61"),
    (Unsubscribe(packet_id=2, topic_filters=("a",)), V5, "a206 0002 00 0001 61"),
    (Unsuback(packet_id=2), V311, "b002 0002"),
    (Unsuback(packet_id=2, codes=(0x11,)), V5, "b004 0002 00 11"),
    (Pingreq(), V311, "c000"),
    (Pingresp(), V5, "d000"),
    (Disconnect(), V311, "e000"),
    (Disconnect(), V5, "e000"),
    (Disconnect(code=Code.SESSION_TAKEN_OVER), V5, "e001 8e"),
]
IDS = [
    f"{type(packet).__name__}-{version}-{index}" for index, (packet, version, _) in enumerate(TABLE)
]


@pytest.mark.parametrize(("packet", "version", "text"), TABLE, ids=IDS)
def test_packet_is_encoded_as_the_standard_writes_it(
    packet: Packet, version: int, text: str
) -> None:
    assert encode(packet, version=version).hex() == text.replace(" ", "")


@pytest.mark.parametrize(("packet", "version", "text"), TABLE, ids=IDS)
def test_packet_is_decoded_from_what_the_standard_writes(
    packet: Packet, version: int, text: str
) -> None:
    data = bytes.fromhex(text.replace(" ", ""))
    is_connect = isinstance(packet, Connect)
    assert decode(data[0], data[2:], version=None if is_connect else version) == packet


MALFORMED = [
    pytest.param(
        0x10, "0004 4d515454 04 01 000a 0001 61", V311, Code.MALFORMED_PACKET, id="reserved flag"
    ),
    pytest.param(
        0x10,
        "0004 4d515454 04 40 000a 0001 61 0001 70",
        V311,
        Code.MALFORMED_PACKET,
        id="password alone",
    ),
    pytest.param(
        0x10, "0004 4d515454 04 1c 000a 0001 61", V311, Code.MALFORMED_PACKET, id="will qos 3"
    ),
    pytest.param(
        0x10,
        "0004 4d515454 04 08 000a 0001 61",
        V311,
        Code.MALFORMED_PACKET,
        id="will qos without will",
    ),
    pytest.param(
        0x10, "0006 4d5149736470 03 00 000a 0001 61", V311, Code.UNSUPPORTED_VERSION, id="3.1"
    ),
    pytest.param(
        0x10, "0004 4d515454 06 00 000a 0001 61", V311, Code.UNSUPPORTED_VERSION, id="level 6"
    ),
    pytest.param(
        0x10, "0004 4d515454 04 00 000a 0002 61", V311, Code.MALFORMED_PACKET, id="cut short"
    ),
    pytest.param(
        0x10, "0004 4d515454 04 00 000a 0001 61 00", V311, Code.MALFORMED_PACKET, id="bytes behind"
    ),
    pytest.param(
        0x10, "0004 4d515454 04 00 000a 0001 ff", V311, Code.MALFORMED_PACKET, id="not utf-8"
    ),
    pytest.param(0x10, "0004 4d515454 04 00 000a 0001 00", V311, Code.MALFORMED_PACKET, id="nul"),
    pytest.param(0x20, "02 00", V311, Code.MALFORMED_PACKET, id="connack flags"),
    pytest.param(0x20, "00 06", V311, Code.MALFORMED_PACKET, id="connack code"),
    pytest.param(0x20, "00 00 03 21 0000", V5, Code.PROTOCOL_ERROR, id="receive maximum 0"),
    pytest.param(0x20, "00 00 04 24 01 24 01", V5, Code.PROTOCOL_ERROR, id="property twice"),
    pytest.param(0x20, "00 00 02 24 02", V5, Code.PROTOCOL_ERROR, id="maximum qos 2"),
    pytest.param(
        0x20, "00 00 03 23 0001", V5, Code.MALFORMED_PACKET, id="property of another packet"
    ),
    pytest.param(0x20, "00 00 02 7f 01", V5, Code.MALFORMED_PACKET, id="unknown property"),
    pytest.param(0x20, "00 00 ff ff ff ff 01", V5, Code.MALFORMED_PACKET, id="long varint"),
    pytest.param(0x40, "0000", V311, Code.PROTOCOL_ERROR, id="packet id 0"),
    pytest.param(0x82, "0001", V311, Code.MALFORMED_PACKET, id="no filter"),
    pytest.param(0x80, "0001 0001 61 01", V311, Code.MALFORMED_PACKET, id="flags of subscribe"),
    pytest.param(0x82, "0001 0001 61 03", V311, Code.MALFORMED_PACKET, id="qos 3 wanted"),
    pytest.param(0x82, "0001 00 0001 61 31", V5, Code.MALFORMED_PACKET, id="retain handling 3"),
    pytest.param(0x82, "0001 0003 612362 01", V311, Code.TOPIC_FILTER_INVALID, id="bad filter"),
    pytest.param(0x90, "0001 03", V311, Code.MALFORMED_PACKET, id="suback code"),
    pytest.param(0xC0, "00", V311, Code.MALFORMED_PACKET, id="ping with body"),
    pytest.param(0x50, "0001", V5, Code.PROTOCOL_ERROR, id="pubrec"),
    pytest.param(0xF0, "", V5, Code.PROTOCOL_ERROR, id="auth"),
    pytest.param(0x00, "", V5, Code.PROTOCOL_ERROR, id="type 0"),
]


@pytest.mark.parametrize(("head", "text", "version", "code"), MALFORMED)
def test_malformed_packet_is_refused_with_its_code(
    head: int, text: str, version: int, code: Code
) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(head, bytes.fromhex(text.replace(" ", "")), version=version)
    assert caught.value.code == code


def test_only_connect_is_taken_before_the_version_is_known() -> None:
    with pytest.raises(ProtocolError, match="before CONNECT"):
        decode(0xC0, b"", version=None)


def test_a_server_of_3_1_1_refusing_version_5_is_understood() -> None:
    assert decode(0x20, b"\x00\x01", version=V5) == Connack(code=Code.UNSUPPORTED_VERSION)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_length_takes_one_to_four_bytes(value: int, text: str) -> None:
    assert pack_varint(value).hex() == text
    assert Cursor(bytes.fromhex(text), what="test").varint() == value


def test_length_beyond_four_bytes_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="268435456"):
        pack_varint(268_435_456)


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b"])
def test_topic_of_a_message_has_no_wildcard_and_no_nul(topic: str) -> None:
    assert topic_fault(topic) is not None


@pytest.mark.parametrize("topic_filter", ["", "a#", "#/a", "a+/b", "x\0"])
def test_filter_with_a_misplaced_wildcard_is_found(topic_filter: str) -> None:
    assert filter_fault(topic_filter) is not None


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/+/b/#", "/", "$share/g/a", "+/+"])
def test_valid_filter_is_accepted(topic_filter: str) -> None:
    assert filter_fault(topic_filter) is None


# --- PUBLISH --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V311, V5])
def test_messages_come_out_as_parallel_lists(version: int) -> None:
    data = (
        pack_publish("a/b", b"one", packet_id=7, version=version)
        + pack_publish("ä", b"", version=version)
        + encode(Pingresp(), version=version)
        + pack_publish("c", b"x" * 300, packet_id=65_535, version=version, is_repeated=True)
    )
    batch = Decoder(version=version, packet_bytes_max=MAX).decode(data)
    assert batch.topics == ["a/b", "ä", "c"]
    assert batch.payloads == [b"one", b"", b"x" * 300]
    assert batch.packet_ids == [7, 0, 65_535]
    assert batch.others == [(0xD0, b"")]


def test_properties_of_a_message_are_skipped() -> None:
    properties = {
        Property.CONTENT_TYPE: "application/json",
        Property.USER_PROPERTY: [("k", "v"), ("k", "w")],
        Property.SUBSCRIPTION_ID: [3],
    }
    data = pack_publish("t", b"p", packet_id=1, properties=properties)
    assert Decoder(version=V5, packet_bytes_max=MAX).decode(data).payloads == [b"p"]


BAD_PUBLISH = [
    pytest.param("3400" + "", V311, Code.MALFORMED_PACKET, id="empty qos 2"),
    pytest.param("3406 0001 61 0001 70", V311, Code.QOS_NOT_SUPPORTED, id="qos 2"),
    pytest.param("3606 0001 61 0001 70", V311, Code.MALFORMED_PACKET, id="qos 3"),
    pytest.param("3206 0001 61 0000 70", V311, Code.MALFORMED_PACKET, id="packet id 0"),
    pytest.param("3002 0000", V311, Code.TOPIC_NAME_INVALID, id="empty topic"),
    pytest.param("3003 0001 2b", V311, Code.TOPIC_NAME_INVALID, id="wildcard"),
    pytest.param("3003 0001 00", V311, Code.MALFORMED_PACKET, id="nul"),
    pytest.param("3003 0001 ff", V311, Code.MALFORMED_PACKET, id="not utf-8"),
    pytest.param("3003 0005 61", V311, Code.MALFORMED_PACKET, id="long topic"),
    pytest.param("3203 0001 61", V311, Code.MALFORMED_PACKET, id="no packet id"),
    pytest.param("3003 0001 61", V5, Code.MALFORMED_PACKET, id="no property length"),
    pytest.param("3004 0001 61 05", V5, Code.MALFORMED_PACKET, id="long properties"),
    pytest.param("3007 0001 61 03 23 0001", V5, Code.TOPIC_ALIAS_INVALID, id="topic alias"),
    pytest.param("30 ffffffff 01", V311, Code.MALFORMED_PACKET, id="length of 5 bytes"),
    pytest.param("30 ffffff7f", V311, Code.PACKET_TOO_LARGE, id="too large"),
]


@pytest.mark.parametrize("behind", [b"", b"\xd0\x00" * 200], ids=["alone", "followed"])
@pytest.mark.parametrize(("text", "version", "code"), BAD_PUBLISH)
def test_bad_message_ends_decoding_after_the_good_ones(
    text: str, version: int, code: Code, behind: bytes
) -> None:
    decoder = Decoder(version=version, packet_bytes_max=MAX)
    good = pack_publish("good", b"1", version=version)
    batch = decoder.decode(good + bytes.fromhex(text.replace(" ", "")) + behind)
    assert batch.topics == ["good"]
    assert batch.error is not None
    assert batch.error.code == code
    with pytest.raises(ProtocolError):
        decoder.decode(good)


@pytest.mark.parametrize("wrong", ["#", "+", "\0", "\ud800", ""])
def test_of_many_messages_those_before_a_wrong_topic_are_given_and_nothing_behind_it(
    wrong: str,
) -> None:
    decoder = Decoder(version=V311, packet_bytes_max=MAX)
    topics = ["a", "\n", "b"]
    good = b"".join(pack_publish(one, b"1", packet_id=2, version=V311) for one in topics)
    name = wrong.encode("utf-8", "surrogatepass")
    bad = bytes((0x30, len(name) + 2, 0, len(name))) + name
    batch = decoder.decode(good + b"\xd0\x00" + good + bad + good + b"\xd0\x00" + b"\x36\x00")
    assert batch.topics == topics * 2
    assert batch.payloads == [b"1"] * 6
    assert batch.packet_ids == [2] * 6
    assert batch.others == [(0xD0, b"")]
    assert batch.error is not None
    assert "topic" in str(batch.error)


def test_packet_above_the_bound_is_refused_before_it_is_there() -> None:
    decoder = Decoder(version=V311, packet_bytes_max=100_000)
    batch = decoder.decode(b"\x30" + pack_varint(100_000))
    assert batch.error is not None
    assert batch.error.code == Code.PACKET_TOO_LARGE


def test_packet_at_the_bound_is_taken() -> None:
    data = pack_publish("t", b"x" * (100_000 - 4 - 3), version=V311)
    assert len(data) == 100_000
    assert len(Decoder(version=V311, packet_bytes_max=100_000).decode(data)) == 1


def test_server_side_waits_after_connect_for_the_version() -> None:
    decoder = Decoder(version=None, packet_bytes_max=MAX)
    data = encode(Connect(client_id="a")) + pack_publish("t", b"p", packet_id=1)
    batch = decoder.decode(data)
    assert [head for head, _ in batch.others] == [0x10]
    assert not batch.topics
    decoder.version = V5
    assert decoder.decode(b"").topics == ["t"]


def test_first_byte_of_another_protocol_is_refused_at_once() -> None:
    batch = Decoder(version=None, packet_bytes_max=MAX).decode(b"GET / HTTP/1.1\r\n")
    assert batch.error is not None


def test_pubacks_of_a_batch_are_one_piece_and_leave_out_qos_0() -> None:
    assert pack_pubacks([1, 0, 65_535]).hex() == "4002000140" + "02ffff"
    assert pack_pubacks([0, 0]) == b""
