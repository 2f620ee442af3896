"""What a person or a program sees of a deployment from outside: page, live view, log-ins."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.sync.client import connect

from containers.commands import CLOCK
from containers.stack import Stack


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, redirections not followed."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Give the body as JSON."""
        return json.loads(self.body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def get(url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
    """Ask an address once; with a body it is a POST."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
    try:
        with _OPENER.open(request, timeout=10.0) as answer:
            return Answer(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())


class Page:
    """The web page of a deployment, opened with its token."""

    def __init__(self, stack: Stack) -> None:
        self.url = f"http://127.0.0.1:{stack.port('PAGE')}"
        self.token = stack.execute("dashboard", "cat", "/run/secrets/page_token").stdout.strip()
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def get(self, path: str) -> Answer:
        """Ask for a path with the token."""
        return get(f"{self.url}{path}", headers=self.headers)

    def live(self, *, within_s: float) -> Iterator[dict[str, Any]]:
        """Give the live view's messages until the time is over."""
        address = f"{self.url.replace('http', 'ws', 1)}/api/v1/live?venue=demo"
        until_s = CLOCK.monotonic_s() + within_s
        with connect(address, additional_headers=self.headers, max_size=None) as socket:
            while (left_s := until_s - CLOCK.monotonic_s()) > 0:
                try:
                    yield json.loads(socket.recv(timeout=left_s))
                except TimeoutError:
                    return


def mqtt_login(stack: Stack, service: str = "sensor") -> tuple[str, str]:
    """Give the user and password with which a service logs in at the broker."""
    url = stack.execute(service, "cat", "/run/secrets/mqtt_url").stdout.strip()
    parts = urllib.parse.urlsplit(url)
    assert parts.username, "no user in mqtt_url"
    assert parts.password, "no password in mqtt_url"
    return urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password)
