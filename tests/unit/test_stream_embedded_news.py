"""Who is woken by what is committed: those it concerns, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from matchday.clock import ManualClock
from matchday.domain.topics import Topic
from matchday.ports import Bookmark, Partition, Record
from matchday.stream.embedded import EmbeddedStream
from matchday.stream.embedded_file import LogFile

RECORDS = [Record(b"key", b"value")]


class Everything:
    """An assignee that reads from the beginning."""

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        return dict.fromkeys(bookmarks, 0)

    def revoked(self, partitions: Sequence[Partition]) -> None: ...

    def lost(self, partitions: Sequence[Partition]) -> None: ...

    def expired(self, partition: Partition, wanted: int, first: int) -> None: ...


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[EmbeddedStream]:
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    stream.prepare()
    yield stream
    stream.close()


def woken(file: LogFile, *topics: Topic) -> threading.Event:
    event = threading.Event()
    file.bell.add(event, file.ids_of(topics).values())
    return event


def test_commit_wakes_who_waits_for_its_partitions_and_nobody_else(stream: EmbeddedStream):
    ours, theirs = woken(stream._file, Topic.RESULTS), woken(stream._file, Topic.ANALYTICS)
    stream.producer("one").commit({Topic.RESULTS: RECORDS})
    assert ours.is_set()
    assert not theirs.is_set()


def test_bookmarks_wake_nobody(stream: EmbeddedStream):
    producer = stream.producer("one")
    producer.commit({Topic.RESULTS: RECORDS})
    consumer = stream.consumer("group", [Topic.RESULTS], Everything())
    (record,) = consumer.poll(timeout_s=0.0, records_max=10)
    event = woken(stream._file, *Topic)
    consumer.commit({Partition(Topic.RESULTS, record.partition): Bookmark(1)})
    assert not event.is_set()
    consumer.close()


def test_refused_commit_of_one_does_not_silence_the_next(stream: EmbeddedStream):
    old = stream.producer("one")
    new = stream.producer("one")
    event = woken(stream._file, Topic.RESULTS)
    with pytest.raises(Exception, match="epoch"):
        old.commit({Topic.RESULTS: RECORDS})
    assert not event.is_set()
    new.commit({Topic.RESULTS: RECORDS})
    assert event.is_set()


def test_members_that_come_and_go_wake_everybody_of_their_stream(stream: EmbeddedStream):
    event = woken(stream._file, Topic.ANALYTICS)
    stream.consumer("group", [Topic.SLOTS], Everything()).close()
    assert event.is_set()
