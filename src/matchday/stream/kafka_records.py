"""Records on their way between matchday's values and the Kafka client's.

Owns taking messages from the client in batches, their conversion, and how large a record
counts. Pure but for `fetch`. Does not know groups, transactions or topics' settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from matchday.domain.topics import Topic
from matchday.ports import Bookmark, Partition, Record, StreamRecord

MESSAGES_MAX: Final = 1_000_000
# Brokers take 4096 unless told otherwise, and the client sends a NUL besides.
BOOKMARK_BYTES_MAX: Final = 4_000

# What a broker adds to key, value and headers of a record: the frame of the batch (61 B),
# lengths, and up to ten bytes for each header. Topics take so much more than the plan says.
OVERHEAD_BYTES: Final = 4_096


def fetch(consumer: Consumer, *, timeout_s: float, count_max: int) -> list[Message]:
    """Wait at most `timeout_s` for the first message, then take what else is there.

    A plain `consume(count_max, timeout_s)` waits for the whole count or the whole time:
    one message would come late by the time-out.
    """
    count_max = min(count_max, MESSAGES_MAX)
    found = consumer.consume(count_max, 0)
    if found or timeout_s <= 0:
        return found
    found = consumer.consume(1, timeout_s)
    if found and count_max > 1:
        found += consumer.consume(count_max - 1, 0)
    return found


def convert(
    messages: Sequence[Message], topics: Mapping[str, Topic]
) -> tuple[list[StreamRecord], list[tuple[KafkaError, Message]]]:
    """Split messages into records, in their order, and what the client reports in between."""
    records: list[StreamRecord] = []
    reports: list[tuple[KafkaError, Message]] = []
    add = records.append
    for message in messages:
        error = message.error()
        if error is not None:
            reports.append((error, message))
            continue
        headers: Any = message.headers()
        add(
            StreamRecord(
                topics[message.topic()],  # type: ignore[index]
                message.partition(),  # type: ignore[arg-type]
                message.offset(),  # type: ignore[arg-type]
                message.timestamp()[1],
                message.key() or b"",
                message.value() or b"",
                tuple((name, value or b"") for name, value in headers) if headers else (),
            )
        )
    return records, reports


def runs(records: Sequence[StreamRecord]) -> Iterator[tuple[Partition, Sequence[StreamRecord]]]:
    """Split records into runs of one partition, in their order.

    Clients give whole fetches of a partition one after the other, so that there are far
    fewer runs than records, and what is looked up by partition is looked up once a run.
    """
    begin = 0
    for at in range(1, len(records) + 1):
        first = records[begin]
        if (
            at == len(records)
            or records[at].partition != first.partition
            or records[at].topic is not first.topic
        ):
            yield Partition(first.topic, first.partition), records[begin:at]
            begin = at


def size_bytes(record: Record) -> int:
    """Give how large a record counts against its topic's maximum: key, value and headers."""
    size = len(record.key) + len(record.value)
    if record.headers:
        size += sum(len(name.encode()) + len(value) for name, value in record.headers)
    return size


def committed_place(place: TopicPartition, bookmark: Bookmark) -> TopicPartition:
    """Give a bookmark in the client's form.

    Raises:
        ValueError: The metadata is longer than 4000 bytes or has a NUL, which the client
            would take for its end.
    """
    text = bookmark.metadata
    if (size := len(text.encode())) > BOOKMARK_BYTES_MAX or "\0" in text:
        raise ValueError(
            f"committing a bookmark in {place.topic}[{place.partition}]: metadata of {size} "
            f"bytes, bound {BOOKMARK_BYTES_MAX} and without NUL"
        )
    return TopicPartition(place.topic, place.partition, bookmark.offset, text)


def bookmark_of(place: TopicPartition) -> Bookmark | None:
    """Give the bookmark that a group has committed, None where it has committed nothing."""
    if place.offset < 0:
        return None
    return Bookmark(place.offset, place.metadata or "")
