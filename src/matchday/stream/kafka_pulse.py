"""Whether a Kafka client that has gone quiet still reaches its cluster.

A broker that has just been started or woken may name no broker at all, not even itself.
librdkafka (seen with 2.10 to 2.16; its issue 5301) then drops all that it knew, and often does
not go back to where it began: it asks nobody anything again and gives no error, for good. To
its owner that looks like a topic to which nobody writes. Owns telling the one from the other;
does not replace clients, that is for who holds them.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import Consumer, KafkaException

from matchday.stream.kafka_client import Cluster

# After so long without a record a client is asked for a sign of life.
QUIET_S: Final = 3.0

# How long one question may take, and how many in a row have to fail. A client that comes back
# from an outage by itself takes about a second.
ASK_TIMEOUT_S: Final = 2.0
MISSES_MAX: Final = 3

# How long the cluster has to answer somebody else; enough for a second try.
ANSWER_S: Final = 4.0


class Pulse:
    """The signs of life of one client; used by the thread that polls it."""

    def __init__(self, cluster: Cluster, client: Consumer) -> None:
        self._cluster = cluster
        self._client = client
        self._seen_s = cluster.clock.monotonic_s()
        self._misses_count = 0

    def beat(self) -> None:
        """Note that the client gave a record."""
        self._seen_s = self._cluster.clock.monotonic_s()
        self._misses_count = 0

    def is_lost(self) -> bool:
        """Tell whether the cluster answers, but not to this client, however often it asks.

        Returns at once unless the client was quiet for `QUIET_S`. A sound client then takes
        milliseconds, one that is lost `ASK_TIMEOUT_S`; `ANSWER_S` more where nobody answers.
        """
        is_quiet = self._cluster.clock.monotonic_s() - self._seen_s >= QUIET_S
        # While nobody answers there is nothing to compare with.
        if not is_quiet or not self._cluster.link.state().is_up:
            return False
        if self.is_answered():
            self.beat()
        elif self._cluster.answers(within_s=ANSWER_S):
            self._misses_count += 1
        return self._misses_count >= MISSES_MAX

    def is_answered(self) -> bool:
        """Tell whether the client gets any answer, be it that there is no broker."""
        try:
            self._client.list_topics(self._cluster.known_topic, timeout=ASK_TIMEOUT_S)
        except KafkaException:
            return False
        return True
