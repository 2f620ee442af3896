"""The web application: which path is answered by what, and which thread runs while it does.

Owns the threads `dashboard.tail` and `dashboard.watch` and the tasks of the fan-out, from
the application's start to its stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute

from matchday.dashboard.api import Api
from matchday.dashboard.asking import Asker
from matchday.dashboard.board import Board
from matchday.dashboard.browser import Browser
from matchday.dashboard.fanout import Hub
from matchday.dashboard.files import Assets
from matchday.dashboard.live import Tail, Watch
from matchday.dashboard.security import Guard, Login
from matchday.dashboard.state import DashboardState
from matchday.observe import metrics

JOIN_S = 5.0


def make_app(state: DashboardState) -> Starlette:
    """Put the dashboard together; its threads start and stop with the application.

    It starts whatever is down, and shows which link that is and since when.
    """
    stop = threading.Event()
    board = Board(state.venues, clock=state.clock)
    tail = Tail(state, board, stop=stop)
    watch = Watch(state, tail, stop=stop)
    hub = Hub(board, watch)
    asker = Asker()
    assets = Assets()

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        threads = [
            threading.Thread(target=tail.run, name="dashboard.tail"),
            threading.Thread(target=watch.run, name="dashboard.watch"),
        ]
        metrics.gauge(
            "matchday_dashboard_clients", "Open live connections", lambda: hub.client_count
        )
        for thread in threads:
            thread.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                ticks = [
                    tasks.create_task(hub.run_positions(), name="dashboard.positions"),
                    tasks.create_task(hub.run_state(), name="dashboard.state"),
                ]
                yield
                for task in ticks:
                    task.cancel()
        finally:
            stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join, JOIN_S)
            asker.close()

    login = Login(token=state.token, title=state.title, clock=state.clock)
    return Starlette(
        routes=[
            Route("/", assets.page),
            Route("/assets/{path:path}", assets.asset),
            Route("/login", login.answer, methods=["GET", "POST"]),
            *Api(state, board=board, watch=watch, asker=asker).routes(),
            *Browser(state, asker=asker).routes(),
            WebSocketRoute("/api/v1/live", hub.serve),
        ],
        middleware=[Middleware(Guard, token=state.token, allowed_hosts=state.allowed_hosts)],
        lifespan=running,
    )
