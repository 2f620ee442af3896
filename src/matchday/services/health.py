"""`/livez`, `/readyz` and `/metrics` of services that have no page of their own.

On loopback they answer everybody. Beyond it (`health.bind`) what is up, and the metrics, are
for those who send the page's token. They may be wrong about it as often as at the page.
"""

from __future__ import annotations

import hmac
import json
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from matchday.clock import Clock, SystemClock
from matchday.config import LOOPBACK, Settings
from matchday.dashboard.attempts import WINDOW_S, Attempts, bearer_of, digest_of
from matchday.domain.instants import iso_from_ms
from matchday.errors import MatchdayError
from matchday.observe import metrics
from matchday.observe.events import RoleCrashed, emit
from matchday.ports import LinkState
from matchday.services.links import read_token

DEFAULT_PORTS = {"sensor": 9101, "server": 9102, "analysis": 9103, "alert": 9104}
REQUEST_TIMEOUT_S = 5.0
REQUESTS_MAX = 32
"""Answered at once, each in a thread; who comes beyond is disconnected."""
LINKS_S_MAX = 0.5
"""Who probes gives up after a second or two, and takes silence for death."""


def link_rows(links: Sequence[LinkState]) -> list[dict[str, object]]:
    """Give the states of links as JSON rows."""
    return [
        {
            "link": link.name,
            "up": link.is_up,
            "since": iso_from_ms(link.since_ms),
            "detail": link.detail,
        }
        for link in links
    ]


def health_of(settings: Settings, service: str, links: Callable[[], Sequence[LinkState]]) -> Health:
    """Give the health port of a service as the settings say.

    Raises:
        MatchdayError: The port is in use.
        ConfigError: It shall listen beyond loopback and the token cannot be read.
    """
    health = settings.health
    is_open = health.bind in LOOPBACK
    return Health(
        links,
        host=health.bind,
        port=DEFAULT_PORTS[service] if health.port is None else health.port,
        token=None if is_open else read_token(settings.http.token_file),
    )


class Health:
    """Answers health questions on a port of its own, as a role of a service.

    Args:
        links: Gives the state of every link.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        token: Who does not send it as `Authorization: Bearer` learns only whether the service
            lives and is ready; None lets everybody see everything.
        clock: Tells when who was wrong too often may offer another token.

    Raises:
        MatchdayError: The port is in use; names it and its setting.
    """

    def __init__(
        self,
        links: Callable[[], Sequence[LinkState]],
        *,
        host: str,
        port: int,
        token: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        door = None if token is None else _Door(token, clock=clock or SystemClock())
        try:
            self._server = _Server(host, port, links=_Prompt(links).states, door=door)
        except OSError as error:
            raise MatchdayError(
                f"listening on {host}:{port}: {error.strerror}; choose another with "
                "MATCHDAY_HEALTH__PORT"
            ) from error
        self.port = self._server.server_port

    def run(self, stop: threading.Event) -> None:
        """Answer until asked to stop; sleeps as long as nobody asks."""
        end, ended = socket.socketpair()
        thread = threading.Thread(
            target=self._serve, args=(ended,), name="health.http", daemon=True
        )
        thread.start()
        stop.wait()
        end.close()
        thread.join()
        ended.close()
        self._server.server_close()

    def _serve(self, ended: socket.socket) -> None:
        # The library's own loop looks ten times a second whether it shall end.
        self._server.timeout = 0.0
        with selectors.DefaultSelector() as waiting:
            for one in (self._server, ended):
                waiting.register(one, selectors.EVENT_READ)
            while ended not in {key.fileobj for key, _ in waiting.select()}:
                self._server.handle_request()


class _Prompt:
    """The states of links without ever waiting long for them: one that hangs is told instead."""

    def __init__(
        self, links: Callable[[], Sequence[LinkState]], *, clock: Clock | None = None
    ) -> None:
        self._links = links
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._asking: Future[Sequence[LinkState]] | None = None
        self._asked_ms = 0
        self._last: Sequence[LinkState] = ()

    def states(self) -> Sequence[LinkState]:
        """Give the states within `LINKS_S_MAX`; raises what asking for them raised."""
        with self._lock:
            if self._asking is None or self._asking.done():
                asking: Future[Sequence[LinkState]] = Future()
                # Only what is asked by a thread that runs is ever answered.
                threading.Thread(
                    target=self._ask, args=(asking,), name="health.links", daemon=True
                ).start()
                self._asking, self._asked_ms = asking, self._clock.wall_ms()
            asking = self._asking
        try:
            self._last = asking.result(LINKS_S_MAX)
        except TimeoutError:
            detail = f"asking for the links: no answer within {LINKS_S_MAX} s"
            return [*self._last, LinkState("links", False, self._asked_ms, detail)]
        return self._last

    def _ask(self, asking: Future[Sequence[LinkState]]) -> None:
        try:
            asking.set_result(self._links())
        except BaseException as error:  # noqa: BLE001 - belongs to whoever asked
            asking.set_exception(error)


class _Door:
    """Judges what is offered as the token; for any thread."""

    def __init__(self, token: str, *, clock: Clock) -> None:
        self._digest = digest_of(token)
        self._lock = threading.Lock()
        self._attempts = Attempts(clock=clock)

    def lets_in(self, client: str, authorization: str) -> bool:
        """Tell whether a header shows the token, unless its sender was wrong too often."""
        offered = bearer_of(authorization)
        if offered is None:
            return False
        is_right = hmac.compare_digest(digest_of(offered), self._digest)
        with self._lock:
            return self._attempts.is_looked_at(client, offered) and self._attempts.judged(
                client, offered, is_right=is_right
            )

    def is_shut(self, client: str) -> bool:
        """Tell whether nothing new is looked at from there for now."""
        with self._lock:
            return self._attempts.are_too_many(client)


class _Server(ThreadingHTTPServer):
    """Serves `REQUESTS_MAX` connections at once, each in a thread of its own.

    Raises:
        OSError: The port is in use or not allowed.
    """

    daemon_threads = True
    # Of the library's 5 a burst of connections waits for the kernel to try again: seconds.
    request_queue_size = 2 * REQUESTS_MAX

    def __init__(
        self, host: str, port: int, *, links: Callable[[], Sequence[LinkState]], door: _Door | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(REQUESTS_MAX)
        self._never = threading.Event()
        super().__init__((host, port), partial(_Handler, links=links, door=door))

    def get_request(self) -> tuple[Any, Any]:
        """Take the next connection and its client's address.

        Raises:
            OSError: There is none after all, or no file is left to open; the library goes on.
        """
        try:
            return super().get_request()
        except OSError:
            # No file left to open: who waits is still there, and is at once again.
            self._never.wait(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection; one too many is closed unanswered."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            # No thread to be had: its place would be taken for ever.
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end, which frees its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of errors of ours; that somebody hung up is none."""
        error = sys.exception()
        if not isinstance(error, OSError):
            emit(RoleCrashed("health.http", repr(error)))


class _Handler(BaseHTTPRequestHandler):
    """Answers what comes by one connection; who may see how much is judged by the door.

    Args:
        of_library: Connection, client's address and server, as the library gives them.
        links: Gives the state of every link.
        door: Knows who is trusted; None trusts everybody.
    """

    timeout = REQUEST_TIMEOUT_S
    server_version = "matchday"
    sys_version = ""
    # One send per answer: a probe that reads the status and hangs up would reset a second.
    wbufsize = -1

    def __init__(
        self,
        *of_library: Any,
        links: Callable[[], Sequence[LinkState]],
        door: _Door | None,
    ) -> None:
        self._links = links
        self._door = door
        # Last: the library answers while it constructs.
        super().__init__(*of_library)

    def do_GET(self) -> None:
        """Answer one of the three questions."""
        if self.path == "/livez":
            self._answer(200, b'{"live":true}', "application/json")
        elif self.path == "/readyz":
            self._answer_ready()
        elif self.path == "/metrics":
            self._answer_metrics()
        else:
            self._answer(404, b"/livez /readyz /metrics\n", "text/plain")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent: requests are no events."""

    def _answer_ready(self) -> None:
        states = self._links()
        is_ready = all(link.is_up for link in states)
        told: dict[str, object] = {"ready": is_ready}
        if self._is_trusted():
            told["links"] = link_rows(states)
        self._answer(200 if is_ready else 503, json.dumps(told).encode(), "application/json")

    def _answer_metrics(self) -> None:
        is_shut = self._door is not None and self._door.is_shut(self.client_address[0])
        if self._is_trusted():
            self._answer(200, metrics.PROCESS.render(), "text/plain; version=0.0.4")
        elif is_shut:
            self._answer(429, b"too many wrong tokens; wait a minute\n", "text/plain")
        else:
            self._answer(401, self._why_not(), "text/plain")

    def _is_trusted(self) -> bool:
        shown = self.headers.get("Authorization", "")
        return self._door is None or self._door.lets_in(self.client_address[0], shown)

    def _why_not(self) -> bytes:
        """Say that the token sent is not right, or that none was; without repeating it."""
        if bearer_of(self.headers.get("Authorization", "")):
            return b"the bearer token sent is not the page's\n"
        return b"the page's token as bearer, please\n"

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        elif status == 429:
            self.send_header("Retry-After", f"{WINDOW_S:.0f}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
