"""What the tests of persist share: running it, and asking where its group stands."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from matchday.clock import SystemClock
from matchday.ports import Bookmark, Partition, Query, Start, Store, Stream
from matchday.store.persist import GROUP, TOPICS, Persist, PersistPolicy

T0_MS = 1_772_000_000_000
DEADLINE_S = 30.0
RUBBISH = b"rubbish"
FAST = PersistPolicy(
    batch_linger_s=0.01, confirm_every_s=0.0, retry_s=0.01, retry_s_max=0.05, stop_grace_s=0.2
)


@contextmanager
def running(stream: Stream, store: Store, policy: PersistPolicy = FAST) -> Iterator[Persist]:
    """Run persist in a thread; what it raises is raised here."""
    persist = Persist(stream, store, policy=policy, clock=SystemClock(), rng=random.Random(1))
    stop = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            persist.run(stop)
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=run, name="persist.loop")
    thread.start()
    try:
        yield persist
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    assert not thread.is_alive(), "persist did not stop"
    assert not raised, raised


def bookmarks_of(stream: Stream) -> dict[Partition, int]:
    """Give the offset at which each bookmark of the group stands; only while nobody persists."""
    asking = _Asking()
    with closing(stream.consumer(GROUP, TOPICS, asking)) as consumer:
        consumer.poll(timeout_s=0.0, records_max=1)
    return {one: mark.offset for one, mark in asking.bookmarks.items() if mark}


def ends_of(stream: Stream) -> dict[Partition, int]:
    """Give the end of each partition that persist reads."""
    with closing(stream.reader(TOPICS, Start.end())) as reader:
        return dict(reader.offsets())


def is_all_stored(stream: Stream, query: Query) -> bool:
    """Tell whether the store's positions stand at the stream's ends, dead letters included."""
    next_offsets = query.folded().next_offsets
    return all(next_offsets.get(partition, 0) >= end for partition, end in ends_of(stream).items())


class _Asking:
    """A member that only looks where the group stands."""

    def __init__(self) -> None:
        self.bookmarks: dict[Partition, Bookmark | None] = {}

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        self.bookmarks |= bookmarks
        return {one: 0 if mark is None else mark.offset for one, mark in bookmarks.items()}

    def revoked(self, partitions: Sequence[Partition]) -> None: ...

    def lost(self, partitions: Sequence[Partition]) -> None: ...

    def expired(self, partition: Partition, wanted: int, first: int) -> None: ...
