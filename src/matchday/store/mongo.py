"""The store in MongoDB: readings and findings, each row exactly once, and the account.

A facade that puts the parts in order: rows first (`mongo_fence` for time series and readings,
upserts for dead letters), of as many writes as there are until somebody settles; then the
account (`mongo_ledger`), then the position (`mongo_streams`). What was cut off anywhere is sent
again, by anyone, with any batch boundaries, and each part finds out by itself what is done.
Does not own the shapes of documents (`documents`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo.errors import OperationFailure

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError
from matchday.ports import LinkState, Partition, PartitionWrite, Refusal, Row
from matchday.protocols.cells import Piece, pieces
from matchday.protocols.lanes import Refused
from matchday.store.documents import COLLECTIONS, Shape, collections_of
from matchday.store.mongo_cells import document_id, session_id
from matchday.store.mongo_errors import DOCUMENT_CODES, UNSENDABLE, is_of_no_document, refusal_of
from matchday.store.mongo_fence import Inserts, Lane
from matchday.store.mongo_layout import STAND_ALONE, Layout
from matchday.store.mongo_ledger import Ledger
from matchday.store.mongo_link import MongoLink
from matchday.store.mongo_owed import Owed
from matchday.store.mongo_query import MongoQuery
from matchday.store.mongo_server import ServerSettings
from matchday.store.mongo_streams import Streams, StreamSlot

__all__ = ["MongoQuery", "MongoStore"]

IO_TIMEOUT_S: Final = 15.0
REFRESH_EVERY_S: Final = 300.0
INSERTS_MAX: Final = 2
OWED_MAX: Final = 50_000
"""Rows and entries that may be owed to the account, some 200 bytes each."""


@dataclass(slots=True)
class _Claim:
    """A claimed partition: its slot, and its lanes by collection."""

    slot: StreamSlot
    lanes: dict[str, Lane] = field(default_factory=dict)


class MongoStore:
    """A `Store` in one MongoDB database; a replica set, of one member at least, is wanted.

    `claim` gives None: the stream's committed bookmark tells where to go on, and rows
    stored before are skipped here. Nothing ever raises `FencedError`: a writer that lost its
    partitions finds everything done already and changes nothing.

    Call `write` with nothing, or anything, at least every ten minutes: it keeps the server
    from forgetting the retry log of partitions at rest, which it does after thirty.

    Args:
        url: `mongodb://` or `mongodb+srv://`.
        clock: Measures time-outs, dates the state of the link and changes of the account.
        database: Name of the database.
        shape: How `sensors` is kept: by time series, or in a regular collection, which is
            cheaper where few readings of a source come in one write. Fixed by `prepare`.
        io_timeout_s: How long a write tries before it raises UnavailableError, seconds; a
            reply under way may take as long again.

    Raises:
        ConfigError: The connection string cannot be understood.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        database: str = "server",
        shape: Shape = "timeseries",
        io_timeout_s: float = IO_TIMEOUT_S,
    ) -> None:
        self._clock = clock
        self._io_timeout_s = io_timeout_s
        self._closing = threading.Event()
        self._workers = ThreadPoolExecutor(INSERTS_MAX, thread_name_prefix="store.insert")
        self._link = MongoLink(url, database=database, clock=clock, reply_timeout_s=io_timeout_s)
        self._collections = collections_of(shape)
        self._layout = Layout(self._link, clock=clock, collections=self._collections)
        self._streams = Streams(self._link)
        self._inserts = Inserts(self._link, clock=clock, closing=self._closing)
        self._ledger = Ledger(self._link, clock=clock, closing=self._closing)
        self._claims: dict[Partition, _Claim] = {}
        self._owed: dict[Partition, Owed] = {}
        self._is_probed = False
        self._refreshed_s = clock.monotonic_s()

    def prepare(self) -> None:
        """Create missing collections and indexes, check all, probe the server.

        Raises:
            ConfigError: A collection exists with other options, a newer version wrote the
                database, or the server repeats statements.
            UnavailableError: The server cannot be reached.
        """
        self._streams.prepare()
        self._layout.prepare()
        wrong = self._layout.check()
        if wrong:
            raise ConfigError(f"preparing store {self._link.address}: {'; '.join(wrong)}")
        self._probe()

    def check(self) -> list[str]:
        """Give what is wrong with version, collections and server; see `Store.check`."""
        wrong = self._streams.check() + self._layout.check()
        try:
            if not self._layout.keeps_retry_log():
                wrong.append(STAND_ALONE)
        except ConfigError as error:
            wrong.append(str(error))
        return wrong + ServerSettings(self._link).problems()

    def risks(self) -> list[str]:
        """Tell what is lost with a machine; see `Store.risks`."""
        return ServerSettings(self._link).risks()

    def unasked(self) -> list[str]:
        """Tell what the login may not ask of the server; see `Store.unasked`."""
        server = ServerSettings(self._link)
        server.problems()
        server.risks()
        return sorted(set(server.unasked))

    def claim(self, partition: Partition, topic_id: str) -> int | None:
        """Take over a partition; gives None, see the class and `Store.claim`.

        Raises:
            ConfigError: The store is not prepared, or the server cannot store exactly once.
            UnavailableError: The server cannot be reached; try again.
        """
        if not self._is_probed:
            self._probe()
        # It comes again, since the stream's bookmark has not passed it; perhaps under another
        # identity of the topic.
        self._owed.pop(partition, None)
        ids = self._layout.collection_ids()
        slot = self._streams.claim(partition, topic_id)
        claim = _Claim(slot)
        for layout in self._collections.values():
            if layout.is_numbered:
                claim.lanes[layout.name] = Lane(
                    partition,
                    layout,
                    slot.slot,
                    session_id(topic_id, ids[layout.name], partition.number),
                )
        self._claims[partition] = claim
        return None

    def write(self, writes: Sequence[PartitionWrite]) -> list[Refusal]:
        """Store rows; see `Store.write`. The account is settled when much is owed.

        Raises:
            UnavailableError: Send the same or an overlapping write again.
            ConfigError: Login or rights are wrong.
        """
        for write in writes:
            if write.partition not in self._claims:
                raise ValueError(f"writing {write.partition}: it was never claimed")
        deadline_s = self._clock.monotonic_s() + self._io_timeout_s
        refusals: list[Refusal] = []
        with self._doubting(write.partition for write in writes):
            self._refresh_sessions()
            for together in _rounds(writes):
                refusals += self._write(together, deadline_s)
        if sum(map(len, self._owed.values())) >= OWED_MAX:
            self.settle()
        return refusals

    def settle(self) -> None:
        """Fold the account, then note how far it is; see `Store.settle`.

        Raises:
            UnavailableError: Settle again.
            ConfigError: Login or rights are wrong.
        """
        if not self._owed:
            return
        deadline_s = self._clock.monotonic_s() + self._io_timeout_s
        with self._doubting(self._owed):
            self._ledger.fold(list(self._owed.values()), deadline_s=deadline_s)
            # What was found folded may be on the primary alone: wait until a majority has it.
            self._streams.advance(
                {
                    self._claims[partition].slot.document_id: owed.next_offset
                    for partition, owed in self._owed.items()
                },
                is_majority=self._ledger.has_read,
            )
        self._ledger.has_read = False
        self._owed = {}

    def link(self) -> LinkState:
        """Tell whether the server answers, without asking it now; from any thread."""
        return self._link.state()

    def close(self) -> None:
        """End pauses and close the connections; safe to call twice."""
        self._closing.set()
        self._workers.shutdown()
        self._link.close()

    def _probe(self) -> None:
        self._inserts.is_fenced = self._layout.keeps_retry_log()
        self._is_probed = True

    @contextmanager
    def _doubting(self, partitions: Iterable[Partition]) -> Iterator[None]:
        """Bring the lanes of these partitions in doubt if what is done here is cut off.

        Whatever was under way may have taken effect, and the server may be away for longer
        than its retry log lives: look up before the next send.
        """
        try:
            yield
        except BaseException:
            for partition in partitions:
                for lane in self._claims[partition].lanes.values():
                    lane.doubt.interrupted()
            raise

    def _write(self, writes: Sequence[PartitionWrite], deadline_s: float) -> list[Refusal]:
        """Do a write in which each partition occurs once."""
        self._inserts.has_looked_up = False
        refused: list[list[Refused]] = [[] for _ in writes]
        jobs: list[tuple[int, Lane, Sequence[Row]]] = []
        for place, write in enumerate(writes):
            claim = self._claims[write.partition]
            for name, rows in _by_collection(write.rows).items():
                lane = claim.lanes.get(name)
                if lane is not None:
                    jobs.append((place, lane, rows))
                else:
                    refused[place] += self._upsert(name, write.partition, claim.slot, rows)
        found = self._insert([(lane, rows) for _, lane, rows in jobs], deadline_s)
        for (place, _, _), of_lane in zip(jobs, found, strict=True):
            refused[place] += of_lane
        if self._inserts.has_looked_up:
            # What was found done may be on the primary alone: wait until a majority has it.
            self._streams.await_majority()
        refusals: list[Refusal] = []
        for write, of_write in zip(writes, refused, strict=True):
            partition = write.partition
            refusals += [Refusal(partition, row, reason) for row, reason in of_write]
            owed = self._owed.get(partition)
            if owed is None:
                owed = self._owed[partition] = Owed(self._claims[partition].slot.key)
            owed.add(write, {id(row) for row, _ in of_write})
        return refusals

    def _insert(
        self, jobs: Sequence[tuple[Lane, Sequence[Row]]], deadline_s: float
    ) -> list[list[Refused]]:
        """Store rows of several lanes, two at a time: there is no order between lanes.

        The server works on one while the other waits for its journal. Without a retry log
        one goes after the other: there a lane waits until no insert at all is at work.
        """

        def store(job: tuple[Lane, Sequence[Row]]) -> list[Refused]:
            """Store the rows of one lane; give those that the server refuses."""
            lane, rows = job
            return self._inserts.store(lane, rows, deadline_s=deadline_s)

        if len(jobs) < 2 or not self._inserts.is_fenced:
            return [store(job) for job in jobs]
        under_way = [self._workers.submit(store, job) for job in jobs]
        # Whoever learns of trouble in one may rely on it that nothing is under way any more.
        wait(under_way)
        return [one.result() for one in under_way]

    def _upsert(
        self, name: str, partition: Partition, slot: StreamSlot, rows: Sequence[Row]
    ) -> list[Refused]:
        """Put rows into a regular collection, each at its `_id`: repeating changes nothing."""
        refused: list[Refused] = []
        with self._link.translated(f"writing {name}"):
            for piece in pieces(rows):
                refused += self._upsert_piece(name, partition, slot, piece)
        return refused

    def _upsert_piece(
        self, name: str, partition: Partition, slot: StreamSlot, piece: Piece
    ) -> list[Refused]:
        updates = []
        for row, number in zip(piece.rows, piece.numbers, strict=True):
            wanted: Any = document_id(slot.slot, piece.cell, number)
            if partition.topic is not Topic.DEAD_LETTERS:
                # Several topics may end here, and only one can have the plain coordinates.
                wanted = f"{slot.key}/{row.offset}/{number}"
            updates.append({"q": {"_id": wanted}, "u": row.document, "upsert": True})
        try:
            reply = self._link.database.command(
                {
                    "update": name,
                    "updates": updates,
                    "ordered": False,
                    "writeConcern": self._link.database.write_concern.document,
                }
            )
        except (*UNSENDABLE, OperationFailure) as error:
            if isinstance(error, OperationFailure) and error.code not in DOCUMENT_CODES:
                raise
            if len(piece.rows) == 1:
                return [Refused(piece.rows[0], refusal_of(piece.rows[0].document, error))]
            first, second = piece.halves()
            return [
                *self._upsert_piece(name, partition, slot, first),
                *self._upsert_piece(name, partition, slot, second),
            ]
        return _refused_of(reply, piece)

    def _refresh_sessions(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._refreshed_s < REFRESH_EVERY_S:
            return
        self._inserts.refresh(
            [lane for claim in self._claims.values() for lane in claim.lanes.values()]
        )
        self._refreshed_s = now_s


def _refused_of(reply: dict[str, Any], piece: Piece) -> list[Refused]:
    troubles = [*reply.get("writeErrors", ())]
    if "writeConcernError" in reply:
        troubles.append(reply["writeConcernError"])
    refused = []
    for trouble in troubles:
        if is_of_no_document(trouble):
            raise OperationFailure(str(trouble.get("errmsg")), trouble.get("code"), trouble)
        refused.append(Refused(piece.rows[trouble["index"]], str(trouble.get("errmsg"))[:300]))
    return refused


def _by_collection(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        own = found.get(row.collection)
        if own is None:
            if row.collection not in COLLECTIONS:
                raise ValueError(f"writing to {row.collection!r}: no such collection")
            own = found[row.collection] = []
        own.append(row)
    return found


def _rounds(writes: Sequence[PartitionWrite]) -> list[list[PartitionWrite]]:
    """Split a write so that each partition occurs once in a round, keeping the order."""
    rounds: list[list[PartitionWrite]] = []
    seen: set[Partition] = set()
    for write in writes:
        if not rounds or write.partition in seen:
            rounds.append([])
            seen = set()
        rounds[-1].append(write)
        seen.add(write.partition)
    return rounds
