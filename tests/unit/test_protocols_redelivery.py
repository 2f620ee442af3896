"""Claims about deliveries in doubt: when a packet identifier proves a repetition."""

from __future__ import annotations

from matchday.domain.account import Counts, LedgerRecord, TailEntry
from matchday.protocols.redelivery import SESSION_LOST, Doubt, in_doubt


def tick_of(name: str, *entries: TailEntry, counts: bool = True) -> LedgerRecord:
    return LedgerRecord(
        slot="all",
        tick=name,
        ts="",
        counts={"s": Counts(accepted=1)} if counts else {},
        tail=entries,
    )


def test_all_deliveries_of_a_broker_and_the_last_two_ticks_of_publishers_are_in_doubt():
    ticks = [
        tick_of("1", TailEntry("", 1, "a"), TailEntry("tag", 1, "a")),
        tick_of("2", TailEntry("tag", 2, "b")),
        tick_of("2-snapshot-0", counts=False),
        tick_of("3", TailEntry("tag", 3, "c")),
    ]
    assert in_doubt(ticks) == [
        TailEntry("", 1, "a"),
        TailEntry("tag", 2, "b"),
        TailEntry("tag", 3, "c"),
    ]


def test_publisher_delivers_again_what_it_had_in_flight_when_ingest_restarted():
    doubt = Doubt(entries_max=10)
    doubt.restarted([TailEntry("tag", 1, "d"), TailEntry("other", 1, "d")])
    doubt.connected("tag", 5)
    assert doubt.is_repeated("tag", 1, "d")
    doubt.connected("tag", 6)
    assert not doubt.is_repeated("tag", 1, "d")
    doubt.connected("other", 7)
    assert doubt.is_repeated("other", 1, "d")


def test_delivery_without_identity_is_recognised_once_after_a_restart():
    doubt = Doubt(entries_max=10)
    doubt.restarted([TailEntry("", 7, "d")])
    doubt.connected("", 1)
    assert doubt.is_repeated("", 7, "d")
    assert not doubt.is_repeated("", 7, "d")


def test_equal_texts_on_one_connection_are_two_readings():
    doubt = Doubt(entries_max=10)
    doubt.connected("", 1)
    doubt.committed([TailEntry("", 7, "d")])
    assert not doubt.is_repeated("", 7, "d")


def test_broker_that_reconnects_raises_the_doubt_again():
    doubt = Doubt(entries_max=10)
    doubt.connected("", 1)
    doubt.committed([TailEntry("", 7, "d")])
    doubt.connected("", 2)
    assert doubt.is_repeated("", 7, "d")


def test_publisher_that_reconnects_to_our_endpoint_may_say_the_same_again():
    doubt = Doubt(entries_max=10)
    doubt.connected("tag", 1)
    doubt.committed([TailEntry("tag", 1, "d")])
    doubt.connected("tag", 2)
    assert not doubt.is_repeated("tag", 1, "d")


def test_doubt_ends_after_as_many_deliveries_as_can_have_been_in_flight():
    doubt = Doubt(entries_max=2)
    doubt.restarted([TailEntry("", 7, "d")])
    doubt.connected("", 1)
    assert not doubt.is_repeated("", 1, "x")
    assert not doubt.is_repeated("", 2, "y")
    assert not doubt.is_repeated("", 7, "d")


def test_publisher_that_said_nothing_to_an_owner_stays_in_doubt():
    ticks = [
        tick_of("run1-1", TailEntry("tag", 1, "a")),
        *[tick_of(f"run2-{number}", TailEntry("other", number, "a")) for number in range(1, 4)],
    ]
    assert in_doubt(ticks) == [
        TailEntry("tag", 1, "a"),
        TailEntry("other", 2, "a"),
        TailEntry("other", 3, "a"),
    ]


def test_of_what_a_publisher_had_in_flight_the_rest_stays_in_doubt_until_it_says_something_new():
    first = tick_of("run1-1", *[TailEntry("tag", packet, "a") for packet in (1, 2, 3)])
    repeated = tick_of("run2-1", TailEntry("tag", 1, "a"))
    silence = [tick_of(f"run2-{number}") for number in range(2, 5)]
    new = tick_of("run2-2", TailEntry("tag", 4, "a"))
    assert in_doubt([first, repeated, *silence]) == [
        TailEntry("tag", 2, "a"),
        TailEntry("tag", 3, "a"),
    ]
    assert in_doubt([first, repeated]) == [
        TailEntry("tag", 2, "a"),
        TailEntry("tag", 3, "a"),
        TailEntry("tag", 1, "a"),
    ]
    assert in_doubt([first, repeated, new, *silence[1:]]) == []


def test_records_of_one_tick_are_one_tick():
    ticks = [
        tick_of("run-1", TailEntry("tag", 1, "a")),
        tick_of("run-2", TailEntry("tag", 2, "a"), counts=False),
        tick_of("run-2", TailEntry("tag", 3, "a")),
        tick_of("run-3", TailEntry("tag", 4, "a")),
    ]
    assert in_doubt(ticks) == [TailEntry("tag", packet, "a") for packet in (2, 3, 4)]


def test_nothing_from_before_a_broker_lost_its_session_is_in_doubt():
    ticks = [
        tick_of("run-1", TailEntry("", 1, "a"), TailEntry("tag", 1, "a")),
        tick_of("run-2", SESSION_LOST, TailEntry("", 1, "b")),
    ]
    assert in_doubt(ticks) == [TailEntry("", 1, "b"), TailEntry("tag", 1, "a")]


def test_broker_that_lost_its_session_raises_no_doubt_and_is_noted_once():
    doubt = Doubt(entries_max=1)
    doubt.restarted([TailEntry("", 7, "d")])
    assert doubt.connected("", 1, is_resumed=False)
    assert not doubt.is_repeated("", 7, "d")
    assert not doubt.connected("", 1, is_resumed=False)
    doubt.committed([TailEntry("", 1, "d"), SESSION_LOST])
    assert not doubt.connected("", 2)
    assert doubt.is_repeated("", 1, "d")
