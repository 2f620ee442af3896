"""The endpoint's thread: accepts sensors, reads and answers them, holds them back.

Owns the listening socket, all connections and the bound over all of them. Does not own MQTT
(`peer`), what is waited for (`watch`) or the feed's calls (`endpoint`).

Back-pressure: at the bound nothing more is read from accepted clients, so TCP holds them
back and nothing is dropped. The round of reading that reaches it is the last, and a round has
a bound of its own, however many clients there are: whose turn did not come is first in the
next. Their keep-alive goes on: once a second the bytes that wait are looked at without taking
them, a PINGREQ in front is answered, anything else counts as a sign of life. New clients are
greeted meanwhile; what they sent with CONNECT waits.
"""

from __future__ import annotations

import random
import selectors
import socket
import ssl
import threading
from typing import Final

from matchday.clock import Clock
from matchday.errors import UnavailableError
from matchday.mqtt.channel import READ_BYTES, Channel, listen
from matchday.mqtt.codes import Code, ProtocolError, code_name
from matchday.mqtt.handover import Handover
from matchday.mqtt.peer import Peer
from matchday.mqtt.settings import EndpointSettings
from matchday.mqtt.watch import Watch
from matchday.observe.events import SensorConnected, SensorDropped, SensorRefused, emit

SWEEP_S: Final = 1.0
CALM_MESSAGES_MAX: Final = 32
"""A round of reading that gave no more than this is calm: the next may come later."""
CALM_LINGERS: Final = 2
"""So many times `linger_s` is then the least time to the next round: with 5 ms, up to 3,200
messages a second are read 100 times, and not 200 times."""
ACCEPTS_PER_ROUND: Final = 64
ROUND_BYTES: Final = 2**20
"""Read in one round from all accepted clients; after a pause all of them may have sent much.

To stop within a round, at the bound on messages, would cost a third of the rate of ten clients:
so few messages are in hand that the owner waits for more."""
PIECE_BYTES_MIN: Final = 16_384
"""The least that is read at once: a record of TLS, of the rest of which nobody would tell.

A new client is read by no more, so that little of it has to wait while others are held back.
"""
GOODBYE_S: Final = 1.0
"""How long an ended connection may take to read the reason, seconds."""


class Listener:
    """The server side of the endpoint; `run` is its thread, `wake` and `stop` are for others."""

    def __init__(
        self, settings: EndpointSettings, *, clock: Clock, rng: random.Random, handover: Handover
    ) -> None:
        """Bind the port.

        Raises:
            ConfigError: The port is in use or cannot be had; names it and its flag.
        """
        self._settings = settings
        self._clock = clock
        self._handover = handover
        self._server = listen(settings.host, settings.port)
        self.port = int(self._server.getsockname()[1])
        self._watch = Watch()
        self._waker, self._woken = socket.socketpair()
        for sock in (self._server, self._waker, self._woken):
            sock.setblocking(False)
        self._watch.add(self._server)
        self._watch.add(self._woken)
        # Ids given to clients without one must not meet those of the process before.
        self._assigned_prefix = f"unnamed-{rng.getrandbits(32):08x}"
        self._peers: dict[int, Peer] = {}
        self._peer_by_client: dict[str, Peer] = {}
        self._connection_count = 0
        self._open_count = 0
        self._open_bytes = 0
        self._is_accepting = True
        self._swept_s = clock.monotonic_s()
        self._taken_s = float("-inf")
        self._taken_count = 0
        self._round_bytes = 0
        self._is_calm = False
        self._never = threading.Event()
        self._drain_s: float | None = None

    # --- from other threads -----------------------------------------------------------------

    def wake(self) -> None:
        """Let the thread look for acknowledgements and for `stop`; any thread."""
        try:
            self._waker.send(b"\0")
        except OSError:
            return  # Full: it will wake anyway. Closed: there is nobody to wake.

    def stop(self, *, drain_s: float) -> None:
        """Ask the thread to end, waiting at most `drain_s` for acknowledgements; any thread."""
        self._drain_s = drain_s
        self.wake()

    # --- the thread -------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`; an unexpected error ends the feed's calls with it."""
        try:
            while self._drain_s is None:
                self._linger()
                self._round(SWEEP_S)
            self._finish(self._drain_s)
        except BaseException as error:
            self._handover.end(error)
            raise
        finally:
            self._close_all()
        self._handover.end()

    def _linger(self) -> None:
        # Waking up for every message costs ten times what decoding it does.
        linger_s = self._settings.linger_s * (CALM_LINGERS if self._is_calm else 1)
        rest_s = self._taken_s + linger_s - self._clock.monotonic_s()
        if rest_s > 0:
            self._clock.wait(self._never, rest_s)

    def _round(self, timeout_s: float) -> None:
        self._taken_count = 0
        ready = self._watch.wait(timeout_s)
        now_s = self._clock.monotonic_s()
        for key, mask in ready:
            if key.fileobj is self._server:
                self._accept(now_s)
            elif key.fileobj is self._woken:
                self._woken.recv(4096)
            else:
                self._serve(key.data, mask, now_s)
        self._read_in_turn(now_s)
        if self._taken_count:
            self._is_calm = self._taken_count <= CALM_MESSAGES_MAX
        self._take_acknowledged()
        if now_s - self._swept_s >= SWEEP_S:
            self._swept_s = now_s
            self._sweep(now_s)

    def _read_in_turn(self, now_s: float) -> None:
        """Read from those that sent something, as much as a round may."""
        if self._watch.is_holding:
            return
        turns = self._watch.turns()
        size = min(READ_BYTES, max(PIECE_BYTES_MIN, ROUND_BYTES // max(1, len(turns))))
        self._round_bytes = 0
        for peer in turns:
            # Any of them may complete a message of the largest kind.
            if (
                self._round_bytes >= ROUND_BYTES
                or self._open_bytes >= self._settings.receive_bytes_max
            ):
                break
            self._watch.begin_turn(peer)
            self._serve(peer, selectors.EVENT_READ, now_s, size=size)

    def _accept(self, now_s: float) -> None:
        for _ in range(ACCEPTS_PER_ROUND):
            try:
                sock, address = self._server.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # No file descriptor left: asking again at once would only spin.
                self._set_accepting(is_on=False)
                emit(SensorRefused("no_descriptor", "", str(error.strerror)))
                return
            name = f"{address[0]}:{address[1]}"
            if len(self._peers) >= self._settings.connections_max:
                sock.close()
                bound = f"connections_max is {self._settings.connections_max}"
                emit(SensorRefused("connections_max", name, bound))
                continue
            self._welcome(sock, name, now_s)

    def _welcome(self, sock: socket.socket, name: str, now_s: float) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._settings.tls is not None:
            try:
                sock = self._settings.tls.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
            except (OSError, ssl.SSLError):
                sock.close()  # It was reset before the handshake began.
                return
        self._connection_count += 1
        peer = Peer(
            Channel(sock, peer=name),
            number=self._connection_count,
            now_s=now_s,
            settings=self._settings,
            assigned_id=f"{self._assigned_prefix}-{self._connection_count}",
        )
        self._peers[peer.number] = peer
        self._follow(peer)

    def _serve(self, peer: Peer, mask: int, now_s: float, *, size: int = PIECE_BYTES_MIN) -> None:
        if peer.channel.fileno() < 0:
            return  # Taken over by a connection that was served earlier in this round.
        try:
            if not peer.is_secured:
                waits_for = peer.channel.handshake()
                peer.is_secured = waits_for == 0
                self._follow(peer, handshake=waits_for)
                return
            if mask & selectors.EVENT_READ:
                self._read(peer, now_s, size=size)
            self._flush(peer)
        except ProtocolError as error:
            self._end(peer, error)
        except UnavailableError:
            # A connection that ends without a word is nothing a person could act on: the
            # client sends again what it got no PUBACK for.
            self._forget(peer)

    def _read(self, peer: Peer, now_s: float, *, size: int) -> None:
        # What is still to be looked at comes first: the client may have closed behind it.
        chunk = b"" if peer.has_more else peer.channel.read(size)
        if chunk is None or peer.has_left:
            return  # What an ended client still sends is read only to be thrown away.
        peer.seen_s = now_s
        self._round_bytes += len(chunk) or PIECE_BYTES_MIN
        was_greeted = peer.is_greeted
        batch = peer.take(chunk)
        if peer.is_greeted and not was_greeted:
            self._register(peer)
        if peer.has_more:
            self._watch.queue(peer)
        if batch:
            self._taken_s = now_s
            self._taken_count += len(batch)
            self._open_count += len(batch)
            self._open_bytes += sum(map(len, batch.payloads))
            self._handover.offer(
                batch,
                origin=peer.client_id,
                connection=peer.number,
                arrived_ms=self._clock.wall_ms(),
            )
        if batch.error is not None:
            raise batch.error
        if peer.has_left:
            self._forget(peer)

    def _register(self, peer: Peer) -> None:
        older = self._peer_by_client.get(peer.client_id)
        if older is not None:
            self._end(
                older,
                ProtocolError(
                    f"session of {peer.client_id}: taken over by {peer.channel.peer}",
                    code=Code.SESSION_TAKEN_OVER,
                ),
            )
        self._peer_by_client[peer.client_id] = peer
        emit(SensorConnected(peer.client_id, peer.channel.peer))

    # --- acknowledgements and bounds --------------------------------------------------------

    def _take_acknowledged(self) -> None:
        touched: dict[int, Peer] = {}
        for deliveries in self._handover.acknowledged():
            self._open_count -= len(deliveries)
            self._open_bytes -= sum(map(len, deliveries.payloads))
            peer = self._peers.get(deliveries.connection)
            if peer is not None and not peer.has_left:
                peer.acknowledge(deliveries.packet_ids)
                touched[peer.number] = peer
        for peer in touched.values():
            self._serve(peer, 0, 0.0)
        self._hold_back()

    def _hold_back(self) -> None:
        """Stop or resume reading by the bound; at the end it is not resumed."""
        self._watch.hold_back(
            is_on=self._drain_s is not None
            or self._open_count >= self._settings.receive_max
            or self._open_bytes >= self._settings.receive_bytes_max
        )

    def _is_held(self, peer: Peer) -> bool:
        return peer.is_greeted and (self._watch.is_holding or peer.is_full)

    def _flush(self, peer: Peer) -> None:
        if peer.channel.fileno() >= 0:
            peer.channel.flush()
            self._follow(peer)

    def _follow(self, peer: Peer, *, handshake: int = 0) -> None:
        self._watch.follow(peer, handshake=handshake, is_closing=self._drain_s is not None)

    # --- once a second ----------------------------------------------------------------------

    def _sweep(self, now_s: float) -> None:
        self._set_accepting(is_on=True)
        for peer in list(self._peers.values()):
            try:
                if peer.has_left:
                    if now_s - peer.seen_s > GOODBYE_S:
                        self._forget(peer)
                    continue
                if self._is_held(peer):
                    peer.look(now_s)
                    self._flush(peer)
                peer.check(now_s)
            except ProtocolError as error:
                self._end(peer, error)
            except UnavailableError:
                self._forget(peer)

    def _set_accepting(self, *, is_on: bool) -> None:
        if is_on != self._is_accepting:
            self._is_accepting = is_on
            if is_on:
                self._watch.add(self._server)
            else:
                self._watch.remove(self._server)

    # --- endings ----------------------------------------------------------------------------

    def _end(self, peer: Peer, error: ProtocolError) -> None:
        """Tell a client why it is ended, and close as soon as it could read that."""
        if peer.is_greeted:
            emit(SensorDropped(code_name(error.code), peer.client_id, str(error)))
        else:
            emit(SensorRefused(code_name(error.code), peer.channel.peer, str(error)))
        self._release_client_id(peer)
        peer.seen_s = self._clock.monotonic_s()
        peer.say_goodbye(error.code)
        try:
            # Closing now, with bytes unread, would reset the connection and take the reason
            # away from the client: let it read, and close when it does or in the sweep.
            if peer.channel.flush():
                peer.channel.finish_writing()
            self._follow(peer)
        except UnavailableError:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        self._watch.forget(peer)
        peer.has_left = True
        peer.channel.close()
        self._peers.pop(peer.number, None)
        self._release_client_id(peer)

    def _release_client_id(self, peer: Peer) -> None:
        if self._peer_by_client.get(peer.client_id) is peer:
            del self._peer_by_client[peer.client_id]

    def _finish(self, drain_s: float) -> None:
        """Read no more, wait for what the owner still holds, say good-bye."""
        self._set_accepting(is_on=False)
        self._server.close()
        self._open_count -= self._handover.withdraw()
        for peer in self._peers.values():
            self._follow(peer)
        self._take_acknowledged()
        until_s = self._clock.monotonic_s() + drain_s
        while self._open_count > 0 and (rest_s := until_s - self._clock.monotonic_s()) > 0:
            self._drain_round(rest_s)
        for peer in list(self._peers.values()):
            peer.say_goodbye(Code.SERVER_SHUTTING_DOWN)
            self._serve(peer, 0, 0.0)
        until_s = self._clock.monotonic_s() + self._settings.io_timeout_s
        while any(peer.channel.unsent_bytes for peer in self._peers.values()):
            rest_s = until_s - self._clock.monotonic_s()
            if rest_s <= 0:
                break
            self._drain_round(rest_s)

    def _drain_round(self, timeout_s: float) -> None:
        for key, mask in self._watch.wait(min(timeout_s, SWEEP_S)):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            else:
                self._serve(key.data, mask, 0.0)
        self._take_acknowledged()

    def _close_all(self) -> None:
        for peer in list(self._peers.values()):
            self._forget(peer)
        self._watch.close()
        for sock in (self._server, self._waker, self._woken):
            sock.close()
