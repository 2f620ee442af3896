"""Formats that existing sensors speak, each a pure function to readings.

The original system's one-quantity JSON, plain-text and CSV sensors, and the crowd
monitor's zone densities and live counter, without changing their fields.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any

import msgspec

from matchday.domain.instants import ms_from_datetime, ms_from_iso
from matchday.domain.reading import Count, Reading, Scalar
from matchday.errors import RefusedError
from matchday.ingest.native import DECODE_ERRORS, instant_ms, refusal

TEXT_CHARS_MAX = 200
"""Longest message of a text sensor; the patterns below are not run on anything longer."""

TIME_CHARS_MAX = 64
"""Longest text that is read as a time, and remembered with it."""

_INTEGER_MAX = 2**63
_KNOWN_ORIGINAL_TOPICS = frozenset({"image", "temperature"})
_LABELLED = re.compile(
    r"^\s*(?P<name>[A-Za-z][\w ]*?)\s*(?:is\s*)?:"
    r"\s*(?P<value>[-+]?\d+(?:\.\d+)?)\s*(?P<unit>\S{0,10})\s*$"
)
_DAY_FIRST = re.compile(r"^\d{1,2}[-/]\d{1,2}[-/]\d{4} ")


def decode_original(
    topic: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> tuple[Sequence[Reading], int]:
    """Decode `{"sensorId", "<quantity>": number, "collectedAt"}`; other fields are counted.

    The quantity is the topic's name in any case where the message has such a field, else
    the one field that holds a number. `collectedAt` may be missing: arrival then.
    """
    fields = _json_object(topic, payload)
    sensor = fields.get("sensorId")
    wanted = topic.lower()
    rest = {
        name: value for name, value in fields.items() if name not in ("sensorId", "collectedAt")
    }
    named = [name for name in rest if name.lower() == wanted]
    numbers = [name for name in rest if _is_number(rest[name])]
    quantity = named[0] if named else numbers[0] if len(numbers) == 1 else None
    if sensor is None or quantity is None:
        known = wanted in _KNOWN_ORIGINAL_TOPICS
        raise RefusedError(
            "missing_field" if known else "unknown_topic",
            f"decoding {topic[:120]}: sensorId and one quantity wanted, fields are "
            f"{', '.join(sorted(fields))[:200] or 'none'}",
        )
    if not _is_number(rest[quantity]) or not isinstance(sensor, str | int):
        raise RefusedError(
            "wrong_type", f"decoding {topic[:120]}: {quantity[:60]} or sensorId of wrong type"
        )
    t_ms, is_timed = _stated_time(fields.get("collectedAt"), arrived_ms, zone)
    reading = Scalar(
        source=str(sensor),
        t_ms=t_ms,
        quantity=quantity,
        value=float(rest[quantity]),
        is_timed=is_timed,
    )
    return (reading,), len(rest) - 1


def decode_text(
    topic: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> tuple[Sequence[Reading], int]:
    """Decode a text sensor: `SPO2 is: 97%`, `Distance: 1.25`, or CSV `time,value`.

    The source is the topic. CSV rows carry the heart rate of the original's `testing`
    topic; a header row is refused like any other text that holds no value.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise RefusedError("not_utf8", f"decoding {topic[:120]}: {error}") from error
    if len(text) > TEXT_CHARS_MAX:
        raise RefusedError(
            "not_text_sensor",
            f"decoding {topic[:120]}: {len(text)} characters above {TEXT_CHARS_MAX}",
        )
    labelled = _LABELLED.match(text)
    if labelled:
        reading = Scalar(
            source=topic,
            t_ms=arrived_ms,
            quantity=labelled["name"].strip().lower().replace(" ", "_"),
            value=float(labelled["value"]),
            unit=labelled["unit"] or None,
            is_timed=False,
        )
        return (reading,), 0
    time_text, comma, value_text = text.strip().partition(",")
    try:
        value = float(value_text)
    except ValueError:
        comma = ""
        value = 0.0
    if not comma:
        raise RefusedError(
            "not_text_sensor",
            f"decoding {topic[:120]}: {text[:60]!r} is neither `name: value` nor `time,value`",
        )
    t_ms, is_timed = _stated_time(time_text.strip(), arrived_ms, zone)
    reading = Scalar(
        source=topic, t_ms=t_ms, quantity="heart_rate", value=value, unit="1/min", is_timed=is_timed
    )
    return (reading,), 0


class _ZoneRow(msgspec.Struct):
    zone_id: str
    person_count: float
    average_count_per_frame: float | None = None


class _ZoneDensity(msgspec.Struct):
    zones: tuple[_ZoneRow, ...]
    timestamp: datetime | int | float | None = None


def decode_zone_density(
    topic: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> tuple[Sequence[Reading], int]:
    """Decode the crowd monitor's zones `{"zones": [{"zone_id", "person_count", ...}]}`.

    Its `person_count` is a sum over frames; where `average_count_per_frame` is present that
    is the occupancy. Its `density` is relative to the fullest zone, no persons per square
    metre, and is left out. One reading per zone; the source is the last topic level.
    """
    try:
        message = msgspec.json.decode(payload, type=_ZoneDensity)
    except DECODE_ERRORS as error:
        raise refusal(topic, payload, error) from error
    if not message.zones:
        raise RefusedError("missing_field", f"decoding {topic[:120]}: no zones")
    t_ms, is_timed = instant_ms(message.timestamp, arrived_ms, zone)
    source = topic.rpartition("/")[2]
    return tuple(
        Count(
            source=source,
            t_ms=t_ms,
            zone=row.zone_id,
            occupancy=row.person_count
            if row.average_count_per_frame is None
            else row.average_count_per_frame,
            is_timed=is_timed,
        )
        for row in message.zones
    ), 0


def decode_live_counter(
    topic: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> tuple[Sequence[Reading], int]:
    """Decode the live counter `{"frameId", "peopleCount", "timestamp": "dd-mm-YYYY ..."}`.

    Both spellings of its fields are known (`frame_id`, `total_persons`); times are local
    to the adapter's zone. The zone counted is `total`.
    """
    fields = _json_object(topic, payload)
    count = fields.get("peopleCount", fields.get("total_persons"))
    if count is None:
        raise RefusedError(
            "missing_field", f"decoding {topic[:120]}: neither peopleCount nor total_persons"
        )
    if not _is_number(count):
        raise RefusedError("wrong_type", f"decoding {topic[:120]}: count {count!r:.40}")
    t_ms, is_timed = _stated_time(fields.get("timestamp"), arrived_ms, zone)
    known = {"frameId", "frame_id", "peopleCount", "total_persons", "timestamp"}
    reading = Count(
        source=topic.rpartition("/")[2],
        t_ms=t_ms,
        zone="total",
        occupancy=float(count),
        is_timed=is_timed,
    )
    return (reading,), sum(name not in known for name in fields)


def _json_object(topic: str, payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except DECODE_ERRORS as error:
        raise refusal(topic, payload, error) from error


def _is_number(value: object) -> bool:
    """Tell whether a value is a number that a float can be: JSON has integers beyond them."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= _INTEGER_MAX
    return isinstance(value, float)


def _stated_time(value: object, arrived_ms: int, zone: tzinfo) -> tuple[int, bool]:
    """Read a stated time: ISO 8601, day first (`25-12-2024 10:00:00`), or epoch milliseconds."""
    if value is None or value == "":
        return arrived_ms, False
    if _is_number(value):
        return round(float(value)), True  # type: ignore[arg-type]
    text = str(value)
    if len(text) > TIME_CHARS_MAX:
        raise RefusedError(
            "bad_time", f"reading time {text[:40]!r}: {len(text)} characters above {TIME_CHARS_MAX}"
        )
    if _DAY_FIRST.match(text):
        try:
            moment = datetime.strptime(text.replace("/", "-"), "%d-%m-%Y %H:%M:%S")  # noqa: DTZ007
        except ValueError as error:
            raise RefusedError("bad_time", f"reading time {text[:40]!r}: {error}") from error
        return ms_from_datetime(moment, zone=zone), True
    if text.isdecimal() and len(text) <= 16:
        return int(text), True
    return ms_from_iso(text, zone=zone), True
