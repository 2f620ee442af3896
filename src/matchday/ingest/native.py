"""The native messages: `matchday/<venue>/<kind>/<source>` with JSON of our own contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any, TypeAlias

import msgspec

from matchday.domain.instants import ms_from_datetime
from matchday.domain.reading import Count, Positions, Reading, Scalar, TrackedObject
from matchday.domain.topics import parse_native
from matchday.errors import RefusedError

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding untrusted bytes can raise; a deeply nested payload ends in the last."""

Instant: TypeAlias = datetime | int | float | None


class _ScalarMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    quantity: str
    value: float
    unit: str | None = None
    t: Instant = None
    seq: int | None = None
    session: str | None = None


class _PositionsMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    objects: tuple[TrackedObject, ...]
    t: Instant = None
    seq: int | None = None
    session: str | None = None


class _CountMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    zone: str
    entered: float | None = msgspec.field(name="in", default=None)
    left: float | None = msgspec.field(name="out", default=None)
    occupancy: float | None = None
    t: Instant = None
    seq: int | None = None
    session: str | None = None


decode_scalar = msgspec.json.Decoder(_ScalarMessage).decode
"""Reads the fields of a native scalar; raises one of `DECODE_ERRORS`."""

_decode_positions = msgspec.json.Decoder(_PositionsMessage).decode
_decode_count = msgspec.json.Decoder(_CountMessage).decode


def decode(
    topic: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> tuple[Sequence[Reading], int]:
    """Decode a native message into its one reading.

    A message with fields that the contract does not name is decoded again without them:
    they are ignored and counted, never a reason to refuse.

    Raises:
        RefusedError: The topic is not native or the payload breaks the contract.
    """
    address = parse_native(topic)
    if address is None:
        raise RefusedError("unknown_topic", f"topic {topic[:200]!r} is not native")
    build = _BUILD[address.kind]
    try:
        return (build(address.venue, address.source, payload, arrived_ms, zone),), 0
    except msgspec.ValidationError as error:
        if "unknown field" not in str(error):
            raise refusal(topic, payload, error) from error
    except DECODE_ERRORS as error:
        raise refusal(topic, payload, error) from error
    return _decode_known(address.kind, topic, payload, arrived_ms, zone)


def refusal(topic: str, payload: bytes, error: Exception) -> RefusedError:
    """Say why a payload that is no valid JSON of its contract is refused."""
    text = f"decoding {topic[:120]}: {error}"
    if isinstance(error, RecursionError):
        return RefusedError("too_deep", f"decoding {topic[:120]}: nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        is_missing = "missing required field" in str(error)
        return RefusedError("missing_field" if is_missing else "wrong_type", text)
    try:
        payload.decode()
    except UnicodeDecodeError:
        return RefusedError("not_utf8", text)
    if any(word in payload for word in (b"NaN", b"nan", b"Infinity", b"inf")):
        return RefusedError("not_finite", text)
    return RefusedError("not_json", text)


def instant_ms(t: Instant, arrived_ms: int, zone: tzinfo) -> tuple[int, bool]:
    """Give event time in milliseconds UTC and whether the message stated it."""
    if type(t) is int:
        return t, True
    if t is None:
        return arrived_ms, False
    if isinstance(t, float):
        return round(t), True
    return ms_from_datetime(t, zone=zone), True  # type: ignore[arg-type]


def _build_scalar(
    venue: str, source: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> Reading:
    message = decode_scalar(payload)
    t_ms, is_timed = instant_ms(message.t, arrived_ms, zone)
    return Scalar(
        source,
        t_ms,
        message.quantity,
        message.value,
        message.unit,
        message.seq,
        venue,
        message.session,
        is_timed,
    )


def _build_positions(
    venue: str, source: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> Reading:
    message = _decode_positions(payload)
    t_ms, is_timed = instant_ms(message.t, arrived_ms, zone)
    return Positions(source, t_ms, message.objects, message.seq, venue, message.session, is_timed)


def _build_count(venue: str, source: str, payload: bytes, arrived_ms: int, zone: tzinfo) -> Reading:
    message = _decode_count(payload)
    if message.entered is None and message.left is None and message.occupancy is None:
        raise RefusedError(
            "missing_field", f"decoding count from {source[:60]}: none of in, out, occupancy"
        )
    t_ms, is_timed = instant_ms(message.t, arrived_ms, zone)
    return Count(
        source=source,
        t_ms=t_ms,
        zone=message.zone,
        entered=message.entered,
        left=message.left,
        occupancy=message.occupancy,
        seq=message.seq,
        venue=venue,
        session=message.session,
        is_timed=is_timed,
    )


_BUILD = {"scalar": _build_scalar, "positions": _build_positions, "count": _build_count}
_FIELDS = {
    "scalar": _ScalarMessage.__struct_encode_fields__,
    "positions": _PositionsMessage.__struct_encode_fields__,
    "count": _CountMessage.__struct_encode_fields__,
}


def _decode_known(
    kind: str, topic: str, payload: bytes, arrived_ms: int, zone: tzinfo
) -> tuple[Sequence[Reading], int]:
    """Decode again with the unknown fields taken out; tell how many there were."""
    address = parse_native(topic)
    assert address is not None
    try:
        fields: dict[str, Any] = msgspec.json.decode(payload)
        known = {name: value for name, value in fields.items() if name in _FIELDS[kind]}
        stripped = msgspec.json.encode(known)
        reading = _BUILD[kind](address.venue, address.source, stripped, arrived_ms, zone)
    except DECODE_ERRORS as error:
        raise refusal(topic, payload, error) from error
    return (reading,), len(fields) - len(known)
