"""The stream on Apache Kafka: one object per cluster, from which stages get their clients.

Owns creating and checking topics, their identity, and the state of the link. Does not own
reading or writing: those are in `kafka_consumer`, `kafka_reader` and `kafka_producer`.
Works with Kafka 2.8 and newer; tested with 4.1, and with 3.9 on ZooKeeper.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewPartitions, NewTopic  # type: ignore[attr-defined]

from matchday.clock import Clock
from matchday.domain.topics import PLANS, Topic, planned
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import Assignee, LinkState, Partition, Start
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_consumer import KafkaConsumer
from matchday.stream.kafka_errors import RIGHT_LACKING, kafka_error, said
from matchday.stream.kafka_link import KafkaLink
from matchday.stream.kafka_membership import Membership
from matchday.stream.kafka_producer import TRANSACTION_GRACE_MS, KafkaProducer
from matchday.stream.kafka_reader import KafkaReader
from matchday.stream.kafka_topics import (
    Bounds,
    TopicFacts,
    ask_broker_settings,
    ask_brokers,
    ask_descriptions,
    ask_topics,
    broker_dangers,
    planned_settings,
    replicas_wanted,
    topic_dangers,
    topic_risks,
    wrong_settings,
)
from matchday.stream.kafka_url import KafkaAddress

CREATED_POLL_S: Final = 0.05

_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{0,100}")


class KafkaStream:
    """A Kafka cluster as a stream; see `matchday.ports.Stream` for the contract.

    Args:
        url: `kafka://[user:password@]host[:port],...`, or `kafkas://` for TLS; see
            `KafkaAddress.parse`.
        clock: For deadlines and the times of the link.
        prefix: Stands before the names of topics, groups and producers in the cluster.
        partitions: Numbers of partitions that differ from the plan's, such as the ingest
            slots of this installation.
        retention_ms: How long topics keep their records where the operator says so, in
            milliseconds; a topic that exists must then keep them for just as long.
        session_timeout_ms: After so long without a sign of life a member's partitions go
            to others. The broker has bounds for it.
        poll_interval_ms_max: After so long without `poll` a member's partitions go to
            others, although its process lives.
        io_timeout_s: How long one call may wait for the cluster, at least 1 s.
        instance: Name of this process for static membership, different for each replica:
            killed and restarted within the session time-out it has its partitions back at
            once. Leaving then takes a whole session time-out. Empty for none.

    Raises:
        ConfigError: URL, prefix or a bound is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        prefix: str = "",
        partitions: Mapping[Topic, int] | None = None,
        retention_ms: Mapping[Topic, int] | None = None,
        session_timeout_ms: int = 10_000,
        poll_interval_ms_max: int = 30_000,
        io_timeout_s: float = 10.0,
        instance: str = "",
    ) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError(
                f"opening the stream: prefix {prefix!r} has other signs than letters, digits, "
                "'.', '_', '-', or more than 100"
            )
        if not 0 < session_timeout_ms <= poll_interval_ms_max:
            raise ConfigError(
                f"opening the stream: session_timeout_ms {session_timeout_ms} is not between 1 and "
                f"poll_interval_ms_max {poll_interval_ms_max}"
            )
        if io_timeout_s < 1.0:
            raise ConfigError(f"opening the stream: io_timeout_s {io_timeout_s} below 1.0")
        address = KafkaAddress.parse(url)
        self._clock = clock
        self._cluster = Cluster(
            address=address,
            prefix=prefix,
            clock=clock,
            link=KafkaLink(clock=clock, detail=str(address), user=address.user),
            io_timeout_s=io_timeout_s,
        )
        self._plans = planned(partitions=partitions, retention_ms=retention_ms)
        self._exact = frozenset(retention_ms or ())
        self._membership = Membership(session_timeout_ms, poll_interval_ms_max, instance)
        self._hidden: set[str] = set()
        self._is_closed = False

    def prepare(self) -> None:
        """Create missing topics and slots, then check all; see the port.

        Several processes may do this at the same time. Topics that the login may not see are
        left alone: a cluster with access rules shows each user no more than it needs.
        """
        self._wait_for(self._have_all_topics, self._create, "creating topics")
        facts = self._wait_for(
            self._has_all_slots, self._add_slots, f"adding partitions to {Topic.SLOTS}"
        )
        wrong = self._wrong(facts)
        if wrong:
            raise ConfigError(f"checking the stream at {self._cluster.address}: {'; '.join(wrong)}")

    def check(self) -> list[str]:
        """Give what is wrong with topics and brokers; see the port.

        Beyond what `prepare` insists on it names settings that let everything work but can
        lose confirmed records or refuse clients, where the login may read them; `unasked`
        says where it may not.
        """
        facts = self._ask_topics()
        found = [f"topic {name} does not exist" for name in self._missing(facts)]
        found += self._wrong(facts)
        brokers = self._ask_brokers()
        for one in facts.values():
            found += topic_dangers(one, brokers=len(brokers))
        bounds = Bounds(
            session_timeout_ms=self._membership.session_timeout_ms,
            transaction_timeout_ms=self._cluster.io_timeout_ms + TRANSACTION_GRACE_MS,
            record_bytes_max=max(plan.record_bytes_max for plan in PLANS.values()),
        )
        asked, _ = ask_broker_settings(self._cluster, brokers)
        for broker, have in asked.items():
            found += broker_dangers(have, broker=broker, brokers=len(brokers), bounds=bounds)
        return found

    def risks(self) -> list[str]:
        """Tell what is lost with a broker; see the port."""
        facts = self._ask_topics()
        return topic_risks(facts.values(), brokers=len(self._ask_brokers()))

    def unasked(self) -> list[str]:
        """Give which questions of `check` the login may not ask; see the port."""
        self._ask_topics()
        user = self._cluster.address.user
        found = [
            f"topic {name}: user {user!r} may not see it and its settings"
            for name in sorted(self._hidden)
        ]
        _, hidden = ask_broker_settings(self._cluster, self._ask_brokers())
        found += [
            f"broker {broker}: user {user!r} may not see its settings; `matchday setup` checks them"
            for broker in sorted(hidden)
        ]
        return found

    def topic_id(self, topic: Topic) -> str:
        """Give the identity of the topic; see the port.

        Raises:
            UnavailableError: The cluster does not answer, or has no such topic (yet).
        """
        name = self._cluster.name_of(topic)
        return str(self._describe([topic])[name].topic_id)

    def producer(self, owner: str) -> KafkaProducer:
        """Become the one writer of this name; see the port."""
        return KafkaProducer(self._cluster, owner)

    def consumer(self, group: str, topics: Sequence[Topic], assignee: Assignee) -> KafkaConsumer:
        """Join a consumer group; see the port."""
        settings = self._membership.settings(self._cluster, group)
        return KafkaConsumer(self._cluster, group, topics, assignee, settings=settings)

    def reader(self, topics: Sequence[Topic], start: Start) -> KafkaReader:
        """Read topics without a group; see the port."""
        found = self._describe(topics)
        partitions = [
            Partition(topic, number)
            for topic in topics
            for number in range(len(found[self._cluster.name_of(topic)].partitions))
        ]
        return KafkaReader(self._cluster, partitions, start)

    def link(self) -> LinkState:
        """Tell whether the cluster answers, as far as is known; see the port.

        Never waits: it gives what is known from any client and has the cluster asked anew,
        at most once a second, so that the next call knows better.
        """
        if not self._is_closed:
            self._cluster.probe_link()
        return self._cluster.link.state()

    def close(self) -> None:
        """Let go of the cluster; safe to call twice."""
        self._is_closed = True
        self._cluster.let_go()

    # --- asking ----------------------------------------------------------------------------

    def _ask_topics(self) -> dict[str, TopicFacts]:
        """Ask for all topics, and remember which of them are not shown to this login."""
        names = [self._cluster.name_of(topic) for topic in PLANS]
        found, self._hidden = ask_topics(self._cluster, names)
        if len(self._hidden) == len(names):
            raise self._denied("seeing topics", names)
        self._cluster.link.is_answering()
        return found

    def _ask_brokers(self) -> list[str]:
        return ask_brokers(self._cluster)

    def _describe(self, topics: Sequence[Topic]) -> dict[str, Any]:
        names = [self._cluster.name_of(topic) for topic in topics]
        found, hidden = ask_descriptions(self._cluster, names)
        if hidden:
            raise self._denied("opening topics", hidden)
        if lacking := [name for name in names if name not in found]:
            raise UnavailableError(
                f"opening topics at {self._cluster.address}: {', '.join(lacking)} do not exist"
            )
        return found

    def _denied(self, action: str, names: Collection[str]) -> UnavailableError:
        what = f"{action} {', '.join(sorted(names))} at {self._cluster.address}"
        return self._cluster.unavailable(
            KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), action=what
        )

    def _missing(self, facts: Mapping[str, TopicFacts]) -> dict[str, Topic]:
        """Give the topics, by name, that do not exist as far as this login can know."""
        return {
            name: topic
            for topic in PLANS
            if (name := self._cluster.name_of(topic)) not in facts and name not in self._hidden
        }

    def _wrong(self, facts: Mapping[str, TopicFacts]) -> list[str]:
        return [
            sentence
            for topic, plan in self._plans.items()
            if (one := facts.get(self._cluster.name_of(topic))) is not None
            for sentence in wrong_settings(plan, one, is_retention_exact=topic in self._exact)
        ]

    # --- creating --------------------------------------------------------------------------

    def _create(self, existing: Mapping[str, TopicFacts]) -> None:
        missing = self._missing(existing)
        if not missing:
            return
        brokers = len(self._ask_brokers())
        asked = self._cluster.admin.create_topics(
            [
                NewTopic(
                    name,
                    num_partitions=self._plans[topic].partitions,
                    replication_factor=replicas_wanted(brokers),
                    config=planned_settings(self._plans[topic], brokers=brokers),
                )
                for name, topic in missing.items()
            ],
            request_timeout=self._cluster.io_timeout_s,
        )
        self._hear_changes(asked, action="creating topic", known_as="TOPIC_ALREADY_EXISTS")

    def _add_slots(self, facts: Mapping[str, TopicFacts]) -> None:
        """Give the slots' topic the partitions it lacks; it holds nothing that could move."""
        name = self._cluster.name_of(Topic.SLOTS)
        wanted = self._plans[Topic.SLOTS].partitions
        if name in facts and facts[name].partitions < wanted:
            asked = self._cluster.admin.create_partitions(
                [NewPartitions(name, wanted)], request_timeout=self._cluster.io_timeout_s
            )
            # Also the answer where another replica was quicker.
            known_as = "INVALID_PARTITIONS"
            self._hear_changes(asked, action="adding partitions to topic", known_as=known_as)

    def _hear_changes(
        self, asked: Mapping[str, Future[Any]], *, action: str, known_as: str
    ) -> None:
        """Wait for the answers to changes; the error `known_as` means somebody did it before."""
        for name, answer in asked.items():
            try:
                answer.result(self._cluster.io_timeout_s)
            except (KafkaException, TimeoutError) as error:
                known = kafka_error(error)
                if known is not None and known.name() == known_as:
                    continue
                is_passing = known is None or known.retriable() or known.name().startswith("_")
                if is_passing or (known is not None and known.code() in RIGHT_LACKING):
                    raise self._cluster.unavailable(error, action=f"{action} {name}") from error
                raise ConfigError(f"{action} {name}: {said(error)}") from error

    def _have_all_topics(self, facts: Mapping[str, TopicFacts]) -> bool:
        return not self._missing(facts)

    def _has_all_slots(self, facts: Mapping[str, TopicFacts]) -> bool:
        slots = facts.get(self._cluster.name_of(Topic.SLOTS))
        return slots is None or slots.partitions >= self._plans[Topic.SLOTS].partitions

    def _wait_for(
        self,
        is_there: Callable[[Mapping[str, TopicFacts]], bool],
        make: Callable[[Mapping[str, TopicFacts]], None],
        action: str,
    ) -> dict[str, TopicFacts]:
        """Make what lacks and wait until the brokers know of it.

        It is made again each time it is still not there: with ZooKeeper a topic that is being
        deleted is refused as existing for a moment, and then gone.
        """
        deadline_s = self._clock.monotonic_s() + self._cluster.io_timeout_s
        never = threading.Event()
        while not is_there(facts := self._ask_topics()):
            if self._clock.monotonic_s() > deadline_s:
                lacking = ", ".join(sorted(self._missing(facts))) or self._cluster.address
                raise UnavailableError(
                    f"{action} {lacking}: not there after {self._cluster.io_timeout_s:.1f} s"
                )
            make(facts)
            self._clock.wait(never, CREATED_POLL_S)
        return facts
