"""Whether a Kafka cluster answers, and whether it lets us do what we need.

Owns the state of the link, its events and the probe. Does not own any client: they report
here.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import AdminClient

from matchday.clock import Clock
from matchday.observe.events import LinkLost, LinkRestored, emit
from matchday.ports import LinkState
from matchday.stream.kafka_errors import LOGIN_REFUSED, denial, kafka_error, said

LINK: Final = "stream"
PROBE_INTERVAL_S: Final = 1.0

# A question that asks for little is given this long at most.
PROBE_TIMEOUT_S_MAX: Final = 3.0


class KafkaLink:
    """Whether the cluster answered the last time anybody asked it; safe from any thread.

    Every client reports here; a change is told once, as an event. A cluster that refuses us
    is no good link either: it stays down until something that we need has worked.
    """

    def __init__(self, *, clock: Clock, detail: str, user: str = "") -> None:
        self._clock = clock
        self._address = detail
        self._user = user
        self._is_denied = False
        self._refusal: str | None = None
        self._lock = threading.Lock()
        self._is_known = False
        self._state = LinkState(LINK, is_up=False, since_ms=clock.wall_ms(), detail="not asked yet")

    def state(self) -> LinkState:
        """Give the last known state; not up as long as nobody has asked."""
        return self._state

    @property
    def refusal(self) -> str | None:
        """Give why the login is refused, None where it is not, as far as is known."""
        return self._refusal

    def hear(self, error: KafkaError) -> None:
        """Take what a client reports by itself: only so it tells that a login is refused."""
        if error.code() in LOGIN_REFUSED:
            self._refusal = denial(error, user=self._user)

    def is_there(self) -> None:
        """Note that the cluster is there and knows us; what we may is another matter."""
        self._refusal = None
        if not self._is_denied:
            self.is_answering()

    def is_answering(self) -> None:
        """Note an answer of the cluster; told only where it was known to be silent."""
        self._refusal = None
        self._is_denied = False
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
        self._note(self._refusal or why)

    def is_denied(self, why: str) -> None:
        """Note that the cluster refuses what we need, and why; told once until it works."""
        self._is_denied = True
        self._note(why)

    def _note(self, why: str) -> None:
        with self._lock:
            is_news = self._state.is_up or not self._is_known
            since_ms = self._clock.wall_ms() if is_news else self._state.since_ms
            self._is_known = True
            self._state = LinkState(LINK, False, since_ms, why)
        if is_news:
            emit(LinkLost(LINK, f"{self._address}: {why}"))


class LinkProbe:
    """Asks the cluster whether it is there, without waiting for the answer.

    It asks for a topic, whether or not that exists or may be seen: each of these is an answer.
    Asking for the cluster itself would be simpler, and ends the process now and then: a broker
    that has just been started or woken may name no broker at all, not even itself, and
    librdkafka (2.16, `rd_kafka_DescribeClusterResponse_parse`) takes such an answer for neither
    a result nor an error, and aborts.

    The answer comes in a thread of the client library, which must never be the one that
    lets go of a client last: the library ends the process for that. So this object, which
    the thread holds on to, holds no client.
    """

    def __init__(self, *, link: KafkaLink, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._lock = threading.Lock()
        self._asking: object | None = None
        """What stands for the question that is not answered yet."""
        self._asked_s = clock.monotonic_s() - PROBE_INTERVAL_S
        self._is_deaf = False

    def ask(self, admin: AdminClient, topic: str, *, timeout_s: float) -> None:
        """Ask, unless it was asked within the last second or has not answered yet.

        The question is given `timeout_s`, and `PROBE_TIMEOUT_S_MAX` at most.
        """
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._asking is not None or now_s - self._asked_s < PROBE_INTERVAL_S:
                return
            question = self._asking = object()
            self._asked_s = now_s
        try:
            # Gives the log lines of this client, which nobody else asks for.
            admin.poll(0)
            asked = admin.describe_topics(
                TopicCollection([topic]), request_timeout=min(timeout_s, PROBE_TIMEOUT_S_MAX)
            )
            asked[topic].add_done_callback(partial(self._hear, question))
        except BaseException:
            self.forget()
            raise

    def take_deafness(self) -> bool:
        """Tell, once, that the last question had no answer: another client should ask."""
        with self._lock:
            is_deaf, self._is_deaf = self._is_deaf, False
        return is_deaf

    def forget(self) -> None:
        """Wait no longer for an answer: who was asked has been let go, and may give none."""
        with self._lock:
            self._asking = None

    def _hear(self, question: object, answer: Future[Any]) -> None:
        with self._lock:
            if self._asking is not question:
                return
            self._asking = None
        error = answer.exception()
        known = None if error is None else kafka_error(error)
        # The client's own errors are below 0, a broker's above.
        if error is None or (known is not None and known.code() > KafkaError.NO_ERROR):
            self._link.is_there()
        elif known is None or known.code() != KafkaError._DESTROY:
            # In that case it is our own client that ends.
            self._link.is_silent(said(error))
            self._is_deaf = True
