"""What the embedded stream and store rely on from `matchday.sqlite`."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matchday.errors import ConfigError, RefusedError, UnavailableError
from matchday.sqlite import DataFolder, Writer, check_format, open_reader
from servers.process import wait_until

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (value INTEGER PRIMARY KEY, blob BLOB)"
WAIT_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    made = Writer(path, role="test.writer", schema=SCHEMA)
    yield made
    made.close()


def insert(connection: sqlite3.Connection, value: int, *, size: int = 0) -> int:
    connection.execute("INSERT INTO numbers VALUES (?, ?)", (value, bytes(size)))
    return value


def stored(path: Path) -> list[int]:
    reader = open_reader(path)
    try:
        return [row[0] for row in reader.execute("SELECT value FROM numbers ORDER BY value")]
    finally:
        reader.close()


class Gate:
    """A job that keeps the writer busy until the test opens it."""

    def __init__(self, writer: Writer) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._pool.submit(writer.submit, self._job)
        assert self._entered.wait(WAIT_S)

    def open(self) -> None:
        self._opened.set()
        self._pool.shutdown()

    def _job(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._opened.wait(WAIT_S)


def submit_all(writer: Writer, jobs: list, gate: Gate) -> list:
    """Queue the jobs in order behind the gate, open it, and give futures."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = []
        for place, job in enumerate(jobs, 1):
            futures.append(pool.submit(writer.submit, job))
            wait_until(lambda n=place: len(writer._jobs) == n, what="the job is queued")
        gate.open()
    return futures


def test_result_of_a_job_comes_back_and_readers_see_what_it_wrote(
    writer: Writer, path: Path
) -> None:
    assert writer.submit(lambda c: insert(c, 7)) == 7
    assert stored(path) == [7]


def test_waiting_jobs_share_one_transaction_in_their_order(path: Path) -> None:
    commits: list[list[int]] = []
    writer = Writer(
        path, role="test.writer", schema=SCHEMA, after_commit=lambda: commits.append(stored(path))
    )
    gate = Gate(writer)
    seen: list[int] = []
    jobs = [lambda c, n=number: seen.append(insert(c, n)) for number in range(5)]
    submit_all(writer, jobs, gate)
    writer.close()
    assert commits == [[], [0, 1, 2, 3, 4]]
    assert seen == [0, 1, 2, 3, 4]


def test_job_that_raises_takes_back_only_its_own_changes(writer: Writer, path: Path) -> None:
    def spoiled(connection: sqlite3.Connection) -> None:
        insert(connection, 2)
        raise RefusedError("spoiled", "inserting 2: spoiled")

    jobs = [lambda c: insert(c, 1), spoiled, lambda c: insert(c, 3)]
    one, two, three = submit_all(writer, jobs, Gate(writer))
    assert (one.result(), three.result()) == (1, 3)
    with pytest.raises(RefusedError, match="inserting 2: spoiled"):
        two.result()
    assert stored(path) == [1, 3]


def test_job_that_raises_alone_leaves_nothing_and_the_next_is_stored(
    writer: Writer, path: Path
) -> None:
    def spoiled(connection: sqlite3.Connection) -> None:
        insert(connection, 2)
        raise RefusedError("spoiled", "inserting 2: spoiled")

    with pytest.raises(RefusedError, match="inserting 2: spoiled"):
        writer.submit(spoiled)
    assert stored(path) == []
    writer.submit(lambda c: insert(c, 3))
    assert stored(path) == [3]


def test_mistake_in_sql_reaches_its_author_unchanged(writer: Writer, path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        writer.submit(lambda c: c.execute("INSERT INTO nowhere VALUES (1)"))
    writer.submit(lambda c: insert(c, 1))
    assert stored(path) == [1]


def test_full_disk_is_unavailable_and_writing_goes_on_once_there_is_room(
    writer: Writer, path: Path
) -> None:
    writer.submit(lambda c: insert(c, 1))
    pages = writer.submit(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    writer.submit(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(UnavailableError, match="disk is full") as full:
        writer.submit(lambda c: insert(c, 2, size=1_000_000))
    assert str(path) in str(full.value)
    assert full.value.retry_after_s >= 1
    writer.submit(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    writer.submit(lambda c: insert(c, 3, size=1_000_000))
    assert stored(path) == [1, 3]


def test_full_disk_never_confirms_what_it_took_back(writer: Writer, path: Path) -> None:
    pages = writer.submit(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    writer.submit(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    jobs = [lambda c: insert(c, 1), lambda c: insert(c, 2, size=1_000_000), lambda c: insert(c, 3)]
    futures = submit_all(writer, jobs, Gate(writer))
    confirmed = [future.result() for future in futures if future.exception() is None]
    assert stored(path) == confirmed
    assert 2 not in confirmed


def test_locked_file_is_unavailable(writer: Writer, path: Path) -> None:
    writer.submit(lambda c: c.execute("PRAGMA busy_timeout = 0").fetchone())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="another process holds the file"):
        writer.submit(lambda c: insert(c, 1))
    other.close()
    writer.submit(lambda c: insert(c, 2))
    assert stored(path) == [2]


def test_file_that_may_not_be_written_is_a_matter_of_configuration(
    writer: Writer, path: Path
) -> None:
    writer.submit(lambda c: c.execute("PRAGMA query_only = ON"))
    with pytest.raises(ConfigError, match="let this user write"):
        writer.submit(lambda c: insert(c, 1))


def test_rubbish_instead_of_a_file_is_refused_with_advice(path: Path) -> None:
    path.write_bytes(b"rubbish " * 1000)
    for attempt in (lambda: Writer(path, role="test.writer"), lambda: open_reader(path)):
        with pytest.raises(ConfigError, match="no SQLite file: move it away") as refusal:
            attempt()
        assert str(path) in str(refusal.value)


def test_damaged_page_is_named_with_advice(path: Path) -> None:
    writer = Writer(path, role="test.writer", schema=SCHEMA)
    for number in range(200):
        writer.submit(lambda c, n=number: insert(c, n, size=2_000))
    writer.close()
    # Behind the first page, which holds the header and the schema.
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    writer = Writer(path, role="test.writer", schema=SCHEMA)
    with pytest.raises(ConfigError, match=r"damaged: .*\.recover"):
        writer.submit(lambda c: insert(c, 1_000))
    writer.close()


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Writer(tmp_path / "nowhere" / "file.db", role="test.writer")
    with pytest.raises(ConfigError, match="no such file"):
        open_reader(tmp_path / "nowhere" / "file.db")


def test_closing_finishes_what_was_submitted_and_takes_nothing_more(
    writer: Writer, path: Path
) -> None:
    gate = Gate(writer)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(writer.submit, lambda c: insert(c, 1))
        wait_until(lambda: len(writer._jobs) == 1, what="the job is queued")
        closing = pool.submit(writer.close)
        gate.open()
        closing.result(WAIT_S)
    assert waiting.result() == 1
    writer.close()
    with pytest.raises(UnavailableError, match="closed; nothing was written"):
        writer.submit(lambda c: insert(c, 2))
    assert stored(path) == [1]


def test_full_queue_holds_the_submitter_back_and_then_refuses(path: Path) -> None:
    writer = Writer(path, role="test.writer", schema=SCHEMA, queue_jobs_max=1)
    gate = Gate(writer)
    with ThreadPoolExecutor(1) as pool:
        queued = pool.submit(writer.submit, lambda c: insert(c, 1))
        wait_until(lambda: len(writer._jobs) == 1, what="the job is queued")
        with pytest.raises(UnavailableError, match=r"bound 1; nothing was written"):
            writer.submit(lambda c: insert(c, 2), timeout_s=0.05)
        gate.open()
    assert queued.result() == 1
    writer.close()
    assert stored(path) == [1]


def test_job_given_up_in_the_queue_is_never_run(writer: Writer, path: Path) -> None:
    gate = Gate(writer)
    with pytest.raises(UnavailableError, match="nothing was written"):
        writer.submit(lambda c: insert(c, 1), timeout_s=0.05)
    gate.open()
    writer.submit(lambda c: insert(c, 2))
    assert stored(path) == [2]


def test_job_that_takes_too_long_is_in_doubt(writer: Writer, path: Path) -> None:
    release = threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        insert(connection, 1)
        assert release.wait(WAIT_S)

    with pytest.raises(UnavailableError, match="fate is unknown"):
        writer.submit(slow, timeout_s=0.2)
    release.set()
    writer.submit(lambda c: insert(c, 2))
    assert stored(path) == [1, 2]


def test_job_may_not_submit_another(writer: Writer) -> None:
    with pytest.raises(RuntimeError, match="a job submitted another job"):
        writer.submit(lambda _: writer.submit(lambda c: insert(c, 1)))


def test_reader_cannot_write(writer: Writer, path: Path) -> None:
    reader = open_reader(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO numbers VALUES (1, NULL)")
    reader.close()


# The data folder ------------------------------------------------------------------------

HOLD = """
import sys, threading
from pathlib import Path
from matchday.sqlite import DataFolder
folder = DataFolder(Path(sys.argv[1]))
print("held", flush=True)
threading.Event().wait()
"""


def test_second_process_is_told_the_pid_of_the_owner_until_that_is_gone(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"process {owner.pid} owns it"):
            DataFolder(tmp_path)
        owner.send_signal(signal.SIGKILL)
        owner.wait(WAIT_S)
    with DataFolder(tmp_path):
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())


def test_folder_is_free_again_after_close_even_twice(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "deep" / "folder")
    with pytest.raises(ConfigError, match="owns it"):
        DataFolder(first.path)
    first.close()
    first.close()
    with DataFolder(first.path) as second:
        assert second.free_bytes() > 0


def test_folder_of_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    DataFolder(tmp_path).close()
    check_format(tmp_path)
    (tmp_path / "format").write_text("99\n")
    for attempt in (lambda: DataFolder(tmp_path), lambda: check_format(tmp_path)):
        with pytest.raises(ConfigError, match=r"format 99 is newer than 1"):
            attempt()
    assert (tmp_path / "format").read_text() == "99\n"
    (tmp_path / "format").write_text("1\n")
    DataFolder(tmp_path).close()


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="opening data folder"):
        check_format(tmp_path)
    (tmp_path / "format").write_text("half a file")
    with pytest.raises(ConfigError, match="is not a number"):
        DataFolder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="opening data folder"):
        DataFolder(tmp_path / "file")
