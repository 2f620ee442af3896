"""Live data to every open tab: one WebSocket each, one encoding per tick for all of them.

Owns the ticks, the clients and their queues. A client's queue is bounded: when it is full
the oldest message is dropped and counted, and the client gets all latest values as soon
as it has caught up, so that nothing stays wrong on its page. A slow client costs its own
queue and nothing else. What changes after a quiet moment is sent at once, and what follows at
most once a tick; while nothing changes nearly nothing is done.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from matchday.dashboard import messages
from matchday.dashboard.board import Board, Changes
from matchday.dashboard.live import Slow, Watch
from matchday.observe.events import LiveMessagesDropped, emit

POSITIONS_EVERY_S = 0.04
VALUES_EVERY_S = 0.06
STATE_EVERY_TICKS = 4
"""Every so many ticks of values the state is sent whole, figures and zones with it."""
QUIET_STATE_EVERY_S = 0.5
"""The same while nothing changes: rates go down, objects expire, links and account change."""
SOURCES_EVERY_STATES = 4
QUEUE_MAX = 32
CLIENTS_MAX = 500
SEND_S_MAX = 20.0
"""A client that takes nothing for this long is disconnected; it comes back by itself."""

_encoder = msgspec.json.Encoder()


class Mailbox:
    """A bounded queue of encoded messages for one client; belongs to the event loop.

    Full means: the oldest message goes, `dropped` counts it and `has_gap` is set.
    """

    def __init__(self, *, size_max: int = QUEUE_MAX) -> None:
        self._messages: deque[str] = deque()
        self._size_max = size_max
        self._arrived = asyncio.Event()
        self.dropped = 0
        self.has_gap = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: str) -> int:
        """Queue a message without waiting; give how many old ones had to go (0 or 1)."""
        lost = 0
        if len(self._messages) >= self._size_max:
            self._messages.popleft()
            self.dropped += 1
            self.has_gap = True
            lost = 1
        self._messages.append(message)
        self._arrived.set()
        return lost

    async def get(self) -> str:
        """Wait for the oldest message and take it."""
        while not self._messages:
            self._arrived.clear()
            await self._arrived.wait()
        return self._messages.popleft()


class Hub:
    """All live clients; every method belongs to the event loop."""

    def __init__(self, board: Board, watch: Watch) -> None:
        self._board = board
        self._watch = watch
        self._clients: dict[Mailbox, str] = {}
        self._is_watched = asyncio.Event()
        self._last = Slow()
        self._moved = asyncio.Event()
        self._valued = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_told = False
        self._states = 0
        self.dropped = 0
        board.on_change = self._hear

    @property
    def client_count(self) -> int:
        """How many live connections are open."""
        return len(self._clients)

    # --- ticks -----------------------------------------------------------------------------

    async def run_positions(self) -> None:
        """Send positions while somebody watches, at most one tick apart, until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._is_watched.wait()
            await self._moved.wait()
            self._moved.clear()
            self.send_positions()
            await asyncio.sleep(POSITIONS_EVERY_S)

    async def run_state(self) -> None:
        """Send everything else while somebody watches, until cancelled."""
        ticks = 0
        while True:
            await self._is_watched.wait()
            try:
                async with asyncio.timeout(QUIET_STATE_EVERY_S):
                    await self._valued.wait()
            except TimeoutError:
                ticks = 0
            self._valued.clear()
            if ticks % STATE_EVERY_TICKS == 0:
                self.send_state()
            else:
                self.send_values()
            ticks += 1
            await asyncio.sleep(VALUES_EVERY_S)

    def _hear(self) -> None:
        """Learn, in any thread, that the board has changed; wakes the ticks once."""
        loop = self._loop
        # What is on the board before this is read after `_wake`: so one call is enough.
        if self._clients and not self._is_told and loop is not None and not loop.is_closed():
            self._is_told = True
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_told = False
        self._moved.set()
        self._valued.set()

    def send_positions(self) -> None:
        """Encode and queue the positions that changed, once per venue watched."""
        for venue, mailboxes in self._by_venue().items():
            message = self._board.positions(venue)
            if message.frames:
                self._put(mailboxes, _encode(message))

    def send_values(self) -> None:
        """Encode and queue values, forecasts and metrics that changed, if any did."""
        changes = self._board.changes()
        if not (changes.series or changes.forecasts or changes.metrics):
            return
        for venue, mailboxes in self._by_venue().items():
            message = messages.StateMessage(
                tiles=self._board.tiles(venue, clients=len(self._clients), dropped=self.dropped),
                series=changes.series,
                forecasts=changes.forecasts,
                metrics=changes.metrics,
            )
            self._put(mailboxes, _encode(message))

    def send_state(self) -> None:
        """Encode and queue what changed besides positions, once per venue watched."""
        self._states += 1
        if not self._clients:
            return
        changes = self._board.changes()
        slow = self._watch.slow
        news, self._last = _news(slow, since=self._last), slow
        with_sources = self._states % SOURCES_EVERY_STATES == 0
        for venue, mailboxes in self._by_venue().items():
            message = self._state(venue, changes, news, with_sources=with_sources)
            self._put(mailboxes, _encode(message))

    def snapshot(self, venue: str) -> list[str]:
        """Encode all latest values, for a client that has just come or lost messages."""
        state = self._state(venue, self._board.everything(), self._watch.slow, with_sources=True)
        return [_encode(state), _encode(self._board.positions(venue, everything=True))]

    # --- clients ---------------------------------------------------------------------------

    async def serve(self, socket: WebSocket) -> None:
        """Serve one tab until it goes away; `?venue=` says what it looks at."""
        if len(self._clients) >= CLIENTS_MAX:
            await socket.close(1013, "too many live connections")
            return
        await socket.accept()
        mailbox = Mailbox()
        venue = socket.query_params.get("venue", "")
        self._clients[mailbox] = venue
        self._is_watched.set()
        self._watch.follow(is_watched=True)
        sender = asyncio.create_task(
            self._send(socket, mailbox, venue), name="dashboard.live_sender"
        )
        try:
            # Nothing is expected from the page; reading is how its leaving is noticed.
            await socket.receive_text()
            await socket.close(1008, "the live view takes no messages")
        except (WebSocketDisconnect, KeyError):
            pass
        finally:
            self._clients.pop(mailbox, None)
            if not self._clients:
                self._is_watched.clear()
                self._watch.follow(is_watched=False)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, socket: WebSocket, mailbox: Mailbox, venue: str) -> None:
        batch = self.snapshot(venue)
        try:
            while True:
                for message in batch:
                    # Not `wait_for`: up to Python 3.11 it can swallow a cancellation.
                    async with asyncio.timeout(SEND_S_MAX):
                        await socket.send_text(message)
                if mailbox.has_gap and not len(mailbox):
                    mailbox.has_gap = False
                    batch = self.snapshot(venue)
                else:
                    batch = [await mailbox.get()]
        except TimeoutError:
            await _disconnect(socket)
        except (WebSocketDisconnect, RuntimeError):
            # The reading side notices the same disconnection and cleans up.
            return

    def _put(self, mailboxes: list[Mailbox], message: str) -> None:
        lost = sum(mailbox.put(message) for mailbox in mailboxes)
        if lost:
            self.dropped += lost
            emit(LiveMessagesDropped(count=lost))

    def _by_venue(self) -> dict[str, list[Mailbox]]:
        groups: dict[str, list[Mailbox]] = {}
        for mailbox, venue in self._clients.items():
            groups.setdefault(venue, []).append(mailbox)
        return groups

    def _state(
        self, venue: str, changes: Changes, slow: Slow, *, with_sources: bool
    ) -> messages.StateMessage:
        return messages.StateMessage(
            tiles=self._board.tiles(venue, clients=len(self._clients), dropped=self.dropped),
            series=changes.series,
            forecasts=changes.forecasts,
            zones=self._board.zones(venue),
            metrics=changes.metrics,
            sources=self._board.sources() if with_sources else None,
            ledger=slow.ledger,
            ledger_error=slow.ledger_error,
            links=list(slow.links) or None,
        )


def _news(slow: Slow, *, since: Slow) -> Slow:
    """Give what of the slow states has changed; the account and its error belong together."""
    is_same = (slow.ledger, slow.ledger_error) == (since.ledger, since.ledger_error)
    return Slow(
        None if is_same else slow.ledger,
        None if is_same else slow.ledger_error,
        () if slow.links == since.links else slow.links,
    )


def _encode(message: messages.LiveMessage) -> str:
    return _encoder.encode(message).decode()


async def _disconnect(socket: WebSocket) -> None:
    try:
        async with asyncio.timeout(1.0):
            await socket.close(1013, "too slow")
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        # Already gone, which is what was asked for.
        return
