"""Reading back what is stored in MongoDB, beside any number of writers.

Owns its own connection. Does not own how the newest are found (`mongo_newest`), the layout of
collections and of the account (`mongo_layout`, `mongo_ledger`), nor does it change anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from bson import decode, encode
from bson.errors import BSONError

from matchday.clock import Clock, SystemClock
from matchday.domain.account import Counts
from matchday.domain.instants import ms_from_datetime
from matchday.errors import RefusedError
from matchday.ports import Folded, LinkState, Listed, Partition
from matchday.store.cursors import (
    bad_cursor,
    cursor_of,
    name_cursor,
    read_cursor,
    read_name_cursor,
)
from matchday.store.documents import COLLECTIONS, EPOCH, Collection
from matchday.store.mongo_ledger import COUNTS, LEDGER
from matchday.store.mongo_link import Document, MongoLink
from matchday.store.mongo_newest import Newest, Place
from matchday.store.mongo_streams import INTERNAL, newest_streams

REPLY_TIMEOUT_S: Final = 10.0
COUNT_TIMEOUT_S: Final = 600.0
NESTED_BYTES_MAX: Final = 1000
"""An `_id` of a cursor with other values in it is at most as long, as BSON: each level takes at
least 7 bytes, and the server does not take 200."""


class MongoQuery:
    """A `Query` on one database; every call may come from any thread.

    Args:
        url: `mongodb://` or `mongodb+srv://`.
        database: Name of the database.
        clock: Dates the state of the link, and tells where to look for what is newest.

    Raises:
        ConfigError: The connection string cannot be understood.
    """

    def __init__(self, url: str, *, database: str = "server", clock: Clock | None = None) -> None:
        self._url = url
        self._database = database
        self._clock = clock or SystemClock()
        self._link = self._connect(REPLY_TIMEOUT_S)
        self._newest = Newest(self._link, clock=self._clock)

    def collections(self) -> list[str]:
        """Name the collections, sorted; the store's internal ones are left out."""
        return sorted((*COLLECTIONS, LEDGER))

    def newest(
        self,
        collection: str,
        *,
        limit: int,
        source: str | None = None,
        bytes_max: int | None = None,
    ) -> list[dict[str, Any]]:
        """Give the newest documents by event time; see `Query.newest`.

        The account shows as the collection `ledger`, last changed first.
        """
        layout = self._layout_of(collection)
        if limit < 1:
            return []
        with self._reading(collection):
            if layout is None:
                return self._newest.accounts(limit=limit, source=source)
            found = self._newest.documents(layout, limit=limit, source=source, bytes_max=bytes_max)
        return [_readable(document) for document in found]

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
        layout = self._layout_of(collection)
        if layout is None:
            return self._listed_accounts(limit=limit, source=source, after=after)
        place = self._place_of(after) if after else None
        if limit < 1:
            return []
        with self._reading(collection):
            found = self._newest.listed(
                layout, limit=limit, source=source, bytes_max=bytes_max, after=place
            )
            return [
                Listed(self._cursor_of(one, layout.time_field), _readable(one)) for one in found
            ]

    def folded(self) -> Folded:
        """Give the stored account, each source's part of one moment."""
        with self._reading("the account"):
            # First the bookmarks: what they say is folded is folded, and more may be.
            streams = newest_streams(
                list(self._link.database[INTERNAL].find({"slot": {"$exists": True}}))
            )
            accounts = list(self._link.database[LEDGER].find())
        partition_of = {key: partition for partition, (key, _) in streams.items()}
        entry_offsets: dict[tuple[str, Partition], int] = {}
        counts: dict[str, Counts] = {}
        for account in accounts:
            source = account["_id"]
            counts[source] = Counts(**{name: int(account.get(name, 0)) for name in COUNTS})
            for key, offset in account.get("folded", {}).items():
                partition = partition_of.get(key)
                if partition is not None:
                    entry_offsets[source, partition] = int(offset)
        return Folded(
            counts=counts,
            next_offsets={partition: offset for partition, (_, offset) in streams.items()},
            entry_offsets=entry_offsets,
        )

    def document_count_by_source(self) -> dict[str, int]:
        """Count the stored readings of every source document by document; slow.

        Has a connection of its own, with a time-out of `COUNT_TIMEOUT_S` seconds.
        """
        counts: dict[str, int] = {}
        link = self._connect(COUNT_TIMEOUT_S)
        try:
            for layout in COLLECTIONS.values():
                if not layout.holds_readings:
                    continue
                pipeline: list[Document] = [
                    {"$group": {"_id": f"${layout.source_path}", "count": {"$sum": 1}}}
                ]
                with link.translated(f"counting {layout.name}"):
                    for found in link.database[layout.name].aggregate(pipeline, allowDiskUse=True):
                        counts[found["_id"]] = counts.get(found["_id"], 0) + found["count"]
        finally:
            link.close()
        return counts

    def link(self) -> LinkState:
        """Tell whether the server answers, without asking it now."""
        return self._link.state()

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._link.close()

    def _listed_accounts(self, *, limit: int, source: str | None, after: str) -> list[Listed]:
        name = read_name_cursor(after) if after else None
        if limit < 1:
            return []
        with self._reading(LEDGER):
            found = self._newest.accounts_by_source(limit=limit, source=source, after=name)
        return [Listed(name_cursor(one["_id"]), one) for one in found]

    def _cursor_of(self, document: Document, time_field: str) -> str:
        """Give the cursor of a document: its `_id` as BSON, of whatever type another program took.

        Read and written as the connection does it: what has come out of it goes into it.
        """
        codec = self._link.database.codec_options
        identity = encode({"_id": document.get("_id")}, codec_options=codec)
        return cursor_of(ms_from_datetime(document[time_field]), identity)

    def _place_of(self, cursor: str) -> Place:
        time_ms, encoded = read_cursor(cursor)
        try:
            time = EPOCH + timedelta(milliseconds=time_ms)
            identity = decode(encoded, codec_options=self._link.database.codec_options)["_id"]
        except (OverflowError, BSONError, KeyError) as error:
            raise bad_cursor(cursor) from error
        if len(encoded) > NESTED_BYTES_MAX and not isinstance(identity, str | bytes):
            raise bad_cursor(cursor)
        return Place(time, identity)

    def _layout_of(self, collection: str) -> Collection | None:
        """Give how a collection is laid out; None for the account."""
        layout = COLLECTIONS.get(collection)
        if layout is None and collection != LEDGER:
            raise RefusedError(
                "no_collection",
                f"reading collection {collection[:80]!r}: there is none; "
                f"there are {', '.join(self.collections())}",
            )
        return layout

    def _connect(self, reply_timeout_s: float) -> MongoLink:
        return MongoLink(
            self._url,
            database=self._database,
            clock=self._clock,
            reply_timeout_s=reply_timeout_s,
        )

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        with self._link.translated(f"reading {what}"):
            try:
                yield
            except (BSONError, UnicodeEncodeError) as error:
                raise RefusedError("bad_query", f"reading {what}: {error}") from error


def _readable(document: dict[str, Any]) -> dict[str, Any]:
    """Give a document with plain coordinates, also where several share them."""
    stored = document.get("_id")
    if isinstance(stored, dict):
        document["_id"] = stored.get("record", stored)
    return document
