"""Names and shapes of the stream's topics, and the grammar of native MQTT topics.

One table says what every topic carries, how it is keyed, how many partitions it has and
how long it keeps its records: both stream implementations create and check topics by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from matchday.domain.reading import KINDS

DAY_MS = 86_400_000


class Topic(StrEnum):
    """The stream's topics; the first two carry the original system's names."""

    ANALYTICS = "analytics"
    RESULTS = "analytics_results"
    DEAD_LETTERS = "dead_letters"
    LEDGER = "ledger"
    LATE = "analysis_ledger"
    SLOTS = "ingest_slots"

    # The default of an Enum is Python code, and topics are keys of dicts on the hot path.
    __hash__ = str.__hash__


@dataclass(frozen=True)
class TopicPlan:
    """How one topic is laid out.

    Attributes:
        topic: Its name.
        carries: What a record is, for people.
        key: What the key is, for people.
        partitions: How many partitions it is created with.
        retention_ms: How long records are kept, in milliseconds.
        record_bytes_max: The largest record it takes, in bytes.
    """

    topic: Topic
    carries: str
    key: str
    partitions: int
    retention_ms: int
    record_bytes_max: int


PLANS: dict[Topic, TopicPlan] = {
    plan.topic: plan
    for plan in (
        TopicPlan(
            Topic.ANALYTICS,
            "a reading",
            "venue, or source for scalars",
            partitions=4,
            retention_ms=7 * DAY_MS,
            record_bytes_max=13 * 2**20,
        ),
        TopicPlan(
            Topic.RESULTS,
            "a finding",
            "venue, or sensor for forecasts",
            partitions=4,
            retention_ms=7 * DAY_MS,
            record_bytes_max=2**20,
        ),
        TopicPlan(
            Topic.DEAD_LETTERS,
            "the raw bytes of a refused message, reason in headers",
            "source",
            partitions=1,
            retention_ms=30 * DAY_MS,
            record_bytes_max=13 * 2**20,
        ),
        TopicPlan(
            Topic.LEDGER,
            "the counts of one ingest tick",
            "ingest slot",
            partitions=1,
            retention_ms=30 * DAY_MS,
            record_bytes_max=4 * 2**20,
        ),
        # Not `ledger`: there an analysis worker that died with a transaction open would keep
        # ingest from reading its own last tick until Kafka ends that transaction.
        TopicPlan(
            Topic.LATE,
            "how many readings of each source analysis saw too late",
            "none of meaning",
            partitions=1,
            retention_ms=30 * DAY_MS,
            record_bytes_max=2**20,
        ),
        TopicPlan(
            Topic.SLOTS,
            "nothing: its partitions are the ingest slots that replicas claim",
            "none",
            partitions=1,
            retention_ms=7 * DAY_MS,
            record_bytes_max=2**20,
        ),
    )
}

SIZED = frozenset({Topic.ANALYTICS, Topic.RESULTS})
"""Topics of which an installation says how many partitions they have: `stream.partitions`."""


def planned(
    *,
    partitions: Mapping[Topic, int] | None = None,
    retention_ms: Mapping[Topic, int] | None = None,
) -> dict[Topic, TopicPlan]:
    """Give the plan of every topic, with what an installation wants otherwise."""
    partitions, retention_ms = partitions or {}, retention_ms or {}
    return {
        topic: replace(
            plan,
            partitions=partitions.get(topic, plan.partitions),
            retention_ms=retention_ms.get(topic, plan.retention_ms),
        )
        for topic, plan in PLANS.items()
    }


def wrong_partitions(plan: TopicPlan, count: int, *, name: str) -> str | None:
    """Say what is wrong with how many partitions a topic has; None where nothing is.

    More are as wrong as fewer: the place of a key depends on their number, so a topic that grew
    has the history of a key in two places. Only the slots' topic may have more, as it holds
    nothing. Where a setting gives the number, the sentence says what to set.

    Args:
        plan: What is wanted.
        count: How many it has.
        name: What it is called in the stream.
    """
    if plan.topic is Topic.SLOTS:
        if count >= plan.partitions:
            return None
        return f"topic {name}: partitions is {count}, expected at least {plan.partitions}"
    if count == plan.partitions:
        return None
    wrong = f"topic {name}: partitions is {count}, expected {plan.partitions}"
    if plan.topic not in SIZED:
        return wrong
    return f"{wrong}: a topic keeps what it was made with, so set stream.partitions = {count}"


NATIVE_ROOT = "matchday"
KEPT_CHARS_MAX = 300
"""Longest topic whose parts are remembered: at MQTT's 65,535 bytes each they would be 4 GB."""


@dataclass(frozen=True)
class NativeTopic:
    """The parts of a native MQTT topic `matchday/<venue>/<kind>/<source>`."""

    venue: str
    kind: str
    source: str

    def __str__(self) -> str:
        return f"{NATIVE_ROOT}/{self.venue}/{self.kind}/{self.source}"


def parse_native(topic: str) -> NativeTopic | None:
    """Split a native MQTT topic into its parts, or give None for any other topic."""
    return _split_once(topic) if len(topic) <= KEPT_CHARS_MAX else _split(topic)


def _split(topic: str) -> NativeTopic | None:
    parts = topic.split("/")
    if len(parts) != 4 or parts[0] != NATIVE_ROOT or parts[2] not in KINDS:
        return None
    if not parts[1] or not parts[3]:
        return None
    return NativeTopic(parts[1], parts[2], parts[3])


_split_once = lru_cache(maxsize=65536)(_split)


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether an MQTT topic matches a filter with `+` and `#` (MQTT 5, section 4.7)."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    levels = topic.split("/")
    wanted = topic_filter.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(levels) == len(wanted)
