"""Properties of the MQTT codec: splitting does not matter, garbage never breaks it."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchday.mqtt.codes import V5, V311, ProtocolError
from matchday.mqtt.fields import Properties, Property, topic_fault
from matchday.mqtt.layouts import PINGRESP, decode, encode
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
from matchday.mqtt.publish import Batch, Decoder
from mqtt_packing import pack_publish

MAX = 2**20
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
topics = texts.filter(lambda text: topic_fault(text) is None)
packet_ids = st.integers(1, 65_535)
versions = st.sampled_from([V311, V5])
messages = st.tuples(topics, st.binary(max_size=300), st.integers(0, 65_535))


def _properties(*names: Property) -> st.SearchStrategy[Properties]:
    kinds = {
        Property.REASON_STRING: texts,
        Property.USER_PROPERTY: st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
        Property.SUBSCRIPTION_ID: st.lists(st.integers(1, 268_435_455), min_size=1, max_size=1),
        Property.CORRELATION_DATA: st.binary(max_size=20),
        Property.RECEIVE_MAX: st.integers(1, 65_535),
        Property.PACKET_BYTES_MAX: st.integers(1, 2**32 - 1),
        Property.SESSION_EXPIRY_S: st.integers(0, 2**32 - 1),
        Property.ASSIGNED_CLIENT_ID: texts,
        Property.SERVER_KEEP_ALIVE_S: st.integers(0, 65_535),
        Property.QOS_MAX: st.integers(0, 1),
        Property.TOPIC_ALIAS_MAX: st.integers(0, 65_535),
        Property.WILL_DELAY_S: st.integers(0, 2**32 - 1),
        Property.RETAIN_AVAILABLE: st.integers(0, 1),
    }
    return st.fixed_dictionaries({}, optional={name: kinds[name] for name in names})


REASON = _properties(Property.REASON_STRING, Property.USER_PROPERTY)
codes = st.integers(0, 255)

V5_PACKETS: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        Connect,
        client_id=texts,
        clean_start=st.booleans(),
        keep_alive_s=st.integers(0, 65_535),
        username=st.none() | texts,
        password=st.none() | st.binary(max_size=20),
        will=st.none()
        | st.builds(
            Will,
            topic=texts,
            payload=st.binary(max_size=20),
            qos=st.integers(0, 2),
            is_retained=st.booleans(),
            properties=_properties(Property.WILL_DELAY_S, Property.CORRELATION_DATA),
        ),
        properties=_properties(
            Property.RECEIVE_MAX, Property.PACKET_BYTES_MAX, Property.SESSION_EXPIRY_S
        ),
    ),
    st.builds(
        Connack,
        code=codes,
        is_session_present=st.booleans(),
        properties=_properties(
            Property.RECEIVE_MAX,
            Property.ASSIGNED_CLIENT_ID,
            Property.SERVER_KEEP_ALIVE_S,
            Property.QOS_MAX,
            Property.TOPIC_ALIAS_MAX,
            Property.RETAIN_AVAILABLE,
            Property.REASON_STRING,
        ),
    ),
    st.builds(Puback, packet_id=packet_ids, code=codes, properties=REASON),
    st.builds(
        Subscribe,
        packet_id=packet_ids,
        subscriptions=st.lists(
            st.builds(
                Subscription,
                topics,
                qos=st.integers(0, 2),
                is_no_local=st.booleans(),
                is_retain_kept=st.booleans(),
                retain_handling=st.integers(0, 2),
            ),
            min_size=1,
            max_size=4,
        ).map(tuple),
        properties=_properties(Property.SUBSCRIPTION_ID, Property.USER_PROPERTY),
    ),
    st.builds(
        Suback,
        packet_id=packet_ids,
        codes=st.lists(codes, min_size=1, max_size=4).map(tuple),
        properties=REASON,
    ),
    st.builds(
        Unsubscribe,
        packet_id=packet_ids,
        topic_filters=st.lists(topics, min_size=1, max_size=4).map(tuple),
    ),
    st.builds(
        Unsuback,
        packet_id=packet_ids,
        codes=st.lists(codes, max_size=4).map(tuple),
        properties=REASON,
    ),
    st.builds(Disconnect, code=codes, properties=REASON),
    st.just(Pingreq()),
    st.just(Pingresp()),
)

V311_PACKETS: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        Connect,
        client_id=texts,
        version=st.just(V311),
        clean_start=st.booleans(),
        keep_alive_s=st.integers(0, 65_535),
        username=texts,
        password=st.none() | st.binary(max_size=20),
    ),
    st.builds(
        Connack,
        code=st.sampled_from([0, 0x84, 0x85, 0x87, 0x88]),
        is_session_present=st.booleans(),
    ),
    st.builds(Puback, packet_id=packet_ids),
    st.builds(
        Subscribe,
        packet_id=packet_ids,
        subscriptions=st.lists(
            st.builds(Subscription, topics, qos=st.integers(0, 2)), min_size=1, max_size=4
        ).map(tuple),
    ),
    st.builds(
        Suback,
        packet_id=packet_ids,
        codes=st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=4).map(tuple),
    ),
    st.builds(
        Unsubscribe,
        packet_id=packet_ids,
        topic_filters=st.lists(topics, min_size=1, max_size=4).map(tuple),
    ),
    st.builds(Unsuback, packet_id=packet_ids),
    st.just(Disconnect()),
    st.just(Pingreq()),
)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


def _decoded(pieces: list[bytes], version: int | None) -> tuple[Batch, int | None]:
    decoder = Decoder(version=version, packet_bytes_max=MAX)
    batch = Batch()
    for piece in pieces:
        decoder.decode(piece, batch)
        if batch.error is not None:
            return batch, batch.error.code
    return batch, None


def _content(batch: Batch) -> tuple[object, ...]:
    return batch.topics, batch.payloads, batch.packet_ids, batch.others


@EXAMPLES
@given(st.lists(messages, max_size=8), st.lists(st.integers(0, 5000), max_size=8), versions)
def test_any_split_of_a_stream_decodes_to_the_same(
    sent: list[tuple[str, bytes, int]], cuts: list[int], version: int
) -> None:
    data = b"".join(
        pack_publish(topic, payload, packet_id=number, version=version) + PINGRESP
        for topic, payload, number in sent
    )
    batch, code = _decoded(_pieces(data, cuts), version)
    assert code is None
    assert list(zip(batch.topics, batch.payloads, batch.packet_ids, strict=True)) == sent
    assert len(batch.others) == len(sent)


@EXAMPLES
@given(
    st.lists(messages, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    st.lists(st.integers(0, 5000), max_size=6),
    versions,
)
def test_a_damaged_stream_fails_alike_however_it_is_split(
    sent: list[tuple[str, bytes, int]],
    damage: list[tuple[int, int]],
    cuts: list[int],
    version: int,
) -> None:
    data = bytearray(
        b"".join(
            pack_publish(topic, payload, packet_id=number, version=version)
            for topic, payload, number in sent
        )
    )
    for place, byte in damage:
        data[place % len(data)] = byte
    whole, whole_code = _decoded([bytes(data)], version)
    split, split_code = _decoded(_pieces(bytes(data), cuts), version)
    assert _content(split) == _content(whole)
    assert split_code == whole_code


@EXAMPLES
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4), versions | st.none())
def test_garbage_raises_nothing_but_the_protocol_error(
    data: bytes, cuts: list[int], version: int | None
) -> None:
    batch, _ = _decoded(_pieces(data, cuts), version)
    for head, body in batch.others:
        with suppress(ProtocolError):
            decode(head, body, version=version)


@EXAMPLES
@given(st.integers(0, 255), st.binary(max_size=120), versions | st.none())
def test_garbage_body_raises_nothing_but_the_protocol_error(
    head: int, body: bytes, version: int | None
) -> None:
    with suppress(ProtocolError):
        decode(head, body, version=version)


@pytest.mark.parametrize(("packets", "version"), [(V5_PACKETS, V5), (V311_PACKETS, V311)])
def test_every_packet_survives_the_round_trip(
    packets: st.SearchStrategy[Packet], version: int
) -> None:
    @EXAMPLES
    @given(packets)
    def check(packet: Packet) -> None:
        batch = Decoder(version=version, packet_bytes_max=MAX).decode(
            encode(packet, version=version)
        )
        assert batch.error is None
        [(head, body)] = batch.others
        assert decode(head, body, version=version) == packet

    check()


@EXAMPLES
@given(V5_PACKETS, st.data())
def test_a_packet_cut_short_is_never_taken_for_whole(packet: Packet, data: st.DataObject) -> None:
    encoded = encode(packet)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    batch = Decoder(version=V5, packet_bytes_max=MAX).decode(encoded[:cut])
    assert not batch.others
