"""The embedded stream under SIGKILL, from several threads, and beside another process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from matchday.clock import ManualClock, SystemClock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import Record, Start, StreamRecord
from matchday.stream import embedded_tables as tables
from matchday.stream.embedded import EmbeddedStream
from servers.process import wait_until

KILLS = 25
WAIT_S = 30.0

# Three owners commit at the same time, so that kills meet group commits. Each batch has an
# own, seeded size, spread over two topics; a line is printed once its commit has returned.
APPEND = """
import sys, threading
from pathlib import Path
from random import Random
from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.ports import Record
from matchday.stream.embedded import EmbeddedStream
stream = EmbeddedStream(Path(sys.argv[1]), clock=SystemClock())
stream.prepare()

def append(owner):
    random = Random(f"{sys.argv[2]}.{owner}")
    producer = stream.producer(owner)
    for batch in range(1_000_000):
        size = random.randrange(1, 300)
        mark = f"{sys.argv[2]}.{owner}.{batch}.{size}".encode()
        readings = [Record(b"%d" % n, mark + b".%d" % n) for n in range(size)]
        producer.commit({Topic.ANALYTICS: readings, Topic.LEDGER: [Record(owner.encode(), mark)]})
        sys.stdout.write(mark.decode() + chr(10))
        sys.stdout.flush()

for owner in ("one", "two", "three"):
    threading.Thread(target=append, args=(owner,)).start()
"""


def append_until_killed(folder: Path, run: int, confirmed_min: int) -> set[bytes]:
    """Give the batches that a child confirmed before it was killed."""
    argv = [sys.executable, "-c", APPEND, str(folder), str(run)]
    confirmed: list[bytes] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while len(confirmed) < confirmed_min:
            line = child.stdout.readline()
            assert line, "the child ended by itself"
            confirmed.append(line.strip())
        child.kill()
        # What it had confirmed by then is still in the pipe; the last line may be cut.
        confirmed += [line.strip() for line in child.stdout if line.endswith(b"\n")]
    return set(confirmed)


def stored_batches(stream: EmbeddedStream) -> set[bytes]:
    """Give the batches in the stream, having checked that each is whole and in order."""
    reader = stream.reader([Topic.ANALYTICS, Topic.LEDGER], Start.beginning())
    ledger: list[bytes] = []
    numbers: dict[bytes, list[int]] = {}
    while not reader.is_at_end():
        for record in reader.poll(timeout_s=1, records_max=5_000):
            if record.topic is Topic.LEDGER:
                ledger.append(record.value)
            else:
                mark, _, number = record.value.rpartition(b".")
                numbers.setdefault(mark, []).append(int(number))
    reader.close()
    assert len(ledger) == len(set(ledger))
    assert set(numbers) == set(ledger)
    for mark, found in numbers.items():
        assert sorted(found) == list(range(int(mark.rpartition(b".")[2])))
    return set(ledger)


def test_kill_loses_nothing_confirmed_and_leaves_nothing_partial(tmp_path: Path) -> None:
    random = Random(7)
    confirmed: set[bytes] = set()
    kept: set[bytes] = set()
    for run in range(KILLS):
        confirmed |= append_until_killed(tmp_path, run, random.randrange(1, 120))
        # First beside no living writer, as a reading command would.
        beside = EmbeddedStream(tmp_path, clock=SystemClock(), read_only=True)
        seen = stored_batches(beside)
        beside.close()
        assert confirmed <= seen
        assert kept <= seen
        kept = seen
    stream = EmbeddedStream(tmp_path, clock=SystemClock())
    assert stream.check() == []
    assert stored_batches(stream) == kept
    stream.close()
    assert len(confirmed) > KILLS * 30


def test_reader_in_another_process_sees_what_is_appended(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", APPEND, str(tmp_path), "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        beside = EmbeddedStream(tmp_path, clock=SystemClock(), read_only=True)
        reader = beside.reader([Topic.LEDGER], Start.end())
        threading.Thread(target=child.stdout.read, name="test.pipe").start()
        assert len(reader.poll(timeout_s=WAIT_S, records_max=10)) > 0
        child.kill()
    reader.close()
    beside.close()


def test_reader_beside_the_owner_follows_without_being_told(tmp_path: Path) -> None:
    owner = EmbeddedStream(tmp_path, clock=ManualClock())
    owner.prepare()
    beside = EmbeddedStream(tmp_path, clock=ManualClock(), read_only=True)
    reader = beside.reader([Topic.LEDGER], Start.end())
    assert reader.poll(timeout_s=1, records_max=10) == []
    owner.producer("owner").commit({Topic.LEDGER: [Record(b"slot", b"1")]})
    assert [one.value for one in reader.poll(timeout_s=1, records_max=10)] == [b"1"]
    assert beside.topic_id(Topic.LEDGER) == owner.topic_id(Topic.LEDGER)
    assert beside.check() == []
    reader.close()
    beside.close()
    owner.close()


def test_reading_only_refuses_to_write_and_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        EmbeddedStream(tmp_path, clock=ManualClock(), read_only=True)
    owner = EmbeddedStream(tmp_path, clock=ManualClock())
    owner.prepare()
    beside = EmbeddedStream(tmp_path, clock=ManualClock(), read_only=True)
    with pytest.raises(RuntimeError, match="reading only"):
        beside.producer("owner")
    with pytest.raises(RuntimeError, match="reading only"):
        beside.enforce_retention()
    beside.close()
    owner.close()


def test_unprepared_topic_is_named(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    with pytest.raises(ConfigError, match=r"opening topic ledger .* prepare first"):
        stream.reader([Topic.LEDGER], Start.end())
    with pytest.raises(ConfigError, match="no such topic"):
        stream.topic_id(Topic.LEDGER)
    stream.close()


def test_full_disk_spends_the_producer_and_a_new_one_resolves_the_doubt(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    stream.prepare()
    producer = stream.producer("owner")
    producer.commit({Topic.ANALYTICS: [Record(b"key", b"before")]})
    limit_pages(stream, 0)
    with pytest.raises(UnavailableError, match="disk is full"):
        producer.commit({Topic.ANALYTICS: [Record(b"key", bytes(1_000_000))]})
    state = stream.link()
    assert not state.is_up
    assert "disk is full" in state.detail
    # Reading still works, and does not make the link look well.
    assert stream.check() == []
    assert stream.link() == state
    limit_pages(stream, 1_000_000)
    with pytest.raises(UnavailableError, match="in doubt"):
        producer.commit({Topic.ANALYTICS: [Record(b"key", b"must not be written")]})
    producer.close()
    successor = stream.producer("owner")
    successor.commit({Topic.ANALYTICS: [Record(b"key", b"after")]})
    reader = stream.reader([Topic.ANALYTICS], Start.beginning())
    found = [one.value for one in reader.poll(timeout_s=1, records_max=10)]
    assert found == [b"before", b"after"]
    assert stream.link().is_up
    reader.close()
    stream.close()


@pytest.mark.parametrize("batches_before", range(3))
def test_record_is_neither_lost_nor_twice_where_reading_fails_in_the_middle_of_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_before: int
) -> None:
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    stream.prepare()
    producer = stream.producer("owner")
    for batch in range(2):
        numbers = [Record(b"key", b"%d" % (3 * batch + one)) for one in range(3)]
        producer.commit({Topic.LEDGER: numbers, Topic.LATE: numbers})
    reader = stream.reader([Topic.LEDGER, Topic.LATE], Start.beginning())
    found = reader.poll(timeout_s=0, records_max=1)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "read", failing_after(batches_before))
        with pytest.raises(UnavailableError, match="disk I/O error"):
            reader.poll(timeout_s=0, records_max=100)
    while not reader.is_at_end():
        found += reader.poll(timeout_s=0, records_max=100)
    for topic in (Topic.LEDGER, Topic.LATE):
        given = [(one.offset, one.value) for one in found if one.topic == topic]
        assert given == [(number, b"%d" % number) for number in range(6)]
    reader.close()
    stream.close()


def failing_after(batches: int) -> Callable[..., Iterator[list[StreamRecord]]]:
    """Give what reads as `tables.read` does, until the disk fails after so many batches."""
    left = iter(range(batches))
    read = tables.read

    def failing(*args: Any, **options: Any) -> Generator[list[StreamRecord], None, None]:
        for batch in read(*args, **options):
            if next(left, None) is None:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            yield batch

    return failing


def limit_pages(stream: EmbeddedStream, pages: int) -> None:
    """Let the file grow to so many pages only; SQLite then answers as on a full disk."""
    stream._file.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages or 1}").fetchone())


def test_commit_wakes_a_waiting_reader(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path, clock=SystemClock())
    stream.prepare()
    reader = stream.reader([Topic.LEDGER], Start.end())
    found: list[bytes] = []

    def wait() -> None:
        # Far longer than the test may take: only news can end it.
        found.extend(one.value for one in reader.poll(timeout_s=600, records_max=1))

    waiting = threading.Thread(target=wait, name="test.waiting")
    waiting.start()
    producer = stream.producer("owner")
    producer.commit({Topic.ANALYTICS: [Record(b"key", b"elsewhere")]})
    producer.commit({Topic.LEDGER: [Record(b"slot", b"here")]})
    waiting.join(WAIT_S)
    assert found == [b"here"]
    reader.close()
    stream.close()


def test_closing_the_stream_finishes_commits_and_says_so(tmp_path: Path) -> None:
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    stream.prepare()
    producer = stream.producer("owner")
    stream.close()
    stream.close()
    assert not stream.link().is_up
    with pytest.raises(UnavailableError, match="closed; nothing was written"):
        producer.commit({Topic.LEDGER: [Record(b"slot", b"late")]})
    wait_until(
        lambda: "stream.writer" not in {thread.name for thread in threading.enumerate()},
        what="the writer's thread is gone",
    )
