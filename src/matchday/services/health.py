"""`/livez`, `/readyz` and `/metrics` of services that have no page of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from matchday.domain.instants import iso_from_ms
from matchday.errors import MatchdayError
from matchday.observe import metrics
from matchday.ports import LinkState

DEFAULT_PORTS = {"sensor": 9101, "server": 9102, "analysis": 9103, "alert": 9104}
REQUEST_TIMEOUT_S = 5.0


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


class Health:
    """Answers health questions on a port of its own, as a role of a service.

    Args:
        links: Gives the state of every link.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        MatchdayError: The port is in use; names it and its setting.
    """

    def __init__(self, links: Callable[[], Sequence[LinkState]], *, host: str, port: int) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _answers(links))
        except OSError as error:
            raise MatchdayError(
                f"listening on {host}:{port}: {error.strerror}; choose another with "
                "MATCHDAY_HEALTH__PORT"
            ) from error
        self._server.daemon_threads = True
        self.port = self._server.server_port

    def run(self, stop: threading.Event) -> None:
        """Answer until asked to stop."""
        thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="health.http", daemon=True
        )
        thread.start()
        stop.wait()
        self._server.shutdown()
        thread.join()
        self._server.server_close()


def _answers(links: Callable[[], Sequence[LinkState]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            """Answer one of the three questions."""
            if self.path == "/livez":
                self._answer(200, b'{"live":true}', "application/json")
            elif self.path == "/readyz":
                states = links()
                is_ready = all(link.is_up for link in states)
                body = json.dumps({"ready": is_ready, "links": link_rows(states)}).encode()
                self._answer(200 if is_ready else 503, body, "application/json")
            elif self.path == "/metrics":
                self._answer(200, metrics.PROCESS.render(), "text/plain; version=0.0.4")
            else:
                self._answer(404, b"/livez /readyz /metrics\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay silent: requests are no events."""

    return Handler
