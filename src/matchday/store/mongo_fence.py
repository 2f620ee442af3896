"""Inserting rows exactly once: the protocol of `protocols.lanes` carried out on a server.

Owns what is sent to the time-series collections and how a look-up is asked; the protocol
says what is due and what each answer means. Cells of a lane (one partition, one collection)
are sent strictly in offset order, and the next one only after the server confirmed the one
before. Does not own the account nor the regular collections.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from bson import Binary, Int64
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from matchday.clock import Clock
from matchday.errors import UnavailableError
from matchday.ports import Partition, Row
from matchday.protocols.cells import Piece, pieces
from matchday.protocols.lanes import Do, Passage, Refused
from matchday.protocols.lanes import Lane as Doubt
from matchday.store.documents import Collection, datetime_of
from matchday.store.mongo_cells import documents_of, number_of, record_range
from matchday.store.mongo_errors import (
    DOCUMENT_CODES,
    DUPLICATE_KEY,
    HISTORY_INCOMPLETE,
    TRANSACTION_TOO_OLD,
    UNSENDABLE,
    is_of_no_document,
    is_transient,
    refusal_of,
)
from matchday.store.mongo_link import Document, MongoLink, session_of
from matchday.store.rows import ScalarRow

COMMENT: Final = "matchday store"
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0


@dataclass(slots=True)
class Lane:
    """The way from one partition into one collection.

    Attributes:
        partition: Where the rows come from.
        layout: The collection.
        slot: Stands for topic identity and partition in each `_id`.
        session_id: The retry log's name for this lane.
        doubt: What of it must be looked up.
        used_s: When it was last written, monotonic seconds.
        used_ms: The same by the wall clock, which also goes on while a machine sleeps.
    """

    partition: Partition
    layout: Collection
    slot: int
    session_id: UUID
    doubt: Doubt = field(default_factory=Doubt)
    used_s: float = 0.0
    used_ms: int = 0
    session: ClientSession | None = field(default=None, repr=False)


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
        lane.doubt.rested(idle_s)
        refused: list[Refused] = []
        with self._link.translated(f"writing {lane.layout.name}"):
            for piece in pieces(rows):
                passage = lane.doubt.enter(piece, has_log=self.is_fenced)
                while passage.do is not Do.NOTHING:
                    self._go_on(lane, passage, deadline_s)
                refused += passage.refused
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

    def _go_on(self, lane: Lane, passage: Passage, deadline_s: float) -> None:
        """Do what is due for a piece and tell the protocol what came of it."""
        if passage.do is Do.AWAIT_QUIET:
            self._wait_until_quiet(deadline_s)
            passage.quiet()
        elif passage.do is Do.LOOK_UP:
            passage.looked_up(self._stored(lane, passage.piece))
        else:
            self._send(lane, passage, deadline_s)

    def _send(self, lane: Lane, passage: Passage, deadline_s: float) -> None:
        """Send a piece until it is answered, or the protocol gives it up."""
        piece, is_numbered = passage.piece, passage.do is Do.SEND
        command = self._command(lane, piece, is_numbered=is_numbered)
        session = lane.session if is_numbered else None
        pause_s = PAUSE_FIRST_S
        while True:
            self._check_time(lane, passage, deadline_s)
            try:
                reply = self._link.database.command(command, session=session)
                _raise_trouble(reply)
            except UNSENDABLE as error:
                passage.not_as_a_whole(_why(error), was_sent=False)
                return
            except PyMongoError as error:
                if self._is_judged(passage, error):
                    return
                self._note_silence(passage, error, is_late=self._is_late(pause_s, deadline_s))
            else:
                passage.taken(self._refused_of(reply, lane, piece))
                return
            self._clock.wait(self._closing, pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _is_judged(self, passage: Passage, error: PyMongoError) -> bool:
        """Tell the protocol what the server said of the piece, if it said anything."""
        code = error.code if isinstance(error, OperationFailure) else None
        if code == TRANSACTION_TOO_OLD and passage.do is Do.SEND:
            passage.too_old()
        elif code == HISTORY_INCOMPLETE and passage.do is Do.SEND:
            passage.log_gone()
        elif code in DOCUMENT_CODES:
            passage.not_as_a_whole(_why(error), was_sent=True)
        else:
            return False
        return True

    def _note_silence(self, passage: Passage, error: PyMongoError, *, is_late: bool) -> None:
        """Tell the protocol of a send without answer.

        Raises:
            PyMongoError: What it was, where sending again is not due.
        """
        is_transient_now = is_transient(error) and not self._closing.is_set()
        passage.unanswered(is_in_time=is_transient_now and not is_late)
        if is_transient_now and self.is_fenced:
            self._link.note_down(str(self._link.translate(error, "writing")))
        if passage.do is Do.NOTHING:
            raise error

    def _is_late(self, pause_s: float, deadline_s: float) -> bool:
        return self._clock.monotonic_s() + pause_s > deadline_s

    def _command(self, lane: Lane, piece: Piece, *, is_numbered: bool) -> Document:
        command: Document = {
            "insert": lane.layout.name,
            "documents": documents_of(lane.slot, piece),
            "ordered": False,
            "comment": COMMENT,
            "writeConcern": self._link.database.write_concern.document,
        }
        if is_numbered:
            if lane.session is None:
                lane.session = session_of(self._link.client, lane.session_id)
            command["txnNumber"] = Int64(piece.cell)
            command["stmtIds"] = piece.numbers
        return command

    def _check_time(self, lane: Lane, passage: Passage, deadline_s: float) -> None:
        """Refuse to send when this process stood still for too long after it began."""
        late_s = self._clock.monotonic_s() - deadline_s
        if late_s > 0:
            passage.late()
            raise UnavailableError(
                f"writing {lane.layout.name} at {self._link.address}: {late_s:.1f} s past the"
                " deadline; nothing more was sent"
            )

    def _stored(self, lane: Lane, piece: Piece) -> set[int]:
        """Give the statement numbers of a piece whose documents are stored.

        Reads what the primary has, which may not be on a majority yet; the caller makes
        sure that a majority write follows (`has_looked_up`). Numbers of another type than ours
        are other programs'.
        """
        self.has_looked_up = True
        field_name = lane.layout.time_field
        times = (
            datetime_of(row.reading.t_ms)
            if type(row) is ScalarRow
            else row.document.get(field_name)
            for row in piece.rows
        )
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
                {path: {"$gte": low, "$lte": high, "$type": "long"}, field_name: between},
                {"_id": 1},
            )
        }

    def _refused_of(self, reply: Document, lane: Lane, piece: Piece) -> list[tuple[int, str]]:
        """Give the places of the rows that the server refused, and why.

        A regular collection has each `_id` once, so whoever finds his own there is repeating a
        row that the log has forgotten: it is stored. Unless another program took that `_id`.
        """
        troubles = reply.get("writeErrors", ())
        has_taken = any(one.get("code") == DUPLICATE_KEY for one in troubles)
        may_repeat = has_taken and not lane.layout.is_time_series
        stored = self._stored(lane, piece) if may_repeat else set()
        return [
            (one["index"], str(one.get("errmsg", ""))[:300])
            for one in troubles
            if one.get("code") != DUPLICATE_KEY or piece.numbers[one["index"]] not in stored
        ]

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


def _why(error: Exception) -> Callable[[Row], str]:
    """Give the reason of a refusal, worked out only for the row that is found guilty."""
    return lambda row: refusal_of(row.document, error)


def _raise_trouble(reply: Document) -> None:
    """Raise what a reply with `ok: 1` holds of other trouble than refused documents."""
    for trouble in _troubles(reply):
        if is_of_no_document(trouble):
            raise OperationFailure(str(trouble.get("errmsg")), trouble.get("code"), trouble)


def _troubles(reply: Document) -> Iterator[dict[str, Any]]:
    yield from reply.get("writeErrors", ())
    if "writeConcernError" in reply:
        yield reply["writeConcernError"]
