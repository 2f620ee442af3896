"""What every stage may rely on from a reader of a stream.

Owns the claims of `matchday.ports.Reader` and `Start`, on each implementation.
"""

from __future__ import annotations

from contract.stream_suite import (
    DEADLINE_S,
    POLL_S,
    Stage,
    drain,
    numbered,
    poll_until,
    unique,
    values_of,
)
from matchday.domain.topics import Topic
from matchday.ports import Start
from servers.process import wait_until

pytest_plugins = ["contract.stream_fixtures"]

ANALYTICS, RESULTS, LEDGER = Topic.ANALYTICS, Topic.RESULTS, Topic.LEDGER


# Readers --------------------------------------------------------------------------------


def test_reader_at_the_end_gives_only_what_comes_later(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({ANALYTICS: numbered(0, 50)})
    reader = stage.reader(Start.end())
    assert reader.is_at_end()
    producer.commit({ANALYTICS: numbered(50, 50)})
    assert not reader.is_at_end()
    assert values_of(drain(reader)) == list(range(50, 100))
    assert reader.is_at_end()


def test_reader_reads_several_topics(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 20), RESULTS: numbered(20, 20)})
    found = drain(stage.reader(Start.beginning(), ANALYTICS, RESULTS))
    assert values_of(found) == list(range(40))
    assert {record.topic for record in found} == {ANALYTICS, RESULTS}


def test_reader_since_a_time_begins_at_the_first_record_not_before_it(stage: Stage) -> None:
    producer = stage.producer()
    for start in range(0, 150, 50):
        producer.commit({ANALYTICS: numbered(start, 50)})
        stage.world.let_time_pass()
    begun_ms = min(one.time_ms for one in stage.stored() if int(one.value) >= 50)
    assert values_of(drain(stage.reader(Start.since(begun_ms)))) == list(range(50, 150))


def test_reader_since_the_future_is_at_the_end(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({ANALYTICS: numbered(0, 50)})
    newest_ms = max(one.time_ms for one in stage.stored())
    reader = stage.reader(Start.since(newest_ms + 3_600_000))
    assert drain(reader) == []
    producer.commit({ANALYTICS: numbered(50, 10)})
    assert values_of(drain(reader)) == list(range(50, 60))


def test_reader_of_the_last_offsets_gives_the_newest_records(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({LEDGER: numbered(0, 50)})
    ends = stage.reader(Start.end(), LEDGER).offsets()
    reader = stage.reader(Start.last(20), LEDGER)
    assert reader.offsets() == {place: end - 20 for place, end in ends.items()}
    found = values_of(drain(reader))
    # Offsets are what is counted; some streams use a few for themselves.
    assert found == list(range(50 - len(found), 50))
    assert 15 <= len(found) <= 20


def test_reader_of_more_than_there_is_begins_at_the_oldest(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 50)})
    assert values_of(drain(stage.reader(Start.last(1_000_000)))) == list(range(50))


def test_reader_goes_on_where_another_one_stood(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 300)})
    first = stage.reader(Start.beginning())
    head = []
    wait_until(
        lambda: bool(head.extend(first.poll(timeout_s=POLL_S, records_max=100)) or head),
        what="something was read",
        timeout_s=DEADLINE_S,
    )
    tail = drain(stage.reader(Start.at(first.offsets())))
    assert values_of([*head, *tail]) == list(range(300))


def test_reader_begins_partitions_not_named_at_their_oldest_record(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 100), LEDGER: numbered(100, 10)})
    ends = stage.reader(Start.end()).offsets()
    found = drain(stage.reader(Start.at(ends), ANALYTICS, LEDGER))
    assert values_of(found) == list(range(100, 110))


def test_reader_keeps_to_the_maximum_and_loses_nothing(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 1_000, keys=1)})
    reader = stage.reader(Start.beginning())
    sizes: list[int] = []
    found: list[int] = []

    def poll() -> bool:
        records = reader.poll(timeout_s=POLL_S, records_max=77)
        sizes.append(len(records))
        found.extend(int(record.value) for record in records)
        return reader.is_at_end()

    wait_until(poll, what="all was read", timeout_s=DEADLINE_S)
    assert max(sizes) <= 77
    assert found == list(range(1_000))


def test_reader_is_not_at_its_end_while_it_keeps_records_back(stage: Stage) -> None:
    stage.producer().commit({LEDGER: numbered(0, 10)})
    reader = stage.reader(Start.beginning(), LEDGER)
    found: list[int] = []

    def poll() -> bool:
        assert reader.is_at_end() == (len(found) == 10)
        records = reader.poll(timeout_s=POLL_S, records_max=1)
        found.extend(int(record.value) for record in records)
        return len(found) == 10

    wait_until(poll, what="all was read", timeout_s=DEADLINE_S)
    drain(reader)
    assert found == list(range(10))
    assert reader.is_at_end()


def test_readers_disturb_neither_groups_nor_each_other(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 20)})
    member = stage.owning_member(unique("group"))
    one, other = stage.reader(Start.beginning()), stage.reader(Start.beginning())
    assert values_of(drain(one)) == values_of(drain(other)) == list(range(20))
    poll_until(lambda: len(member.records) >= 20, member, what="all was read")
    assert values_of(member.records) == list(range(20))
    assert member.recorder.calls == ["assigned"]


def test_readers_and_producers_close_twice(stage: Stage) -> None:
    reader, producer = stage.reader(Start.end()), stage.producer()
    for one in (reader, producer):
        one.close()
        one.close()
