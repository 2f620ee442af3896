"""The web application: which path is answered by what, and which thread runs while it does.

Owns the threads `dashboard.tail` and `dashboard.watch` and the tasks of the fan-out, from
the application's start to its stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from matchday.dashboard.api import Api, http_error
from matchday.dashboard.asking import Asker, Shared
from matchday.dashboard.attempts import Attempts
from matchday.dashboard.board import Board
from matchday.dashboard.browser import Browser
from matchday.dashboard.fanout import Hub
from matchday.dashboard.files import Assets
from matchday.dashboard.live import Tail, Watch
from matchday.dashboard.readiness import Readiness
from matchday.dashboard.security import Guard, Login
from matchday.dashboard.state import DashboardState
from matchday.observe import metrics

JOIN_S = 5.0


def make_app(
    state: DashboardState, *, on_crash: Callable[[BaseException], None] = lambda error: None
) -> Starlette:
    """Put the dashboard together; its threads start and stop with the application.

    It starts whatever is down, and shows which link that is and since when.

    Args:
        state: What it shows.
        on_crash: Called where a thread or a tick ends by an error that is no outage: a page
            whose data stand still must not look as if they did not.
    """
    stop = threading.Event()
    board = Board(state.venues, clock=state.clock)
    tail = Tail(state, board, stop=stop)
    watch = Watch(state, tail, stop=stop)
    hub = Hub(board, watch)
    asker = Asker()
    account = Shared(state.account, name="dashboard.account")
    readiness = Readiness(watch.links, clock=state.clock)
    assets = Assets()

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        """Run the threads and ticks of the live view while the web server is up."""
        metrics.gauge(
            "matchday_dashboard_clients", "Open live connections", lambda: hub.client_count
        )
        threads = {"tail": tail.run, "watch": watch.run}
        ticks = {"positions": hub.run_positions, "state": hub.run_state}
        try:
            async with _threads(threads, stop, on_crash), _ticks(ticks, on_crash):
                yield
        finally:
            for part in (asker, account, readiness):
                part.close()

    attempts = Attempts(clock=state.clock)
    login = Login(token=state.token, title=state.title, clock=state.clock, attempts=attempts)
    return Starlette(
        routes=[
            Route("/", assets.page),
            Route("/assets/{path:path}", assets.asset),
            Route("/login", login.answer, methods=["GET", "POST"]),
            *Api(state, board=board, readiness=readiness, account=account, asker=asker).routes(),
            *Browser(state, asker=asker).routes(),
            WebSocketRoute("/api/v1/live", hub.serve),
        ],
        middleware=[_guard(state, attempts)],
        exception_handlers={HTTPException: http_error},
        lifespan=running,
    )


def _guard(state: DashboardState, attempts: Attempts) -> Middleware:
    return Middleware(
        Guard,
        token=state.token,
        allowed_hosts=state.allowed_hosts,
        clock=state.clock,
        attempts=attempts,
    )


@asynccontextmanager
async def _threads(
    runs: Mapping[str, Callable[[], None]],
    stop: threading.Event,
    on_crash: Callable[[BaseException], None],
) -> AsyncIterator[None]:
    """Run each in a thread of its name; at the end ask them to stop, and wait for them."""
    threads = [_thread(name, run, on_crash) for name, run in runs.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*(asyncio.to_thread(thread.join, JOIN_S) for thread in threads))


@asynccontextmanager
async def _ticks(
    runs: Mapping[str, Callable[[], Awaitable[None]]], on_crash: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Run each in a task of its name; at the end cancel them."""
    async with asyncio.TaskGroup() as tasks:
        ticks = [
            tasks.create_task(_tick(run, on_crash), name=f"dashboard.{name}")
            for name, run in runs.items()
        ]
        yield
        for tick in ticks:
            tick.cancel()


def _thread(
    name: str, run: Callable[[], None], on_crash: Callable[[BaseException], None]
) -> threading.Thread:
    def work() -> None:
        """Run it; hand the error that ends it to `on_crash`."""
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - ends the web server
            on_crash(error)

    return threading.Thread(target=work, name=f"dashboard.{name}")


async def _tick(
    run: Callable[[], Awaitable[None]], on_crash: Callable[[BaseException], None]
) -> None:
    try:
        await run()
    except Exception as error:
        on_crash(error)
        raise
