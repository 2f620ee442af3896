"""What every stage may rely on from a stream: topics, records, ownership, refusal.

Owns the claims of `matchday.ports.Stream` and `Producer`, on each implementation. Groups and
readers have suites of their own beside this one; what only one implementation promises is
in its unit tests.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.stream_suite import (
    BATCH_RECORDS,
    DEADLINE_S,
    Appender,
    Stage,
    by_key,
    drain,
    numbered,
    partitions_of,
    place_of,
    poll_until,
    unique,
    values_of,
)
from contract.stream_worlds import World
from matchday.clock import SystemClock
from matchday.domain.topics import PLANS, Topic
from matchday.errors import ConfigError, FencedError, RefusedError
from matchday.ports import Partition, Record, Start

pytest_plugins = ["contract.stream_fixtures"]
pytestmark = pytest.mark.parametrize("world", ["embedded", "kafka", "zookeeper"], indirect=True)

ANALYTICS, RESULTS, LEDGER = Topic.ANALYTICS, Topic.RESULTS, Topic.LEDGER


# Topics ---------------------------------------------------------------------------------


def test_unprepared_stream_is_found_wanting_and_a_prepared_one_is_not(world: World) -> None:
    before = world.stream.check()
    world.stream.prepare()
    assert all(any(topic in line for line in before) for topic in PLANS)
    assert world.stream.check() == []


def test_preparing_again_keeps_what_is_stored(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 10)})
    stage.stream.prepare()
    assert values_of(stage.stored()) == list(range(10))


def test_topic_with_other_settings_is_named_with_both_values(world: World) -> None:
    world.spoil(RESULTS, partitions=7)
    with pytest.raises(ConfigError) as refusal:
        world.stream.prepare()
    text = str(refusal.value)
    assert RESULTS in text
    assert "partitions" in text
    assert "7" in text
    assert str(PLANS[RESULTS].partitions) in text
    assert any(RESULTS in line and "7" in line for line in world.stream.check())


def test_every_planned_partition_exists(stage: Stage) -> None:
    reader = stage.reader(Start.beginning(), *PLANS)
    assert set(reader.offsets()) == partitions_of(*PLANS)


def test_topic_id_stays_over_a_restart_and_differs_between_topics(world: World) -> None:
    world.stream.prepare()
    before = {topic: world.stream.topic_id(topic) for topic in PLANS}
    stream = world.reopen()
    stream.prepare()
    assert {topic: stream.topic_id(topic) for topic in PLANS} == before
    assert len(set(before.values())) == len(PLANS)
    assert all(before.values())


def test_topic_id_changes_when_the_topic_is_made_anew(world: World) -> None:
    world.stream.prepare()
    before = world.stream.topic_id(ANALYTICS)
    assert world.recreate().topic_id(ANALYTICS) != before


# Records --------------------------------------------------------------------------------


def test_record_comes_back_whole(stage: Stage) -> None:
    sent = Record(b"\x00key\xff", b"\x00value\xff" * 100, (("reason", b"\xfe"), ("reason", b"")))
    stage.producer().commit({Topic.DEAD_LETTERS: [sent]})
    (found,) = stage.stored(Topic.DEAD_LETTERS)
    assert (found.topic, found.partition) == (Topic.DEAD_LETTERS, 0)
    assert (found.key, found.value, found.headers) == (sent.key, sent.value, sent.headers)
    assert found.time_ms > 0


def test_records_without_and_with_headers_keep_their_own(stage: Stage) -> None:
    plain = Record(b"one", b"plain")
    dressed = Record(b"one", b"dressed", (("topic", b"image"),))
    stage.producer().commit({Topic.DEAD_LETTERS: [plain, dressed, plain]})
    assert [one.headers for one in stage.stored(Topic.DEAD_LETTERS)] == [(), dressed.headers, ()]


def test_order_is_kept_within_each_key_over_many_commits(stage: Stage) -> None:
    producer = stage.producer()
    sent = numbered(0, 2_000, keys=23)
    for start in range(0, len(sent), 250):
        producer.commit({ANALYTICS: sent[start : start + 250]})
    assert by_key(stage.stored()) == by_key(sent)


def test_key_decides_the_partition_for_every_producer(stage: Stage) -> None:
    for start in (0, 100):
        stage.producer().commit({ANALYTICS: numbered(start, 100, keys=40)})
    stage.reopen()
    stage.producer().commit({ANALYTICS: numbered(200, 100, keys=40)})
    homes: dict[bytes, set[int]] = {}
    for record in stage.stored():
        homes.setdefault(record.key, set()).add(record.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert len({min(partitions) for partitions in homes.values()}) > 1


def test_offsets_rise_and_times_do_not_fall_within_a_partition(stage: Stage) -> None:
    producer = stage.producer()
    for start in range(0, 300, 100):
        producer.commit({ANALYTICS: numbered(start, 100)})
        stage.world.let_time_pass()
    last: dict[Partition, tuple[int, int]] = {}
    for record in stage.stored():
        offset, time_ms = last.get(place_of(record), (-1, 0))
        assert record.offset > offset
        assert record.time_ms >= time_ms
        last[place_of(record)] = (record.offset, record.time_ms)


def test_large_batch_is_one_commit(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 20_000), RESULTS: numbered(0, 1)})
    assert len(stage.stored()) == 20_000


def test_commit_of_nothing_does_nothing(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({})
    producer.commit({ANALYTICS: []})
    assert stage.stored() == []


def test_records_outlive_the_process_that_wrote_them(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 100)})
    stage.reopen()
    assert values_of(stage.stored()) == list(range(100))


def test_producers_of_different_names_write_at_the_same_time(stage: Stage) -> None:
    def write(first: int) -> None:
        producer = stage.stream.producer(unique("owner"))
        for start in range(first, first + 500, 50):
            producer.commit({ANALYTICS: numbered(start, 50)})
        producer.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, (0, 1_000, 2_000)))
    found = stage.stored()
    assert values_of(found) == [*range(500), *range(1_000, 1_500), *range(2_000, 2_500)]
    for first in (0, 1_000, 2_000):
        own = [one for one in found if first <= int(one.value) < first + 500]
        for values in by_key(own).values():
            assert [int(value) for value in values] == sorted(int(value) for value in values)


# Ownership ------------------------------------------------------------------------------


def test_newer_producer_of_the_name_fences_the_older(stage: Stage) -> None:
    owner = unique("owner")
    older = stage.producer(owner)
    older.commit({ANALYTICS: numbered(0, 10)})
    newer = stage.producer(owner)
    with pytest.raises(FencedError):
        older.commit({ANALYTICS: numbered(100, 10), LEDGER: numbered(100, 1)})
    newer.commit({ANALYTICS: numbered(10, 10)})
    assert values_of(stage.stored(ANALYTICS, LEDGER)) == list(range(20))


def test_fenced_producer_stays_fenced_and_closes_quietly(stage: Stage) -> None:
    owner = unique("owner")
    older = stage.producer(owner)
    stage.producer(owner)
    for _ in range(2):
        with pytest.raises(FencedError):
            older.commit({ANALYTICS: numbered(0, 1)})
    older.close()
    older.close()
    assert stage.stored() == []


def test_fencing_is_by_name(stage: Stage) -> None:
    one, other = stage.producer(), stage.producer()
    one.commit({ANALYTICS: numbered(0, 5)})
    other.commit({ANALYTICS: numbered(5, 5)})
    one.commit({ANALYTICS: numbered(10, 5)})
    assert values_of(stage.stored()) == list(range(15))


def test_fencing_outlives_a_restart(stage: Stage) -> None:
    owner = unique("owner")
    stage.producer(owner).commit({ANALYTICS: numbered(0, 5)})
    stage.reopen()
    older = stage.producer(owner)
    stage.producer(owner).commit({ANALYTICS: numbered(5, 5)})
    with pytest.raises(FencedError):
        older.commit({ANALYTICS: numbered(10, 5)})
    assert values_of(stage.stored()) == list(range(10))


def test_killed_owner_leaves_whole_batches_or_nothing(stage: Stage) -> None:
    owner = unique("owner")
    confirmed: list[int] = []
    first = 0
    for kill_after in (1, 7, 20):
        appender = Appender(stage.world, owner=owner, first=first)
        appender.kill_after(kill_after)
        confirmed += appender.confirmed
        # Taking over resolves the doubt: from here on the tail does not change any more.
        stage.producer(owner)
        batches = values_of(stage.stored(LEDGER))
        numbers = values_of(stage.stored(ANALYTICS))
        assert set(confirmed) <= set(batches)
        assert len(batches) == len(set(batches))
        expected = [one * BATCH_RECORDS + extra for one in batches for extra in range(10)]
        assert numbers == expected
        first = max(batches) + 1


# Refusal --------------------------------------------------------------------------------


def oversized(topic: Topic) -> Record:
    return Record(b"key", b"x" * (PLANS[topic].record_bytes_max + 1))


def test_oversized_record_is_refused_and_nothing_of_its_batch_is_stored(stage: Stage) -> None:
    producer = stage.producer()
    with pytest.raises(RefusedError):
        producer.commit({ANALYTICS: numbered(0, 10), RESULTS: [oversized(RESULTS)]})
    assert stage.stored(ANALYTICS, RESULTS) == []


def test_producer_goes_on_after_a_refusal(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({ANALYTICS: numbered(0, 5)})
    with pytest.raises(RefusedError):
        producer.commit({RESULTS: [*numbered(100, 5), oversized(RESULTS)]})
    producer.commit({ANALYTICS: numbered(5, 5)})
    assert values_of(stage.stored(ANALYTICS, RESULTS)) == list(range(10))


def test_record_as_large_as_its_topic_takes_is_stored(stage: Stage) -> None:
    key = b"key"
    value = b"x" * (PLANS[RESULTS].record_bytes_max - len(key))
    stage.producer().commit({RESULTS: [Record(key, value)]})
    assert [one.value for one in stage.stored(RESULTS)] == [value]


def test_refused_commit_moves_no_bookmark(stage: Stage) -> None:
    group = unique("group")
    stage.producer().commit({ANALYTICS: numbered(0, 10)})
    member = stage.owning_member(group)
    poll_until(lambda: len(member.records) == 10, member, what="all was read")
    with pytest.raises(RefusedError):
        stage.producer().commit(
            {RESULTS: [oversized(RESULTS)]},
            consumer=member.consumer,
            bookmarks=member.bookmarks(),
        )
    member.close()
    assert set(stage.owning_member(group).recorder.bookmarks.values()) == {None}


# The stream itself ----------------------------------------------------------------------


def test_link_is_up_and_may_be_asked_from_any_thread(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 1)})
    with ThreadPoolExecutor(1) as pool:
        state = pool.submit(stage.stream.link).result(DEADLINE_S)
    assert state.name == "stream"
    assert state.is_up
    assert state.since_ms > 0


def test_what_another_thread_made_works_there(stage: Stage) -> None:
    found: list[int] = []

    def work() -> None:
        producer = stage.stream.producer(unique("owner"))
        producer.commit({ANALYTICS: numbered(0, 10)})
        producer.close()
        reader = stage.stream.reader([ANALYTICS], Start.beginning())
        found.extend(values_of(drain(reader)))
        reader.close()

    worker = threading.Thread(target=work, name="test.worker")
    worker.start()
    worker.join(DEADLINE_S)
    assert found == list(range(10))


def test_stream_time_is_wall_clock_time(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({LEDGER: numbered(0, 1)})
    stage.world.let_time_pass()
    producer.commit({LEDGER: numbered(1, 1)})
    first, second = (record.time_ms for record in stage.stored(LEDGER))
    assert first < second
    assert first < SystemClock().wall_ms() + 60_000
