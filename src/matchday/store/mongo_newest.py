"""Finding the newest documents in MongoDB, however much is stored and however large they are.

Owns the questions: which index, how far back, and what is left out. Does not own the errors
of the connection (`mongo_query`) nor the layout (`mongo_layout`).

A time series keeps readings in buckets, and the server fetches up to 32 of them ahead of a
sort that needs two. Beside a long history those come from disk: the latest of a source took 4 to
10 ms beside 100 million readings, and 0.6 without. So a question for one source says how far back
it looks: first seconds, from now and then from when the source was last stored, and further only
where that held too little. The answer is the same, since it leaves out nothing newer than the
bound.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import OperationFailure

from matchday.clock import Clock
from matchday.store.documents import EPOCH, Collection
from matchday.store.mongo_errors import BAD_VALUE
from matchday.store.mongo_layout import newest_first, newest_of_source
from matchday.store.mongo_ledger import LEDGER
from matchday.store.mongo_link import Document, MongoLink

_Ask: TypeAlias = Callable[[Document, list[Document]], list[Document]]
"""(what they match, in which order and how many): asks for documents."""

WINDOWS_S: Final = (10, 600, 3_600)
"""How far back is looked for a source. Each that holds too little costs half a millisecond."""


class Place(NamedTuple):
    """Where a document stands among others of its collection.

    Attributes:
        time: Its time.
        identity: Its `_id`, as the server has it.
    """

    time: datetime
    identity: Any


class Newest:
    """Asks one database for the newest documents of a collection.

    Args:
        link: The connection.
        clock: Tells where to look first; a wrong one costs time and changes no answer.
    """

    def __init__(self, link: MongoLink, *, clock: Clock) -> None:
        self._link = link
        self._clock = clock

    def accounts(self, *, limit: int, source: str | None) -> list[Document]:
        """Give the accounts last changed, newest first."""
        query: Document = {} if source is None else {"_id": {"$eq": source}}
        found = self._link.database[LEDGER].find(query, {"folded": 0})
        return list(found.sort([("updated_at", DESCENDING), ("_id", ASCENDING)]).limit(limit))

    def accounts_by_source(
        self, *, limit: int, source: str | None, after: str | None
    ) -> list[Document]:
        """Give the accounts by name of the source, from after a name on."""
        bound: Document = {"$gte": ""} if after is None else {"$gt": after}
        if source is not None:
            bound["$eq"] = source
        found = self._link.database[LEDGER].find({"_id": bound}, {"folded": 0})
        return list(found.sort("_id", ASCENDING).limit(limit))

    def documents(
        self, layout: Collection, *, limit: int, source: str | None, bytes_max: int | None
    ) -> list[Document]:
        """Give the newest documents by event time and `_id`, both descending.

        Which of the oldest instant are among them is up to the server, which also leaves out
        bytes above `bytes_max`; see `Query.newest`.
        """
        # Time alone, without `_id`: only so can the server stop at the first buckets.
        order: list[Document] = [{"$sort": {layout.time_field: DESCENDING}}, {"$limit": limit}]
        ask = self._asker(layout, source=source, bytes_max=bytes_max)

        def since(instant: datetime | None) -> list[Document]:
            """Give the newest documents not older than an instant; None looks at all."""
            return ask({} if instant is None else {layout.time_field: {"$gte": instant}}, order)

        if source is None or not layout.is_time_series:
            return since(None)
        return self._in_windows(since, source, limit=limit)

    def listed(
        self,
        layout: Collection,
        *,
        limit: int,
        source: str | None,
        bytes_max: int | None,
        after: Place | None,
    ) -> list[Document]:
        """Give documents by event time and `_id`, both descending, from after a place on.

        Those of one instant are asked for by themselves, and only where a page begins or ends
        among them: sorting all by `_id` too would read every bucket.
        """
        ask = self._asker(layout, source=source, bytes_max=bytes_max)
        time = layout.time_field

        def at(instant: datetime, bound: Document, count: int) -> list[Document]:
            """Give the first documents of one instant."""
            return ask({time: instant, **bound}, [{"$sort": {"_id": -1}}, {"$limit": count}])

        found: list[Document] = []
        older: Document = {}
        if after is not None:
            # Not as a condition on `_id`, which finds nothing of other types. A time series
            # also takes what has none; it is sorted as null.
            stored = {"$ifNull": ["$_id", None]}
            below = {"$expr": {"$lt": [stored, {"$literal": after.identity}]}}
            found = at(after.time, below, limit)
            older = {time: {"$lt": after.time}}
        lacking = limit - len(found)
        if not lacking:
            return found
        rest = ask(older, [{"$sort": {time: DESCENDING}}, {"$limit": lacking}])
        if len(rest) == lacking:
            last = rest[-1][time]
            rest = [one for one in rest if one[time] > last]
            rest += at(last, {}, lacking - len(rest))
        return found + rest

    def _asker(self, layout: Collection, *, source: str | None, bytes_max: int | None) -> _Ask:
        """Give how to ask for documents of a collection, or of a source in it."""
        # The planner would read every bucket of the last hour instead.
        hint = newest_first(layout) if source is None else newest_of_source(layout)
        # In a regular collection another program's may have no time.
        query: Document = {layout.time_field: {"$type": "date"}}
        if source is not None:
            query[layout.source_path] = {"$eq": source}
        last: list[Document] = []
        if bytes_max is not None and layout.bytes_fields:
            last.append({"$set": _without_long(layout, bytes_max)})
        # What was found, of one instant by `_id` as the server compares them: pages go on by it.
        last.append({"$sort": {layout.time_field: DESCENDING, "_id": DESCENDING}})

        def ask(bound: Document, order: list[Document]) -> list[Document]:
            """Give the documents that match, in this order; errors are the server's own."""
            pipeline = [{"$match": {**query, **bound}}, *order, *last]
            collection = self._link.database[layout.name]
            try:
                return list(collection.aggregate(pipeline, hint=dict(hint)))
            except OperationFailure as error:
                if error.code != BAD_VALUE:
                    raise
                # Nobody prepared this database, or somebody dropped the index.
                return list(collection.aggregate(pipeline))

        return ask

    def _in_windows(
        self, ask: Callable[[datetime | None], list[Document]], source: str, *, limit: int
    ) -> list[Document]:
        """Look further back only where too little is found.

        The first window is one that holds enough at one reading a second, and a wider one is
        left out where at the source's own pace it would not.
        """
        windows_s = [width_s for width_s in WINDOWS_S if width_s >= limit]
        if not windows_s:
            return ask(None)
        now = EPOCH + timedelta(milliseconds=self._clock.wall_ms())
        found, found_in_s = ask(now - timedelta(seconds=windows_s[0])), windows_s[0]
        end = now if found else self._last_stored(source)
        for width_s in windows_s:
            if len(found) >= limit or end is None:
                break
            if found and len(found) * width_s < limit * found_in_s:
                continue
            found, found_in_s = ask(end - timedelta(seconds=width_s)), width_s
        return found if len(found) >= limit else ask(None)

    def _last_stored(self, source: str) -> datetime | None:
        """Tell when the account of a source last changed; None where it has none."""
        account = self._link.database[LEDGER].find_one({"_id": {"$eq": source}}, {"updated_at": 1})
        changed = None if account is None else account.get("updated_at")
        return changed if isinstance(changed, datetime) else None


def _without_long(layout: Collection, bytes_max: int) -> dict[str, Any]:
    """Give the fields that say of long bytes how many they are, instead of holding them.

    The server cannot give the beginning of bytes, only all of them.
    """
    fields: dict[str, Any] = {}
    for name in layout.bytes_fields:
        value, size = f"${name}", {"$binarySize": f"${name}"}
        is_bytes = {"$eq": [{"$type": value}, "binData"]}
        is_long = {"$and": [is_bytes, {"$gt": [size, bytes_max]}]}
        whole = {"$ifNull": ["$length", size]}
        fields |= {
            name: {"$cond": [is_long, b"", value]},
            "length": {"$cond": [is_long, whole, "$length"]},
            "truncated": {"$cond": [is_long, True, "$truncated"]},
        }
    return fields
