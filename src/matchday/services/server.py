"""`matchday server`: MQTT -> stream (ingest) and stream -> store (persist)."""

from __future__ import annotations

import random
from typing import Literal

from matchday.clock import Clock
from matchday.config import Settings
from matchday.ports import LinkState
from matchday.services.health import health_of
from matchday.services.lifecycle import Role, Service
from matchday.services.links import Prepared, claim_folder, is_embedded, open_store, open_stream
from matchday.services.stages import build_ingest, build_persist, whole_stream

ServerRole = Literal["ingest", "persist", "all"]


def build_server(settings: Settings, *, role: ServerRole, clock: Clock) -> Service:
    """Build the server with one or both of its roles."""
    rng = random.Random()
    folder = claim_folder(settings)
    stream = open_stream(settings, clock=clock)
    closers = [stream.close]
    links = [stream.link]
    steps = [stream.prepare]
    roles: list[Role] = []
    if role in ("persist", "all"):
        store = open_store(settings, clock=clock)
        closers.insert(0, store.close)
        links.append(store.link)
        steps.append(store.prepare)
        if is_embedded(settings.stream.url.get_secret_value()):
            steps.append(whole_stream(stream, store))
    prepared = Prepared(*steps, clock=clock, rng=rng)
    if role in ("ingest", "all"):
        ingest = build_ingest(settings, stream, folder=folder, clock=clock, rng=rng)
        roles.append(Role("server.ingest", prepared.gate(ingest.slots.run)))
    if role in ("persist", "all"):
        persist = build_persist(settings, stream, store, clock=clock, rng=rng)
        roles.append(
            Role("server.persist", prepared.gate(persist.run), is_drained=persist.is_caught_up)
        )

    def states() -> list[LinkState]:
        """Give the state of every link; the feed is first, where this process has one."""
        found = [link() for link in links]
        feed = ingest.link() if role in ("ingest", "all") else None
        return found if feed is None else [feed, *found]

    health = health_of(settings, "server", states)

    def close() -> None:
        """Close what the service opened, the owned data folder last."""
        for closer in closers:
            closer()
        if folder is not None:
            folder.close()

    roles.append(Role("server.health", health.run, close=close))
    return Service("server", roles, clock=clock)
