"""A TCP proxy that does to connections what networks do to them.

Owns the ways in which a stream can be late, silent, cut off or damaged, per direction and at
run time. Does not know what is said over the connections. Its loop lives in one thread, from
entry to exit; every verb may be called from any thread and returns when it has taken effect.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Final, Self

from servers.ports import LOOPBACK, free_port

CHUNK_BYTES: Final = 64 * 1024
VERB_S: Final = 10.0


class Way(Enum):
    """A direction through the proxy."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


BOTH: Final = (Way.TO_SERVER, Way.TO_CLIENT)


@dataclass
class _Rule:
    """What happens to a direction; `corrupt_each` counts bytes, 0 is never."""

    delay_s: float = 0.0
    is_stopped: bool = False
    is_vanished: bool = False
    corrupt_each: int = 0
    bytes_left: int | None = None
    bytes_per_s: float = 0.0


@dataclass(eq=False)
class _Link:
    """One client's connection and its counterpart at the server, once there is one."""

    number: int
    client: socket.socket
    server: socket.socket | None = None
    rules: dict[Way, _Rule] = field(default_factory=lambda: {way: _Rule() for way in BOTH})
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Proxy:
    """Passes connections at `port` on to `target_port`, both on this machine.

    Verbs hold for the connections there are and for all that come, until `heal`. A direction
    that was stopped goes on where it stood; one that vanished has lost bytes, so `heal`
    resets its connections, as a network does that comes back.

    Args:
        target_port: Of the server.
        port: To listen at; chosen free unless given.
        seed: Of which bits are damaged.

    Attributes:
        forwarded: Bytes passed on, by direction.
        accepted_count: Connections taken so far.
    """

    def __init__(self, target_port: int, *, port: int | None = None, seed: int = 1) -> None:
        self.port = free_port() if port is None else port
        self.forwarded: dict[Way, int] = dict.fromkeys(BOTH, 0)
        self.accepted_count = 0
        self._target_port = target_port
        self._rng = random.Random(seed)
        self._rules = {way: _Rule() for way in BOTH}
        self._is_refusing = False
        self._links: set[_Link] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        """Listen; a connection that comes before the server listens is reset."""
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=256)
        self._listener.setblocking(False)
        self._thread.start()
        self._ready.wait(VERB_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Reset every connection and stop listening."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(VERB_S)

    @property
    def links_count(self) -> int:
        """Give how many connections are open."""
        return len(self._links)

    def delay(self, delay_s: float, *, ways: Collection[Way] = BOTH) -> None:
        """Pass everything on later by so many seconds, in order."""
        self._change(ways, lambda rule: setattr(rule, "delay_s", delay_s))

    def throttle(self, bytes_per_s: float, *, ways: Collection[Way] = BOTH) -> None:
        """Pass on no more bytes per second than that on each connection; 0 is no bound."""
        self._change(ways, lambda rule: setattr(rule, "bytes_per_s", bytes_per_s))

    def stop_reading(self, *, ways: Collection[Way] = BOTH) -> None:
        """Take no bytes any more, as a reader that hangs; the writer's buffers fill."""
        self._change(ways, lambda rule: setattr(rule, "is_stopped", True))

    def vanish(self, *, ways: Collection[Way] = BOTH) -> None:
        """Leave connections half-open: bytes go nowhere, and nobody is told.

        New connections are taken as well, and never answered.
        """
        self._change(ways, lambda rule: setattr(rule, "is_vanished", True))

    def corrupt(self, *, each_bytes: int, ways: Collection[Way] = BOTH) -> None:
        """Turn one bit over in about each so many bytes; TCP's own checksum stays right."""
        self._change(ways, lambda rule: setattr(rule, "corrupt_each", each_bytes))

    def truncate(self, *, after_bytes: int, ways: Collection[Way] = BOTH) -> None:
        """Pass on so many bytes more on each connection, then close it in mid-message."""
        self._change(ways, lambda rule: setattr(rule, "bytes_left", after_bytes))

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        self._ask(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and new ones at once, as when nobody listens."""

        def refuse() -> None:
            self._is_refusing = True
            self._cut()

        self._ask(refuse)

    def heal(self) -> None:
        """Pass everything on again as it is, at once."""

        def heal() -> None:
            self._is_refusing = False
            self._rules = {way: _Rule() for way in BOTH}
            for link in list(self._links):
                if any(rule.is_vanished or rule.corrupt_each for rule in link.rules.values()):
                    self._reset(link)
                link.rules = {way: _Rule() for way in BOTH}

        self._ask(heal)

    @contextmanager
    def trouble(self, begin: Callable[[], None]) -> Iterator[None]:
        """Begin a trouble on entry, and heal on exit."""
        begin()
        try:
            yield
        finally:
            self.heal()

    # --- in the loop's thread ---------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        accepting = asyncio.create_task(self._accept(), name="proxy.accept")
        self._ready.set()
        await self._ended.wait()
        accepting.cancel()
        self._cut()
        await asyncio.gather(accepting, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            self.accepted_count += 1
            link = _Link(self.accepted_count, client)
            if self._is_refusing:
                _close_hard(client)
                continue
            client.setblocking(False)
            self._links.add(link)
            link.rules = {way: _Rule(**vars(rule)) for way, rule in self._rules.items()}
            link.tasks.append(asyncio.create_task(self._join(link), name=f"proxy.{link.number}"))

    async def _join(self, link: _Link) -> None:
        server = socket.socket()
        server.setblocking(False)
        link.server = server
        try:
            await self._loop.sock_connect(server, (LOOPBACK, self._target_port))
        except OSError:
            self._reset(link)
            return
        for one in (link.client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pairs = {Way.TO_SERVER: (link.client, server), Way.TO_CLIENT: (server, link.client)}
        for way, (source, sink) in pairs.items():
            queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)
            read = self._read(link, way, source, queue)
            write = self._write(link, way, sink, queue)
            link.tasks += [asyncio.create_task(read), asyncio.create_task(write)]

    async def _read(
        self,
        link: _Link,
        way: Way,
        source: socket.socket,
        queue: asyncio.Queue[tuple[float, bytes]],
    ) -> None:
        with suppress(OSError):
            while True:
                while link.rules[way].is_stopped:
                    await asyncio.sleep(0.02)
                chunk = await self._loop.sock_recv(source, CHUNK_BYTES)
                if chunk and link.rules[way].is_vanished:
                    continue
                await queue.put((self._loop.time() + link.rules[way].delay_s, chunk))
                if not chunk:
                    return
        self._reset(link)

    async def _write(
        self,
        link: _Link,
        way: Way,
        sink: socket.socket,
        queue: asyncio.Queue[tuple[float, bytes]],
    ) -> None:
        with suppress(OSError):
            while True:
                due_s, chunk = await queue.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                rule = link.rules[way]
                if rule.is_vanished and chunk:
                    continue
                if rule.corrupt_each:
                    chunk = self._damaged(chunk, rule.corrupt_each)
                left = rule.bytes_left
                if left is not None:
                    chunk = chunk[:left]
                    rule.bytes_left = left - len(chunk)
                await self._send(sink, chunk, rule.bytes_per_s)
                self.forwarded[way] += len(chunk)
                if rule.bytes_left == 0:
                    break
                if not chunk:
                    sink.shutdown(socket.SHUT_WR)
                    return
        self._reset(link)

    async def _send(self, sink: socket.socket, chunk: bytes, bytes_per_s: float) -> None:
        if not bytes_per_s:
            await self._loop.sock_sendall(sink, chunk)
            return
        for at in range(0, len(chunk), 4096):
            piece = chunk[at : at + 4096]
            await self._loop.sock_sendall(sink, piece)
            await asyncio.sleep(len(piece) / bytes_per_s)

    def _damaged(self, chunk: bytes, each_bytes: int) -> bytes:
        found = bytearray(chunk)
        for place in range(len(found)):
            if self._rng.random() * each_bytes < 1:
                found[place] ^= 1 << self._rng.randrange(8)
        return bytes(found)

    def _cut(self) -> None:
        for link in list(self._links):
            self._reset(link)

    def _reset(self, link: _Link) -> None:
        if link not in self._links:
            return
        self._links.discard(link)
        current = asyncio.current_task(self._loop)
        for task in link.tasks:
            if task is not current:
                task.cancel()
        for one in (link.client, link.server):
            if one is not None:
                _close_hard(one)

    # --- from other threads -----------------------------------------------------------------

    def _change(self, ways: Collection[Way], change: Callable[[_Rule], None]) -> None:
        def apply() -> None:
            for rules in (self._rules, *(link.rules for link in self._links)):
                for way in ways:
                    change(rules[way])

        self._ask(apply)

    def _ask(self, verb: Callable[[], None]) -> None:
        done: Future[None] = Future()

        def run() -> None:
            try:
                verb()
            except BaseException as error:  # noqa: BLE001 - belongs to the thread that asked
                done.set_exception(error)
            else:
                done.set_result(None)

        self._loop.call_soon_threadsafe(run)
        done.result(VERB_S)


def _close_hard(one: socket.socket) -> None:
    """Close with a reset: nothing that is still under way arrives."""
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
