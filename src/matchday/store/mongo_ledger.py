"""The account in MongoDB: one document per source, to which every change is added once.

Owns the collection `ledger`. A document holds the counts of its source and, per stream
partition, the offset up to which that partition's changes are in them:

    {_id: source, accepted: ..., stored: ..., folded: {"analytics-3": 41987}, updated_at: ...}

Both change in one update of one document, which takes effect only if the offset is still the
one read before (compare and set). So a change is added once, whatever crashed, overlapped or
was frozen: whoever comes second finds another offset, reads again, and adds what is left.
Does not own what is to be added (`mongo_owed`) nor when: only what is durably stored may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from threading import Event
from typing import Final

import msgspec
from pymongo.errors import PyMongoError

from matchday.clock import Clock
from matchday.domain.account import Counts
from matchday.errors import UnavailableError
from matchday.protocols.positions import New, new_part
from matchday.store.documents import EPOCH
from matchday.store.mongo_errors import DUPLICATE_KEY, is_transient
from matchday.store.mongo_link import Document, MongoLink
from matchday.store.mongo_owed import Owed, Share

LEDGER: Final = "ledger"
COUNTS: Final = Counts.__struct_fields__
SOURCES_KEPT: Final = 200_000
UPDATES_MAX: Final = 5000
PAUSE_S: Final = 0.05


class Ledger:
    """Folds what is owed into the account; one thread uses it.

    What each source's document has folded is remembered, so that folding costs one command.
    `has_read` says that documents were read since it was last made False: what they say is
    the primary's word, and a write to a majority must follow before it can be relied on.

    Args:
        link: The connection.
        clock: Measures deadlines, dates changes.
        closing: Ends pauses.
    """

    def __init__(self, link: MongoLink, *, clock: Clock, closing: Event) -> None:
        self._link = link
        self._clock = clock
        self._closing = closing
        self._folded: dict[str, dict[str, int]] = {}
        self.has_read = False

    def fold(self, owed: Sequence[Owed], *, deadline_s: float) -> None:
        """Add to the account what is not in it; durable on a majority when it returns.

        Args:
            owed: By partition; every row of it is stored, or refused for good.
            deadline_s: Monotonic time at which to give up.

        Raises:
            UnavailableError: Part of it may be folded; fold the same or more again.
        """
        wanted: dict[str, list[tuple[Owed, Share]]] = {}
        for one in owed:
            for source, share in one.shares().items():
                wanted.setdefault(source, []).append((one, share))
        sources = list(wanted)
        with self._link.translated("folding the account"):
            for begin in range(0, len(sources), UPDATES_MAX):
                some = {source: wanted[source] for source in sources[begin : begin + UPDATES_MAX]}
                while not self._try(some):
                    if self._clock.monotonic_s() > deadline_s:
                        raise UnavailableError(
                            f"folding the account at {self._link.address}: others keep changing"
                            f" it, or it does not answer; {len(some)} sources in doubt"
                        )
                    self._clock.wait(self._closing, PAUSE_S)
        if len(self._folded) > SOURCES_KEPT:
            self._folded.clear()

    def _try(self, wanted: dict[str, list[tuple[Owed, Share]]]) -> bool:
        """Send one command for these sources; tell whether all of it is certain now."""
        unknown = [source for source in wanted if source not in self._folded]
        updates: list[Document] = []
        after: dict[str, dict[str, int]] = {}
        now = EPOCH + timedelta(milliseconds=self._clock.wall_ms())
        try:
            if unknown:
                self._read(unknown)
            for source, shares in wanted.items():
                folded = self._folded[source]
                update, offsets = self._update(source, folded, shares, now)
                if update is not None:
                    updates.append(update)
                    after[source] = folded | offsets
            if not updates:
                return True
            is_certain = self._send(updates)
        except PyMongoError as error:
            self._forget(after or wanted)
            if not is_transient(error) or self._closing.is_set():
                raise
            self._link.note_down(str(self._link.translate(error, "folding the account")))
            return False
        except BaseException:
            self._forget(after or wanted)
            raise
        if is_certain:
            self._folded.update(after)
        else:
            self._forget(after)
        return is_certain

    def _read(self, sources: list[str]) -> None:
        self.has_read = True
        found = self._link.database[LEDGER].find({"_id": {"$in": sources}}, {"folded": 1})
        self._folded.update((source, {}) for source in sources)
        self._folded.update((document["_id"], document.get("folded", {})) for document in found)

    def _update(
        self, source: str, folded: dict[str, int], shares: list[tuple[Owed, Share]], now: datetime
    ) -> tuple[Document | None, dict[str, int]]:
        """Give the update that adds what is not folded, and the offsets it leads to."""
        counts: Counts | None = None
        offsets: dict[str, int] = {}
        query: Document = {"_id": source}
        put: Document = {"updated_at": now}
        for owed, whole in shares:
            known = folded.get(owed.key)
            share: Share | None = whole
            new = new_part(0 if known is None else known + 1, first=whole.first, last=whole.last)
            if new is not New.ALL:
                share = owed.share_above(known or 0, source) if new is New.REST else None
            if share is None:
                continue
            path = f"folded.{owed.key}"
            query[path] = {"$exists": False} if known is None else known
            put[path] = offsets[owed.key] = share.last
            if counts is None:
                counts = share.counts
            else:
                total = Counts()
                total.add(counts)
                total.add(share.counts)
                counts = total
        if counts is None:
            return None, offsets
        change: Document = {"$set": put}
        values = zip(COUNTS, msgspec.structs.astuple(counts), strict=True)
        added = {name: value for name, value in values if value}
        if added:
            change["$inc"] = added
        # With something folded already the document exists; making it would be a mistake.
        return {"q": query, "u": change, "upsert": not folded}, offsets

    def _send(self, updates: list[Document]) -> bool:
        reply = self._link.database.command(
            {
                "update": LEDGER,
                "updates": updates,
                "ordered": False,
                "writeConcern": self._link.database.write_concern.document,
            }
        )
        errors = reply.get("writeErrors", ())
        # Another writer made the document between our reading and our update.
        is_known = all(error.get("code") == DUPLICATE_KEY for error in errors)
        if not is_known or "writeConcernError" in reply:
            return False
        return not errors and reply["n"] == len(updates)

    def _forget(self, sources: Iterable[str]) -> None:
        for source in sources:
            self._folded.pop(source, None)
