"""Claims about what each format becomes, and what is refused with which reason."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from matchday.domain.instants import ms_from_iso
from matchday.domain.reading import Count, Positions, Scalar, TrackedObject
from matchday.errors import ConfigError, RefusedError
from matchday.ingest.adapters import Adapters, RefusedSources
from matchday.ingest.gate import GatePolicy, check

NOW = 1_700_000_000_000
ADAPTERS = Adapters()


def one(topic: str, payload: bytes | str):
    raw = payload.encode() if isinstance(payload, str) else payload
    readings, _ = ADAPTERS.decode(topic, raw, NOW)
    assert len(readings) == 1
    return readings[0]


def reason(topic: str, payload: bytes | str) -> str:
    raw = payload.encode() if isinstance(payload, str) else payload
    try:
        readings, _ = ADAPTERS.decode(topic, raw, NOW)
        for reading in readings:
            check(reading, arrived_ms=NOW, policy=GatePolicy())
    except RefusedError as error:
        return error.reason
    return "accepted"


def test_native_scalar_keeps_every_field():
    assert one(
        "matchday/demo/scalar/t1",
        '{"quantity":"temperature","value":21.5,"unit":"degC","t":1700000000001,"seq":3,"session":"a"}',
    ) == Scalar(
        source="t1",
        t_ms=1_700_000_000_001,
        quantity="temperature",
        value=21.5,
        unit="degC",
        seq=3,
        venue="demo",
        session="a",
    )


@pytest.mark.parametrize(
    "text",
    ["2023-11-14T22:13:20Z", "2023-11-14 22:13:20", "2023-11-15T08:13:20+10:00"],
)
def test_time_text_without_zone_is_utc_and_with_zone_is_converted(text: str):
    reading = one("matchday/v/scalar/s", f'{{"quantity":"q","value":1,"t":"{text}"}}')
    assert reading.t_ms == NOW
    assert reading.is_timed


def test_message_without_time_takes_the_arrival_and_says_so():
    reading = one("matchday/v/scalar/s", '{"quantity":"q","value":1}')
    assert (reading.t_ms, reading.is_timed) == (NOW, False)


def test_native_positions_keep_objects_in_metres():
    reading = one(
        "matchday/v/positions/cam",
        '{"objects":[{"id":"home_1","x":1,"y":-2.5,"z":0.1,"team":"home"}],"t":1700000000000}',
    )
    assert isinstance(reading, Positions)
    assert reading.objects == (TrackedObject("home_1", 1.0, -2.5, 0.1, "home"),)


def test_native_count_needs_one_of_its_numbers():
    assert one("matchday/v/count/g", '{"zone":"A","in":3}') == Count(
        source="g", t_ms=NOW, zone="A", entered=3, venue="v", is_timed=False
    )
    assert reason("matchday/v/count/g", '{"zone":"A"}') == "missing_field"


def test_unknown_fields_are_counted_and_ignored():
    readings, unknown_fields = ADAPTERS.decode(
        "matchday/v/scalar/s", b'{"quantity":"q","value":1,"battery":3,"fw":"x"}', NOW
    )
    assert unknown_fields == 2
    assert readings[0].value == 1


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (b"not json", "not_json"),
        (b"", "not_json"),
        (b"\xff\xfe{", "not_utf8"),
        (b'{"quantity":"\xc3\x28","value":1}', "not_utf8"),
        (b"[1,2]", "wrong_type"),
        (b"17", "wrong_type"),
        (b'{"quantity":"q","value":"1"}', "wrong_type"),
        (b'{"quantity":"q","value":true}', "wrong_type"),
        (b'{"quantity":"q","value":NaN}', "not_finite"),
        (b'{"quantity":"q","value":Infinity}', "not_finite"),
        (b'{"quantity":"q","value":1e999}', "wrong_type"),
        (b'{"quantity":"q"}', "missing_field"),
        (b'{"quantity":"q","value":1e15}', "out_of_range"),
        (b'{"quantity":"q","value":1,"t":0}', "time_before_1971"),
        (b'{"quantity":"q","value":1,"t":"1970-05-01T00:00:00Z"}', "time_before_1971"),
        (b'{"quantity":"q","value":1,"t":"2999-01-01T00:00:00Z"}', "time_ahead"),
        (b'{"quantity":"q","value":1,"t":1700000300001}', "time_ahead"),
        (b'{"quantity":"q","value":1,"t":"yesterday"}', "wrong_type"),
        (b'{"quantity":"","value":1}', "bad_name"),
        (b'{"quantity":"q","value":1,"seq":-1}', "out_of_range"),
        (b'{"quantity":"q","value":1,"seq":99999999999999999999999}', "out_of_range"),
        (b'{"quantity":"q","value":1,"extra":' + b"[" * 100_000 + b"}", "too_deep"),
    ],
)
def test_bad_native_scalar_is_refused_with_its_reason(payload: bytes, wanted: str):
    assert reason("matchday/v/scalar/s", payload) == wanted


@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ('[{"id":"a","x":1e9,"y":0}]', "out_of_range"),
        ('[{"id":"a","x":0}]', "missing_field"),
        ('[{"id":"","x":0,"y":0}]', "bad_name"),
        ('{"id":"a"}', "wrong_type"),
    ],
)
def test_bad_positions_are_refused_with_their_reason(objects: str, wanted: str):
    assert reason("matchday/v/positions/cam", f'{{"objects":{objects}}}') == wanted


def test_topic_that_no_adapter_takes_is_refused():
    assert reason("some/unknown/topic", "{}") == "unknown_topic"
    assert reason("matchday/v/weather/s", "{}") == "unknown_topic"
    assert reason("foo", '{"bar":1}') == "unknown_topic"


def test_original_temperature_message_is_taken_unchanged():
    assert one(
        "temperature",
        '{"sensorId": "464fc87d3c5a", "temperature": 21.5, "collectedAt": "2023-11-14 22:13:20"}',
    ) == Scalar(source="464fc87d3c5a", t_ms=NOW, quantity="temperature", value=21.5)


@pytest.mark.parametrize("topic", ["image", "Image", "IMAGE"])
def test_original_image_topic_is_taken_in_any_case(topic: str):
    reading = one(topic, '{"sensorId":"s","image":38,"collectedAt":"2023-11-14 22:13:20"}')
    assert (reading.quantity, reading.value) == ("image", 38.0)


def test_any_other_quantity_of_the_original_shape_is_taken():
    reading = one("humidity", '{"sensorId":"s","humidity":40,"collectedAt":"2023-11-14 22:13:20"}')
    assert (reading.quantity, reading.value) == ("humidity", 40.0)


@pytest.mark.parametrize(
    ("payload", "quantity", "value", "unit"),
    [
        ("SPO2 is: 97%", "spo2", 97.0, "%"),
        ("Distance: 1.25", "distance", 1.25, None),
    ],
)
def test_labelled_text_sensors_are_taken(payload, quantity, value, unit):
    reading = one("sensor/data", payload)
    assert (reading.quantity, reading.value, reading.unit) == (quantity, value, unit)
    assert not reading.is_timed


def test_csv_text_sensor_is_taken_with_its_time():
    reading = one("testing", "2023-11-14 22:13:20,72")
    assert (reading.quantity, reading.value, reading.t_ms) == ("heart_rate", 72.0, NOW)


@pytest.mark.parametrize("text", ["time,HeartRate", "hello", "x" * 300, ":" * 150])
def test_text_without_a_value_is_refused(text: str):
    assert reason("testing", text) == "not_text_sensor"


def test_zone_densities_become_one_count_per_zone_with_the_average_where_present():
    readings, _ = ADAPTERS.decode(
        "crowd/density/cam-1",
        b'{"zones":[{"zone_id":"A1","person_count":40,"density":0.5,'
        b'"average_count_per_frame":4.5,"density_level":"Low"},'
        b'{"zone_id":"B2","person_count":7,"density":1.0}]}',
        NOW,
    )
    assert [(item.source, item.zone, item.occupancy) for item in readings] == [
        ("cam-1", "A1", 4.5),
        ("cam-1", "B2", 7.0),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        '{"frameId":7,"peopleCount":12,"timestamp":"15-11-2023 09:13:20"}',
        '{"frame_id":7,"total_persons":12,"timestamp":"15/11/2023 09:13:20"}',
    ],
)
def test_live_counter_times_are_local_to_the_adapters_zone(payload: str):
    adapters = Adapters(zone=ZoneInfo("Australia/Melbourne"))
    (reading,), _ = adapters.decode("crowd/live/gate-3", payload.encode(), NOW)
    assert (reading.source, reading.occupancy, reading.t_ms) == ("gate-3", 12.0, NOW)


def test_configured_row_comes_before_the_table():
    adapters = Adapters(["house/+/t=original"])
    (reading,), _ = adapters.decode("house/1/t", b'{"sensorId":"s","t":1}', NOW)
    assert reading.quantity == "t"


def test_configured_row_with_an_unknown_format_is_a_configuration_error():
    with pytest.raises(ConfigError, match="xml"):
        Adapters(["a/b=xml"])


def test_refused_message_counts_to_the_source_of_a_native_topic():
    assert RefusedSources().name("matchday/v/scalar/s1") == "s1"


def test_rubbish_topics_beyond_the_bound_share_one_line_of_the_account():
    names = RefusedSources(topics_max=2)
    assert [names.name(topic) for topic in ("a", "b", "c", "a")] == [
        "topic:a",
        "topic:b",
        "topic:other",
        "topic:a",
    ]


def test_source_that_is_not_registered_is_refused_when_only_registered_ones_may_speak():
    reading = one("matchday/v/scalar/s", '{"quantity":"q","value":1}')
    with pytest.raises(RefusedError) as caught:
        check(reading, arrived_ms=NOW, policy=GatePolicy(registered=frozenset({"other"})))
    assert caught.value.reason == "unregistered"


@pytest.mark.parametrize("digits", [20, 309, 310, 4299])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        ("temperature", '{"sensorId":"a","temperature":NUMBER}', "wrong_type"),
        ("depth", '{"sensorId":"a","other":NUMBER}', "unknown_topic"),
        ("temperature", '{"sensorId":"a","temperature":1,"collectedAt":NUMBER}', "bad_time"),
        ("temperature", '{"sensorId":NUMBER,"temperature":1,"collectedAt":NUMBER}', "bad_time"),
        ("crowd/live/c", '{"peopleCount":NUMBER}', "wrong_type"),
        ("crowd/live/c", '{"peopleCount":1,"timestamp":NUMBER}', "bad_time"),
    ],
)
def test_number_beyond_all_floats_is_refused(
    topic: str, payload: str, expected: str, sign: str, digits: int
):
    assert reason(topic, payload.replace("NUMBER", sign + "9" * digits)) == expected


@pytest.mark.parametrize("text", ["x" * 65, "2024-09-09T14:01:09." + "0" * 100 + "Z", "9" * 5000])
def test_time_longer_than_any_time_is_refused_and_not_remembered(text: str):
    before = ms_from_iso.cache_info().currsize
    payload = f'{{"sensorId":"a","temperature":1,"collectedAt":"{text}"}}'
    assert reason("temperature", payload) == "bad_time"
    assert ms_from_iso.cache_info().currsize == before
