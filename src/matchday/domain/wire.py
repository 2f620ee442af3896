"""Bytes <-> values for every record of the stream; nobody else knows the encoding.

Records are UTF-8 JSON in the original system's shapes with our fields beside them:
absent values are left out, times are ISO 8601 UTC with milliseconds and `Z`. A record of a
newer format than `FORMAT` is refused, older ones are read.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from matchday.domain.finding import Finding
from matchday.domain.instants import iso_from_ms, ms_from_iso
from matchday.domain.reading import Count, Positions, Reading, Scalar, TrackedObject
from matchday.errors import RefusedError

FORMAT = 1


class _ScalarRecord(msgspec.Struct, omit_defaults=True, gc=False):
    v: float
    ts: str
    sensor: str
    quantity: str | None = None
    unit: str | None = None
    seq: int | None = None
    venue: str | None = None
    session: str | None = None
    timed: bool = True


class _PositionsRecord(msgspec.Struct, omit_defaults=True, gc=False):
    ts: str
    sensor: str
    objects: tuple[TrackedObject, ...]
    venue: str | None = None
    session: str | None = None
    seq: int | None = None
    timed: bool = True


class _CountRecord(msgspec.Struct, omit_defaults=True, gc=False):
    ts: str
    sensor: str
    zone: str
    entered: float | None = msgspec.field(name="in", default=None)
    left: float | None = msgspec.field(name="out", default=None)
    occupancy: float | None = None
    venue: str | None = None
    session: str | None = None
    seq: int | None = None
    timed: bool = True


class _AnyReadingRecord(msgspec.Struct, gc=False):
    ts: str
    sensor: str
    v: float | None = None
    quantity: str | None = None
    unit: str | None = None
    seq: int | None = None
    venue: str | None = None
    session: str | None = None
    objects: tuple[TrackedObject, ...] | None = None
    zone: str | None = None
    entered: float | None = msgspec.field(name="in", default=None)
    left: float | None = msgspec.field(name="out", default=None)
    occupancy: float | None = None
    timed: bool = True
    format: int = FORMAT


class _FindingRecord(msgspec.Struct, omit_defaults=True, gc=False):
    subject: str
    kind: str
    span_start: str
    span_end: str
    model: str
    values: dict[str, float]
    sensor: str
    venue: str | None = None
    session: str | None = None
    ds: str | None = None
    yhat: float | None = None
    yhat_lower: float | None = None
    yhat_upper: float | None = None
    format: int = FORMAT


# Another program may write what nests too deeply, or numbers that no float can be.
_UNREADABLE = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
)

_encoder = msgspec.json.Encoder()
_reading_decoder = msgspec.json.Decoder(_AnyReadingRecord)
_finding_decoder = msgspec.json.Decoder(_FindingRecord)


def encode_reading(reading: Reading) -> bytes:
    """Encode a reading as the value of an `analytics` record.

    `timed: false` marks a reading whose time is its arrival; without the mark the
    identity of the reading could not be recomputed from the stream.
    """
    ts = iso_from_ms(reading.t_ms)
    if type(reading) is Scalar:
        return _encoder.encode(
            _ScalarRecord(
                reading.value,
                ts,
                reading.source,
                reading.quantity,
                reading.unit,
                reading.seq,
                reading.venue,
                reading.session,
                reading.is_timed,
            )
        )
    if type(reading) is Positions:
        return _encoder.encode(
            _PositionsRecord(
                ts,
                reading.source,
                reading.objects,
                reading.venue,
                reading.session,
                reading.seq,
                reading.is_timed,
            )
        )
    assert isinstance(reading, Count)
    return _encoder.encode(
        _CountRecord(
            ts,
            reading.source,
            reading.zone,
            reading.entered,
            reading.left,
            reading.occupancy,
            reading.venue,
            reading.session,
            reading.seq,
            reading.is_timed,
        )
    )


def encode_scalar(
    value: float,
    ts: str,
    source: str,
    quantity: str,
    unit: str | None,
    seq: int | None,
    venue: str | None,
    session: str | None,
) -> bytes:
    """Encode a scalar that states its time, given as ISO 8601, as `encode_reading` would.

    Arguments by position: the one caller makes one for every message.
    """
    return _encoder.encode(_ScalarRecord(value, ts, source, quantity, unit, seq, venue, session))


def decode_reading(value: bytes) -> Reading:
    """Decode the value of an `analytics` record, ours or the original's `{v, ts, sensor}`.

    Raises:
        RefusedError: The bytes are no reading (`not_a_reading`) or of a newer format.
    """
    try:
        record = _reading_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError("not_a_reading", f"decoding stream record: {error}") from error
    if record.format > FORMAT:
        raise RefusedError(
            "newer_format", f"decoding stream record: format {record.format} above {FORMAT}"
        )
    t_ms = ms_from_iso(record.ts)
    if record.v is not None:
        return Scalar(
            record.sensor,
            t_ms,
            record.quantity or "value",
            record.v,
            record.unit,
            record.seq,
            record.venue,
            record.session,
            record.timed,
        )
    if record.objects is not None:
        return Positions(
            record.sensor,
            t_ms,
            record.objects,
            record.seq,
            record.venue,
            record.session,
            record.timed,
        )
    if record.zone is None:
        raise RefusedError("not_a_reading", "decoding stream record: no v, objects or zone")
    return Count(
        source=record.sensor,
        t_ms=t_ms,
        zone=record.zone,
        entered=record.entered,
        left=record.left,
        occupancy=record.occupancy,
        seq=record.seq,
        venue=record.venue,
        session=record.session,
        is_timed=record.timed,
    )


def encode_finding(finding: Finding) -> bytes:
    """Encode a finding as the value of an `analytics_results` record.

    A forecast carries the original's `ds, yhat, yhat_lower, yhat_upper` at the top level
    besides, so that the original's consumers keep working.
    """
    record = _FindingRecord(
        finding.subject,
        finding.kind,
        iso_from_ms(finding.span_start_ms),
        iso_from_ms(finding.span_end_ms),
        finding.model,
        finding.values,
        finding.sensor,
        finding.venue,
        finding.session,
    )
    if finding.kind == "forecast":
        record.ds = record.span_start
        record.yhat = finding.values["yhat"]
        record.yhat_lower = finding.values.get("yhat_lower")
        record.yhat_upper = finding.values.get("yhat_upper")
    return _encoder.encode(record)


def decode_findings(value: bytes) -> list[Finding]:
    """Decode the value of an `analytics_results` record into its findings.

    Understands our form (one finding) and the original's: JSON text inside a JSON string,
    an object keyed by row number whose rows are forecasts.

    Raises:
        RefusedError: The bytes are in neither form (`not_a_finding`).
    """
    try:
        if value[:1] == b'"':
            rows = json.loads(json.loads(value))
            return [_finding_of_original(row) for row in rows.values()]
        if not value.startswith(b'{"subject"'):
            fields = json.loads(value)
            if "subject" not in fields:
                rows = [fields] if "ds" in fields else list(fields.values())
                return [_finding_of_original(row) for row in rows]
        record = _finding_decoder.decode(value)
        if record.format > FORMAT:
            raise RefusedError(
                "newer_format", f"decoding finding: format {record.format} above {FORMAT}"
            )
        return [
            Finding(
                subject=record.subject,
                kind=record.kind,  # type: ignore[arg-type]
                span_start_ms=ms_from_iso(record.span_start),
                span_end_ms=ms_from_iso(record.span_end),
                model=record.model,
                values=record.values,
                sensor=record.sensor,
                venue=record.venue,
                session=record.session,
            )
        ]
    except _UNREADABLE as error:
        raise RefusedError("not_a_finding", f"decoding finding: {error}") from error


def _finding_of_original(row: dict[str, Any]) -> Finding:
    at_ms = row["ds"] if isinstance(row["ds"], int) else ms_from_iso(row["ds"])
    values: dict[str, float] = {}
    for name in ("yhat", "yhat_lower", "yhat_upper"):
        if name in row:
            values[name] = float(row[name])
    if "yhat" not in values:
        raise KeyError("yhat")
    sensor = str(row["sensor"])
    sensor.encode()  # a lone surrogate is legal in JSON's escapes and in no encoding of text
    return Finding(
        subject=sensor,
        kind="forecast",
        span_start_ms=at_ms,
        span_end_ms=at_ms,
        model="external",
        values=values,
        sensor=sensor,
    )
