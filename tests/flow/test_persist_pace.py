"""How often persist asks the stream for anything: by a clock that moves only when told."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from matchday.clock import ManualClock
from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.errors import FencedError
from matchday.ports import Assignee, Consumer, Partition, Record, StreamRecord
from matchday.sqlite import DataFolder
from matchday.store.embedded import EmbeddedStore
from matchday.store.embedded_query import EmbeddedQuery
from matchday.store.persist import Persist, PersistPolicy
from matchday.stream.embedded import EmbeddedStream

T0_MS = 1_772_000_000_000
RATE_PER_S = 500
FOR_S = 10.0
TURN_S = 0.004  # two readings: a poll for nothing would wait
POLICY = PersistPolicy(batch_linger_s=0.15)


class Busy:
    """A stream to which readings come evenly; it counts what is asked of its consumer."""

    def __init__(self, folder: Path, clock: ManualClock, stop: threading.Event) -> None:
        self._clock, self._stop = clock, stop
        self.began_s = clock.monotonic_s()
        self._stack = ExitStack()
        self.real = self._stack.enter_context(closing(EmbeddedStream(folder, clock=clock)))
        self.real.prepare()
        self._producer = self._stack.enter_context(closing(self.real.producer("ingest")))
        self._consumer: Consumer | None = None
        self.sent = self.polls = self.ends_asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer or self.real, name)

    def topic_id(self, topic: Topic) -> str:
        return self.real.topic_id(topic)

    def consumer(self, group: str, topics: Sequence[Topic], assignee: Assignee) -> Busy:
        self._consumer = self.real.consumer(group, topics, assignee)
        return self

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        self._clock.advance(TURN_S)
        self.polls += 1
        elapsed_s = self._clock.monotonic_s() - self.began_s
        if elapsed_s > FOR_S:
            self._stop.set()
        values = [
            Scalar(source=f"s{seq % 100}", t_ms=T0_MS + seq, quantity="q", value=1.0, seq=seq)
            for seq in range(self.sent, int(elapsed_s * RATE_PER_S))
        ]
        if values:
            records = [Record(one.source.encode(), encode_reading(one)) for one in values]
            self._producer.commit({Topic.ANALYTICS: records})
            self.sent += len(values)
        assert self._consumer is not None
        return self._consumer.poll(timeout_s=timeout_s, records_max=records_max)

    def ends(self) -> Mapping[Partition, int]:
        self.ends_asked += 1
        assert self._consumer is not None
        return self._consumer.ends()

    def close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.close()
        else:
            self._stack.close()


class CountedStore(EmbeddedStore):
    writes = 0

    def write(self, writes: Any) -> Any:
        self.writes += 1
        return super().write(writes)


def test_busy_stream_is_asked_for_little_more_than_its_records(tmp_path: Path):
    clock, stop = ManualClock(wall_ms=T0_MS), threading.Event()
    with ExitStack() as stack:
        stack.enter_context(DataFolder(tmp_path))
        stream = stack.enter_context(closing(Busy(tmp_path, clock, stop)))
        store = stack.enter_context(closing(CountedStore(tmp_path, clock=clock)))
        store.prepare()
        query = stack.enter_context(closing(EmbeddedQuery(tmp_path)))
        persist = Persist(stream, store, policy=POLICY, clock=clock, rng=random.Random(1))  # type: ignore[arg-type]
        persist.run(stop)
        stored = query.folded().counts
        assert sum(one.stored for one in stored.values()) == stream.sent > 0.9 * RATE_PER_S * FOR_S
        assert store.writes >= 0.9 * FOR_S / (POLICY.batch_linger_s + 2 * TURN_S)
        assert stream.polls <= 1.1 * store.writes + 5
        assert stream.ends_asked <= FOR_S / 2 + 3


class Refused(Busy):
    """A stream that takes a member in and refuses its second poll."""

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        if self.polls % 2:
            self.polls += 1
            raise FencedError("polling: another member of this name has joined")
        return super().poll(timeout_s=timeout_s, records_max=records_max)


class Pauses(ManualClock):
    """A clock that keeps the pauses after a failure, and stops after eight of them."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(wall_ms=T0_MS)
        self.pauses_s: list[float] = []
        self._stop = stop

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if event is self._stop:
            self.pauses_s.append(timeout_s)
            if len(self.pauses_s) == 8:
                self._stop.set()
        return super().wait(event, timeout_s)


def test_member_that_is_thrown_out_as_soon_as_it_joins_comes_back_ever_less_often(tmp_path: Path):
    stop = threading.Event()
    clock = Pauses(stop)
    with ExitStack() as stack:
        stack.enter_context(DataFolder(tmp_path))
        stream = stack.enter_context(closing(Refused(tmp_path, clock, stop)))
        store = stack.enter_context(closing(EmbeddedStore(tmp_path, clock=clock)))
        store.prepare()
        policy = PersistPolicy(batch_linger_s=0.0)
        persist = Persist(stream, store, policy=policy, clock=clock, rng=random.Random(1))  # type: ignore[arg-type]
        persist.run(stop)
    assert clock.pauses_s[0] <= policy.retry_s
    assert min(clock.pauses_s[5:]) >= policy.retry_s_max / 2
