"""Records on their way between matchday's values and the Kafka client's.

Owns what is asked of the client that reads, the conversion of its answers, and how large a
record counts. Pure but for `fetch`, `read_from`, `positions` and `committed`. Does not know who
is asking, transactions or topics' settings.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.ports import Bookmark, Partition, Record, StreamRecord

MESSAGES_MAX: Final = 1_000_000
# Brokers take 4096 unless told otherwise, and the client sends a NUL besides.
BOOKMARK_BYTES_MAX: Final = 4_000

# What a broker adds to key, value and headers of a record: the frame of the batch (61 B),
# lengths, and up to ten bytes for each header. Topics take so much more than the plan says.
OVERHEAD_BYTES: Final = 4_096

# Until a client has let go of where it was it takes some milliseconds, and between two looks.
LET_GO_S_MAX: Final = 5.0
LET_GO_PAUSE_S: Final = 0.001


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


def read_from(consumer: Consumer, starts: Sequence[TopicPartition], *, clock: Clock) -> bool:
    """Let `consumer` read from these offsets; tell whether it does.

    A client that reads a partition and is told to read it from elsewhere says the old position
    for some milliseconds (librdkafka 2.16). What lies between would be taken as read. So it
    reads nothing first, until it has no position there.
    """
    consumer.assign([])
    deadline_s = clock.monotonic_s() + LET_GO_S_MAX
    never = threading.Event()
    while any(place.offset >= 0 for place in consumer.position(list(starts))):
        if clock.monotonic_s() >= deadline_s:
            return False
        clock.wait(never, LET_GO_PAUSE_S)
    consumer.assign(list(starts))
    return True


def positions(
    consumer: Consumer, places: Mapping[Partition, TopicPartition]
) -> dict[Partition, int]:
    """Give the offsets behind what `consumer` gave, negative where it gave nothing yet.

    Unlike the records, they go on over the markers of transactions.
    """
    found = consumer.position(list(places.values()))
    return {one: place.offset for one, place in zip(places, found, strict=True)}


def convert(
    messages: Sequence[Message], topics: Mapping[str, Topic]
) -> tuple[dict[Partition, list[StreamRecord]], list[tuple[KafkaError, Message]]]:
    """Split messages into records by partition, and what the client reports in between.

    Clients give whole fetches of a partition one after the other, so that what is looked up by
    partition is looked up far more rarely than once a record.
    """
    found: dict[Partition, list[StreamRecord]] = {}
    reports: list[tuple[KafkaError, Message]] = []
    of_name: str | None = None
    of_number: int | None = None
    for message in messages:
        error = message.error()
        if error is not None:
            reports.append((error, message))
            continue
        name, number = message.topic(), message.partition()
        if number != of_number or name != of_name:
            of_name, of_number = name, number
            topic = topics[name]  # type: ignore[index]
            add = found.setdefault(Partition(topic, number), []).append  # type: ignore[arg-type]
        headers: Any = message.headers()
        add(
            StreamRecord(
                topic,
                number,  # type: ignore[arg-type]
                message.offset(),  # type: ignore[arg-type]
                message.timestamp()[1],
                message.key() or b"",
                message.value() or b"",
                tuple((name, value or b"") for name, value in headers) if headers else (),
            )
        )
    return found, reports


def following(records: Iterable[StreamRecord]) -> dict[Partition, int]:
    """Give the offset after the last of the records, per partition."""
    return {Partition(one.topic, one.partition): one.offset + 1 for one in records}


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


def committed(
    consumer: Consumer, places: list[TopicPartition], *, timeout_s: float
) -> list[TopicPartition]:
    """Ask for what the consumer's group has committed at these partitions.

    Raises:
        KafkaException: The client's own errors, also those of single partitions.
    """
    answers = consumer.committed(places, timeout_s)
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return answers


def bookmark_of(place: TopicPartition) -> Bookmark | None:
    """Give the bookmark that a group has committed, None where it has committed nothing."""
    if place.offset < 0:
        return None
    return Bookmark(place.offset, place.metadata or "")
