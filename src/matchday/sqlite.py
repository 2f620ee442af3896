"""SQLite files as a foundation: one writer thread, read-only readers, the data folder's lock.

Owns durability settings, group commit and who may write in a data folder. Does not own the
translation of SQLite's errors (`sqlite_errors`), nor any table: those belong to the embedded
stream and the embedded store, each of which has one file of its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from matchday.errors import ConfigError, UnavailableError
from matchday.sqlite_errors import translate, translated

T = TypeVar("T")

FORMAT_VERSION: Final = 1
QUEUE_JOBS_MAX: Final = 256
SUBMIT_TIMEOUT_S: Final = 60.0
LOCK_TIMEOUT_S: Final = 5.0
# A checkpoint costs two fsyncs; at 16 MiB they are rare under load and recovery stays short.
CHECKPOINT_PAGES: Final = 4096
WAL_BYTES_KEPT: Final = 64 * 2**20
# SQLite's own default is 2000 per connection, which seven of them would fill under load.
READER_CACHE_KIB: Final = 256
WRITER_CACHE_KIB: Final = 1024


class Writer:
    """The only thread that writes one SQLite file, so that nobody ever waits for a lock.

    Jobs run in the order submitted. All that are waiting share one transaction (group
    commit): one fsync serves every thread that submits. Each of several has its own savepoint,
    so one that raises takes back only its own changes. The queue is bounded by
    `queue_jobs_max`; when it is full, `submit` blocks.

    Args:
        path: The file; made when missing, its folder must exist.
        role: Name of the thread, "<service>.<role>".
        schema: SQL run once at opening, in `CREATE ... IF NOT EXISTS` form.
        after_commit: Called in the writer's thread after every transaction became durable;
            must be quick and must not raise.
        queue_jobs_max: How many jobs may wait.

    Raises:
        ConfigError: The file cannot be opened, written or understood; says what to do.
        UnavailableError: The disk is full or the file is locked; try again.
    """

    def __init__(
        self,
        path: Path,
        *,
        role: str,
        schema: str = "",
        after_commit: Callable[[], None] | None = None,
        queue_jobs_max: int = QUEUE_JOBS_MAX,
    ) -> None:
        self.path = path
        self._after_commit = after_commit or (lambda: None)
        self._queue_jobs_max = queue_jobs_max
        self._changed = threading.Condition()
        self._jobs: deque[_Job[Any]] = deque()
        self._is_closed = False
        with translated("opening", path):
            self._connection = _connect_writer(path, schema)
        self._thread = threading.Thread(target=self._work, name=role, daemon=True)
        self._thread.start()

    def submit(
        self, job: Callable[[sqlite3.Connection], T], *, timeout_s: float = SUBMIT_TIMEOUT_S
    ) -> T:
        """Run `job` in the writer's thread and give its result once that is durable.

        The job must not begin or end transactions, keep the connection, or change anything
        outside of the file: what it changed may still be taken back after it returned.

        Args:
            job: Called with the connection, inside a transaction and a savepoint.
            timeout_s: How long to wait for a place in the queue, and then for the result.

        Raises:
            UnavailableError: The disk, a lock, the time-out or the closing of the writer
                stood in the way: the fate of the job is unknown unless the text says that
                nothing was written.
            ConfigError: The file is read-only or damaged.
            Exception: Whatever `job` raised; nothing of it was written.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"writing {self.path}: a job submitted another job")
        waiting = _Job(job)
        self._enqueue(waiting, timeout_s)
        try:
            return waiting.future.result(timeout_s)
        except TimeoutError as error:
            # The job itself may have raised it.
            if waiting.future.done() and not waiting.future.cancelled():
                raise
            fate = "nothing was written" if waiting.future.cancel() else "its fate is unknown"
            raise UnavailableError(
                f"writing {self.path}: no answer after {timeout_s:.1f} s; {fate}"
            ) from error
        except CancelledError as error:
            raise UnavailableError(f"writing {self.path}: given up; nothing was written") from error

    def close(self) -> None:
        """Finish every job submitted so far, then close the file; safe to call twice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _enqueue(self, job: _Job[Any], timeout_s: float) -> None:
        with self._changed:
            has_room = self._changed.wait_for(
                lambda: self._is_closed or len(self._jobs) < self._queue_jobs_max, timeout_s
            )
            if self._is_closed:
                raise UnavailableError(f"writing {self.path}: it is closed; nothing was written")
            if not has_room:
                raise UnavailableError(
                    f"writing {self.path}: {len(self._jobs)} jobs waiting for {timeout_s:.1f} s, "
                    f"bound {self._queue_jobs_max}; nothing was written"
                )
            self._jobs.append(job)
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while group := self._next_group():
                self._run_group(group)
        finally:
            self._connection.close()

    def _next_group(self) -> list[_Job[Any]]:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            group = [job for job in self._jobs if job.future.set_running_or_notify_cancel()]
            self._jobs.clear()
            self._changed.notify_all()
            if group or self._is_closed:
                return group
        # Every waiting job had been cancelled by its time-out.
        return self._next_group()

    def _run_group(self, group: Sequence[_Job[Any]]) -> None:
        connection = self._connection
        outcomes: list[_Outcome] = []
        try:
            self._take_back()
            connection.execute("BEGIN IMMEDIATE")
            if len(group) == 1:
                # A savepoint would copy every page that changes into a second journal.
                outcomes.append(_Outcome(group[0].run(connection), None))
            else:
                for job in group:
                    outcomes.append(self._run(job))
            connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - belongs to the threads that submitted
            # A full disk or an I/O error takes the whole transaction back, other jobs' too.
            with suppress(sqlite3.Error):
                self._take_back()
            outcomes += [_Outcome(None, None)] * (len(group) - len(outcomes))
            for job, outcome in zip(group, outcomes, strict=True):
                job.future.set_exception(outcome.error or self._translated(error))
            return
        self._after_commit()
        for job, outcome in zip(group, outcomes, strict=True):
            if outcome.error is not None:
                job.future.set_exception(outcome.error)
            else:
                job.future.set_result(outcome.value)

    def _take_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _run(self, job: _Job[Any]) -> _Outcome:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            value = job.run(connection)
        except BaseException as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            return _Outcome(None, self._translated(error))
        connection.execute("RELEASE job")
        return _Outcome(value, None)

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, sqlite3.Error):
            return translate(error, action="writing", path=self.path)
        return error


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a SQLite file for reading only, whether its writer lives, closed it or was killed.

    The connection is in autocommit mode; wrap what belongs together in `BEGIN` and `COMMIT`
    and keep that short, because an open read keeps the write-ahead log growing. It may be
    used by one thread at a time, not only by the one that opened it.

    Raises:
        ConfigError: There is no such file, or it cannot be read or understood.
        UnavailableError: The file is locked; try again.
    """
    if not path.exists():
        raise ConfigError(
            f"opening {path.absolute()}: no such file; is data_dir that of `matchday up`?"
        )
    with translated("opening", path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=LOCK_TIMEOUT_S,
        )
        try:
            connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
    return connection


class DataFolder:
    """The ownership of a data folder: one process at a time, of a format this program knows.

    The lock belongs to the process and ends with it, however it ends. Reading commands do
    not take it; they call `check_format`.

    Args:
        path: The folder; made when missing.

    Raises:
        ConfigError: Another process owns it (named by pid), its format is newer, or the
            folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock_fd: int | None = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"opening data folder {path}: {error.strerror}") from error
        try:
            self._claim(self._lock_fd)
            self._settle_format()
        except BaseException:
            self.close()
            raise

    def free_bytes(self) -> int:
        """Give how many bytes an ordinary user can still write on the folder's disk."""
        return shutil.disk_usage(self.path).free

    def close(self) -> None:
        """Give the folder up; safe to call twice."""
        if self._lock_fd is not None:
            # The file stays: removing it would let two processes lock two files of one name.
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim(self, lock_fd: int) -> None:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigError(
                f"opening data folder {self.path}: process {owner} owns it; "
                "stop that process or choose another folder"
            ) from error
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)

    def _settle_format(self) -> None:
        if (self.path / "format").exists():
            check_format(self.path)
        else:
            # By way of a second name and onto the disk, so that neither a kill nor a disk that
            # breaks soon after leaves a half-written version behind.
            fresh = self.path / "format.new"
            with fresh.open("w", encoding="ascii") as file:
                file.write(f"{FORMAT_VERSION}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path / "format")


def check_format(path: Path) -> None:
    """Check that a data folder exists in a format this program can read.

    Raises:
        ConfigError: There is none, or it was written by a newer version.
    """
    try:
        text = (path / "format").read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"opening data folder {path}: {error.strerror}") from error
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"opening data folder {path}: format {text[:20]!r} is not a number")
    if int(text) > FORMAT_VERSION:
        raise ConfigError(
            f"opening data folder {path}: format {text} is newer than {FORMAT_VERSION}, the newest "
            "this version knows; use the version that wrote it, or a newer one"
        )


class _Job(Generic[T]):
    """A job on its way through the queue, and the future of its result."""

    def __init__(self, run: Callable[[sqlite3.Connection], T]) -> None:
        self.run = run
        self.future: Future[T] = Future()


class _Outcome(NamedTuple):
    """What a job gave or raised, to be told once the whole transaction is durable."""

    value: Any
    error: BaseException | None


def _connect_writer(path: Path, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=LOCK_TIMEOUT_S
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Without it macOS confirms what is only in the disk's own cache.
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        # Some builds overwrite what is deleted; retention would write everything twice.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        connection.executescript(f"BEGIN IMMEDIATE; {schema}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection
