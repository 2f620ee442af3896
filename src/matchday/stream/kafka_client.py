"""What every Kafka client of one stream shares: settings, log lines, the state of the link.

Owns the connection settings, the knowledge whether the cluster answers, and the client for
questions. Does not own the clients that read and write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
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
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, UnavailableError
from matchday.observe.events import ClientLogged, LinkLost, LinkRestored, emit
from matchday.ports import LinkState, Partition
from matchday.stream.kafka_errors import DOWN, PASSING, kafka_error, said, unavailable
from matchday.stream.kafka_url import KafkaAddress

LINK: Final = "stream"

# Reconnecting: the first attempt at once, then doubling with the client's own jitter.
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 2_000

# How much the client reads ahead, kB over all partitions; one larger record still passes.
READ_AHEAD_KB: Final = 32_768

PROBE_INTERVAL_S: Final = 1.0

# Between two questions, and the least time that a question is given.
ASK_PAUSE_S: Final = 0.05
ASK_S_MIN: Final = 0.1

# How long to wait for confirmed commits to become visible, and between two looks.
SETTLE_S: Final = 0.5
SETTLE_PAUSE_S: Final = 0.005

_Answer = TypeVar("_Answer")


class KafkaLink:
    """Whether the cluster answered the last time anybody asked it; safe from any thread.

    Every client reports here; a change is told once, as an event.
    """

    def __init__(self, *, clock: Clock, detail: str) -> None:
        self._clock = clock
        self._address = detail
        self._lock = threading.Lock()
        self._is_known = False
        self._state = LinkState(LINK, is_up=False, since_ms=clock.wall_ms(), detail="not asked yet")

    def state(self) -> LinkState:
        """Give the last known state; not up as long as nobody has asked."""
        return self._state

    def is_answering(self) -> None:
        """Note an answer of the cluster; told only where it was known to be silent."""
        if self._state.is_up:
            return
        with self._lock:
            was_silent = self._is_known and not self._state.is_up
            self._is_known = True
            self._state = LinkState(LINK, True, self._clock.wall_ms(), self._address)
        if was_silent:
            emit(LinkRestored(LINK, self._address))

    def is_silent(self, why: str) -> None:
        """Note that the cluster could not be reached, and why; told once until it answers."""
        with self._lock:
            is_news = self._state.is_up or not self._is_known
            since_ms = self._clock.wall_ms() if is_news else self._state.since_ms
            self._is_known = True
            self._state = LinkState(LINK, False, since_ms, why)
        if is_news:
            emit(LinkLost(LINK, f"{self._address}: {why}"))


class LinkProbe:
    """Asks the cluster whether it is there, without waiting for the answer.

    The answer comes in a thread of the client library, which must never be the one that
    lets go of a client last: the library ends the process for that. So this object, which
    the thread holds on to, holds no client.
    """

    def __init__(self, *, link: KafkaLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._lock = threading.Lock()
        self._is_asking = False
        self._asked_s = clock.monotonic_s() - PROBE_INTERVAL_S

    def ask(self, admin: AdminClient, *, timeout_s: float) -> None:
        """Ask, unless it was asked within the last second or has not answered yet."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._is_asking or now_s - self._asked_s < PROBE_INTERVAL_S:
                return
            self._is_asking = True
            self._asked_s = now_s
        # Gives the log lines of this client, which nobody else asks for.
        admin.poll(0)
        admin.describe_cluster(request_timeout=timeout_s).add_done_callback(self._hear)

    def _hear(self, answer: Future[Any]) -> None:
        error = answer.exception()
        if error is None:
            self._link.is_answering()
        else:
            self._link.is_silent(said(error))
        with self._lock:
            self._is_asking = False


class ClientLog:
    """Takes the library's log lines, which else go to standard error, as debug events."""

    def log(self, _level: int, form: str, *values: object) -> None:
        """Take one line, in the form that `logging.Logger.log` takes it."""
        emit(ClientLogged("librdkafka", form % values))


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
        admin: Asks for everything but records; may be used from any thread.
    """

    address: KafkaAddress
    prefix: str
    clock: Clock
    link: KafkaLink
    io_timeout_s: float
    admin: AdminClient = field(init=False)
    probe: LinkProbe = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings(_ignore)
        logger = settings.pop("logger")
        try:
            admin = AdminClient(settings, logger=logger)
        except KafkaException as error:
            # It has only read its settings so far, such as the files for TLS.
            raise ConfigError(f"opening the stream at {self.address}: {said(error)}") from error
        object.__setattr__(self, "admin", admin)
        object.__setattr__(self, "probe", LinkProbe(link=self.link, clock=self.clock))

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
            "client.id": "matchday",
            "error_cb": on_error,
            "logger": ClientLog(),
            "reconnect.backoff.ms": RECONNECT_MS,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
            "socket.connection.setup.timeout.ms": max(self.io_timeout_ms, 1_000),
            "socket.keepalive.enable": True,
            "socket.timeout.ms": max(self.io_timeout_ms, 1_000),
        }

    def ask(self, question: Callable[[float], _Answer], *, action: str) -> _Answer:
        """Ask the cluster something, again where only the moment was wrong.

        A partition just created or moved has no leader for some milliseconds, and the
        client passes that on for questions, although it retries reads and writes itself.

        Args:
            question: Given the seconds left; raises the client's own errors.
            action: What is asked, for the error's text.

        Raises:
            UnavailableError: No answer within `io_timeout_s`.
        """
        deadline_s = self.clock.monotonic_s() + self.io_timeout_s
        never = threading.Event()
        while True:
            left_s = deadline_s - self.clock.monotonic_s()
            try:
                answer = question(max(left_s, ASK_S_MIN))
            except (KafkaException, TimeoutError) as error:
                known = kafka_error(error)
                if left_s > ASK_PAUSE_S and known is not None and known.code() in PASSING:
                    self.clock.wait(never, ASK_PAUSE_S)
                    self._learn_leaders(left_s)
                    continue
                raised = unavailable(error, action=action)
                self.link.is_silent(str(raised))
                raise raised from error
            self.link.is_answering()
            return answer

    def answers(self) -> bool:
        """Tell within `io_timeout_s` whether the cluster is there."""

        def question(left_s: float) -> None:
            self.admin.describe_cluster(request_timeout=left_s).result(left_s)

        try:
            self.ask(question, action="asking whether the cluster is there")
        except UnavailableError:
            return False
        return True

    def heard(self, error: KafkaError) -> str | None:
        """Take what a client reported by itself; give it as text if the cluster is gone.

        It may be old news, from before the client was polled: the cluster is asked.
        """
        if error.code() not in DOWN:
            return None
        self.probe.ask(self.admin, timeout_s=self.io_timeout_s)
        return said(error)

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

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Ask for the offset after everything committed before this call; errors as of `ask`.

        A commit is confirmed before its records are given to readers: the coordinator then
        marks them as committed in each partition. So where something lies behind the last
        stable offset it is waited for, at most `SETTLE_S`; what is not settled then belongs
        to a transaction that is open, perhaps of a producer that is gone.
        """
        tops = self._offsets(partitions, OFFSET_END, isolation=IsolationLevel.READ_UNCOMMITTED)
        deadline_s = self.clock.monotonic_s() + SETTLE_S
        never = threading.Event()
        while True:
            ends = self._offsets(tops, OFFSET_END)
            if all(ends[one] >= top for one, top in tops.items()):
                return ends
            if self.clock.monotonic_s() >= deadline_s:
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


def _ignore(_error: KafkaError) -> None:
    """Take what the client for questions reports by itself: its answers say the same."""


def reading_settings() -> dict[str, Any]:
    """Give what everybody who reads committed records sets."""
    return {
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "allow.auto.create.topics": False,
        "queued.max.messages.kbytes": READ_AHEAD_KB,
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
