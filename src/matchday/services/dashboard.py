"""`matchday dashboard`: the page and the data browser, reading stream and store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matchday.clock import Clock
from matchday.config import Settings
from matchday.dashboard.serve import DashboardServer
from matchday.dashboard.state import Attribution, DashboardState
from matchday.ports import LinkState, Query, Stream
from matchday.services.cached_account import CachedAccount
from matchday.services.demo import demo_attributions
from matchday.services.lifecycle import Role, Service
from matchday.services.links import is_embedded, open_query, open_stream, read_token
from matchday.services.stages import read_venues


def build_page(
    settings: Settings,
    stream: Stream,
    query: Query,
    links: Callable[[], Sequence[LinkState]],
    *,
    clock: Clock,
    attributions: Sequence[Attribution] = (),
) -> DashboardServer:
    """Build the web server on an open stream and store."""
    url = settings.mqtt.url.get_secret_value()
    note = f"{settings.bind}:{settings.mqtt.port}"
    if not is_embedded(url):
        note = url.rpartition("@")[2].partition("://")[2] or url.rpartition("@")[2]
    venues = read_venues(settings)
    account = CachedAccount(stream, query, clock=clock)
    state = DashboardState(
        query=query,
        account=account,
        links=links,
        stream=lambda: stream,
        venues=venues,
        clock=clock,
        title=venues[0].name if venues else "matchday",
        endpoint_note=note,
        attributions=attributions,
        token=read_token(settings.http.token_file),
        allowed_hosts=settings.http.allowed_hosts,
    )
    return DashboardServer(
        state, host=settings.bind, port=settings.http.port, release=account.close
    )


def build_dashboard(settings: Settings, *, clock: Clock) -> Service:
    """Build the service; on embedded parts it reads beside the process that owns them."""
    embedded = is_embedded(settings.stream.url.get_secret_value())
    stream = open_stream(settings, clock=clock, read_only=embedded)
    query = open_query(settings)
    page = build_page(
        settings,
        stream,
        query,
        lambda: [stream.link(), query.link()],
        clock=clock,
        attributions=demo_attributions(),
    )

    def close() -> None:
        """Close what the page reads from, after the page."""
        query.close()
        stream.close()

    return Service("dashboard", [Role("dashboard.page", page.run, close=close)], clock=clock)
