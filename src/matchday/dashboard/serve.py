"""Running the web application: the port, the thread, the orderly stop.

Owns the listening socket and the thread `dashboard.http`. A port in use is told before
anything starts; links that are down are not a reason not to start.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from types import TracebackType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from matchday.dashboard.app import make_app
from matchday.dashboard.state import DashboardState
from matchday.errors import ConfigError, UnavailableError
from matchday.observe.events import ServiceStarted, emit

START_S_MAX = 15.0
STOP_S_MAX = 10.0
GRACE_S = 2
ALIVE_EVERY_S = 1.0
LIVE_BYTES_MAX = 4_096
"""A page has nothing to say on the live connection."""
HEAD_S_MAX = 10.0
"""Who has not sent a whole request by then is disconnected."""


class Connection(H11Protocol):
    """A connection of the web server that strangers cannot hold by saying nothing.

    The library bounds only the pause after an answer, and not once a byte has come: a few
    hundred half requests would take all the files that the process may open.
    """

    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget about it."""
        if self._head_due is not None:
            self._head_due.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
        self._head_due = self.loop.call_later(HEAD_S_MAX, self._give_up)

    def _give_up(self) -> None:
        is_asked = self.cycle is not None and not self.cycle.response_complete
        is_live_view = self.transport.get_protocol() is not self
        if not (is_asked or is_live_view or self.transport.is_closing()):
            self.transport.close()


class DashboardServer:
    """The dashboard on its port; `start` once, `stop` once or more, or use `with`.

    Args:
        state: What it shows.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        release: Called once nothing is shown any more, to let go of what `state` holds.
    """

    def __init__(
        self,
        state: DashboardState,
        *,
        host: str = "127.0.0.1",
        port: int = 8081,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._release = release
        self._host = host
        self._port = port
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None
        self._crash: BaseException | None = None

    @property
    def port(self) -> int:
        """Give the port: the one asked for, or the one found if that was 0."""
        return self._port

    @property
    def url(self) -> str:
        """Give the address of the page for a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)
        return f"http://{host}:{self._port}/"

    @property
    def is_running(self) -> bool:
        """Tell whether the web server's thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen and serve in a thread of its own; returns when requests are answered.

        Raises:
            ConfigError: The port is in use or may not be used; names port and flag.
            UnavailableError: The server did not come up in time.
        """
        listener = self._listen()
        config = uvicorn.Config(
            make_app(self._state, on_crash=self._end_by),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            http=Connection,
            ws="websockets-sansio",
            ws_max_size=LIVE_BYTES_MAX,
            # On, it costs more than twice the CPU per client.
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, listener), name="dashboard.http"
        )
        self._thread.start()
        self._await_start()
        emit(ServiceStarted("dashboard", self.url))

    def stop(self) -> None:
        """Close all connections (tabs come back by themselves) and end the thread."""
        thread, server = self._thread, self._server
        if thread is None or server is None:
            return
        server.should_exit = True
        thread.join(STOP_S_MAX)
        self._thread = None
        self._release()

    def run(self, stop: threading.Event, *, announce: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is set; for a service that is nothing but the dashboard.

        Args:
            stop: Ends it.
            announce: Called once, when requests are answered and `url` is known.

        Raises:
            ConfigError: As `start`.
            RuntimeError: The web server ended by itself, or one of its threads by an error.
        """
        self.start()
        try:
            announce()
            while not self._state.clock.wait(stop, ALIVE_EVERY_S):
                if not self.is_running:
                    raise RuntimeError(
                        f"serving the dashboard: ended by {self._crash!r}"
                    ) from self._crash
        finally:
            self.stop()

    def __enter__(self) -> DashboardServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _end_by(self, error: BaseException) -> None:
        self._crash = error
        if self._server is not None:
            self._server.should_exit = True

    def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            server.run(sockets=[listener])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - kept for `run`, which raises it
            self._crash = error
        finally:
            listener.close()

    def _await_start(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        never = threading.Event()
        deadline_s = self._state.clock.monotonic_s() + START_S_MAX
        while not self._server.started:
            if not self._thread.is_alive() or self._state.clock.monotonic_s() > deadline_s:
                self.stop()
                raise UnavailableError(
                    f"starting the dashboard on port {self._port}: not up within {START_S_MAX} s"
                ) from self._crash
            # Real time passes in the other thread, whatever clock the tests set.
            never.wait(0.01)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            reasons = {
                errno.EADDRINUSE: "already in use; choose another with --http-port",
                errno.EACCES: "not permitted; choose one above 1023 with --http-port",
                errno.EADDRNOTAVAIL: "this machine has no such address",
            }
            reason = reasons.get(error.errno or 0, str(error))
            raise ConfigError(f"listening on {self._host} port {self._port}: {reason}") from error
        self._port = listener.getsockname()[1]
        return listener
