"""What every Kafka client of one stream shares: settings, log lines, the client for questions.

Owns the connection settings and the questions about offsets. Does not own the clients that
read and write, nor the state of the link (`kafka_link`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    OffsetSpec,
)

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, DeniedError, FencedError, UnavailableError
from matchday.observe.events import ClientLogged, emit
from matchday.ports import Partition
from matchday.stream.kafka_errors import (
    DOWN,
    PASSING,
    RIGHT_LACKING,
    denial,
    kafka_error,
    said,
    unavailable,
)
from matchday.stream.kafka_link import KafkaLink, LinkProbe
from matchday.stream.kafka_url import KafkaAddress

# Reconnecting: the first attempt at once, then doubling with the client's own jitter.
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 1_000

# How often a client asks where its topics are. It may have forgotten that after an outage, and
# reads nothing until it asks again: by itself after five minutes.
REFRESH_MS: Final = 10_000

# Between two questions, and the least time that a question is given.
ASK_PAUSE_S: Final = 0.05
ASK_S_MIN: Final = 0.1

# How long one client is asked for brokers before another one is.
ASK_STEP_S: Final = 2.0

# How long to wait for confirmed commits to become visible, and between two looks.
SETTLE_S: Final = 0.5
SETTLE_PAUSE_S: Final = 0.005

_Answer = TypeVar("_Answer")


class ClientLog:
    """Takes the library's log lines, which else go to standard error, as debug events."""

    def log(self, _level: int, form: str, *values: object) -> None:
        """Take one line, in the form that `logging.Logger.log` takes it."""
        emit(ClientLogged("librdkafka", form % values))


class _Questions:
    """Holds the client for questions, and nothing that leads back to who asks.

    Else the garbage collector would let go of it, in whatever thread it happens to run: where
    that is the client's own, which brings late answers, the library ends the process.
    """

    def __init__(self, client: AdminClient) -> None:
        self.client: AdminClient | None = client


@dataclass(frozen=True)
class Cluster:
    """What a client needs to know of its stream.

    Attributes:
        address: Where the brokers are.
        prefix: Stands before every name that the stream uses in the cluster: topics,
            groups and transactional ids, so that two installations can share it.
        clock: For deadlines and the link's times.
        link: Takes what the clients notice.
        io_timeout_s: How long one call may wait for the cluster, seconds.
        probe: Asks whether the cluster is there.
    """

    address: KafkaAddress
    prefix: str
    clock: Clock
    link: KafkaLink
    io_timeout_s: float
    probe: LinkProbe = field(init=False)
    _questions: _Questions = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_questions", _Questions(self._make_admin()))
        object.__setattr__(self, "probe", LinkProbe(link=self.link, clock=self.clock))

    @property
    def admin(self) -> AdminClient:
        """Give the client that asks for everything but records; from any thread."""
        client = self._questions.client
        if client is None:
            client = self._questions.client = self._make_admin()
        return client

    def let_go(self) -> None:
        """Let go of the client for questions; the next question makes another."""
        self._questions.client = None

    def _make_admin(self) -> AdminClient:
        settings = self.settings(self.link.hear)
        logger = settings.pop("logger")
        try:
            return AdminClient(settings, logger=logger)
        except KafkaException as error:
            # It has only read its settings so far, such as the files for TLS.
            raise ConfigError(f"opening the stream at {self.address}: {said(error)}") from error

    @property
    def io_timeout_ms(self) -> int:
        """Give the time-out of one call in milliseconds."""
        return round(self.io_timeout_s * 1000)

    def name_of(self, topic: Topic) -> str:
        """Give the name under which the cluster knows the topic."""
        return self.prefix + topic.value

    def place(self, partition: Partition, offset: int = OFFSET_INVALID) -> TopicPartition:
        """Give a partition, and an offset in it, in the client's form."""
        return TopicPartition(self.name_of(partition.topic), partition.number, offset)

    def settings(self, on_error: Callable[[KafkaError], Any]) -> dict[str, Any]:
        """Give the settings that all clients have in common.

        Args:
            on_error: Called with what a client reports by itself, from within its calls.
        """
        return {
            **self.address.client_settings(),
            # The stream makes its topics itself, with the partitions that they have to have.
            "allow.auto.create.topics": False,
            "client.id": "matchday",
            "error_cb": on_error,
            "logger": ClientLog(),
            "reconnect.backoff.ms": RECONNECT_MS,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
            "socket.connection.setup.timeout.ms": max(self.io_timeout_ms, 1_000),
            "socket.keepalive.enable": True,
            "topic.metadata.refresh.interval.ms": REFRESH_MS,
            "socket.timeout.ms": max(self.io_timeout_ms, 1_000),
        }

    def ask(
        self, question: Callable[[float], _Answer], *, action: str, within_s: float = math.inf
    ) -> _Answer:
        """Ask the cluster something, again where only the moment was wrong.

        A partition just created or moved has no leader for some milliseconds, and the
        client passes that on for questions, although it retries reads and writes itself.

        Args:
            question: Given the seconds left; raises the client's own errors.
            action: What is asked, for the error's text.
            within_s: Where that is less than `io_timeout_s`.

        Raises:
            UnavailableError: No answer in time.
        """
        deadline_s = self.clock.monotonic_s() + min(self.io_timeout_s, within_s)
        never = threading.Event()
        while True:
            left_s = deadline_s - self.clock.monotonic_s()
            try:
                answer = question(max(left_s, ASK_S_MIN))
            except (KafkaException, TimeoutError) as error:
                known = kafka_error(error)
                left_s = deadline_s - self.clock.monotonic_s()
                if left_s > ASK_PAUSE_S and known is not None and known.code() in PASSING:
                    self.clock.wait(never, ASK_PAUSE_S)
                    self._learn_leaders(left_s)
                    continue
                raise self.unavailable(error, action=action) from error
            self.link.is_answering()
            return answer

    def unavailable(self, error: BaseException | KafkaError, *, action: str) -> UnavailableError:
        """Translate where nothing can be refused, and note what that says about the link.

        A refused login shows as silence in what a call raises; the reason comes apart.
        """
        raised = unavailable(error, action=action, user=self.address.user)
        if isinstance(raised, FencedError):
            return raised
        self.admin.poll(0)
        self.probe_link()
        refusal = self.link.refusal
        if isinstance(raised, DeniedError):
            self.link.is_denied(str(raised))
        elif refusal is not None:
            raised = DeniedError(f"{action}: {refusal}")
            self.link.is_silent(str(raised))
        else:
            self.link.is_silent(str(raised))
        return raised

    def answers(self, *, within_s: float = math.inf) -> bool:
        """Tell within that time, and `io_timeout_s`, whether the cluster is there."""
        action = "asking whether the cluster is there"
        try:
            self.ask(self.brokers, action=action, within_s=within_s)
        except UnavailableError:
            return False
        return True

    def heard(self, error: KafkaError) -> str | None:
        """Take what a client reported by itself; give it as text if the cluster is gone.

        It may be old news, from before the client was polled: the cluster is asked.
        """
        self.link.hear(error)
        if error.code() in RIGHT_LACKING:
            reason = denial(error, user=self.address.user)
            self.link.is_denied(reason)
            return reason
        if error.code() not in DOWN:
            return None
        self.probe_link()
        return self.link.refusal or said(error)

    def probe_link(self) -> None:
        """Have the cluster asked whether it is there, at most once a second; never waits."""
        if self.probe.take_deafness():
            self._replace_admin()
        self.probe.ask(self.admin, self.known_topic, timeout_s=self.io_timeout_s)

    def brokers(self, timeout_s: float) -> list[str]:
        """Give the ids of the brokers that are up, at least one; a question for `ask`.

        Never by the client's `describe_cluster`: see `LinkProbe`.
        """
        found = self._find_brokers(timeout_s)
        if not found:
            # It has just been started or woken, and does not count itself yet.
            self._replace_admin()
            raise KafkaException(
                KafkaError(KafkaError.BROKER_NOT_AVAILABLE, "the cluster names no broker")
            )
        return sorted(map(str, found))

    def _find_brokers(self, timeout_s: float) -> Collection[int]:
        """Ask for brokers, with another client where one gets no answer in `ASK_STEP_S`."""
        deadline_s = self.clock.monotonic_s() + timeout_s
        while True:
            left_s = deadline_s - self.clock.monotonic_s()
            step_s = max(min(left_s, ASK_STEP_S), ASK_S_MIN)
            try:
                return self.admin.list_topics(self.known_topic, timeout=step_s).brokers
            except KafkaException:
                if left_s <= ASK_STEP_S:
                    raise
                self._replace_admin()

    def _replace_admin(self) -> None:
        """Ask with another client from now on; what the old one was asked ends with it.

        A broker that has just been started or woken may name no broker at all. librdkafka (2.10
        to 2.16; its issue 5301) then drops all that it knew, and now and then does not go back
        to where it began: that client never asks anybody anything again.
        """
        self._questions.client = self._make_admin()
        self.probe.forget()

    @property
    def known_topic(self) -> str:
        """Give the topic to ask about where the answer is of no interest: the smallest."""
        return self.name_of(Topic.SLOTS)

    def _learn_leaders(self, timeout_s: float) -> None:
        # The client for questions takes the leaders that it knows for granted, for minutes
        # after they have changed; only being asked for everything makes it ask itself.
        with suppress(KafkaException):
            self.admin.list_topics(timeout=timeout_s)

    def firsts(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Ask for the offset of the oldest record kept; errors as of `ask`."""
        return self._offsets(partitions, OFFSET_BEGINNING)

    def at_time(self, partitions: Iterable[Partition], time_ms: int) -> dict[Partition, int]:
        """Ask for the first offset of that append time or later; negative where there is none."""
        return self._offsets(partitions, time_ms)

    def ends(
        self, partitions: Iterable[Partition], *, is_strict: bool = False
    ) -> dict[Partition, int]:
        """Ask for the offset after everything committed before this call; errors as of `ask`.

        A commit is confirmed before its records are given to readers: the coordinator then
        marks them as committed in each partition. So where something lies behind the last
        stable offset it is waited for, at most `SETTLE_S`; what is not settled then belongs
        to a transaction that is open, perhaps of a producer that is gone.

        Args:
            partitions: Of which.
            is_strict: Raise UnavailableError there, in place of an end before that transaction.
        """
        tops = self._offsets(partitions, OFFSET_END, isolation=IsolationLevel.READ_UNCOMMITTED)
        deadline_s = self.clock.monotonic_s() + SETTLE_S
        never = threading.Event()
        while True:
            ends = self._offsets(tops, OFFSET_END)
            if all(ends[one] >= top for one, top in tops.items()):
                return ends
            if self.clock.monotonic_s() >= deadline_s:
                if is_strict:
                    names = sorted({self.name_of(one.topic) for one in tops})
                    raise UnavailableError(
                        f"reading {', '.join(names)} to the end: a transaction is open before it"
                    )
                return ends
            self.clock.wait(never, SETTLE_PAUSE_S)

    def _offsets(
        self,
        partitions: Iterable[Partition],
        time_ms: int,
        *,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[Partition, int]:
        # Asked over the connection of the client for questions: on a consumer's own it would
        # wait behind the fetch that waits for records, half a second each time.
        by_place = {(self.name_of(one.topic), one.number): one for one in partitions}
        asked = {
            self.place(one): OffsetSpec(time_ms)  # type: ignore[abstract]
            for one in by_place.values()
        }

        def question(left_s: float) -> dict[Partition, int]:
            """Ask once, for `left_s` seconds at most; see `ask`."""
            answers = self.admin.list_offsets(
                asked, isolation_level=isolation, request_timeout=left_s
            )
            found = {
                by_place[place.topic, place.partition]: answer.result(left_s + ASK_S_MIN).offset
                for place, answer in answers.items()
            }
            # Where the broker stays silent the client answers all the same, with its sign for
            # "no offset"; -1 is the answer to a time after all records.
            if any(offset < (OFFSET_END if time_ms >= 0 else 0) for offset in found.values()):
                raise TimeoutError(f"no answer within {left_s:.1f} s")
            return found

        names = sorted({name for name, _ in by_place})
        return self.ask(question, action=f"asking for offsets of {', '.join(names)}")
