"""The settings of those who read: members of groups, and readers outside of them.

Owns how far a client reads ahead and how a member shows that it lives. Does not own the clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from matchday.stream.kafka_client import Cluster

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
