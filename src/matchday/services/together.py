"""`matchday up`: everything in one process, by default on the embedded parts."""

from __future__ import annotations

import random
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from matchday.clock import Clock
from matchday.config import Settings
from matchday.dashboard.serve import DashboardServer
from matchday.errors import MatchdayError
from matchday.ports import LinkState
from matchday.services.analysis import build_worker
from matchday.services.dashboard import build_page
from matchday.services.demo import SOURCES, build_demo, venue_file
from matchday.services.lifecycle import Role, Service
from matchday.services.links import (
    Prepared,
    claim_folder,
    is_embedded,
    open_query,
    open_store,
    open_stream,
)
from matchday.services.stages import build_ingest, build_persist, whole_stream


def build_together(settings: Settings, *, demo: bool, clock: Clock) -> Service:
    """Build all stages on one stream and one store.

    Raises:
        MatchdayError: A port is in use; names it and its flag.
        ConfigError: Another process owns the data folder.
    """
    if demo and not settings.venue.files:
        venue = replace(settings.venue, files=(venue_file(),))
        settings = replace(settings, venue=venue)
    settings = _with_ports(settings)
    rng = random.Random()
    folder = claim_folder(settings)
    stream = open_stream(settings, clock=clock)
    store = open_store(settings, clock=clock)
    query = open_query(settings)
    steps = [stream.prepare, store.prepare]
    if is_embedded(settings.stream.url.get_secret_value()):
        steps.append(whole_stream(stream, store))
    prepared = Prepared(*steps, clock=clock, rng=rng)
    ingest = build_ingest(settings, stream, folder=folder, clock=clock, rng=rng)
    worker = build_worker(settings, stream, clock=clock, rng=rng)
    persist = build_persist(settings, stream, store, clock=clock, rng=rng)

    def links() -> list[LinkState]:
        """Give the state of every link; the feed is first, where there is one."""
        feed = ingest.link()
        found = [stream.link(), store.link()]
        return found if feed is None else [feed, *found]

    def takes_messages() -> bool:
        """Tell whether a sensor's message would be taken now."""
        feed = ingest.link()
        return feed is not None and feed.is_up

    page = build_page(
        settings,
        stream,
        query,
        links,
        clock=clock,
        attributions=[source.attribution for source in SOURCES] if demo else (),
    )

    def close() -> None:
        """Close what the service opened, the owned data folder last."""
        for part in (query, store, stream):
            part.close()
        if folder is not None:
            folder.close()

    roles = [
        *(build_demo(settings, clock=clock, is_taken=takes_messages) if demo else ()),
        Role("server.ingest", prepared.gate(ingest.slots.run)),
        Role("analysis.worker", prepared.gate(worker.run)),
        Role("server.persist", prepared.gate(persist.run), is_drained=persist.is_caught_up),
        Role("dashboard.page", prepared.gate(_announced(settings, page)), close=close),
    ]
    return Service("up", roles, clock=clock)


def require_free(host: str, port: int, flag: str) -> int:
    """Make sure that a port can be listened on, and give it; for 0 one that is free.

    Raises:
        MatchdayError: It is in use or not allowed; names it and the flag that changes it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return int(probe.getsockname()[1])
        except OSError as error:
            raise MatchdayError(
                f"listening on {host}:{port}: {error.strerror}; choose another port with {flag}"
            ) from error


def _with_ports(settings: Settings) -> Settings:
    """Make sure of the ports of page and endpoint; an endpoint told 0 gets a free one.

    Here and not by the endpoint: page, demo and text tell it, and who comes back finds it.

    Raises:
        MatchdayError: One is in use; names it and its flag.
    """
    require_free(settings.bind, settings.http.port, "--http-port")
    if not is_embedded(settings.mqtt.url.get_secret_value()):
        return settings
    port = require_free(settings.bind, settings.mqtt.port, "--mqtt-port")
    return replace(settings, mqtt=replace(settings.mqtt, port=port))


def _announced(settings: Settings, page: DashboardServer) -> Callable[[threading.Event], None]:
    """Print where things are once, when the page answers."""

    def announce() -> None:
        """Print where page, sensors and data are."""
        lines = [f"page     {page.url}"]
        if is_embedded(settings.mqtt.url.get_secret_value()):
            lines.append(f"sensors  mqtt://{settings.bind}:{settings.mqtt.port}")
        lines.append(f"data     {settings.data_dir}    stop with Ctrl-C")
        # In one piece: other threads write their lines meanwhile.
        # Where nobody reads them the page is no worse for it.
        with suppress(OSError):
            sys.stderr.write("".join(f"{line}\n" for line in lines))
            sys.stderr.flush()

    return lambda stop: page.run(stop, announce=announce)
