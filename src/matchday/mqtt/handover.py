"""What passes between the endpoint's thread and the owner of the feed, both ways.

Owns the two queues and their lock. Their bound is the endpoint's `receive_max`: every
message counts from the moment it is read until it is acknowledged, so neither queue can
hold more. Does not own sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from matchday.mqtt.publish import Batch
from matchday.ports import Deliveries

MERGE_MS: Final = 20
"""Pieces of one connection are joined while their arrival times differ by less."""


@dataclass(slots=True)
class _Piece:
    """Messages of one connection that wait for the owner."""

    origin: str
    connection: int
    arrived_ms: int
    batch: Batch


class Handover:
    """Messages to the owner, acknowledgements back; safe between the two threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pieces: list[_Piece] = []
        self._newest: dict[int, _Piece] = {}
        self._acknowledged: list[Deliveries] = []
        self._is_ended = False
        self._error: BaseException | None = None

    def offer(self, batch: Batch, *, origin: str, connection: int, arrived_ms: int) -> None:
        """Append messages of a connection for the owner (endpoint's thread)."""
        with self._changed:
            piece = self._newest.get(connection)
            if piece is not None and abs(arrived_ms - piece.arrived_ms) < MERGE_MS:
                piece.batch.topics += batch.topics
                piece.batch.payloads += batch.payloads
                piece.batch.packet_ids += batch.packet_ids
            else:
                piece = _Piece(origin, connection, arrived_ms, batch)
                self._newest[connection] = piece
                self._pieces.append(piece)
            self._changed.notify()

    def take(self, *, timeout_s: float) -> list[Deliveries]:
        """Wait for messages and give all there are, oldest first (owner's thread).

        Raises:
            RuntimeError: The endpoint's thread ended by an error nobody expected.
        """
        with self._changed:
            if not self._pieces and not self._is_ended:
                self._changed.wait(timeout_s)
            if self._error is not None:
                raise RuntimeError("the MQTT endpoint's thread has crashed") from self._error
            pieces, self._pieces = self._pieces, []
            self._newest.clear()
        return [
            Deliveries(
                origin=piece.origin,
                connection=piece.connection,
                arrived_ms=piece.arrived_ms,
                topics=piece.batch.topics,
                payloads=piece.batch.payloads,
                packet_ids=piece.batch.packet_ids,
            )
            for piece in pieces
        ]

    def acknowledge(self, deliveries: Deliveries, *, wake: Callable[[], None]) -> None:
        """Hand acknowledgements back; calls `wake` when the endpoint may be asleep."""
        with self._changed:
            if self._is_ended:
                return
            self._acknowledged.append(deliveries)
            is_first = len(self._acknowledged) == 1
        if is_first:
            wake()

    def acknowledged(self) -> list[Deliveries]:
        """Give the acknowledgements that came since the last call (endpoint's thread)."""
        with self._changed:
            given, self._acknowledged = self._acknowledged, []
        return given

    def withdraw(self) -> int:
        """Take back what the owner has not taken; give the number of messages."""
        with self._changed:
            count = sum(len(piece.batch) for piece in self._pieces)
            self._pieces.clear()
            self._newest.clear()
        return count

    def end(self, error: BaseException | None = None) -> None:
        """Tell the owner that nothing more will come, and why if by an error."""
        with self._changed:
            self._is_ended = True
            self._error = error
            self._changed.notify_all()
