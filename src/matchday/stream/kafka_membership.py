"""What those who read start with: their settings, and the bookmarks of their group.

Owns how far a client reads ahead, how a member shows that it lives, and how it asks where its
group goes on. Does not own the clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from matchday.domain.topics import Topic
from matchday.ports import Bookmark, Partition
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_records import bookmark_of, committed

# How much the client reads ahead: kB over all partitions, where one larger record still passes,
# and messages of a partition, each of which takes it hundreds of bytes more. Four times as much
# reads no faster, but a partition read again from far back then stays in memory. With either
# bound reached the client itself would not look again for a second.
READ_AHEAD_KB: Final = 8_192
READ_AHEAD_MESSAGES: Final = 10_000
READ_AHEAD_PAUSE_MS: Final = 20


def reading_settings() -> dict[str, Any]:
    """Give what everybody who reads committed records sets."""
    return {
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Else damage on the way that TCP did not notice is taken for what somebody wrote.
        "check.crcs": True,
        "queued.max.messages.kbytes": READ_AHEAD_KB,
        "queued.min.messages": READ_AHEAD_MESSAGES,
        "fetch.queue.backoff.ms": READ_AHEAD_PAUSE_MS,
    }


@dataclass(frozen=True)
class Membership:
    """How members of groups show that they live; see `KafkaStream` for the meanings."""

    session_timeout_ms: int
    poll_interval_ms_max: int
    instance: str = ""

    def settings(self, cluster: Cluster, group: str) -> dict[str, Any]:
        """Give the settings of one member of a group, beyond those of all clients."""
        found = {
            **reading_settings(),
            "group.id": cluster.prefix + group,
            # Where records are missing the assignee decides, not the client.
            "auto.offset.reset": "error",
            "session.timeout.ms": self.session_timeout_ms,
            "heartbeat.interval.ms": max(self.session_timeout_ms // 4, 100),
            "max.poll.interval.ms": max(self.poll_interval_ms_max, self.session_timeout_ms),
            "partition.assignment.strategy": "range",
        }
        if self.instance:
            found["group.instance.id"] = cluster.prefix + self.instance
        return found


def ask_bookmarks(
    cluster: Cluster,
    client: Consumer,
    places: list[TopicPartition],
    *,
    topics: Mapping[str, Topic],
    group: str,
) -> dict[Partition, Bookmark | None]:
    """Ask for what the group of `client` has committed; errors as of `Cluster.ask`.

    It waits for transactions that are still open on these bookmarks, so that nothing is taken
    over from before a commit that is about to be there.

    Args:
        cluster: Whose the group is.
        client: A member of it.
        places: Of which partitions.
        topics: The topics by their names in the cluster.
        group: Its name, for the error's text.
    """
    answers = cluster.ask(
        lambda left_s: committed(client, places, timeout_s=left_s),
        action=f"asking for the bookmarks of group {group}",
    )
    return {Partition(topics[one.topic], one.partition): bookmark_of(one) for one in answers}
