"""The shapes in which everything is kept, and the table of the collections it goes to.

Pure functions from readings, findings and dead letters to documents in the original system's
shapes (`sensors`, `model_predictions`) and in ours. A document depends on its record alone,
never on a clock, so that writing it again writes the same bytes. Does not own how a store
lays collections out on disk, the rows that a record makes (`rows`), nor the encoding of
stream records (`domain.wire`).

Names that come from outside become field names: a quantity or the name of a finding's
value. "." , "$" and NUL mean something else to a document store and become "_"; a name that
is empty or the name of one of the collection's own fields gets "_" appended ("seq" is kept
as "seq_"). A scalar whose quantity had to be renamed keeps it as text in `quantity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import msgspec

from matchday.domain.finding import Finding
from matchday.domain.instants import INSTANTS_KEPT, ms_from_iso
from matchday.domain.reading import Count, Positions, Reading, Scalar
from matchday.domain.wire import decode_findings
from matchday.errors import RefusedError
from matchday.ports import StreamRecord

Document: TypeAlias = dict[str, Any]
Granularity: TypeAlias = Literal["seconds", "minutes", "hours"]
Shape: TypeAlias = Literal["timeseries", "regular"]
"""How MongoDB keeps `sensors`."""

DOCUMENT_BYTES_MAX: Final = 16 * 2**20
"""The largest document any store takes, measured as BSON: MongoDB's bound, kept by both."""

INT64_MAX: Final = 2**63 - 1
NAMES_KEPT: Final = 1024
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Collection:
    """How one collection is laid out.

    Attributes:
        name: Its name.
        carries: What a document is, for people.
        time_field: The field by which documents are ordered, a time in UTC.
        meta_field: What identifies the series, in a time-series collection; None makes it
            a regular collection.
        granularity: The usual distance between documents of one series.
        source_path: Dotted path of the source, by which `Query.newest` selects.
        index: Fields of the secondary index, dotted, ascending.
        time_fields: Every top-level field that holds a time.
        bytes_fields: Every top-level field that holds bytes.
        holds_readings: Its documents are readings and count as stored.

    Readings and time series are inserted under the numbers of their coordinates, whatever
    else is put in place by its `_id`; see `is_numbered`.
    """

    name: str
    carries: str
    time_field: str
    meta_field: str | None
    granularity: Granularity | None
    source_path: str
    index: tuple[str, ...]
    time_fields: tuple[str, ...]
    bytes_fields: tuple[str, ...] = ()
    holds_readings: bool = False

    @property
    def is_time_series(self) -> bool:
        """Tell whether documents are kept as time series."""
        return self.meta_field is not None

    @property
    def is_numbered(self) -> bool:
        """Tell whether MongoDB knows repeated rows by transaction and statement number."""
        return self.is_time_series or self.holds_readings

    def source_of(self, document: Mapping[str, Any]) -> str:
        """Give the source named in a document, "" where it names none."""
        value: Any = document
        for step in self.source_path.split("."):
            value = value.get(step, "") if isinstance(value, Mapping) else ""
        return value if isinstance(value, str) else ""


def _time_series(
    name: str, carries: str, time_field: str, *times: str, holds_readings: bool = False
) -> Collection:
    return Collection(
        name=name,
        carries=carries,
        time_field=time_field,
        meta_field="metadata",
        granularity="seconds",
        source_path="metadata.sensor_id",
        index=("metadata.sensor_id", time_field),
        time_fields=(time_field, *times),
        holds_readings=holds_readings,
    )


COLLECTIONS: Final[Mapping[str, Collection]] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            _time_series(
                "sensors", "a scalar reading or a count", "collected_at", holds_readings=True
            ),
            _time_series("positions", "a positions reading", "collected_at", holds_readings=True),
            _time_series("model_predictions", "a forecast", "created_at", "date"),
            _time_series("player_metrics", "a player metric", "span_start", "span_end"),
            _time_series("crowd_metrics", "a crowd metric", "span_start", "span_end"),
            _time_series("sensor_metrics", "rolling statistics", "span_start", "span_end"),
            _time_series("anomalies", "an anomaly", "span_start", "span_end"),
            Collection(
                name="dead_letters",
                carries="a refused message, whole, with its reason",
                time_field="time",
                meta_field=None,
                granularity=None,
                source_path="source",
                index=("source", "time"),
                time_fields=("time",),
                bytes_fields=("raw",),
            ),
        )
    }
)
"""Every collection that persist fills, by name. The account is kept apart from them."""


def collections_of(shape: Shape) -> Mapping[str, Collection]:
    """Give all collections, with `sensors` in the shape wanted."""
    if shape == "timeseries":
        return COLLECTIONS
    regular = replace(COLLECTIONS["sensors"], meta_field=None, granularity=None)
    return MappingProxyType({**COLLECTIONS, "sensors": regular})


FINDING_COLLECTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "forecast": "model_predictions",
        "anomaly": "anomalies",
        "player_metric": "player_metrics",
        "crowd_metric": "crowd_metrics",
        "sensor_metric": "sensor_metrics",
    }
)

_FORECAST_NAMES: Final = {"yhat": "y_hat", "yhat_lower": "y_hat_lower", "yhat_upper": "y_hat_upper"}
_SCALAR_FIELDS: Final = frozenset({"_id", "collected_at", "metadata", "quantity", "seq", "unit"})
_FORECAST_FIELDS: Final = frozenset(
    {"_id", "created_at", "date", "metadata", "session", "subject", "venue"}
)
_SPAN_FIELDS: Final = frozenset({"_id", "metadata", "span_end", "span_start"})
_DEAD_LETTER_FIELDS: Final = frozenset({"_id", "raw"})
_UNSAFE: Final = str.maketrans({".": "_", "$": "_", "\0": "_"})


def reading_document(reading: Reading) -> tuple[str, Document]:
    """Give the collection and document of a reading; absent values are left out.

    Every reading passes here: plain statements take a quarter of the time that loops over
    names and values take.

    Raises:
        RefusedError: A time or number is outside what a document can hold (`bad_time`,
            `bad_value`).
    """
    document: Document = {"collected_at": datetime_of(reading.t_ms)}
    collection = "sensors"
    if type(reading) is Scalar:
        quantity = reading.quantity
        name = quantity_field(quantity)
        document[name] = _finite(reading.value, name)
        if name != quantity:
            document["quantity"] = quantity
        if reading.unit is not None:
            document["unit"] = reading.unit
    elif type(reading) is Positions:
        collection = "positions"
        # A tracked object's own encoding leaves absent values out.
        document["objects"] = list(msgspec.to_builtins(reading.objects))
    else:
        assert isinstance(reading, Count)
        _put_count(document, reading)
    seq = reading.seq
    if seq is not None:
        if not -INT64_MAX <= seq <= INT64_MAX:
            raise RefusedError(
                "bad_value",
                f"keeping reading of {reading.source[:80]!r}: seq above {INT64_MAX} in magnitude",
            )
        document["seq"] = seq
    metadata: Document = {"sensor_id": reading.source}
    if reading.venue is not None:
        metadata["venue"] = reading.venue
    if reading.session is not None:
        metadata["session"] = reading.session
    document["metadata"] = metadata
    return collection, document


def _put_count(document: Document, reading: Count) -> None:
    document["zone"] = reading.zone
    for name, number in (
        ("in", reading.entered),
        ("out", reading.left),
        ("occupancy", reading.occupancy),
    ):
        if number is not None:
            document[name] = _finite(number, name)


def findings_of(value: bytes) -> list[Finding]:
    """Decode the findings of a record, also those that another program wrote without our care.

    Raises:
        RefusedError: They are in no known form (`not_a_finding`).
    """
    try:
        findings = decode_findings(value)
        for finding in findings:
            # A lone surrogate is legal in JSON's escapes and in no encoding of text.
            "".join((finding.subject, finding.sensor, *finding.values)).encode()
    except (OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise RefusedError("not_a_finding", f"decoding finding: {error}") from error
    return findings


def finding_document(finding: Finding, *, appended_ms: int) -> tuple[str, Document]:
    """Give the collection and document of a finding.

    A forecast takes the original's shape, and its subject, venue and session where they
    say more than the sensor does; every other kind its span and its values by name.

    Args:
        finding: What to keep.
        appended_ms: When the stream took the finding, the stream's clock: `created_at`.

    Raises:
        RefusedError: The kind is unknown (`not_a_finding`), a number is not finite or a
            time is outside what a document can hold (`bad_value`, `bad_time`).
    """
    collection = FINDING_COLLECTIONS.get(finding.kind)
    if collection is None:
        raise RefusedError("not_a_finding", f"keeping finding: kind {finding.kind[:40]!r} unknown")
    document: Document
    if finding.kind == "forecast":
        document = {
            "created_at": datetime_of(appended_ms),
            "date": datetime_of(finding.span_start_ms),
        }
        _put_values(document, finding.values, taken=_FORECAST_FIELDS)
        subject = None if finding.subject == finding.sensor else finding.subject
        document |= _present(subject=subject, venue=finding.venue, session=finding.session)
        document["metadata"] = {"sensor_id": finding.sensor, "model": finding.model}
        return collection, document
    document = {
        "span_start": datetime_of(finding.span_start_ms),
        "span_end": datetime_of(finding.span_end_ms),
    }
    _put_values(document, finding.values, taken=_SPAN_FIELDS)
    document["metadata"] = _present(
        sensor_id=finding.sensor,
        subject=finding.subject,
        venue=finding.venue,
        session=finding.session,
        model=finding.model,
    )
    return collection, document


def dead_letter_document(record: StreamRecord) -> Document:
    """Give the document of a dead letter; any record can be one.

    The raw bytes are kept in `raw`, every header as text under its own name (`reason`,
    `topic`, `source`, ...); the header `length` says that `raw` is only the beginning, which
    `truncated` repeats. `time` is the header of that name, ISO 8601 or milliseconds,
    and the stream's own time where there is none. The source is the record's key where no
    header names it.
    """
    document: Document = {"time": datetime_of(record.time_ms)}
    for name, value in record.headers:
        text = value.decode("utf-8", "replace")
        if name == "time":
            document["time"] = _time_of(text) or document["time"]
        elif name == "length" and text.isascii() and text.isdigit() and len(text) < 19:
            document |= {"length": int(text), "truncated": True}
        else:
            document[field_name(name, taken=_DEAD_LETTER_FIELDS)] = text
    document.setdefault("source", record.key.decode("utf-8", "replace"))
    document["raw"] = record.value
    return document


def field_name(name: str, *, taken: frozenset[str] | Mapping[str, Any]) -> str:
    """Give a field name made of a name from outside that is none of those `taken`."""
    safe = name.translate(_UNSAFE)
    while not safe or safe in taken:
        safe += "_"
    return safe


@lru_cache(maxsize=NAMES_KEPT)
def quantity_field(quantity: str) -> str:
    """Give the name of the field that holds a scalar's value."""
    return field_name(quantity, taken=_SCALAR_FIELDS)


@lru_cache(maxsize=INSTANTS_KEPT)
def datetime_of(instant_ms: int) -> datetime:
    """Give an instant (milliseconds UTC) as a `datetime` in UTC, exact to the millisecond.

    Raises:
        RefusedError: The instant is outside the years 1 to 9999 (`bad_time`).
    """
    try:
        return EPOCH + timedelta(milliseconds=instant_ms)
    except OverflowError as error:
        raise RefusedError(
            "bad_time", f"keeping time {str(instant_ms)[:40]} ms: outside the years 1 to 9999"
        ) from error


def coordinates_id(partition: int, offset: int) -> int:
    """Give the `_id` of what comes from a record: unique per topic, ordered, and free.

    No collection is fed by two topics, so the topic needs no bits. Documents made of one
    record share it.
    """
    return partition << 48 | offset


def bson_bytes(value: Any) -> int:
    """Give the size of a document, or of a value in it, as BSON, in bytes.

    By the layout of the BSON specification 1.1 (bsonspec.org): a document is 4 bytes of
    length, per element one byte of type, the name with its NUL and the value, and a NUL.
    """
    if isinstance(value, Mapping):
        return 5 + sum(2 + len(name.encode()) + bson_bytes(inner) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return 5 + sum(2 + len(str(at)) + bson_bytes(inner) for at, inner in enumerate(value))
    if isinstance(value, str):
        return 5 + len(value.encode())
    if isinstance(value, bytes):
        return 5 + len(value)
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1
    return 4 if isinstance(value, int) and -(2**31) <= value < 2**31 else 8


def _put_values(document: Document, values: Mapping[str, float], *, taken: frozenset[str]) -> None:
    for name, value in values.items():
        known = _FORECAST_NAMES.get(name) if "date" in taken else None
        safe = known or field_name(name, taken=taken)
        while safe in document:
            safe += "_"
        document[safe] = _finite(value, safe)


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise RefusedError("bad_value", f"keeping {name[:80]!r}: {value} is not a finite number")
    return value


def _present(**values: str | None) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def _time_of(text: str) -> datetime | None:
    try:
        at_ms = int(text) if text.isascii() and text.isdigit() else ms_from_iso(text)
        return datetime_of(at_ms)
    except (RefusedError, ValueError):
        return None
