"""Claims about which offsets of records from Kafka are believed; needs no broker."""

from __future__ import annotations

from collections.abc import Iterable

from matchday.domain.topics import Topic
from matchday.ports import Partition, StreamRecord
from matchday.stream.kafka_order import STEP, STEP_MAX, Order

ONE = Partition(Topic.ANALYTICS, 1)
TWO = Partition(Topic.ANALYTICS, 2)
NOWHERE = -1001
"""What the client gives as its position before it gave anything."""


def begun(*partitions: Partition, at: int = 0) -> Order:
    order = Order()
    order.begin(dict.fromkeys(partitions, at))
    return order


def at(*offsets: int, place: Partition = ONE) -> list[StreamRecord]:
    return [StreamRecord(place.topic, place.number, offset, 0, b"", b"") for offset in offsets]


def take(order: Order, *offsets: int, position: int = NOWHERE) -> list[int] | None:
    """Give the offsets taken, None where they are to be read again."""
    taken, again = order.check({ONE: at(*offsets)} if offsets else {}, {ONE: position})
    assert not (taken and again)
    return None if again else offsets_of(taken)


def offsets_of(records: Iterable[StreamRecord]) -> list[int]:
    return [record.offset for record in records]


def test_records_and_markers_between_them_are_ordinary():
    order = begun(ONE, at=5)
    assert take(order, 6, 7, 9, 10, 12, position=14) == [6, 7, 9, 10, 12]
    assert order.received == {ONE: 13}
    assert take(order, 14) == [14]


def test_batch_far_ahead_is_read_again_from_where_the_poll_began_and_other_partitions_go_on():
    order = begun(ONE, TWO)
    runs = {ONE: at(0, 1, 500, 501), TWO: at(0, 1, place=TWO)}
    taken, again = order.check(runs, {ONE: 502, TWO: 2})
    assert (taken, again) == (at(0, 1, place=TWO), [ONE])
    assert order.received == {ONE: 0, TWO: 2}
    assert take(order, 0, 1, 3, 4) == [0, 1, 3, 4]


def test_batch_too_low_is_seen_by_the_record_behind_it():
    order = begun(ONE, at=10)
    assert take(order, 10, 11, 12, 13, 16) is None
    assert order.received == {ONE: 10}


def test_batch_too_low_is_seen_by_the_marker_behind_it():
    order = begun(ONE, at=10)
    assert take(order, 10, 11, 12, position=16) is None
    assert order.received == {ONE: 10}


def test_batch_that_overlaps_another_one_is_read_again_with_it():
    order = begun(ONE, at=10)
    assert take(order, 10, 11, 12, 12, 13) is None
    assert order.received == {ONE: 10}


def test_batches_that_changed_places_are_seen_though_as_many_came_as_should():
    order = begun(ONE, at=10)
    assert take(order, 10, 500, 501, 13) is None
    assert take(order, 12, 10, 11, 13) is None


def test_hole_found_twice_is_believed_in_the_same_poll_or_in_the_next():
    order = begun(ONE)
    assert take(order, 0, 1, 900, 901) is None
    assert take(order, 0, 1) == [0, 1]
    assert take(order, 900, 901) == [900, 901]


def test_hole_that_another_reading_finds_elsewhere_is_doubted_again():
    order = begun(ONE)
    assert take(order, 0, 1, 900) is None
    assert take(order, 0, 1, 800) is None
    assert take(order, 0, 1, 800) == [0, 1, 800]


def test_damage_beside_a_hole_does_not_make_the_hole_doubted_for_ever():
    order = begun(ONE)
    assert take(order, 0, 300) is None
    for damaged in range(1000, 1100):
        assert take(order, 0, damaged) is None
    assert take(order, 0, 300) == [0, 300]


def test_many_holes_in_a_poll_cost_one_more_reading():
    offsets = [number + number // 10 * 1000 for number in range(100)]
    order = begun(ONE)
    assert take(order, *offsets) is None
    assert take(order, *offsets) == offsets


def test_hole_behind_the_last_record_costs_one_more_reading_whichever_side_shows_it():
    order = begun(ONE, at=10)
    assert take(order, 10, 11, position=30) is None
    assert take(order, 10, 11, position=30) == [10, 11]
    assert take(order, 30, 31, position=33) == [30, 31]


def test_place_that_is_reached_is_behind_what_was_taken_and_its_markers():
    order = begun(ONE, TWO, at=5)
    assert order.reached == {ONE: 5, TWO: 5}
    taken, again = order.check({ONE: at(5, 6), TWO: at(5, 900, place=TWO)}, {ONE: 8, TWO: 902})
    assert (offsets_of(taken), again) == ([5, 6], [TWO])
    assert order.reached == {ONE: 8, TWO: 5}


def test_position_that_leapt_without_a_record_is_doubted_too():
    order = begun(ONE, at=10)
    assert take(order, position=11) == []
    assert take(order, position=500) is None
    assert take(order, 11, position=13) == [11]


def test_steps_that_come_again_and_again_become_ordinary_one_by_one_up_to_a_bound():
    order = begun(ONE)
    doubts = 0
    for number in range(100):
        first = number * (STEP_MAX + 1000)
        order.begin({ONE: first})
        if take(order, first, first + STEP_MAX) is None:
            doubts += 1
            assert take(order, first, first + STEP_MAX) is not None
    assert doubts == STEP_MAX - STEP
    order.begin({ONE: 0})
    assert take(order, 0, STEP_MAX + 1) is None


def test_one_short_hole_does_not_make_others_ordinary_however_long_it_is_the_last():
    order = begun(ONE)
    assert take(order, 0, position=12) is None
    assert take(order, 0, position=12) == [0]
    for _ in range(100):
        assert take(order, position=12) == []
    assert take(order, 12) == [12]
    assert take(order, 24) is None


def test_topic_made_anew_is_believed_when_it_begins_at_its_begin_again():
    order = begun(ONE, at=500)
    assert take(order, 0, 1) is None
    assert take(order, 0, 1) == [0, 1]
    assert take(order, 2) == [2]


def test_nothing_is_taken_of_partitions_given_up():
    order = begun(ONE)
    order.begin({TWO: 3})
    runs = {ONE: at(0), TWO: at(3, place=TWO)}
    assert order.check(runs, {ONE: NOWHERE, TWO: 4}) == (at(3, place=TWO), [])
    assert order.received == {TWO: 4}


def test_records_of_a_partition_from_before_it_was_taken_over_again_are_not_taken():
    order = begun(ONE, at=500)
    order.begin({ONE: 400})
    assert take(order, 500, 501) is None
    assert take(order, 400, 401) == [400, 401]


def test_what_was_seen_is_forgotten_behind_what_was_taken():
    order = begun(ONE)
    first = 0
    for _ in range(50):
        offsets = range(first, first + 2000, 100)
        assert take(order, *offsets) is None
        assert take(order, *offsets) == list(offsets)
        first += 2000
    assert sum(len(steps) for steps in order._seen.values()) == 0
