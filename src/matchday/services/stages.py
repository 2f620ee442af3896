"""Settings -> stages: builds each stage from its section, for whichever service runs it.

What a stage is made of is imported where it is built: a service that only reads venues here
would carry ingest and persist for nothing.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from matchday.clock import Clock
from matchday.config import Settings
from matchday.domain.venue import Venue, read_venue
from matchday.errors import ConfigError
from matchday.ports import Feed, LinkState, Start, Store, Stream
from matchday.services.links import feed_opener, is_embedded
from matchday.sqlite import DataFolder

if TYPE_CHECKING:
    from matchday.ingest.bridge import Bridge
    from matchday.ingest.gate import GatePolicy
    from matchday.ingest.slots import Slots
    from matchday.store.persist import Persist, PersistPolicy

EMBEDDED_BATCH_RECORDS_MAX = 1000
"""A commit of the embedded store costs so little that larger batches only cost memory."""

DISK_EVERY_S = 1.0
"""How old the answer to whether the disk has room may be."""


def build_ingest(
    settings: Settings,
    stream: Stream,
    *,
    folder: DataFolder | None,
    clock: Clock,
    rng: random.Random,
) -> IngestParts:
    """Build the ingest stage; the feed of a slot opens when the slot is owned."""
    from matchday.ingest.adapters import Adapters
    from matchday.ingest.bridge import Bridge, BridgePolicy
    from matchday.ingest.slots import Slots

    feeds = {
        slot.name: _WatchedFeed(feed_opener(settings, slot, clock=clock, rng=rng))
        for slot in settings.ingest.all_slots()
    }
    adapters = Adapters(settings.ingest.adapters, zone=zone_of(settings.ingest.zone))
    gate = gate_policy(settings)
    policy = BridgePolicy(
        slot_count=len(feeds),
        tick_s=settings.ingest.tick_s,
        duplicate_window_ms=round(settings.ingest.duplicate_window_s * 1000),
        receive_max=settings.mqtt.receive_max,
        payload_bytes_max=settings.ingest.payload_bytes_max,
    )

    def make_bridge(slot: str) -> Bridge:
        """Make the bridge of a slot; it opens the feed when it runs."""
        return Bridge(
            feeds[slot].open,
            stream,
            policy=replace(policy, slot=slot),
            adapters=adapters,
            gate=gate,
            clock=clock,
            rng=rng,
            hold=_DiskGuard(folder, settings.data.free_bytes_min, clock),
        )

    slots = Slots(stream, list(feeds), make_bridge, clock=clock)
    return IngestParts(slots, feeds, since_ms=clock.wall_ms())


class IngestParts:
    """The ingest stage and the state of its feeds."""

    def __init__(self, slots: Slots, feeds: Mapping[str, _WatchedFeed], *, since_ms: int) -> None:
        self.slots = slots
        self._feeds = feeds
        self._since_ms = since_ms

    def link(self) -> LinkState | None:
        """Give the state of the feeds in one: up when all are; None while standing by.

        A feed that is not open yet is down: what a broker gets before the first time that we
        subscribe it may throw away. Of several slots those that are down are named.
        """
        from matchday.ingest.slots import STANDING_BY

        states = self.slots.states()
        here = [name for name, doing in states.items() if doing != STANDING_BY]
        found = {name: link for name in here if (link := self._feeds[name].link()) is not None}
        if not here:
            return None
        if found and len(here) == 1:
            return found[here[0]]
        opening = [name for name in here if name not in found]
        down = [name for name, link in found.items() if not link.is_up]
        details = [f"slot {name}: {found[name].detail}" for name in (down or found)]
        details += [f"slot {name}: {states[name]}" for name in opening]
        return LinkState(
            "mqtt",
            is_up=not down and not opening,
            since_ms=max(
                (found[name].since_ms for name in (down or found)), default=self._since_ms
            ),
            detail="; ".join(details),
        )


class _WatchedFeed:
    """Remembers the feed that was opened last, so that its state can be asked for."""

    def __init__(self, opener: Callable[[], Feed]) -> None:
        self._opener = opener
        self._feed: Feed | None = None

    def open(self) -> Feed:
        """Open the feed anew; see `Feed` for what it may raise."""
        self._feed = self._opener()
        return self._feed

    def link(self) -> LinkState | None:
        """Give the state of the feed opened last; None before the first."""
        return None if self._feed is None else self._feed.link()


def build_persist(
    settings: Settings, stream: Stream, store: Store, *, clock: Clock, rng: random.Random
) -> Persist:
    """Build the persist stage."""
    from matchday.store.persist import Persist

    return Persist(stream, store, policy=persist_policy(settings), clock=clock, rng=rng)


def persist_policy(settings: Settings) -> PersistPolicy:
    """Give how persist works from the settings; batches are smaller in an embedded store."""
    from matchday.store.policy import PersistPolicy

    batch_records_max = settings.persist.batch_records_max
    if is_embedded(settings.store.url.get_secret_value()):
        batch_records_max = min(batch_records_max, EMBEDDED_BATCH_RECORDS_MAX)
    return PersistPolicy(
        member=uuid.uuid4().hex[:12],
        batch_records_max=batch_records_max,
        batch_linger_s=settings.persist.batch_linger_s,
    )


def whole_stream(stream: Stream, store: Store) -> Callable[[], None]:
    """Make the step that refuses a stream which ends before what the store has of it.

    So does a file that lost its newest part, to a disk that did not keep what it confirmed or
    to somebody who put an older copy back. Going on would give new readings the places of
    stored ones, and persist would take them for stored. So it must run before ingest does.
    Only for streams that this process owns: elsewhere others append meanwhile.
    """
    from matchday.store.persist import TOPICS

    def step() -> None:
        """Compare the end of each partition with what the store has of it."""
        reader = stream.reader(TOPICS, Start.end())
        try:
            ends = dict(reader.offsets())
        finally:
            reader.close()
        for place, end in ends.items():
            stored_to = store.claim(place, stream.topic_id(place.topic))
            if stored_to is not None and stored_to > end:
                raise ConfigError(
                    f"opening the stream: {place} ends at {end}, and the "
                    f"store has it up to {stored_to}: {stream.link().detail} has lost its newest "
                    "records; put the newer file back, or move it away with its -wal file: then "
                    "a new stream begins, and the store keeps all it has"
                )

    return step


def gate_policy(settings: Settings) -> GatePolicy:
    """Give the gate's bounds from the settings."""
    from matchday.ingest.gate import GatePolicy

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


def zone_of(name: str) -> ZoneInfo:
    """Give the time zone of that name, as `ingest.zone` has it.

    Raises:
        ConfigError: There is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"reading ingest.zone {name!r}: no such time zone") from error


class _DiskGuard:
    """Tells why nothing may be taken in now, for want of disk; asks the disk once a second."""

    def __init__(self, folder: DataFolder | None, bytes_min: int, clock: Clock) -> None:
        self._folder = folder
        self._bytes_min = bytes_min
        self._clock = clock
        self._asked_s = float("-inf")
        self._reason: str | None = None

    def __call__(self) -> str | None:
        """Give the reason, up to a second old, or None; without a folder there never is one."""
        now_s = self._clock.monotonic_s()
        if self._folder is not None and now_s - self._asked_s >= DISK_EVERY_S:
            self._asked_s = now_s
            self._reason = self._look(self._folder)
        return self._reason

    def _look(self, folder: DataFolder) -> str | None:
        free = folder.free_bytes()
        if free >= self._bytes_min:
            return None
        return (
            f"{free // 2**20} MiB free in {folder.path}, below data.free_bytes_min "
            f"{self._bytes_min // 2**20} MiB"
        )
