"""Inserting rows exactly once: the protocol on top of the arithmetic of `mongo_cells`.

Owns what is sent to the time-series collections and what each answer means. Cells of a lane
(one partition, one collection) are sent strictly in offset order, and the next one only
after the server confirmed the one before, so what is stored is a gapless beginning plus
any part of one cell. Does not own the account nor the regular collections.

What the retry log does not know is looked up. A lane starts *in doubt*: the server forgets
its log half an hour after the last use, so a writer that takes over first asks which `_id`
of its cell are stored and sends the rest. It also does so after every failed write and after
a rest of `SURE_FOR_S`. Once a
row found absent was accepted in cell n, nothing beyond cell n can be stored already, and
from n + 1 on the log alone decides. Trusting a log because it exists is not enough: after a
forgotten log it may hold only the second half of a cell. A look-up alone is not enough
either, since a frozen writer sends after it: the log refuses it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from bson import Binary, Int64
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from matchday.clock import Clock
from matchday.errors import UnavailableError
from matchday.ports import Partition, Row
from matchday.store.documents import Collection
from matchday.store.mongo_cells import Piece, document_id, number_of, pieces, record_range
from matchday.store.mongo_errors import (
    DOCUMENT_CODES,
    HISTORY_INCOMPLETE,
    TRANSACTION_TOO_OLD,
    UNSENDABLE,
    is_of_no_document,
    is_transient,
    refusal_of,
)
from matchday.store.mongo_link import Document, MongoLink, session_of

COMMENT: Final = "matchday store"
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0
# Well below the 30 minutes after which a server forgets. Whoever was frozen for longer may
# find his rows stored by another and the log of that gone again.
SURE_FOR_S: Final = 600.0
NOT_STORED: Final = "the store refused it in an earlier write"


class Refused(NamedTuple):
    """A row that can never be stored, and why."""

    row: Row
    reason: str


@dataclass(slots=True)
class Lane:
    """The way from one partition into one collection.

    Attributes:
        partition: Where the rows come from.
        layout: The collection.
        slot: Stands for topic identity and partition in each `_id`.
        session_id: The retry log's name for this lane.
        sure_from: The first cell of which nothing can be stored that the retry log does not
            know; None means in doubt.
        sent_to: The offset after the last one sent; without a retry log, what lies below it is
            looked up too.
        used_s: When it was last written, monotonic seconds.
        used_ms: The same by the wall clock, which also goes on while a machine sleeps.
    """

    partition: Partition
    layout: Collection
    slot: int
    session_id: UUID
    sure_from: int | None = None
    sent_to: int = 0
    used_s: float = 0.0
    used_ms: int = 0
    session: ClientSession | None = field(default=None, repr=False)

    def is_doubted(self, cell: int) -> bool:
        """Tell whether rows of that cell must be looked up before they are sent."""
        return self.sure_from is None or cell < self.sure_from


class _Sent(NamedTuple):
    accepted: int
    refused: list[Refused]


class Inserts:
    """Sends rows of lanes and finds out what became of them. One thread uses it.

    Args:
        link: The connection.
        clock: Measures deadlines and pauses.
        closing: Set when the store is being closed; ends pauses.
    """

    def __init__(self, link: MongoLink, *, clock: Clock, closing: threading.Event) -> None:
        self._link = link
        self._clock = clock
        self._closing = closing
        self.is_fenced = True
        self.has_looked_up = False

    def store(self, lane: Lane, rows: Sequence[Row], *, deadline_s: float) -> list[Refused]:
        """Store rows, in offset order, each once however often they come; give those refused.

        Args:
            lane: Their lane; its doubt is cleared as it goes.
            rows: Rows of the lane's partition and collection.
            deadline_s: Monotonic time after which nothing is sent any more.

        Raises:
            UnavailableError: Send the same or overlapping rows again, with the lane in doubt.
        """
        idle_s = max(
            self._clock.monotonic_s() - lane.used_s, (self._clock.wall_ms() - lane.used_ms) / 1000
        )
        if idle_s > SURE_FOR_S:
            lane.sure_from = None
        refused: list[Refused] = []
        with self._link.translated(f"writing {lane.layout.name}"):
            for piece in pieces(rows):
                refused += self._store_piece(lane, piece, deadline_s)
        lane.used_s, lane.used_ms = self._clock.monotonic_s(), self._clock.wall_ms()
        return refused

    def refresh(self, lanes: Sequence[Lane]) -> None:
        """Keep the server from forgetting the logs of these lanes.

        Raises:
            UnavailableError: The server does not answer; try again.
        """
        if not lanes or not self.is_fenced:
            return
        ids = [{"id": Binary.from_uuid(lane.session_id)} for lane in lanes]
        with self._link.translated("keeping sessions alive"):
            self._link.client.admin.command({"refreshSessions": ids})

    def _store_piece(self, lane: Lane, piece: Piece, deadline_s: float) -> list[Refused]:
        is_doubted = lane.is_doubted(piece.cell)
        if is_doubted or (not self.is_fenced and piece.rows[0].offset < lane.sent_to):
            if not self.is_fenced:
                self._wait_until_quiet(deadline_s)
            piece = piece.without(self._stored(lane, piece))
            if not piece.rows:
                return []
        lane.sent_to = max(lane.sent_to, piece.rows[-1].offset + 1)
        sent = self._send(lane, piece, deadline_s)
        if is_doubted and sent.accepted:
            lane.sure_from = piece.cell + 1
        return sent.refused

    def _send(self, lane: Lane, piece: Piece, deadline_s: float) -> _Sent:
        """Send a piece; halve it while it cannot be sent or taken as a whole."""
        try:
            if self.is_fenced:
                reply = self._fenced(lane, piece, deadline_s)
            else:
                reply = self._plain(lane, piece, deadline_s)
        except UNSENDABLE as error:
            return self._send_halves(lane, piece, deadline_s, error)
        except OperationFailure as error:
            if error.code == TRANSACTION_TOO_OLD:
                return self._settled(lane, piece)
            if error.code == HISTORY_INCOMPLETE and self.is_fenced:
                return self._without_log(lane, piece, deadline_s)
            if error.code in DOCUMENT_CODES:
                return self._send_halves(lane, piece, deadline_s, error)
            raise
        refused = [
            Refused(piece.rows[trouble["index"]], str(trouble.get("errmsg", ""))[:300])
            for trouble in reply.get("writeErrors", ())
        ]
        return _Sent(len(piece.rows) - len(refused), refused)

    def _send_halves(self, lane: Lane, piece: Piece, deadline_s: float, error: Exception) -> _Sent:
        if len(piece.rows) == 1:
            row = piece.rows[0]
            return _Sent(0, [Refused(row, refusal_of(row.document, error))])
        if not self.is_fenced and isinstance(error, OperationFailure):
            # Part of the rows may be stored, and without numbers nothing would skip them.
            before = len(piece.rows)
            piece = piece.without(self._stored(lane, piece))
            if len(piece.rows) < before:
                rest = self._send(lane, piece, deadline_s) if piece.rows else _Sent(0, [])
                return _Sent(rest.accepted + before - len(piece.rows), rest.refused)
        first, second = (self._send(lane, half, deadline_s) for half in piece.halves())
        return _Sent(first.accepted + second.accepted, first.refused + second.refused)

    def _settled(self, lane: Lane, piece: Piece) -> _Sent:
        """Judge a cell that somebody finished: what is not stored was refused."""
        stored = self._stored(lane, piece)
        rest = piece.without(stored)
        return _Sent(0, [Refused(row, NOT_STORED) for row in rest.rows])

    def _without_log(self, lane: Lane, piece: Piece, deadline_s: float) -> _Sent:
        """Store the rest of a cell whose beginning the oplog has dropped.

        The server refuses every statement it cannot judge until the next cell begins. Only
        here is a replica set as unprotected from a frozen writer as a stand-alone server.
        """
        rest = piece.without(self._stored(lane, piece))
        if not rest.rows:
            return _Sent(0, [])
        self._check_time(lane, deadline_s)
        reply = self._link.database.command(self._command(lane, rest))
        _raise_trouble(reply)
        refused = [
            Refused(rest.rows[trouble["index"]], str(trouble.get("errmsg", ""))[:300])
            for trouble in reply.get("writeErrors", ())
        ]
        return _Sent(0, refused)

    def _fenced(self, lane: Lane, piece: Piece, deadline_s: float) -> Document:
        """Send a piece with its numbers until it is answered; repeating it is harmless."""
        if lane.session is None:
            lane.session = session_of(self._link.client, lane.session_id)
        command = self._command(lane, piece)
        command["txnNumber"] = Int64(piece.cell)
        command["stmtIds"] = piece.numbers
        pause_s = PAUSE_FIRST_S
        while True:
            self._check_time(lane, deadline_s)
            try:
                reply = self._link.database.command(command, session=lane.session)
                _raise_trouble(reply)
            except PyMongoError as error:
                if not is_transient(error) or self._closing.is_set():
                    raise
                self._link.note_down(str(self._link.translate(error, "writing")))
                if self._clock.monotonic_s() + pause_s > deadline_s:
                    raise
            else:
                return reply
            self._clock.wait(self._closing, pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _plain(self, lane: Lane, piece: Piece, deadline_s: float) -> Document:
        """Send a piece without numbers, once: after a failure only a look-up can tell."""
        self._check_time(lane, deadline_s)
        reply: Document = self._link.database.command(self._command(lane, piece))
        _raise_trouble(reply)
        return reply

    def _command(self, lane: Lane, piece: Piece) -> Document:
        cell, slot = piece.cell, lane.slot
        return {
            "insert": lane.layout.name,
            "documents": [
                {"_id": document_id(slot, cell, number), **row.document}
                for row, number in zip(piece.rows, piece.numbers, strict=True)
            ],
            "ordered": False,
            "comment": COMMENT,
            "writeConcern": self._link.database.write_concern.document,
        }

    def _check_time(self, lane: Lane, deadline_s: float) -> None:
        """Refuse to send when this process stood still for too long after it began.

        The log refuses a frozen writer anyway, as long as it is kept. This covers a process
        that was frozen for longer than the log lives, and a stand-alone server but for the
        moment between this line and the sending.
        """
        late_s = self._clock.monotonic_s() - deadline_s
        if late_s > 0:
            raise UnavailableError(
                f"writing {lane.layout.name} at {self._link.address}: {late_s:.1f} s past the"
                " deadline; nothing more was sent"
            )

    def _stored(self, lane: Lane, piece: Piece) -> set[int]:
        """Give the statement numbers of a piece whose documents are stored.

        Reads what the primary has, which may not be on a majority yet; the caller makes
        sure that a majority write follows (`has_looked_up`).
        """
        self.has_looked_up = True
        field_name = lane.layout.time_field
        times = [row.document.get(field_name) for row in piece.rows]
        known = [at for at in times if isinstance(at, datetime)]
        if not known:
            return set()
        low, high = record_range(lane.slot, piece)
        # Stored times have milliseconds: the lower bound must not lie above one.
        earliest = min(known)
        earliest = earliest.replace(microsecond=earliest.microsecond // 1000 * 1000)
        between = {"$gte": earliest, "$lte": max(known)}
        paths = ["_id", "_id.record"] if piece.has_shared_records else ["_id"]
        collection = self._link.database.get_collection(
            lane.layout.name, read_concern=ReadConcern("local")
        )
        return {
            number_of(document["_id"])
            for path in paths
            for document in collection.find(
                {path: {"$gte": low, "$lte": high}, field_name: between}, {"_id": 1}
            )
        }

    def _wait_until_quiet(self, deadline_s: float) -> None:
        """Wait until no insert of ours is at work in a stand-alone server.

        One whose answer was lost may still be running and is not in any look-up yet.
        """
        pipeline: list[Document] = [
            {"$currentOp": {}},
            {"$match": {"op": "insert", "command.comment": COMMENT}},
            {"$limit": 1},
        ]
        while list(self._link.client.admin.aggregate(pipeline)):
            if self._clock.monotonic_s() > deadline_s:
                raise UnavailableError(
                    f"writing at {self._link.address}: an earlier insert is still at work"
                )
            self._clock.wait(self._closing, PAUSE_FIRST_S)


def _raise_trouble(reply: Document) -> None:
    """Raise what a reply with `ok: 1` holds of other trouble than refused documents."""
    for trouble in _troubles(reply):
        if is_of_no_document(trouble):
            raise OperationFailure(str(trouble.get("errmsg")), trouble.get("code"), trouble)


def _troubles(reply: Document) -> Iterator[dict[str, Any]]:
    yield from reply.get("writeErrors", ())
    if "writeConcernError" in reply:
        yield reply["writeConcernError"]
