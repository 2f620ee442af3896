"""Claims about the short way of steady messages: it decides and writes what the long way does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchday.domain.account import Counts
from matchday.ingest import steady
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.steady import NAMES_MAX, PLACES_MAX, VENUES_MAX
from matchday.ingest.tick import Sorter, Tick
from matchday.ports import Deliveries
from matchday.protocols.redelivery import Doubt

ARRIVED_MS = 1_790_000_000_000
Message = tuple[str, bytes]


def sorter(*rows: str, gate: GatePolicy | None = None) -> Sorter:
    return Sorter(
        adapters=Adapters(rows),
        gate=gate or GatePolicy(),
        identities=Identities(window_ms=120_000, entries_min=1),
        doubt=Doubt(entries_max=100),
        payload_bytes_max=4096,
    )


def deliveries(messages: Sequence[Message]) -> Deliveries:
    topics, payloads = [one[0] for one in messages], [one[1] for one in messages]
    return Deliveries("", 1, ARRIVED_MS, topics, payloads, list(range(1, len(messages) + 1)))


def taken(by: Sorter, messages: Sequence[Message]) -> Tick:
    tick = Tick()
    by.take(tick, deliveries(messages))
    return tick


def taken_long(by: Sorter, messages: Sequence[Message]) -> Tick:
    """Take each message by the way of all messages."""
    tick = Tick()
    for packet_id, (topic, payload) in enumerate(messages, 1):
        by._take_one(tick, ("", packet_id, topic, payload), ARRIVED_MS)
    return tick


def outcome(tick: Tick) -> tuple[Any, ...]:
    return tick.analytics, tick.dead_letters, tick.sums(), tick.tail, tick.reasons


def scalar(source: str = "s", **fields: Any) -> Message:
    known = {"quantity": "heart", "value": 1.5, "t": ARRIVED_MS, "seq": 1, **fields}
    found = {name: value for name, value in known.items() if value is not None}
    return f"matchday/v/scalar/{source}", json.dumps(found).encode()


NAMES = st.sampled_from(["heart", "ünit", 'quo"te', "back\\slash", "", "bell\a", "x" * 201, None])
MESSAGES = st.lists(
    st.one_of(
        st.builds(
            scalar,
            st.sampled_from(["a", "b", 'c"', "d\\", "e\a", "é", "x" * 201]),
            quantity=NAMES,
            unit=NAMES,
            session=NAMES,
            value=st.one_of(
                st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70)
            ),
            t=st.sampled_from(
                [
                    ARRIVED_MS,
                    ARRIVED_MS + 1,
                    0.5,
                    None,
                    -1,
                    10,
                    ARRIVED_MS + 400000,
                    2**64,
                    "2026-09-09T14:01:09.123Z",
                ]
            ),
            seq=st.one_of(st.integers(0, 6), st.sampled_from([None, -1, 2**62, 1.0])),
        ),
        st.sampled_from(
            [
                scalar(extra=1),
                scalar(value="high"),
                ("matchday/v/scalar/s", b"{"),
                ("matchday/v/scalar/s", b'{"quantity":"\xff","value":1}'),
                ("matchday/v/scalar", scalar()[1]),
                ("matchday//scalar/s", scalar()[1]),
                ("matchday/v/positions/s", b'{"objects":[],"seq":1}'),
                ("heart", b'{"sensorId":"s","heart":5}'),
                ("other/topic", b""),
            ]
        ),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(MESSAGES, max_size=3))
def test_the_short_way_decides_and_writes_what_the_long_way_does(batches: list[list[Message]]):
    short, long = sorter(), sorter()
    for messages in batches:
        assert outcome(taken(short, messages)) == outcome(taken_long(long, messages))


@settings(deadline=None, max_examples=100)
@given(st.lists(MESSAGES, max_size=3))
def test_with_more_sources_than_topics_are_remembered_the_short_way_decides_the_same(
    batches: list[list[Message]],
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steady, "PLACES_MAX", 1)
        short, long = sorter(), sorter()
        for messages in batches:
            assert outcome(taken(short, messages)) == outcome(taken_long(long, messages))
            assert len(short._steady._places) <= 1


@settings(deadline=None, max_examples=300)
@given(
    st.floats(min_value=-1e12, max_value=1e12),
    st.text(max_size=20),
    st.text(max_size=20),
    st.integers(0, 2**62 - 3),
)
def test_records_of_the_short_way_are_those_of_the_long_way_byte_for_byte(
    value: float, unit: str, session: str, seq: int
):
    messages = [
        scalar(value=value, unit=unit, session=session, seq=seq + step) for step in range(3)
    ]
    assert outcome(taken(sorter(), messages)) == outcome(taken_long(sorter(), messages))


def test_messages_of_a_source_keep_their_order_through_both_ways():
    messages = [scalar(seq=1), scalar(seq=2, extra=1), scalar(seq=3), scalar(seq=4, extra=1)]
    tick = taken(sorter(), [*messages, scalar(seq=5)])
    assert [json.loads(record.value)["seq"] for record in tick.analytics] == [1, 2, 3, 4, 5]
    assert tick.sums()["s"].missing == 0


def test_sums_of_a_tick_have_both_ways_however_often_a_source_spoke():
    by = sorter()
    taken(by, [scalar("a", seq=1), scalar("b", seq=1), scalar("c", seq=1)])
    said = [scalar("a", seq=2), scalar("b", seq=2), scalar("b", seq=2), scalar("d", seq=1)]
    alone = taken(by, said)
    assert alone.steady == ["a", "b"]
    expected = {"a": Counts(1), "b": Counts(1, duplicate=1), "d": Counts(1)}
    assert alone.sums() == expected
    assert alone.sums() == expected
    again = taken(by, [scalar("a", seq=3), scalar("a", seq=4), scalar("b", seq=3)])
    assert again.sums() == {"a": Counts(2), "b": Counts(1)}


def test_a_steady_message_above_the_payload_bound_is_refused():
    messages = [scalar(seq=1), (scalar()[0], scalar(seq=2)[1] + b" " * 5000), scalar(seq=3)]
    tick = taken(sorter(), messages)
    assert tick.reasons == {"too_large": 1}
    assert len(tick.analytics) == 2


def test_a_topic_that_configuration_gives_another_format_is_not_steady():
    messages = [("matchday/v/scalar/s", b'{"sensorId":"x","heart":1}'), scalar(seq=2)]
    by = sorter("matchday/v/#=original")
    assert all(b'"sensor":"s"' not in record.value for record in taken(by, messages).analytics)


def test_an_unregistered_source_is_not_steady():
    gate = GatePolicy(registered=frozenset({"a"}))
    messages = [scalar("a", seq=1), scalar("a", seq=2), scalar("b", seq=1), scalar("b", seq=2)]
    tick = taken(sorter(gate=gate), messages)
    assert tick.reasons == {"unregistered": 2}
    assert tick.sums()["a"].accepted == 2


def test_what_is_remembered_of_names_and_topics_is_bounded():
    by = sorter()
    for start in range(0, PLACES_MAX + 4000, 2000):
        taken(by, [scalar(f"s{n}", session=f"x{n}") for n in range(start, start + 2000)])
    assert len(by._steady._places) <= PLACES_MAX
    assert len(by._steady._good) <= NAMES_MAX + 4


def test_what_is_remembered_of_venues_is_bounded_in_number_and_in_length():
    by = sorter()
    for number in range(VENUES_MAX + 10):
        assert by._steady._take_apart([f"matchday/v{number}/scalar/s"])[0]
    assert by._steady._take_apart([f"matchday/{'v' * 5000}/scalar/s"])[0]
    assert len(by._steady._venues) <= VENUES_MAX
    assert max(map(len, by._steady._venues)) < 400
