"""SQLite's errors in the package's own: one table, and what a person can do about each.

Owns the translation. Does not own connections or files (`sqlite`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from matchday.errors import ConfigError, UnavailableError


@contextmanager
def translated(action: str, path: Path) -> Iterator[None]:
    """Translate SQLite's errors inside the block; `action` is a word such as "reading"."""
    try:
        yield
    except sqlite3.Error as error:
        known = translate(error, action=action, path=path)
        if known is error:
            raise
        raise known from error


def translate(error: sqlite3.Error, *, action: str, path: Path) -> Exception:
    """Give the package's error for one of SQLite's, or the same one where it is our mistake."""
    # The low byte is the primary code. Errors of Python's own module carry none.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _RETRY_AFTER_S:
        what, retry_after_s = _RETRY_AFTER_S[code]
        known: Exception = UnavailableError(
            f"{action} {path}: {what} ({error})", retry_after_s=retry_after_s
        )
    elif code in _ADVICE:
        known = ConfigError(f"{action} {path}: {error}; {_ADVICE[code]}")
    else:
        return error
    known.__cause__ = error
    return known


_RETRY_AFTER_S: Final = {
    sqlite3.SQLITE_FULL: ("the disk is full", 5.0),
    sqlite3.SQLITE_BUSY: ("another process holds the file", 0.5),
    sqlite3.SQLITE_LOCKED: ("the table is locked", 0.5),
    sqlite3.SQLITE_IOERR: ("the disk answered with an error", 5.0),
    sqlite3.SQLITE_NOMEM: ("out of memory", 5.0),
    sqlite3.SQLITE_PROTOCOL: ("another process holds the file", 0.5),
    sqlite3.SQLITE_INTERRUPT: ("interrupted", 0.5),
}
_ADVICE: Final = {
    sqlite3.SQLITE_READONLY: "let this user write the file and its folder",
    sqlite3.SQLITE_PERM: "let this user read and write the file",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and this user may write in it",
    sqlite3.SQLITE_CORRUPT: (
        "the file is damaged: stop, keep a copy of it with its -wal file, "
        "then try `sqlite3 FILE .recover` or move it away"
    ),
    sqlite3.SQLITE_NOTADB: "this is no SQLite file: move it away or choose another folder",
}
