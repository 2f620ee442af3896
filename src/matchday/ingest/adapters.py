"""The formats that sensors speak, in one table: topic filter -> function -> readings.

An adapter is a pure function from topic, payload and arrival time to readings. Adding a
format is one function in `formats` and one row in `TABLE`; configuration may put rows of its
own (`ingest.adapters`) before the table's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import TypeAlias

from matchday.domain.reading import Reading
from matchday.domain.topics import matches, parse_native
from matchday.errors import ConfigError, RefusedError
from matchday.ingest import formats, native

ROUTES_MAX = 65_536
ROUTE_CHARS_MAX = 300
"""Longer topics are looked up anew each time: MQTT's limit of 65,535 bytes would make the
remembered routes 4 GB."""


Decoded: TypeAlias = tuple[Sequence[Reading], int]
"""What a message holds: its readings, and how many of its fields no contract names."""

Decode: TypeAlias = Callable[[str, bytes, int, tzinfo], Decoded]
"""(topic, payload, arrival in milliseconds UTC, zone of times without one) -> decoded."""


@dataclass(frozen=True)
class Adapter:
    """One row of the table.

    Attributes:
        topic_filter: MQTT filter of the topics it takes.
        name: What configuration calls the format.
        decode: The function.
        zone: Time zone of times that state none.
    """

    topic_filter: str
    name: str
    decode: Decode
    zone: tzinfo = UTC


FORMATS: dict[str, Decode] = {
    "native": native.decode,
    "original": formats.decode_original,
    "text": formats.decode_text,
    "zone-density": formats.decode_zone_density,
    "live-counter": formats.decode_live_counter,
}

TABLE: tuple[tuple[str, str], ...] = (
    ("matchday/+/scalar/+", "native"),
    ("matchday/+/positions/+", "native"),
    ("matchday/+/count/+", "native"),
    ("sensor/data", "text"),
    ("testing", "text"),
    ("crowd/density/+", "zone-density"),
    ("crowd/live/+", "live-counter"),
    ("+", "original"),
)
"""Filter and format, first match wins. The original's sensors use one-level topics named
after their quantity in any case (`image`, `Image`, `temperature`)."""


class Adapters:
    """Chooses the adapter of each topic and remembers the choice."""

    def __init__(self, rows: Sequence[str] = (), *, zone: tzinfo = UTC) -> None:
        """Take rows `FILTER=FORMAT` to put before the table.

        Raises:
            ConfigError: A row names an unknown format.
        """
        own: list[tuple[str, str]] = []
        for row in rows:
            topic_filter, _, name = row.rpartition("=")
            if name not in FORMATS or not topic_filter:
                raise ConfigError(
                    f"reading ingest.adapters {row!r}: FILTER=FORMAT wanted, formats are "
                    f"{', '.join(FORMATS)}"
                )
            own.append((topic_filter, name))
        self._adapters = [
            Adapter(topic_filter, name, FORMATS[name], zone)
            for topic_filter, name in (*own, *TABLE)
        ]
        self._own_filters = tuple(topic_filter for topic_filter, _ in own)
        self._routes: dict[str, Adapter | None] = {}

    def decode(self, topic: str, payload: bytes, arrived_ms: int) -> Decoded:
        """Turn a message into its readings.

        Raises:
            RefusedError: No adapter takes the topic (`unknown_topic`), or the payload is
                not what its adapter takes.
        """
        adapter = self._routes.get(topic)
        if adapter is None:
            adapter = self._route(topic)
        return adapter.decode(topic, payload, arrived_ms, adapter.zone)

    @property
    def is_table_alone(self) -> bool:
        """Tell whether configuration adds no rows, so that what looks native is native."""
        return not self._own_filters

    def is_native(self, topic: str) -> bool:
        """Tell whether a topic of native shape is taken as native, as the table has it."""
        return self.is_table_alone or self._route(topic).decode is native.decode

    def _route(self, topic: str) -> Adapter:
        for adapter in self._adapters:
            if matches(adapter.topic_filter, topic):
                if len(topic) > ROUTE_CHARS_MAX:
                    return adapter
                if len(self._routes) >= ROUTES_MAX:
                    self._routes.clear()
                self._routes[topic] = adapter
                return adapter
        raise RefusedError("unknown_topic", f"no adapter takes the topic {topic[:200]!r}")


class RefusedSources:
    """Names the source to which a refused message is counted.

    On a native topic it is the source level; else `topic:<topic>` for the first
    `topics_max` such topics, then `topic:other`, so that rubbish cannot fill the account.
    """

    def __init__(self, *, topics_max: int = 1000) -> None:
        self._topics_max = topics_max
        self._topics: set[str] = set()

    def name(self, topic: str) -> str:
        """Give the source name for a refused message on this topic."""
        parts = parse_native(topic)
        if parts is not None and len(parts.source) <= 200:
            return parts.source
        topic = topic[:200]
        if topic not in self._topics:
            if len(self._topics) >= self._topics_max:
                return "topic:other"
            self._topics.add(topic)
        return f"topic:{topic}"
