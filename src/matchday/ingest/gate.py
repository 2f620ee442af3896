"""Accept or refuse: what a believable reading is. Pure; the caller says what time it is."""

from __future__ import annotations

from dataclasses import dataclass

from matchday.domain.reading import Count, Positions, Reading, Scalar
from matchday.errors import RefusedError

FIRST_MS = 31_536_000_000
"""1971-01-01 in milliseconds UTC: anything before is a clock that was never set."""
SEQ_END = 2**62


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
    seq = reading.seq
    if seq is not None and not 0 <= seq < SEQ_END:
        raise RefusedError("out_of_range", _text(reading, f"seq {seq}", "2**62"))
    # Names are judged here and not in a function of their own: five calls a reading.
    chars_max = policy.name_chars_max
    source, session = reading.source, reading.session
    if not (0 < len(source) <= chars_max and source.isprintable()):
        raise _bad_name("source", source, policy)
    if session is not None and not (0 < len(session) <= chars_max and session.isprintable()):
        raise _bad_name("session", session, policy)
    if type(reading) is Scalar:
        name, unit = reading.quantity, reading.unit
        if not (0 < len(name) <= chars_max and name.isprintable()):
            raise _bad_name("quantity", name, policy)
        if unit and not (len(unit) <= chars_max and unit.isprintable()):
            raise _bad_name("unit", unit, policy)
        if not -policy.value_abs_max <= reading.value <= policy.value_abs_max:
            bound = f"{policy.value_abs_max:g}"
            raise RefusedError("out_of_range", _text(reading, f"{name} {reading.value}", bound))
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
    if not (0 < len(reading.zone) <= policy.name_chars_max and reading.zone.isprintable()):
        raise _bad_name("zone", reading.zone, policy)
    for name, value in (
        ("in", reading.entered),
        ("out", reading.left),
        ("occupancy", reading.occupancy),
    ):
        if value is not None and not 0 <= value <= policy.count_max:
            raise RefusedError(
                "out_of_range", _text(reading, f"{name} {value}", f"0..{policy.count_max:g}")
            )


def _bad_name(what: str, name: str, policy: GatePolicy) -> RefusedError:
    return RefusedError(
        "bad_name",
        f"checking {what} {name[:40]!r}: {len(name)} characters, printable 1 to "
        f"{policy.name_chars_max} wanted",
    )


def _text(reading: Reading, value: str, bound: str) -> str:
    return f"checking reading from {reading.source[:60]}: {value} beyond {bound}"
