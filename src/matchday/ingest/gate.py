"""Accept or refuse: what a believable reading is. Pure; the caller says what time it is."""

from __future__ import annotations

from dataclasses import dataclass

from matchday.domain.reading import Count, Positions, Reading, Scalar
from matchday.errors import RefusedError

FIRST_MS = 31_536_000_000
"""1971-01-01 in milliseconds UTC: anything before is a clock that was never set."""


@dataclass(frozen=True)
class GatePolicy:
    """The bounds of belief.

    Attributes:
        ahead_ms_max: How far event time may lie ahead of arrival, milliseconds.
        value_abs_max: Largest magnitude of a scalar, in its own unit.
        position_m_max: Largest coordinate, metres.
        count_max: Largest count of people.
        objects_max: Most objects in one positions reading.
        name_chars_max: Longest name of a source, zone, quantity, session or object.
        registered: The only sources accepted; None accepts every source.
    """

    ahead_ms_max: int = 300_000
    value_abs_max: float = 1e12
    position_m_max: float = 5000.0
    count_max: float = 1e6
    objects_max: int = 5000
    name_chars_max: int = 200
    registered: frozenset[str] | None = None


def check(reading: Reading, *, arrived_ms: int, policy: GatePolicy) -> None:
    """Let a believable reading pass.

    Raises:
        RefusedError: It is not: names the source, the value and the bound. Reasons:
            `time_before_1971`, `time_ahead`, `out_of_range`, `bad_name`, `unregistered`.
    """
    t_ms = reading.t_ms
    if t_ms < FIRST_MS:
        raise RefusedError("time_before_1971", _text(reading, f"time {t_ms} ms", f"{FIRST_MS} ms"))
    if t_ms > arrived_ms + policy.ahead_ms_max:
        raise RefusedError(
            "time_ahead",
            f"checking reading from {reading.source[:60]}: time {t_ms - arrived_ms} ms ahead "
            f"of arrival, above {policy.ahead_ms_max} ms",
        )
    if policy.registered is not None and reading.source not in policy.registered:
        raise RefusedError("unregistered", f"source {reading.source[:60]} is not registered")
    _check_name("source", reading.source, policy)
    if reading.session is not None:
        _check_name("session", reading.session, policy)
    if reading.seq is not None and not 0 <= reading.seq < 2**62:
        raise RefusedError("out_of_range", _text(reading, f"seq {reading.seq}", "2**62"))
    if type(reading) is Scalar:
        _check_name("quantity", reading.quantity, policy)
        if reading.unit:
            _check_name("unit", reading.unit, policy)
        if not -policy.value_abs_max <= reading.value <= policy.value_abs_max:
            raise RefusedError(
                "out_of_range",
                _text(reading, f"{reading.quantity} {reading.value}", f"{policy.value_abs_max:g}"),
            )
    elif type(reading) is Positions:
        _check_positions(reading, policy)
    else:
        _check_count(reading, policy)


def _check_positions(reading: Positions, policy: GatePolicy) -> None:
    if len(reading.objects) > policy.objects_max:
        raise RefusedError(
            "out_of_range",
            _text(reading, f"{len(reading.objects)} objects", str(policy.objects_max)),
        )
    bound = policy.position_m_max
    names = policy.name_chars_max
    for item in reading.objects:
        if not (-bound <= item.x <= bound and -bound <= item.y <= bound):
            raise RefusedError(
                "out_of_range",
                _text(
                    reading, f"position of {item.id[:40]} ({item.x}, {item.y}) m", f"{bound:g} m"
                ),
            )
        if item.z is not None and not -bound <= item.z <= bound:
            raise RefusedError(
                "out_of_range",
                _text(reading, f"height of {item.id[:40]} {item.z} m", f"{bound:g} m"),
            )
        if not 0 < len(item.id) <= names or (item.team is not None and len(item.team) > names):
            raise RefusedError("bad_name", _text(reading, f"object {item.id[:40]!r}", str(names)))


def _check_count(reading: Reading, policy: GatePolicy) -> None:
    assert isinstance(reading, Count)
    _check_name("zone", reading.zone, policy)
    for name, value in (
        ("in", reading.entered),
        ("out", reading.left),
        ("occupancy", reading.occupancy),
    ):
        if value is not None and not 0 <= value <= policy.count_max:
            raise RefusedError(
                "out_of_range", _text(reading, f"{name} {value}", f"0..{policy.count_max:g}")
            )


def _check_name(what: str, name: str, policy: GatePolicy) -> None:
    if 0 < len(name) <= policy.name_chars_max and name.isprintable():
        return
    raise RefusedError(
        "bad_name",
        f"checking {what} {name[:40]!r}: {len(name)} characters, printable 1 to "
        f"{policy.name_chars_max} wanted",
    )


def _text(reading: Reading, value: str, bound: str) -> str:
    return f"checking reading from {reading.source[:60]}: {value} beyond {bound}"
