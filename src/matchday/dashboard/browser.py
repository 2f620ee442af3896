"""The data browser: `/db/<database>/<collection>` shows the newest documents as a table.

Read-only, on either store through `Query`. Pages are plain HTML without a script of their
own need; every value is escaped, whoever sent it.
"""

from __future__ import annotations

import html
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from matchday.dashboard.api import limit_of
from matchday.dashboard.asking import Asker, status_of
from matchday.dashboard.documents import cell_text, flatten
from matchday.dashboard.listing import BY_SOURCE, FIELD_BYTES_MAX, newest_within
from matchday.dashboard.state import DATABASE, DashboardState
from matchday.errors import MatchdayError, RefusedError

COLUMNS_MAX = 40
CELL_CHARS_MAX = 160
LEADING = ("collected_at", "created_at", "date", "t", "time", "at", "source", "metadata.sensor_id")
PAGE_BYTES_MAX = 4 * 2**20
"""Of the documents as JSON; as text of a page each quotation mark becomes six bytes."""
LIMITS = (20, 50, 200, 1_000)


class Browser:
    """The handlers of `/db`."""

    def __init__(self, state: DashboardState, *, asker: Asker) -> None:
        self._state = state
        self._asker = asker

    def routes(self) -> list[BaseRoute]:
        """Give the routes of the data browser."""
        return [
            Route("/db", self.collections),
            Route("/db/{database}", self.collections),
            Route("/db/{database}/{collection}", self.documents),
        ]

    async def collections(self, request: Request) -> Response:
        """List the collections of the one database."""
        database = request.path_params.get("database")
        if database is None:
            return RedirectResponse(f"/db/{DATABASE}", 307)
        try:
            _check_database(database)
            names = await self._asker.ask(self._state.query.collections)
        except MatchdayError as error:
            return self._problem(error)
        if not names:
            body = (
                '<p class="empty">Nothing is stored yet. '
                "Collections appear with their first document.</p>"
            )
        else:
            items = "".join(f'<li><a href="{_path(name)}">{_esc(name)}</a></li>' for name in names)
            body = f'<ul class="collections">{items}</ul>'
        return self._page("Database server", f"<h1>Database {DATABASE}</h1>{body}")

    async def documents(self, request: Request) -> Response:
        """Show the newest documents of one collection; `?source=`, `?limit=`, `?after=`.

        Those of `ledger` come by the source's name.
        """
        name = request.path_params["collection"]
        source = request.query_params.get("source", "").strip()
        after = request.query_params.get("after", "")
        try:
            _check_database(request.path_params["database"])
            limit = limit_of(request)
            # Written there, too: documents of many objects take their time.
            return await self._asker.ask(
                lambda: self._shown(name, source=source, limit=limit, after=after)
            )
        except MatchdayError as error:
            return self._problem(error)

    def _shown(self, name: str, *, source: str, limit: int, after: str) -> HTMLResponse:
        found = newest_within(
            self._state.query,
            name,
            limit=limit,
            source=source or None,
            bytes_max=PAGE_BYTES_MAX,
            after=after,
        )
        rows = [flatten(one) for one in found.documents]
        body = (
            _collection_links(self._state.query.collections(), name)
            + f"<h1>{_esc(name)}</h1>"
            + _NOTES.get(name, "")
            + _filter_form(name, source=source, limit=limit)
            + (f'<p class="note">Here are {_esc(found.cut)}.</p>' if found.cut else "")
            + _table(rows, name=name, source=source, is_first=not after)
            + _next_link(name, source=source, limit=limit, after=found.next)
        )
        return self._page(name, body)

    def _problem(self, error: MatchdayError) -> HTMLResponse:
        status = status_of(error)
        heading = "Not found" if status == 404 else "No answer"
        body = (
            f'<h1>{heading}</h1><p class="problem" role="alert">{_esc(str(error))}</p>'
            f'<p><a href="/db/{DATABASE}">All collections</a></p>'
        )
        return self._page(heading, body, status=status)

    def _page(self, heading: str, body: str, *, status: int = 200) -> HTMLResponse:
        title = _esc(self._state.title)
        return HTMLResponse(
            _PAGE.format(heading=_esc(heading), title=title, body=body), status_code=status
        )


def _check_database(name: str) -> None:
    if name != DATABASE:
        raise RefusedError(
            "no_database", f"opening database {name[:80]!r}: there is only {DATABASE!r}"
        )


def _collection_links(names: list[str], current: str) -> str:
    here = ' aria-current="page"'
    items = "".join(
        f'<li><a href="{_path(name)}"{here if name == current else ""}>{_esc(name)}</a></li>'
        for name in names
    )
    return f'<nav aria-label="Collections" class="tabs"><ul>{items}</ul></nav>'


def _filter_form(name: str, *, source: str, limit: int) -> str:
    options = "".join(
        f'<option value="{n}"{" selected" if n == limit else ""}>{n}</option>'
        for n in sorted({*LIMITS, limit})
    )
    at_most = "At most" if name == BY_SOURCE else "Newest"
    clear = f'<a href="{_path(name)}">Clear filter</a>' if source else ""
    return (
        f'<form class="filter" action="{_path(name)}">'
        f'<label for="source">Source</label>'
        f'<input id="source" name="source" value="{_esc(source)}" placeholder="all sources">'
        f'<label for="limit">{at_most}</label><select id="limit" name="limit">{options}</select>'
        f'<button type="submit">Show</button>{clear}</form>'
    )


def _next_link(name: str, *, source: str, limit: int, after: str | None) -> str:
    if after is None:
        return ""
    query = urlencode({"source": source, "limit": limit, "after": after})
    text = "Next documents" if name == BY_SOURCE else "Older documents"
    return f'<p><a rel="next" href="{_path(name)}?{_esc(query)}">{text}</a></p>'


def _table(rows: list[dict[str, Any]], *, name: str, source: str, is_first: bool) -> str:
    if not rows:
        what = f"documents of source {_esc(source)}" if source else "documents"
        none = f"No {what} in {_esc(name)} yet." if is_first else f"No more {what} in {_esc(name)}."
        return f'<p class="empty">{none}</p>'
    columns = _columns(rows)
    head = "".join(f'<th scope="col">{_esc(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(_cell(row.get(column)) for column in columns) + "</tr>" for row in rows
    )
    documents = f"document{'s' if len(rows) != 1 else ''}"
    if name == BY_SOURCE:
        count = f"{len(rows)} {documents}, by source"
    else:
        count = f"{len(rows)} {'newest' if is_first else 'older'} {documents}, newest first"
    return (
        f'<div class="scroll" role="region" aria-label="Documents of {_esc(name)}" tabindex="0">'
        f"<table><caption>{count}. Times are UTC.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Give the columns of all rows: time and source first, the store's own identity last."""
    seen = dict.fromkeys(column for row in rows for column in row)
    leading = [column for column in LEADING if column in seen]
    rest = [column for column in seen if column not in leading and column != "_id"]
    identity = ["_id"] if "_id" in seen else []
    return [*leading, *rest[:COLUMNS_MAX], *identity]


def _cell(value: Any) -> str:
    text = cell_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{_esc(text)}</td>'
    if len(text) <= CELL_CHARS_MAX:
        return f"<td>{_esc(text)}</td>"
    count = f"{len(value)} items" if isinstance(value, list) else f"{len(text)} characters"
    return f"<td><details><summary>{count}</summary><code>{_esc(text)}</code></details></td>"


def _path(collection: str) -> str:
    return f"/db/{DATABASE}/{quote(collection, safe='')}"


def _esc(text: str) -> str:
    return html.escape(text, quote=True)


_NOTES = {
    "dead_letters": (
        f'<p class="note">What is longer than {FIELD_BYTES_MAX // 1024} KiB is left out here. '
        "<code>matchday deadletter list</code> names each message, and "
        "<code>matchday deadletter show</code> prints one whole.</p>"
    )
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading} · {title}</title>
<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">
<script src="/assets/theme.js"></script>
<link rel="stylesheet" href="/assets/app.css">
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header class="top">
<a class="brand" href="/"><img src="/assets/icon.svg" alt="" width="24" height="24">{title}</a>
<nav aria-label="Pages" class="pages"><a href="/">Live</a>
<a href="/db/server" aria-current="page">Database</a></nav>
<div class="top-end"><button type="button" id="theme" class="quiet">Theme</button></div>
</header>
<main id="main" class="db">
{body}
</main>
</body>
</html>
"""
