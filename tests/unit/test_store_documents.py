"""The shapes of documents, and what cannot become one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchday.domain.finding import Finding
from matchday.domain.reading import Count, Positions, Scalar, TrackedObject
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_finding, encode_reading
from matchday.errors import RefusedError
from matchday.ports import StreamRecord
from matchday.store.documents import (
    COLLECTIONS,
    bson_bytes,
    coordinates_id,
    dead_letter_document,
    finding_document,
    reading_document,
)
from matchday.store.rows import rows_of

T_MS = 1_725_890_469_123
T = datetime(2024, 9, 9, 14, 1, 9, 123000, tzinfo=UTC)


def record(topic: Topic, value: bytes, **fields) -> StreamRecord:
    return StreamRecord(
        topic=topic, partition=1, offset=7, time_ms=T_MS + 1000, key=b"k", value=value, **fields
    )


def forecast(**fields) -> Finding:
    return Finding(
        **{
            "subject": "gate-3",
            "kind": "forecast",
            "span_start_ms": T_MS,
            "span_end_ms": T_MS,
            "model": "seasonal-baseline/1",
            "values": {"yhat": 1.0, "yhat_lower": 0.5, "yhat_upper": 2.0},
            "sensor": "gate-3",
            **fields,
        }
    )


def test_original_reading_keeps_the_original_shape():
    scalar = Scalar(source="464fc87d3c5a", t_ms=T_MS, quantity="temperature", value=21.5)
    assert reading_document(scalar) == (
        "sensors",
        {"collected_at": T, "temperature": 21.5, "metadata": {"sensor_id": "464fc87d3c5a"}},
    )


def test_native_scalar_keeps_unit_number_venue_and_session():
    scalar = Scalar(
        source="s", t_ms=T_MS, quantity="co2", value=4.0, unit="ppm", seq=0, venue="v", session="m"
    )
    assert reading_document(scalar)[1] == {
        "collected_at": T,
        "co2": 4.0,
        "unit": "ppm",
        "seq": 0,
        "metadata": {"sensor_id": "s", "venue": "v", "session": "m"},
    }


def test_count_keeps_zero_and_leaves_out_what_is_absent():
    count = Count(source="gate-3", t_ms=T_MS, zone="north", entered=0.0, occupancy=12.0)
    assert reading_document(count) == (
        "sensors",
        {
            "collected_at": T,
            "zone": "north",
            "in": 0.0,
            "occupancy": 12.0,
            "metadata": {"sensor_id": "gate-3"},
        },
    )


def test_positions_keep_every_object():
    objects = (TrackedObject("p1", 1.0, -2.0, team="home"), TrackedObject("ball", 0.0, 0.0, z=1.5))
    positions = Positions(source="cam", t_ms=T_MS, objects=objects, venue="v")
    assert reading_document(positions) == (
        "positions",
        {
            "collected_at": T,
            "objects": [
                {"id": "p1", "x": 1.0, "y": -2.0, "team": "home"},
                {"id": "ball", "x": 0.0, "y": 0.0, "z": 1.5},
            ],
            "metadata": {"sensor_id": "cam", "venue": "v"},
        },
    )


@pytest.mark.parametrize(
    ("quantity", "kept_as"),
    [
        ("seq", "seq_"),
        ("collected_at", "collected_at_"),
        ("metadata", "metadata_"),
        ("_id", "_id_"),
        ("a.b", "a_b"),
        ("$set", "_set"),
        ("a\0", "a_"),
        ("", "_"),
    ],
)
def test_dangerous_quantity_is_renamed_and_kept_as_text(quantity, kept_as):
    scalar = Scalar(source="s", t_ms=T_MS, quantity=quantity, value=1.0, seq=5)
    _, document = reading_document(scalar)
    assert document == {
        "collected_at": T,
        kept_as: 1.0,
        "quantity": quantity,
        "seq": 5,
        "metadata": {"sensor_id": "s"},
    }


@pytest.mark.parametrize(
    "fields", [{"seq": 2**63}, {"value": float("nan")}, {"t_ms": 10**16}, {"t_ms": -(10**16)}]
)
def test_reading_that_no_document_can_hold_is_refused(fields):
    with pytest.raises(RefusedError, match="keeping"):
        reading_document(
            Scalar(**{"source": "s", "t_ms": T_MS, "quantity": "q", "value": 1.0, **fields})
        )


def test_forecast_takes_the_original_shape_and_the_stream_time():
    assert finding_document(forecast(), appended_ms=T_MS + 1000) == (
        "model_predictions",
        {
            "created_at": T.replace(second=10),
            "date": T,
            "y_hat": 1.0,
            "y_hat_lower": 0.5,
            "y_hat_upper": 2.0,
            "metadata": {"sensor_id": "gate-3", "model": "seasonal-baseline/1"},
        },
    )


def test_forecast_of_one_quantity_of_a_sensor_names_its_subject():
    _, document = finding_document(forecast(subject="gate-3/in", venue="v"), appended_ms=T_MS)
    assert (document["subject"], document["venue"]) == ("gate-3/in", "v")


@pytest.mark.parametrize(
    ("kind", "collection"),
    [
        ("anomaly", "anomalies"),
        ("player_metric", "player_metrics"),
        ("crowd_metric", "crowd_metrics"),
        ("sensor_metric", "sensor_metrics"),
    ],
)
def test_other_findings_keep_span_values_and_what_identifies_them(kind, collection):
    finding = forecast(
        kind=kind,
        subject="p7",
        span_end_ms=T_MS + 1000,
        values={"distance_m": 3.0, "span_start": 1.0, "a.b": 2.0, "a_b": 4.0},
        session="m",
    )
    assert finding_document(finding, appended_ms=0) == (
        collection,
        {
            "span_start": T,
            "span_end": T.replace(second=10),
            "distance_m": 3.0,
            "span_start_": 1.0,
            "a_b": 2.0,
            "a_b_": 4.0,
            "metadata": {
                "sensor_id": "gate-3",
                "subject": "p7",
                "session": "m",
                "model": "seasonal-baseline/1",
            },
        },
    )


def test_dead_letter_keeps_raw_bytes_and_every_header():
    letter = record(
        Topic.DEAD_LETTERS,
        b"\xff{",
        headers=(
            ("reason", b"not_json"),
            ("topic", b"matchday/v/scalar/s"),
            ("source", b"s"),
            ("time", b"2024-09-09T14:01:09.123Z"),
            ("length", b"99"),
            ("x.y", b"\xff"),
        ),
    )
    assert dead_letter_document(letter) == {
        "time": T,
        "reason": "not_json",
        "topic": "matchday/v/scalar/s",
        "source": "s",
        "length": 99,
        "truncated": True,
        "x_y": "�",
        "raw": b"\xff{",
    }


def test_dead_letter_without_usable_headers_takes_key_and_stream_time():
    letter = record(Topic.DEAD_LETTERS, b"", headers=(("time", b"yesterday"),))
    assert dead_letter_document(letter) == {"time": T.replace(second=10), "source": "k", "raw": b""}


def test_reading_row_counts_for_its_source_and_finding_row_for_none():
    (row,) = rows_of(
        record(Topic.ANALYTICS, encode_reading(Scalar(source="s", t_ms=1, quantity="q", value=1.0)))
    )
    assert (row.collection, row.offset, row.source) == ("sensors", 7, "s")
    (row,) = rows_of(record(Topic.RESULTS, encode_finding(forecast())))
    assert (row.collection, row.offset, row.source) == ("model_predictions", 7, None)


def test_findings_in_the_quoted_original_form_become_one_row_each():
    rows = {
        "0": {"ds": "2024-09-09T14:01:09Z", "yhat": 1, "sensor": "a"},
        "1": {"ds": "2024-09-09T14:01:10Z", "yhat": 2, "sensor": "a"},
    }
    made = rows_of(record(Topic.RESULTS, json.dumps(json.dumps(rows)).encode()))
    assert [row.document["y_hat"] for row in made] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        (Topic.ANALYTICS, b""),
        (Topic.ANALYTICS, b"\xff\xfe"),
        (Topic.ANALYTICS, b'{"v": 1e999, "ts": "2024-01-01", "sensor": "s"}'),
        (Topic.ANALYTICS, b'{"v": 1, "ts": "2024-13-01", "sensor": "s"}'),
        (Topic.ANALYTICS, b'{"v": 1, "ts": "9999-12-31T23:59:59.9999", "sensor": "s"}'),
        (Topic.ANALYTICS, b'{"v": 1, "ts": "0001-01-01T00:00:00+14:00", "sensor": "s"}'),
        (
            Topic.ANALYTICS,
            b'{"v": 1, "ts": "2024-01-01", "sensor": "s", "seq": 1' + b"0" * 30 + b"}",
        ),
        (Topic.ANALYTICS, b"[" * 100_000),
        (Topic.RESULTS, b""),
        (Topic.RESULTS, b"[" * 100_000),
        (Topic.RESULTS, b'{"a":' * 100_000),
        (Topic.RESULTS, b'{"ds": 1' + b"0" * 40 + b', "yhat": 1, "sensor": "s"}'),
        (Topic.RESULTS, b'{"ds": 1, "yhat": 1' + b"0" * 400 + b', "sensor": "s"}'),
        (Topic.RESULTS, b'{"ds": 1, "yhat": NaN, "sensor": "s"}'),
        (Topic.RESULTS, b'{"ds": 1, "yhat": 1, "sensor": "\\ud800"}'),
        (Topic.RESULTS, encode_finding(forecast()).replace(b'"forecast"', b'"horoscope"')),
    ],
)
def test_rubbish_is_refused_and_raises_nothing_else(topic, value):
    with pytest.raises(RefusedError):
        rows_of(record(topic, value))


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_give_rows_or_a_refusal(value):
    for topic in (Topic.ANALYTICS, Topic.RESULTS):
        try:
            rows = rows_of(record(topic, value))
        except RefusedError:
            continue
        assert all(row.collection in COLLECTIONS for row in rows)
    assert rows_of(record(Topic.DEAD_LETTERS, value))[0].document["raw"] == value


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=12)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["a", "bé", "ccc"]), JSON_LIKE))
def test_bson_size_is_what_the_bson_library_makes(document):
    assert bson_bytes(document) == len(bson.encode(document))


def test_coordinates_are_ordered_within_a_partition_and_apart_between_partitions():
    assert coordinates_id(0, 5) < coordinates_id(0, 6) < coordinates_id(1, 0)
