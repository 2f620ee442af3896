"""Reading back what the embedded store keeps, beside a running writer or without one.

Owns the read-only connection and the way back from a stored row to a document. Does not
own the tables (`embedded`).
"""

from __future__ import annotations

import sqlite3
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from matchday.clock import Clock, SystemClock
from matchday.domain.account import Counts
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, RefusedError, UnavailableError
from matchday.ports import Folded, LinkState, Listed, Partition
from matchday.sqlite import check_format, open_reader
from matchday.sqlite_errors import translated
from matchday.store.cursors import (
    bad_cursor,
    cursor_of,
    name_cursor,
    read_cursor,
    read_name_cursor,
)
from matchday.store.documents import COLLECTIONS, EPOCH, Collection
from matchday.store.embedded import COUNTS, FILE_NAME, document_table

LEDGER: Final = "ledger"
ROW_DIGITS_MAX: Final = 18


class EmbeddedQuery:
    """A `Query` on the store file of a data folder; this or another process may write it.

    Calls take turns on one connection, except `document_count_by_source`, which is slow
    and has its own. The account shows as the collection `ledger`.

    Args:
        folder: The data folder.
        clock: Dates the state of the link; the machine's where none is given.

    Raises:
        ConfigError: There is no store in it, or a newer version wrote it.
        UnavailableError: The file is locked; try again.
    """

    def __init__(self, folder: Path, *, clock: Clock | None = None) -> None:
        self._path = folder / FILE_NAME
        check_format(folder)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = open_reader(self._path)
        self._clock = clock or SystemClock()
        self._link = LinkState("store", True, self._clock.wall_ms(), str(self._path))

    def collections(self) -> list[str]:
        """Name the collections, sorted."""
        return sorted((*COLLECTIONS, LEDGER))

    def newest(
        self,
        collection: str,
        *,
        limit: int,
        source: str | None = None,
        bytes_max: int | None = None,
    ) -> list[dict[str, Any]]:
        """Give the newest documents by event time; see `Query.newest`."""
        if collection == LEDGER:
            return self._accounts("-updated_ms, source", limit=limit, source=source)
        found = self.listed(collection, limit=limit, source=source, bytes_max=bytes_max)
        return [one.document for one in found]

    def listed(
        self,
        collection: str,
        *,
        limit: int,
        source: str | None = None,
        bytes_max: int | None = None,
        after: str = "",
    ) -> list[Listed]:
        """Give documents page by page; see `Query.listed`."""
        if collection == LEDGER:
            name = read_name_cursor(after) if after else None
            found = self._accounts("source", limit=limit, source=source, after=name)
            return [Listed(name_cursor(one["_id"]), one) for one in found]
        layout = COLLECTIONS.get(collection)
        if layout is None:
            raise RefusedError(
                "no_collection",
                f"reading collection {collection[:80]!r}: there is none; "
                f"there are {', '.join(self.collections())}",
            )
        conditions, values = ["1"], list[int | str]()
        if source is not None:
            conditions.append("source = (SELECT id FROM sources WHERE name = ?)")
            values.append(source)
        if after:
            conditions.append("(time_ms, rowid) < (?, ?)")
            values += _place_of(after)
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT time_ms, rowid, coordinates, document"
                f" FROM {document_table(collection)} WHERE {' AND '.join(conditions)}"
                " ORDER BY time_ms DESC, rowid DESC LIMIT ?",
                (*values, limit),
            )
            # One after the other: of a long one no more than its length is kept.
            return [
                Listed(
                    cursor_of(time_ms, b"%d" % row),
                    document_from(layout, coordinates, encoded, bytes_max=bytes_max),
                )
                for time_ms, row, coordinates, encoded in rows
            ]

    def folded(self) -> Folded:
        """Give the stored part of the account, all of one moment."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                accounts = connection.execute(
                    f"SELECT source, {', '.join(COUNTS)} FROM account"
                ).fetchall()
                # The newest claim of a partition last, so that it wins over deleted topics.
                bookmarks = connection.execute(
                    "SELECT topic, partition, next_offset FROM bookmarks ORDER BY claim"
                ).fetchall()
            finally:
                connection.execute("COMMIT")
        return Folded(
            counts={source: Counts(*numbers) for source, *numbers in accounts},
            next_offsets={
                Partition(Topic(topic), number): offset for topic, number, offset in bookmarks
            },
        )

    def document_count_by_source(self) -> dict[str, int]:
        """Count the stored readings of every source document by document; slow."""
        counts: dict[str, int] = {}
        connection = open_reader(self._path)
        try:
            with translated("reading", self._path):
                for layout in COLLECTIONS.values():
                    if not layout.holds_readings:
                        continue
                    rows = connection.execute(
                        "SELECT sources.name, count(*) FROM sources"
                        f" JOIN {document_table(layout.name)} AS documents"
                        " ON documents.source = sources.id GROUP BY sources.id"
                    )
                    for source, count in rows:
                        counts[source] = counts.get(source, 0) + count
        finally:
            connection.close()
        return counts

    def link(self) -> LinkState:
        """Tell whether the file can be read."""
        try:
            with self._reading() as connection:
                connection.execute("SELECT 1 FROM bookmarks LIMIT 1").fetchone()
            is_up, detail = True, str(self._path)
        except (UnavailableError, ConfigError) as error:
            is_up, detail = False, str(error)
        if is_up != self._link.is_up:
            self._link = LinkState("store", is_up, self._clock.wall_ms(), detail)
        return self._link

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _accounts(
        self, order: str, *, limit: int, source: str | None, after: str | None = None
    ) -> list[dict[str, Any]]:
        """Give the accounts in an order, those of names behind `after`."""
        conditions, values = ["1"], list[int | str]()
        if source is not None:
            conditions.append("source = ?")
            values.append(source)
        if after is not None:
            conditions.append("source > ?")
            values.append(after)
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT source, updated_ms, {', '.join(COUNTS)} FROM account"
                f" WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [
            {
                "_id": name,
                "updated_at": EPOCH + timedelta(milliseconds=updated_ms),
                **dict(zip(COUNTS, numbers, strict=True)),
            }
            for name, updated_ms, *numbers in rows
        ]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None:
                raise UnavailableError(f"reading {self._path}: it is closed")
            with translated("reading", self._path):
                yield self._connection


def _place_of(cursor: str) -> tuple[int, int]:
    time_ms, row = read_cursor(cursor)
    if not (row.isdigit() and len(row) <= ROW_DIGITS_MAX):
        raise bad_cursor(cursor)
    return time_ms, int(row)


def document_from(
    layout: Collection, coordinates: int, encoded: bytes, *, bytes_max: int | None = None
) -> dict[str, Any]:
    """Give the document of a stored row, its coordinates as `_id`; see `embedded_text`.

    Bytes above `bytes_max` are left out; see `Query.newest`.
    """
    document: dict[str, Any] = {"_id": coordinates, **msgspec.json.decode(encoded)}
    for name in layout.time_fields:
        if name in document:
            document[name] = datetime.fromisoformat(document[name])
    for name in layout.bytes_fields:
        if name not in document:
            continue
        text = document[name]
        size = len(text) // 4 * 3 - text[-2:].count("=")
        if bytes_max is not None and size > bytes_max:
            document |= {name: b"", "length": document.get("length", size), "truncated": True}
        else:
            document[name] = b64decode(text)
    return document
