"""The REST interface under `/api/v1`, the probes and the metrics: read-only, JSON.

Answers are the types of `messages` or plain documents; errors are
`{"error": {"reason", "text"}}` with the status of `asking.status_of`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from matchday import __version__
from matchday.dashboard.asking import Asker, Shared, reason_of, status_of
from matchday.dashboard.board import SOURCES_SHOWN_MAX, Board
from matchday.dashboard.connecting import publish_line
from matchday.dashboard.history import series_history
from matchday.dashboard.listing import LIST_BYTES_MAX, newest_within
from matchday.dashboard.live import line_of, link_of
from matchday.dashboard.messages import Ledger
from matchday.dashboard.readiness import Readiness
from matchday.dashboard.security import MAY_SEE
from matchday.dashboard.state import DATABASE, Attribution, DashboardState
from matchday.domain.account import Account
from matchday.errors import MatchdayError, RefusedError
from matchday.observe import metrics

LIMIT_DEFAULT = 50
LIMIT_MAX = 1_000


class Api:
    """The handlers of `/api/v1`, `/livez`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        state: DashboardState,
        *,
        board: Board,
        readiness: Readiness,
        account: Shared[Account],
        asker: Asker,
    ) -> None:
        self._state = state
        self._board = board
        self._readiness = readiness
        self._account = account
        self._asker = asker

    def routes(self) -> list[BaseRoute]:
        """Give the routes of this interface."""
        v1 = {
            "about": self.about,
            "ledger": self.ledger,
            "links": self.links,
            "venues": self.venues,
            "sources": self.sources,
            "collections": self.collections,
            "collections/{name}": self.documents,
            "history": self.history,
        }
        return [
            *(Route(f"/api/v1/{path}", handler) for path, handler in v1.items()),
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]

    async def about(self, request: Request) -> Response:
        """Give title, version, how to connect a sensor and who is to be named."""
        return answer(
            {
                "title": self._state.title,
                "version": __version__,
                "endpoint": self._state.endpoint_note,
                "publish_line": publish_line(self._state.endpoint_note, self._state.venues),
                "attributions": [
                    {"name": item.name, "text": item.text, "url": item.url}
                    for item in await self._attributions()
                ],
            }
        )

    async def _attributions(self) -> list[Attribution]:
        """Give who is to be named for what is here."""
        found = self._state.attributions
        if not any(item.sources for item in found):
            return list(found)
        try:
            account = await self._account.ask()
        except MatchdayError:
            return list(found)
        here = {line.source for line in account.lines}
        return [item for item in found if not item.sources or item.sources & here]

    async def ledger(self, request: Request) -> Response:
        """Give the account, asked for at this moment; `?source=` gives one line only."""
        try:
            account = await self._account.ask()
        except MatchdayError as error:
            return refusal(error)
        source = request.query_params.get("source")
        lines = [line_of(x) for x in account.lines if source is None or x.source == source]
        ledger = Ledger(lines, line_of(account.totals), account.adds_up, len(account.lines))
        return answer(ledger)

    async def links(self, request: Request) -> Response:
        """Give the state of every link."""
        try:
            links = await self._readiness.links()
        except MatchdayError as error:
            return refusal(error)
        return answer({"links": [link_of(link) for link in links]})

    async def venues(self, request: Request) -> Response:
        """Give the grounds with their geometry in metres and the area of each zone."""
        return answer(
            {
                "venues": [
                    {
                        "id": venue.id,
                        "name": venue.name,
                        "pitch": venue.pitch,
                        "zones": [
                            {**msgspec.to_builtins(zone), "area_m2": zone.area_m2}
                            for zone in venue.zones
                        ],
                        "gates": venue.gates,
                    }
                    for venue in self._state.venues
                ]
            }
        )

    async def sources(self, request: Request) -> Response:
        """Give the sources heard at the stream's end since this dashboard started, by name.

        `?limit=`, and `?after=` with what the answer before calls `next`.
        """
        try:
            limit = limit_of(request, default=SOURCES_SHOWN_MAX)
        except MatchdayError as error:
            return refusal(error)
        after = request.query_params.get("after", "")
        return answer(self._board.sources(after=after, limit=limit))

    async def collections(self, request: Request) -> Response:
        """Name the collections of the store."""
        try:
            names = await self._asker.ask(self._state.query.collections)
        except MatchdayError as error:
            return refusal(error)
        return answer({"database": DATABASE, "collections": names})

    async def documents(self, request: Request) -> Response:
        """Give the newest documents of a collection; `?limit=`, `?source=`, `?after=`.

        Those of `ledger` come by the source's name, whenever they changed. `cut` is empty, or
        says why there are fewer than asked for. `next` is what `?after=` takes to give the next
        ones, null where there are no more; see `listing`.
        """
        name = request.path_params["name"]
        source = request.query_params.get("source") or None
        after = request.query_params.get("after", "")
        try:
            limit = limit_of(request)
            # Encoded there, too: documents of many objects take their time.
            return await self._asker.ask(
                lambda: self._listed(name, limit=limit, source=source, after=after)
            )
        except MatchdayError as error:
            return refusal(error)

    def _listed(self, name: str, *, limit: int, source: str | None, after: str) -> Response:
        found = newest_within(
            self._state.query,
            name,
            limit=limit,
            source=source,
            bytes_max=LIST_BYTES_MAX,
            after=after,
        )
        body = {"documents": found.encoded, "cut": found.cut, "next": found.next}
        return answer({"collection": name, **body})

    async def history(self, request: Request) -> Response:
        """Give stored values and forecasts of one series, oldest first; see `history`."""
        params = request.query_params
        try:
            limit = limit_of(request)
            if not params.get("source") or not params.get("quantity"):
                raise RefusedError("bad_request", "reading history: source and quantity needed")
            found = await self._asker.ask(
                lambda: series_history(
                    self._state.query,
                    params["source"],
                    quantity=params["quantity"],
                    limit=limit,
                    zone=params.get("zone"),
                )
            )
        except MatchdayError as error:
            return refusal(error)
        return answer(found)

    async def livez(self, request: Request) -> Response:
        """Say that the process answers, whatever its links do."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Say whether all links are up; with the token also which are not, and since when.

        Whatever hangs, this and `livez` answer within a second.
        """
        try:
            links = await self._readiness.links()
        except MatchdayError as error:
            return refusal(error)
        is_ready = all(link.is_up for link in links)
        body: dict[str, object] = {"ready": is_ready}
        if request.scope.get(MAY_SEE, False):
            body["links"] = [link_of(link) for link in links]
        return answer(body, status=200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Give the metrics of the process in the Prometheus text format."""
        return Response(metrics.PROCESS.render(), media_type="text/plain; version=0.0.4")


def answer(value: Any, *, status: int = 200) -> Response:
    """Give a JSON answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refusal(error: MatchdayError) -> Response:
    """Give the JSON answer that an error becomes."""
    body = {"error": {"reason": reason_of(error), "text": str(error)}}
    result = answer(body, status=status_of(error))
    if result.status_code in (429, 503):
        result.headers["Retry-After"] = "2"
    return result


async def http_error(request: Request, error: Exception) -> Response:
    """Answer where there is nothing, or not by this method, in the shape of all errors."""
    assert isinstance(error, HTTPException)
    what = f"{request.method[:20]} {request.url.path[:80]}"
    reason, why = "bad_method", "not by this method"
    if error.status_code == 404:
        reason, why = "no_path", "there is no such path"
    body = {"error": {"reason": reason, "text": f"answering {what}: {why}"}}
    result = answer(body, status=error.status_code)
    result.headers.update(error.headers or {})
    return result


def limit_of(request: Request, *, default: int = LIMIT_DEFAULT) -> int:
    """Read `?limit=`.

    Raises:
        RefusedError: It is no number from 1 to `LIMIT_MAX` (`bad_limit`).
    """
    text = request.query_params.get("limit", str(default))
    # By length first: Python refuses to convert thousands of digits.
    if not (text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= LIMIT_MAX):
        raise RefusedError("bad_limit", f"reading limit {text[:20]!r}: not within 1 to {LIMIT_MAX}")
    return int(text)
