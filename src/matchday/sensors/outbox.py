"""The outbox: numbers messages, and keeps each one until the other side acknowledged it.

A sensor's numbering and its unacknowledged messages survive a SIGKILL in one small SQLite
file; number and message are durable before the first byte is sent, so that a number is
never given twice and never lost. Also owns the slots: which of several equal sensor
processes on one state folder is the first, the second, ... Does not own the network.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from matchday.errors import ConfigError, OverloadedError
from matchday.sensors.recorded import topic_level
from matchday.sqlite_errors import translated

FORMAT: Final = 1
MESSAGES_MAX: Final = 50_000
BYTES_MAX: Final = 64 * 2**20
SLOTS_MAX: Final = 10_000
SETTLE_COUNT: Final = 1_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS message (number INTEGER PRIMARY KEY, topic TEXT, payload BLOB);
CREATE TABLE IF NOT EXISTS series (name TEXT PRIMARY KEY, seq INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, text BLOB) WITHOUT ROWID;
"""

_encode = msgspec.json.Encoder().encode


class Draft(NamedTuple):
    """A message before it has its number.

    Attributes:
        topic: The MQTT topic.
        payload: A JSON value, or bytes to be sent as they are.
        series: The numbering that `seq` of the payload continues; None for a message that
            its contract leaves unnumbered.
    """

    topic: str
    payload: Any
    series: str | None


class Parcel(NamedTuple):
    """A message ready to be sent; numbers of one outbox only ever grow."""

    number: int
    topic: str
    payload: bytes


class Outbox:
    """Unacknowledged messages in order, bounded by count and by bytes; for one thread.

    With a path everything outlives the process; the caller holds the `Slot` that makes it
    the only user of the file. Without one it lives in memory.

    Args:
        path: The SQLite file, made when missing; None keeps everything in memory.
        messages_max: How many messages it holds before it is full.
        bytes_max: How many payload bytes it holds before it is full.

    Raises:
        ConfigError: The file cannot be used, or was written by a newer version.
        UnavailableError: The disk is full.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        messages_max: int = MESSAGES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self._path = path
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._pending: dict[int, Parcel] = {}
        self._unsent: deque[Parcel] = deque()
        self._settled: list[tuple[int]] = []
        self._pending_bytes = 0
        self._last_number = 0
        self._seqs: dict[str, int] = {}
        self._notes: dict[str, bytes] = {}
        self._file: sqlite3.Connection | None = None
        if path is not None:
            with translated("opening", path):
                self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                self._load(self._file, path)

    @property
    def pending_count(self) -> int:
        """Give how many messages are not acknowledged yet."""
        return len(self._pending)

    @property
    def is_full(self) -> bool:
        """Tell whether a bound is reached; `add` then refuses."""
        return len(self._pending) >= self._messages_max or self._pending_bytes >= self._bytes_max

    def add(self, drafts: Sequence[Draft], *, notes: Mapping[str, bytes] | None = None) -> None:
        """Number the drafts and keep them; durable on return, all of them or none.

        A batch is taken whole when there is room for one message, so the bounds may be
        passed by one batch.

        Args:
            drafts: In the order to be sent.
            notes: The caller's own state as of these messages, kept in the same
                transaction; empty bytes remove a note.

        Raises:
            OverloadedError: It is full: send, then offer the same drafts again.
            UnavailableError: The disk is full; nothing was kept.
        """
        if drafts and self.is_full:
            raise OverloadedError(
                f"keeping {len(drafts)} messages: {self.pending_count} wait already,"
                f" bounds {self._messages_max} messages, {self._bytes_max} bytes"
            )
        seqs: dict[str, int] = {}
        parcels = [
            Parcel(number, draft.topic, self._encoded(draft, seqs))
            for number, draft in enumerate(drafts, self._last_number + 1)
        ]
        if self._file is not None:
            self._write(self._file, parcels, seqs, notes or {})
        self._seqs.update(seqs)
        self._notes.update(notes or {})
        for parcel in parcels:
            self._pending[parcel.number] = parcel
            self._pending_bytes += len(parcel.payload)
        self._unsent.extend(parcels)
        if parcels:
            self._last_number = parcels[-1].number

    def note(self, name: str) -> bytes:
        """Give a note kept by `add`, empty where there is none."""
        return self._notes.get(name, b"")

    def last_seq(self, series: str) -> int:
        """Give the last number used in a series, 0 before the first."""
        return self._seqs.get(series, 0)

    def take(self) -> Parcel | None:
        """Give the next message to send, or None; it stays pending until acknowledged."""
        return self._unsent.popleft() if self._unsent else None

    def put_back(self, parcels: Sequence[Parcel]) -> None:
        """Have messages sent again, before all others that wait and in their old order."""
        self._unsent.extendleft(sorted(parcels, reverse=True))

    def rewind(self) -> None:
        """Have every unacknowledged message sent again, in order: the connection was lost."""
        self._unsent = deque(self._pending.values())

    def acknowledge(self, number: int) -> None:
        """Let a message go: the other side has it; a number unknown or repeated is nothing.

        It leaves the file with the next `add` or `settle`. A kill before that sends it
        again under its old number, and the receiver counts a duplicate.
        """
        parcel = self._pending.pop(number, None)
        if parcel is None:
            return
        self._pending_bytes -= len(parcel.payload)
        if self._file is not None:
            self._settled.append((number,))
            if len(self._settled) >= SETTLE_COUNT:
                self.settle()

    def settle(self) -> None:
        """Write the acknowledgements to the file.

        Raises:
            UnavailableError: The disk is full; try again.
        """
        if self._file is not None and self._settled:
            self._write(self._file, (), {}, {})

    def close(self) -> None:
        """Settle and close the file; safe to call twice."""
        file = self._file
        if file is not None:
            try:
                self.settle()
            finally:
                self._file = None
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encoded(self, draft: Draft, seqs: dict[str, int]) -> bytes:
        if isinstance(draft.payload, bytes):
            return draft.payload
        if draft.series is None:
            return _encode(draft.payload)
        seq = seqs.get(draft.series)
        seq = self.last_seq(draft.series) + 1 if seq is None else seq + 1
        seqs[draft.series] = seq
        return _encode({**draft.payload, "seq": seq})

    def _write(
        self,
        file: sqlite3.Connection,
        parcels: Sequence[Parcel],
        seqs: Mapping[str, int],
        notes: Mapping[str, bytes],
    ) -> None:
        assert self._path is not None
        with translated("writing", self._path):
            try:
                file.execute("BEGIN IMMEDIATE")
                file.executemany("DELETE FROM message WHERE number = ?", self._settled)
                file.executemany("INSERT INTO message VALUES (?, ?, ?)", parcels)
                file.executemany("INSERT OR REPLACE INTO series VALUES (?, ?)", seqs.items())
                file.executemany("INSERT OR REPLACE INTO note VALUES (?, ?)", notes.items())
                file.execute("COMMIT")
            except BaseException:
                if file.in_transaction:
                    file.execute("ROLLBACK")
                raise
        self._settled.clear()

    def _load(self, file: sqlite3.Connection, path: Path) -> None:
        version: int = file.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            file.close()
            raise ConfigError(f"opening outbox {path}: format {version} above {FORMAT}")
        file.execute("PRAGMA journal_mode = WAL")
        # A number sent must still be known after a power cut, or it would be given twice.
        file.execute("PRAGMA synchronous = FULL")
        file.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
        self._seqs = dict(file.execute("SELECT name, seq FROM series"))
        self._notes = dict(file.execute("SELECT name, text FROM note"))
        for row in file.execute("SELECT number, topic, payload FROM message ORDER BY number"):
            parcel = Parcel(*row)
            self._pending[parcel.number] = parcel
            self._pending_bytes += len(parcel.payload)
        self._last_number = max(self._pending, default=0)
        self._unsent = deque(self._pending.values())


class Slot:
    """The place of one sensor process among its equals, held until closed or killed.

    Attributes:
        number: 0 for the first process on a state folder, then 1, ...
        source: Prefix and number: the name under which the process publishes.
        outbox_path: Its outbox; whoever holds the slot next goes on with it.
    """

    def __init__(self, lock_fd: int, *, number: int, source: str, outbox_path: Path) -> None:
        self._lock_fd: int | None = lock_fd
        self.number = number
        self.source = source
        self.outbox_path = outbox_path

    def close(self) -> None:
        """Give the slot up; safe to call twice."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def claim_slot(state_dir: Path, *, prefix: str) -> Slot:
    """Claim the lowest slot of that prefix which no living process holds.

    The claim is a file lock, which the operating system takes back however the process
    ends; containers that share the folder on one machine exclude each other too. Messages
    in the outbox of a slot that nobody claims again stay there.

    Args:
        state_dir: Made when missing.
        prefix: Such as "sim-"; the source is prefix and number.

    Raises:
        ConfigError: The folder cannot be written, or every slot is taken.
    """
    stem = topic_level(prefix)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        for number in range(SLOTS_MAX):
            lock_fd = os.open(state_dir / f"{stem}{number}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock_fd)
                continue
            # The lock file stays: removing it would let two processes lock two files.
            return Slot(
                lock_fd,
                number=number,
                source=f"{prefix}{number}",
                outbox_path=state_dir / f"{stem}{number}.sqlite",
            )
    except OSError as error:
        raise ConfigError(f"claiming a slot in {state_dir}: {error.strerror}") from error
    raise ConfigError(f"claiming a slot in {state_dir}: {SLOTS_MAX} are taken, bound {SLOTS_MAX}")
