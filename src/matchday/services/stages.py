"""Settings -> stages: builds each stage from its section, for whichever service runs it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from matchday.clock import Clock
from matchday.config import Settings
from matchday.domain.venue import Venue, read_venue
from matchday.errors import ConfigError
from matchday.ingest.adapters import Adapters
from matchday.ingest.bridge import Bridge, BridgePolicy
from matchday.ingest.gate import GatePolicy
from matchday.ingest.slots import Slots
from matchday.ports import Feed, LinkState, Store, Stream
from matchday.services.links import feed_opener
from matchday.sqlite import DataFolder
from matchday.store.persist import Persist, PersistPolicy


def build_ingest(
    settings: Settings,
    stream: Stream,
    *,
    folder: DataFolder | None,
    clock: Clock,
    rng: random.Random,
) -> IngestParts:
    """Build the ingest stage; its feed opens when its slot is owned."""
    opener = feed_opener(settings, clock=clock, rng=rng)
    watched = _WatchedFeed(opener)
    adapters = Adapters(settings.ingest.adapters, zone=_zone(settings.ingest.zone))
    gate = gate_policy(settings)
    policy = BridgePolicy(
        slot=settings.ingest.slot,
        tick_s=settings.ingest.tick_s,
        duplicate_window_ms=round(settings.ingest.duplicate_window_s * 1000),
        receive_max=settings.mqtt.receive_max,
        payload_bytes_max=settings.ingest.payload_bytes_max,
    )

    def make_bridge(_slot: str) -> Bridge:
        return Bridge(
            watched.open,
            stream,
            policy=policy,
            adapters=adapters,
            gate=gate,
            clock=clock,
            rng=rng,
            hold=_disk_guard(folder, settings.data.free_bytes_min, clock),
        )

    return IngestParts(Slots(stream, [settings.ingest.slot], make_bridge, clock=clock), watched)


class IngestParts:
    """The ingest stage and the state of its feed."""

    def __init__(self, slots: Slots, watched: _WatchedFeed) -> None:
        self.slots = slots
        self._watched = watched

    def link(self) -> LinkState | None:
        """Give the state of the feed; None while another replica owns the slot."""
        return self._watched.link()


class _WatchedFeed:
    """Remembers the feed that was opened last, so that its state can be asked for."""

    def __init__(self, opener: Callable[[], Feed]) -> None:
        self._opener = opener
        self._feed: Feed | None = None

    def open(self) -> Feed:
        self._feed = self._opener()
        return self._feed

    def link(self) -> LinkState | None:
        return None if self._feed is None else self._feed.link()


def build_persist(
    settings: Settings, stream: Stream, store: Store, *, clock: Clock, rng: random.Random
) -> Persist:
    """Build the persist stage."""
    policy = PersistPolicy(
        member=uuid.uuid4().hex[:12],
        batch_records_max=settings.persist.batch_records_max,
        batch_linger_s=settings.persist.batch_linger_s,
    )
    return Persist(stream, store, policy=policy, clock=clock, rng=rng)


def gate_policy(settings: Settings) -> GatePolicy:
    """Give the gate's bounds from the settings."""
    gate = settings.gate
    registered = settings.ingest.registered
    return GatePolicy(
        ahead_ms_max=round(gate.ahead_s_max * 1000),
        value_abs_max=gate.value_abs_max,
        position_m_max=gate.position_m_max,
        count_max=gate.count_max,
        objects_max=gate.objects_max,
        name_chars_max=gate.name_chars_max,
        registered=frozenset(registered) if settings.ingest.sources == "registered" else None,
    )


def read_venues(settings: Settings) -> Sequence[Venue]:
    """Read all venue files.

    Raises:
        ConfigError: A file is no venue, or two have the same id.
    """
    venues = [read_venue(path) for path in settings.venue.files]
    ids = [venue.id for venue in venues]
    if len(set(ids)) < len(ids):
        raise ConfigError(f"reading venue.files: two venues have one id: {', '.join(ids)}")
    return venues


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"reading ingest.zone {name!r}: no such time zone") from error


def _disk_guard(
    folder: DataFolder | None, bytes_min: int, clock: Clock
) -> Callable[[], str | None]:
    """Make the question whether the disk is too full, asked of the disk once a second."""
    if folder is None:
        return lambda: None
    checked_s = float("-inf")
    reason: str | None = None

    def hold() -> str | None:
        nonlocal checked_s, reason
        if clock.monotonic_s() - checked_s >= 1.0:
            checked_s = clock.monotonic_s()
            free = folder.free_bytes()
            reason = (
                f"{free // 2**20} MiB free in {folder.path}, below data.free_bytes_min "
                f"{bytes_min // 2**20} MiB"
                if free < bytes_min
                else None
            )
        return reason

    return hold
