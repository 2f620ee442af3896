"""Places for the stream's contract suite to run in, one kind per implementation.

Owns how each implementation is opened, spoiled and aged for a test. Does not own any claim.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from matchday.clock import ManualClock, SystemClock
from matchday.domain.topics import PLANS, Topic
from matchday.ports import Stream
from matchday.stream.embedded import EmbeddedStream
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.kafka import Kafka


class World(Protocol):
    """One implementation in a place of its own: nothing in it but what the test put there."""

    stream: Stream

    def reopen(self) -> Stream:
        """Close the stream and open it again, as the next run of the program does."""

    def spoil(self, topic: Topic, *, partitions: int) -> None:
        """Create the topic with another number of partitions than planned; first call only."""

    def recreate(self) -> Stream:
        """Delete every topic, then open the stream and prepare it again."""

    def expire(self, topic: Topic) -> None:
        """Let retention delete everything that the topic holds."""

    def let_time_pass(self) -> None:
        """Make sure that later records get a later time."""

    def code(self) -> str:
        """Give Python statements that open the same stream as `stream` in another process."""

    def close(self) -> None:
        """Close what is open."""


class EmbeddedWorld:
    """The embedded stream in a folder, with a clock moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self._folder = folder
        self._generation = 0
        self.stream = self._open()

    def reopen(self) -> EmbeddedStream:
        self.stream.close()
        self.stream = self._open()
        return self.stream

    def spoil(self, topic: Topic, *, partitions: int) -> None:
        self.stream.close()
        other = EmbeddedStream(self._path, clock=self.clock, partitions={topic: partitions})
        other.prepare()
        other.close()
        self.stream = self._open()

    def recreate(self) -> EmbeddedStream:
        self.stream.close()
        for file in self._path.glob("stream.db*"):
            file.unlink()
        self.stream = self._open()
        self.stream.prepare()
        return self.stream

    def expire(self, topic: Topic) -> None:
        self.clock.advance(PLANS[topic].retention_ms / 1000 + 1)
        self.stream.enforce_retention()

    def let_time_pass(self) -> None:
        self.clock.advance(1)

    def code(self) -> str:
        return (
            "from pathlib import Path\n"
            "from matchday.clock import SystemClock\n"
            "from matchday.stream.embedded import EmbeddedStream\n"
            f"stream = EmbeddedStream(Path({str(self._path)!r}), clock=SystemClock())\n"
        )

    def close(self) -> None:
        self.stream.close()

    @property
    def _path(self) -> Path:
        return self._folder

    def _open(self) -> EmbeddedStream:
        return EmbeddedStream(self._path, clock=self.clock)


class KafkaWorld:
    """Topics with a prefix of their own on the Kafka node that all tests share."""

    def __init__(self, server: Kafka) -> None:
        self._server = server
        self._prefix = f"t{uuid.uuid4().hex[:8]}."
        self.stream = self._open()

    def reopen(self) -> Stream:
        self.stream.close()
        self.stream = self._open()
        return self.stream

    def spoil(self, topic: Topic, *, partitions: int) -> None:
        from confluent_kafka.admin import NewTopic

        name = self._prefix + topic
        asked = NewTopic(name, num_partitions=partitions, replication_factor=1)
        # A client that nobody holds ends with its requests.
        admin = self._admin()
        admin.create_topics([asked])[name].result(timeout=30)

    def recreate(self) -> Stream:
        admin = self._admin()
        names = [self._prefix + topic for topic in PLANS]
        for done in admin.delete_topics(names).values():
            done.result(timeout=30)
        wait_until(
            lambda: not set(names) & set(admin.list_topics(timeout=5).topics),
            what=f"topics {self._prefix}* are gone",
        )
        self.reopen().prepare()
        return self.stream

    def expire(self, topic: Topic) -> None:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec

        name, admin = self._prefix + topic, self._admin()
        places = [TopicPartition(name, number) for number in range(PLANS[topic].partitions)]
        ends = admin.list_offsets({place: OffsetSpec.latest() for place in places})
        asked = [
            TopicPartition(name, place.partition, ends[place].result(timeout=30).offset)
            for place in places
        ]
        for done in admin.delete_records(asked).values():
            done.result(timeout=30)

    def let_time_pass(self) -> None:
        clock = SystemClock()
        begun_ms = clock.wall_ms()
        wait_until(lambda: clock.wall_ms() > begun_ms + 1, what="the clock moved")

    def code(self) -> str:
        return (
            "from matchday.clock import SystemClock\n"
            "from matchday.stream.kafka import KafkaStream\n"
            f"stream = KafkaStream(url={self._server.url!r}, clock=SystemClock(), "
            f"prefix={self._prefix!r})\n"
        )

    def close(self) -> None:
        self.stream.close()

    def _open(self) -> Stream:
        from matchday.stream.kafka import KafkaStream

        stream: Stream = KafkaStream(url=self._server.url, clock=SystemClock(), prefix=self._prefix)
        return stream

    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self._server.bootstrap})
