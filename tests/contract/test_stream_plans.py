"""Claims about partitions and retention that an installation wants otherwise than the plan."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from matchday.clock import ManualClock, SystemClock
from matchday.domain.topics import DAY_MS, Topic
from matchday.errors import ConfigError
from matchday.ports import Record, Start, Stream
from matchday.stream.embedded import EmbeddedStream

if TYPE_CHECKING:
    from servers.kafka import Kafka

ANALYTICS, SLOTS = Topic.ANALYTICS, Topic.SLOTS

Wanted: TypeAlias = Mapping[Topic, int]
Opener: TypeAlias = Callable[[Wanted, Wanted], Stream]


@pytest.fixture(params=["embedded", "kafka"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Give a function that opens one and the same stream, wanting partitions and retention."""
    with ExitStack() as stack:
        if request.param == "embedded":

            def make(partitions: Wanted, retention_ms: Wanted) -> Stream:
                return EmbeddedStream(
                    tmp_path,
                    clock=SystemClock(),
                    partitions=partitions,
                    retention_ms=retention_ms,
                )
        else:
            url = request.getfixturevalue("kafka").url
            prefix = f"t{uuid.uuid4().hex[:8]}."

            def make(partitions: Wanted, retention_ms: Wanted) -> Stream:
                return opened_kafka(url, prefix, partitions, retention_ms)

        def open_one(partitions: Wanted, retention_ms: Wanted) -> Stream:
            stream = make(partitions, retention_ms)
            stack.callback(stream.close)
            return stream

        yield open_one


def opened_kafka(url: str, prefix: str, partitions: Wanted, retention_ms: Wanted) -> Stream:
    from matchday.stream.kafka import KafkaStream

    return KafkaStream(
        url, clock=SystemClock(), prefix=prefix, partitions=partitions, retention_ms=retention_ms
    )


def partition_count(stream: Stream, topic: Topic) -> int:
    reader = stream.reader([topic], Start.end())
    try:
        return len(reader.offsets())
    finally:
        reader.close()


def test_topics_are_made_as_wanted(opened: Opener) -> None:
    stream = opened({ANALYTICS: 3, SLOTS: 2}, {ANALYTICS: 2 * DAY_MS})
    stream.prepare()
    assert stream.check() == []
    assert partition_count(stream, ANALYTICS) == 3
    assert partition_count(stream, SLOTS) == 2


def test_slot_that_is_lacking_is_added_and_one_too_many_is_left(opened: Opener) -> None:
    opened({SLOTS: 1}, {}).prepare()
    more = opened({SLOTS: 3}, {})
    assert any("ingest_slots: partitions is 1, expected" in line for line in more.check())
    more.prepare()
    assert more.check() == []
    assert partition_count(more, SLOTS) == 3
    fewer = opened({SLOTS: 2}, {})
    fewer.prepare()
    assert fewer.check() == []
    assert partition_count(fewer, SLOTS) == 3


def test_other_number_of_partitions_is_refused_and_says_what_to_set(opened: Opener) -> None:
    opened({ANALYTICS: 2}, {}).prepare()
    with pytest.raises(ConfigError, match=r"analytics: partitions is 2, expected 5") as refusal:
        opened({ANALYTICS: 5}, {}).prepare()
    assert "set stream.partitions = 2" in str(refusal.value)
    as_said = opened({ANALYTICS: 2}, {})
    as_said.prepare()
    assert as_said.check() == []


def test_kafka_refuses_other_retention_than_wanted_with_both(kafka: Kafka) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}."
    opened_kafka(kafka.url, prefix, {}, {ANALYTICS: 7 * DAY_MS}).prepare()
    wanted = rf"analytics: retention.ms is {7 * DAY_MS}, expected {3 * DAY_MS}"
    with pytest.raises(ConfigError, match=wanted):
        opened_kafka(kafka.url, prefix, {}, {ANALYTICS: 3 * DAY_MS}).prepare()


def test_embedded_stream_keeps_records_as_long_as_wanted_now(tmp_path: Path) -> None:
    clock = ManualClock()

    def stored(days: int) -> int:
        kept_ms = {ANALYTICS: days * DAY_MS}
        stream = EmbeddedStream(tmp_path, clock=clock, retention_ms=kept_ms)
        try:
            stream.prepare()
            stream.enforce_retention()
            reader = stream.reader([ANALYTICS], Start.beginning())
            found = len(reader.poll(timeout_s=0, records_max=10))
            reader.close()
            return found
        finally:
            stream.close()

    assert stored(days=9) == 0
    stream = EmbeddedStream(tmp_path, clock=clock)
    stream.producer("p").commit({ANALYTICS: [Record(b"k", b"v")]})
    stream.close()
    clock.advance(8 * DAY_MS / 1000)
    assert stored(days=9) == 1
    assert stored(days=7) == 0
