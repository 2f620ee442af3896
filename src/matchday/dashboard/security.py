"""Who may talk to the dashboard, and what browsers may do with its pages.

Owns the check of the Host header (DNS rebinding: a foreign name that resolves to this
machine), the check of a WebSocket's Origin, the token, the log-in page and the headers of
every answer. Does not own users or roles; there is one token. How often somebody may be wrong
about it is in `attempts`.

The address of who asks is that of the connection. The web server believes `X-Forwarded-For`
from a proxy on this machine alone, and of that header the last address that is not this
machine: what a client wrote in front of it changes nothing where the proxy appends, as
nginx, Caddy and Traefik do. A program on this machine can write any address; the bound over all
addresses holds for it, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import ipaddress
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matchday.clock import Clock
from matchday.dashboard.attempts import FAILURES_MAX, WINDOW_S, Attempts, bearer_of, digest_of
from matchday.observe.events import LoginRefused, emit

COOKIE = "matchday_session"
COOKIE_S = 12 * 3600
OPEN_PATHS = frozenset({"/livez", "/readyz", "/login"})
"""Paths that answer without a token: probes, the log-in page; `/assets/` besides."""

MAY_SEE = "matchday.may_see"
"""Set in the scope of a request: whether who asks may see more than that we live."""

LOGIN_BYTES_MAX = 4_096
LOGIN_S_MAX = 10.0

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware in front of everything: host, origin, token, headers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        allowed_hosts: Sequence[str],
        clock: Clock,
        attempts: Attempts,
    ) -> None:
        self._app = app
        self._token = token
        self._clock = clock
        self._attempts = attempts
        self._hosts = frozenset(name.lower() for name in allowed_hosts) | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
        else:
            await refusal(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not is_allowed_host(host, self._hosts):
            text = f"serving host {host[:80]!r}: not among http.allowed_hosts"
            return _error(421, "foreign_host", text)
        origin = headers.get("origin")
        if scope["type"] == "websocket" and origin is not None and _origin_host(origin) != host:
            return _error(403, "foreign_origin", "opening live view: foreign origin")
        path = scope["path"]
        client = scope["client"][0] if scope.get("client") else ""
        is_guessing = self._attempts.are_too_many(client)
        scope[MAY_SEE] = self._token is None or self._knows(headers, client)
        if scope[MAY_SEE] or path in OPEN_PATHS or path.startswith("/assets/"):
            return None
        if scope["type"] == "http" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        if is_guessing:
            text = (
                f"answering request: {FAILURES_MAX} wrong tokens from {client[:80]} within "
                f"{WINDOW_S:.0f} s, or too many from all; none is looked at for a minute"
            )
            refusal = _error(429, "too_many_attempts", text)
            refusal.headers["Retry-After"] = f"{WINDOW_S:.0f}"
            return refusal
        refusal = _no_token(headers)
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _knows(self, headers: Headers, client: str) -> bool:
        """Judge what is offered; by who guesses only what was right from there before.

        A cookie is judged as a token is: whoever guesses a token can make the cookie of it.
        """
        assert self._token is not None
        token, attempts = self._token, self._attempts
        bearer = bearer_of(headers.get("authorization", ""))
        if (
            bearer is not None
            and attempts.is_looked_at(client, bearer)
            and attempts.judged(client, bearer, is_right=_is_same(bearer, token))
        ):
            return True
        cookie = Request({"type": "http", "headers": headers.raw}).cookies.get(COOKIE, "")
        if not cookie or not attempts.is_looked_at(client, cookie):
            return False
        is_right = attempts.judged(client, cookie, is_right=is_made_from(cookie, token))
        return is_right and is_session(cookie, token, now_ms=self._clock.wall_ms())


class Login:
    """The log-in page: takes the token once and leaves a cookie that is not the token."""

    def __init__(self, *, token: str | None, title: str, clock: Clock, attempts: Attempts) -> None:
        self._token = token
        self._title = title
        self._clock = clock
        self._attempts = attempts

    async def answer(self, request: Request) -> Response:
        """Show the form, or judge what was sent in it."""
        if self._token is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return self._page("")
        client = request.client.host if request.client else ""
        if self._attempts.are_too_many(client):
            return self._page("Too many attempts. Try again in a minute.", status=429)
        # The form is one small field: anything larger is not read to its end.
        body = b""
        try:
            async with asyncio.timeout(LOGIN_S_MAX):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > LOGIN_BYTES_MAX:
                        return self._page("That is too long to be the token.", status=413)
        except TimeoutError:
            return self._page("That took too long. Try again.", status=408)
        fields = parse_qs(body.decode("utf-8", "replace"))
        if not _is_same(fields.get("token", [""])[0].strip(), self._token):
            self._attempts.note(client)
            emit(LoginRefused(client=client))
            return self._page("That is not the token.", status=401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            cookie_value(self._token, until_ms=self._clock.wall_ms() + COOKIE_S * 1000),
            max_age=COOKIE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    def _page(self, problem: str, *, status: int = 200) -> HTMLResponse:
        note = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
        return HTMLResponse(
            _LOGIN.format(title=html.escape(self._title), note=note), status_code=status
        )


def is_allowed_host(host: str, names: frozenset[str]) -> bool:
    """Tell whether a Host header names this server.

    An IP address always may: rebinding needs a name that the attacker's DNS answers for.
    """
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return False
    else:
        name = host.rpartition(":")[0] if host.count(":") == 1 else host
    name = name.lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def cookie_value(token: str, *, until_ms: int) -> str:
    """Derive what the cookie holds: who steals it has a session until then, not the token.

    Args:
        token: The page's.
        until_ms: When the session ends, wall clock, milliseconds UTC.
    """
    text = f"matchday dashboard session until {until_ms}"
    return f"{until_ms}.{hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()}"


def is_session(cookie: str, token: str, *, now_ms: int) -> bool:
    """Tell whether a cookie was made by `cookie_value` and its session has not ended."""
    return is_made_from(cookie, token) and now_ms < int(cookie.partition(".")[0])


def is_made_from(cookie: str, token: str) -> bool:
    """Tell whether a cookie was made by `cookie_value`, whenever its session ends."""
    until = cookie.partition(".")[0]
    if not (until.isascii() and until.isdecimal() and len(until) <= 16):
        return False
    return _is_same(cookie, cookie_value(token, until_ms=int(until)))


def _is_same(offered: str, wanted: str) -> bool:
    return hmac.compare_digest(digest_of(offered), digest_of(wanted))


def _origin_host(origin: str) -> str:
    return origin.partition("://")[2]


def _error(status: int, reason: str, text: str) -> JSONResponse:
    return JSONResponse({"error": {"reason": reason, "text": text}}, status_code=status)


def _no_token(headers: Headers) -> JSONResponse:
    """Answer who has shown no token, or one that is not right; without repeating it."""
    bearer = bearer_of(headers.get("authorization", ""))
    if bearer is None:
        return _error(401, "no_token", "answering request: a bearer token is needed")
    if not bearer:
        return _error(401, "no_token", "answering request: the bearer token sent is empty")
    return _error(401, "wrong_token", "answering request: the bearer token sent is not right")


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        """Send on what the application answers, with our headers where it set none."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_with_headers


_LOGIN = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · {title}</title>
<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
<script src="/assets/theme.js"></script>
<link rel="stylesheet" href="/assets/app.css">
</head>
<body class="login-page">
<main class="login panel">
<h1>{title}</h1>
{note}
<form method="post" action="/login">
<input type="text" name="username" autocomplete="username" value="matchday" hidden>
<label for="token">Access token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required>
<button type="submit" class="primary">Log in</button>
</form>
</main>
</body>
</html>
"""
