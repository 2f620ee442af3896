"""What each user of the stream has to be allowed: the table, derived from what the stages do.

Owns the table for Kafka; that of MongoDB lies with its collections (`store.mongo_users`).
Does not grant anything (`services.setup`). Every group and every name of a producer comes
from the stage that uses it. `read` and `write` include `describe` in Kafka; whoever uses a topic
may also look at its settings, which services do when they start and `doctor` when asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from matchday.analysis.worker import GROUP as ANALYSIS
from matchday.domain.topics import Topic
from matchday.ingest.slots import GROUP as INGEST
from matchday.store.persist import GROUP as PERSIST

StreamUser = Literal["server", "analysis", "dashboard"]

READER: Final = "matchday-reader"
"""The group whose name readers give: the client looks for it, and never joins it."""


@dataclass(frozen=True)
class StreamRights:
    """What one user does with the stream.

    Attributes:
        reads: Topics that it consumes or looks into.
        writes: Topics that it appends to.
        groups: Consumer groups that it is a member of.
        readers_group: The name under which it reads without a group; empty if it does not.
        producers: How the names of its producers begin.
    """

    reads: frozenset[Topic]
    writes: frozenset[Topic] = frozenset()
    groups: tuple[str, ...] = ()
    readers_group: str = ""
    producers: tuple[str, ...] = ()


STREAM_RIGHTS: Final[dict[StreamUser, StreamRights]] = {
    # Ingest reads the ends of what it wrote before it takes over; persist reads everything.
    # `ledger`, `deadletter` and `doctor` are run as this user, too.
    "server": StreamRights(
        reads=frozenset(Topic),
        writes=frozenset({Topic.ANALYTICS, Topic.DEAD_LETTERS, Topic.LEDGER}),
        groups=(INGEST, PERSIST),
        readers_group=READER,
        producers=(f"{INGEST}-", f"{PERSIST}-"),
    ),
    "analysis": StreamRights(
        reads=frozenset({Topic.ANALYTICS}),
        writes=frozenset({Topic.RESULTS, Topic.LATE}),
        groups=(ANALYSIS,),
        producers=(f"{ANALYSIS}-",),
    ),
    # The live view, and the account: counts in `ledger`, what waits in `analytics`.
    "dashboard": StreamRights(
        reads=frozenset({Topic.ANALYTICS, Topic.RESULTS, Topic.LEDGER}),
        readers_group=READER,
    ),
}
