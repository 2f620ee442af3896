"""Nothing is lost and nothing twice when writers or MongoDB are killed in the middle.

Run as a program it is the writer that gets killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import UnavailableError
from matchday.ports import Partition, PartitionWrite, Refusal, Row
from matchday.store.mongo import MongoQuery, MongoStore
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mongo import Mongo

READINGS = Partition(Topic.ANALYTICS, 0)
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCES = 13
WRITES_PER_SETTLING = 3


def readings(start: int, end: int) -> PartitionWrite:
    rows = [
        Row(
            "sensors",
            offset,
            {
                "collected_at": T0 + timedelta(milliseconds=offset * 10),
                "seq": offset,
                "metadata": {"sensor_id": f"s{offset % SOURCES}"},
            },
            f"s{offset % SOURCES}",
        )
        for offset in range(start, end)
    ]
    return PartitionWrite(READINGS, end, rows)


def opened(url: str, database: str, *, io_timeout_s: float = 20.0) -> MongoStore:
    store = MongoStore(url, clock=SystemClock(), database=database, io_timeout_s=io_timeout_s)
    store.prepare()
    store.claim(READINGS, "topic-1")
    return store


def settled(store: MongoStore, writes: Sequence[PartitionWrite]) -> list[Refusal]:
    """Write and settle, as persist does before it moves a bookmark."""
    refusals = store.write(writes)
    store.settle()
    return refusals


def writer_process(url: str, database: str, start: int, batch: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, url, database, str(start), str(batch)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


def assert_exactly_once(url: str, database: str, count: int) -> None:
    """Look at every document, and at the account, which must agree."""
    with closing(MongoQuery(url, database=database)) as query:
        found = query.newest("sensors", limit=10 * count)
        assert sorted(one["seq"] for one in found) == list(range(count))
        by_source = {f"s{n}": len(range(n, count, SOURCES)) for n in range(SOURCES)}
        folded = query.folded().counts
        assert {name: counts.stored for name, counts in folded.items()} == by_source
        assert query.document_count_by_source() == by_source


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    return f"crash_{request.node.name[-40:]}"


def test_writer_killed_twelve_times_in_the_middle_of_a_write(mongo: Mongo, database: str):
    """Each starts a bit before what the one before it confirmed, with batches of its own."""
    rng = random.Random(11)
    confirmed = 0
    for _ in range(12):
        start = max(0, confirmed - rng.randrange(0, 900))
        batch = rng.randrange(50, 900)
        with writer_process(mongo.url, database, start, batch) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randrange(1, 6)):
                confirmed = max(confirmed, int(writer.stdout.readline()))
            # It is at work on the next batch by now; how far, chance decides.
            writer.kill()
            for line in writer.stdout:
                confirmed = max(confirmed, int(line))
    end = confirmed + 3000
    with closing(opened(mongo.url, database)) as store:
        for start in range(max(0, confirmed - 1000), end, 1700):
            settled(store, [readings(start, min(end, start + 1700))])
    assert_exactly_once(mongo.url, database, end)


def test_writer_stopped_while_another_takes_over_and_then_continued(mongo: Mongo, database: str):
    """SIGSTOP at any moment, and SIGCONT only when all it may have held is stored."""
    rng = random.Random(5)
    confirmed = 0
    for _ in range(5):
        with writer_process(mongo.url, database, confirmed, 400) as writer:
            assert writer.stdout is not None
            begun = confirmed
            for _ in range(rng.randrange(1, 5)):
                confirmed = int(writer.stdout.readline())
            writer.send_signal(signal.SIGSTOP)
            ahead = confirmed + 4000
            with closing(opened(mongo.url, database)) as store:
                for start in range(begun, ahead, 900):
                    settled(store, [readings(start, min(ahead, start + 900))])
            writer.send_signal(signal.SIGCONT)
            for line in writer.stdout:
                confirmed = int(line)
                if confirmed >= ahead:
                    break
            writer.kill()
            for line in writer.stdout:
                confirmed = int(line)
    # The last one may have been killed some batches on.
    with closing(opened(mongo.url, database)) as store:
        settled(store, [readings(confirmed, confirmed + 2000)])
    assert_exactly_once(mongo.url, database, confirmed + 2000)


@pytest.mark.parametrize("io_timeout_s", [0.3, 30.0])
def test_mongod_killed_and_restarted_in_the_middle_of_writes(
    fresh_mongo: Callable[[], Mongo], io_timeout_s: float
):
    """With a long time-out the write itself waits it out; else the caller sends again."""
    server = fresh_mongo()
    rng = random.Random(2)
    with closing(opened(server.url, "server", io_timeout_s=10.0)) as store:
        settled(store, [readings(0, 100)])
    progress = _Progress()
    killer = threading.Thread(target=_kill_at, args=(server, progress, 4), name="test.killer")
    killer.start()
    with closing(
        MongoStore(server.url, clock=SystemClock(), database="server", io_timeout_s=io_timeout_s)
    ) as store:
        _again(lambda: store.claim(READINGS, "topic-1"))
        position = 100
        while killer.is_alive() or position < 20_000:
            start = max(0, position - rng.randrange(0, 300))
            end = start + rng.randrange(300, 2500)
            write = readings(start, end)
            _again(lambda write=write: store.write([write]))
            if rng.random() < 0.3:
                _again(store.settle)
            position = max(position, end)
            progress.position = position
            if position > 400_000:
                break
        killer.join()
        _again(store.settle)
        assert store.link().is_up
    assert_exactly_once(server.url, "server", position)


def test_losing_and_finding_the_server_shows_in_the_link(fresh_mongo: Callable[[], Mongo]):
    server = fresh_mongo()
    with (
        closing(opened(server.url, "server", io_timeout_s=0.5)) as store,
        closing(MongoQuery(server.url)) as query,
    ):
        settled(store, [readings(0, 10)])
        server.kill()
        with pytest.raises(UnavailableError, match="writing sensors at 127"):
            settled(store, [readings(10, 20)])
        assert not store.link().is_up
        wait_until(lambda: not query.link().is_up, what="the query's heartbeat is missed")
        server.start()
        _again(lambda: settled(store, [readings(5, 20)]))
        assert store.link().is_up
        wait_until(lambda: query.link().is_up, what="the query's heartbeat is back")
    assert_exactly_once(server.url, "server", 20)


class _Progress:
    position = 0


def _kill_at(server: Mongo, progress: _Progress, times: int) -> None:
    for _ in range(times):
        mark = progress.position
        wait_until(lambda mark=mark: progress.position > mark + 3000, what="writes go on")
        server.kill()
        server.start()


def _again(action: Callable[[], object]) -> None:
    """Do it until it works, as the persist stage does, without waiting in between."""

    def works() -> bool:
        try:
            action()
        except UnavailableError:
            return False
        return True

    wait_until(works, what="the store works", timeout_s=60)


def _batches(start: int, batch: int) -> Iterator[tuple[int, int]]:
    while True:
        yield start, start + batch
        start += batch


def main(url: str, database: str, start: int, batch: int) -> None:
    """Write batch after batch until killed, telling the offset after what is settled."""
    store = opened(url, database)
    for begin, end in _batches(start, batch):
        store.write([readings(begin, end)])
        if end // batch % WRITES_PER_SETTLING == 0:
            store.settle()
            print(end, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
