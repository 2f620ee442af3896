"""The publisher: sends what the outbox keeps, and lets go of what was acknowledged.

One connection, QoS 1, a bounded number of messages in flight, single-threaded: everything
happens inside `pump`. A reason code of 0x80 and above, and 0x10 ("no matching subscribers"),
is not an acknowledgement: the message is kept and tried again with back-off, and the
later messages of its topic wait behind it, so that the order of a source is kept. Only
what was in flight at the moment of the refusal can overtake it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from paho.mqtt.client import error_string
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from matchday.clock import Clock
from matchday.errors import ConfigError, UnavailableError
from matchday.observe.events import (
    LinkLost,
    LinkRestored,
    PublicationsAcknowledged,
    PublicationsHeld,
    emit,
)
from matchday.ports import LinkState
from matchday.sensors.broker import (
    CONNECT_TIMEOUT_S,
    Broker,
    ProtocolChoice,
    connect,
    describe,
    is_accepted,
    new_client,
)
from matchday.sensors.connection import Connection
from matchday.sensors.outbox import Draft, Outbox, Parcel

INFLIGHT_MAX: Final = 500
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0
SETTLE_EVERY_S: Final = 1.0
WARN_EVERY_S: Final = 10.0
ANSWER_S: Final = 20.0
"""How long messages may go unanswered before the link is shown as down."""


@dataclass(frozen=True)
class Published:
    """What became of messages since the publisher was made.

    Attributes:
        sent: Transmissions, repeated ones included.
        acknowledged: Messages the other side took over.
        refused: Transmissions answered by a refusal; their messages are tried again.
    """

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0


class Publisher:
    """Sends an outbox to a broker and survives whatever either of them does; for one thread.

    Nothing is connected before the first `pump`. A lost connection is re-established in
    `pump`, with capped and jittered back-off; the unacknowledged messages are then sent
    again in order, so the other side may get some of them twice, under the same numbers.

    Args:
        broker: Where to publish.
        outbox: What to publish; closed by `close`.
        clock: For back-off.
        client_id: MQTT client id, different for each living publisher.
        inflight_max: Messages sent and not yet answered, at most; the broker's own
            receive-maximum lowers it.
        jitter: Spreads the back-off.
    """

    def __init__(
        self,
        broker: Broker,
        outbox: Outbox,
        clock: Clock,
        *,
        client_id: str,
        inflight_max: int = INFLIGHT_MAX,
        jitter: random.Random | None = None,
    ) -> None:
        if not 1 <= inflight_max <= 10_000:
            raise ConfigError(f"publishing: inflight_max {inflight_max}: not within 1 to 10000")
        self._broker = broker
        self._outbox = outbox
        self._clock = clock
        self._client_id = client_id
        self._inflight_max = inflight_max
        self._jitter = jitter or random.Random()
        self._never = threading.Event()
        self._protocol = ProtocolChoice()
        self._connection: Connection | None = None
        self._troubles: dict[str, _Trouble] = {}
        self._attempts = 0
        self._retry_at_s = 0.0
        self._settle_at_s = 0.0
        self._warn_at_s = 0.0
        self._answered_s = 0.0
        self._is_silent = False
        self._held: dict[str, _Held] = {}
        self._sent = self._acknowledged = self._refused = self._told = 0
        self._link = LinkState("mqtt", False, clock.wall_ms(), f"{broker.shown}: not tried yet")

    @property
    def is_full(self) -> bool:
        """Tell whether the outbox has reached a bound."""
        return self._outbox.is_full

    @property
    def pending_count(self) -> int:
        """Give how many messages are not acknowledged yet."""
        return self._outbox.pending_count

    def published(self) -> Published:
        """Give the counts so far; may be called from any thread."""
        return Published(self._sent, self._acknowledged, self._refused)

    def link(self) -> LinkState:
        """Tell the state of the connection; may be called from any thread."""
        return self._link

    def offer(self, drafts: Sequence[Draft], *, notes: Mapping[str, bytes] | None = None) -> None:
        """Number the drafts and keep them until they are acknowledged; see `Outbox.add`.

        Raises:
            OverloadedError: The outbox is full: pump, then offer them again.
            UnavailableError: The disk is full; nothing was kept.
        """
        self._outbox.add(drafts, notes=notes)

    def note(self, name: str) -> bytes:
        """Give a note kept in the outbox."""
        return self._outbox.note(name)

    def pump(self, timeout_s: float) -> None:
        """Connect where needed, send, and take answers; wait at most `timeout_s` for them.

        Connecting may take up to 5 s. Never raises for a broker that is away or refuses.

        Raises:
            ConfigError: A message can never be sent: it exceeds the broker's packet size,
                or its topic is none. It stays in the outbox.
            UnavailableError: The disk of the outbox is full.
        """
        now_s = self._clock.monotonic_s()
        if now_s >= self._settle_at_s:
            self._settle_at_s = now_s + SETTLE_EVERY_S
            self._outbox.settle()
            self._report(now_s)
        if self._connection is None:
            if now_s < self._retry_at_s:
                self._clock.wait(self._never, min(timeout_s, self._retry_at_s - now_s))
                return
            self._open(now_s)
            if self._connection is None:
                return
        self._send(self._connection, now_s)
        self._exchange(self._connection, timeout_s)

    def flush(self, *, timeout_s: float, stop: threading.Event | None = None) -> bool:
        """Pump until everything is acknowledged; tell whether it is.

        Args:
            timeout_s: When to give up, monotonic seconds.
            stop: Give up as soon as it is set.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while self._outbox.pending_count:
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0 or (stop is not None and stop.is_set()):
                return False
            self.pump(min(left_s, 0.1))
        return True

    def close(self) -> None:
        """Say goodbye to the broker and close the outbox; safe to call twice."""
        if self._connection is not None:
            self._connection.client.disconnect()
            self._connection.drop()
            self._connection = None
        self._report(self._clock.monotonic_s(), is_last=True)
        self._outbox.close()

    def _open(self, now_s: float) -> None:
        client = new_client(self._broker, self._client_id, self._protocol)
        connection = Connection(
            client, self._inflight_max, deadline_s=now_s + 2 * CONNECT_TIMEOUT_S
        )
        try:
            connect(client, self._broker)
        except UnavailableError as error:
            connection.drop()
            self._lost(str(error))
            return
        self._outbox.rewind()
        self._connection = connection

    def _send(self, connection: Connection, now_s: float) -> None:
        """Send what the window and the topics' troubles allow."""
        if not connection.is_accepted:
            return
        self._probe(connection, now_s)
        while len(connection.inflight) < connection.window:
            parcel = self._outbox.take()
            if parcel is None:
                return
            trouble = self._troubles.get(parcel.topic)
            if trouble is not None:
                trouble.parked.append(parcel)
            elif not self._transmit(connection, parcel):
                return

    def _probe(self, connection: Connection, now_s: float) -> None:
        for trouble in self._troubles.values():
            if len(connection.inflight) >= connection.window_max:
                return
            if now_s >= trouble.retry_at_s and not trouble.is_probing and trouble.parked:
                trouble.parked.sort()
                trouble.is_probing = True
                if not self._transmit(connection, trouble.parked.pop(0)):
                    return

    def _transmit(self, connection: Connection, parcel: Parcel) -> bool:
        if connection.packet_bytes_max < len(parcel.payload) + len(parcel.topic) + 16:
            raise ConfigError(
                f"publishing to {parcel.topic}: {len(parcel.payload)} bytes above the largest"
                f" packet that {self._broker.shown} takes, {connection.packet_bytes_max} bytes"
            )
        try:
            info = connection.client.publish(parcel.topic, parcel.payload, qos=1)
        except ValueError as error:
            raise ConfigError(f"publishing to {parcel.topic!r}: {error}") from error
        if not connection.inflight:
            self._answered_s = self._clock.monotonic_s()
        connection.inflight[info.mid] = parcel
        self._sent += 1
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _exchange(self, connection: Connection, timeout_s: float) -> None:
        code = connection.client.loop(timeout_s)
        for mid, reason in connection.take_answers():
            self._answered(connection, mid, reason)
        now_s = self._clock.monotonic_s()
        if connection.refusal is not None:
            self._refused_connection(connection.refusal)
        elif code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            if not connection.is_accepted:
                self._protocol.closed_silently()
            self._lost(f"{self._broker.shown}: {connection.farewell or error_string(code)}")
        elif connection.is_accepted and not self._link.is_up and not self._is_silent:
            self._restored()
        elif not connection.is_accepted and now_s > connection.deadline_s:
            self._lost(f"{self._broker.shown}: no answer to CONNECT")

    def _answered(self, connection: Connection, mid: int, reason: ReasonCode) -> None:
        self._answered_s = self._clock.monotonic_s()
        self._is_silent = False
        parcel = connection.inflight.pop(mid, None)
        if parcel is None:
            return
        trouble = self._troubles.get(parcel.topic)
        if is_accepted(reason.value):
            self._outbox.acknowledge(parcel.number)
            self._acknowledged += 1
            # Not before: who lets us in and hangs up at each message is tried rarely, too.
            self._attempts = 0
            connection.open_window()
            if trouble is not None:
                del self._troubles[parcel.topic]
                self._outbox.put_back(trouble.parked)
            return
        self._refused += 1
        connection.narrow_window()
        if trouble is None:
            trouble = self._troubles[parcel.topic] = _Trouble()
        if trouble.attempts == 0 or trouble.is_probing:
            trouble.attempts += 1
            trouble.retry_at_s = self._clock.monotonic_s() + self._backoff_s(trouble.attempts)
        trouble.is_probing = False
        trouble.parked.append(parcel)
        held = self._held.setdefault(describe(reason), _Held())
        held.count += 1
        held.example = parcel.topic

    def _refused_connection(self, reason: ReasonCode) -> None:
        is_retry_useful = self._protocol.refused(reason)
        self._lost(f"{self._broker.shown}: refused the connection, {describe(reason)}")
        if is_retry_useful:
            self._retry_at_s = self._clock.monotonic_s()

    def _restored(self) -> None:
        self._protocol.accepted()
        version = "5" if self._protocol.is_v5 else "3.1.1"
        detail = f"{self._broker.shown}, MQTT {version}"
        self._link = LinkState("mqtt", True, self._clock.wall_ms(), detail)
        emit(LinkRestored(link=f"mqtt.{self._client_id}", detail=detail))

    def _lost(self, detail: str) -> None:
        if self._connection is not None:
            self._connection.drop()
            self._connection = None
        self._is_silent = False
        for trouble in self._troubles.values():
            # The outbox offers them again with everything else.
            trouble.parked.clear()
            trouble.is_probing = False
        is_news = self._link.is_up or self._attempts == 0
        self._attempts += 1
        self._retry_at_s = self._clock.monotonic_s() + self._backoff_s(self._attempts)
        since_ms = self._clock.wall_ms() if self._link.is_up else self._link.since_ms
        self._link = LinkState("mqtt", False, since_ms, detail)
        if is_news:
            emit(LinkLost(link=f"mqtt.{self._client_id}", detail=detail))

    def _backoff_s(self, attempts: int) -> float:
        longest_s: float = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempts - 1, 10))
        return longest_s * self._jitter.uniform(0.5, 1.0)

    def _report(self, now_s: float, *, is_last: bool = False) -> None:
        news = self._acknowledged - self._told
        if news:
            self._told = self._acknowledged
            emit(PublicationsAcknowledged(count=news))
        self._tell_silence(now_s)
        if self._held and (is_last or now_s >= self._warn_at_s):
            self._warn_at_s = now_s + WARN_EVERY_S
            for reason, held in self._held.items():
                emit(PublicationsHeld(reason=reason, count=held.count, example=held.example))
            self._held.clear()

    def _tell_silence(self, now_s: float) -> None:
        """Tell, once, of a side that keeps the connection and answers no message."""
        waiting = 0 if self._connection is None else len(self._connection.inflight)
        if waiting and self._link.is_up and now_s - self._answered_s >= ANSWER_S:
            self._is_silent = True
            detail = f"{self._broker.shown}: {waiting} messages without an answer"
            self._link = LinkState("mqtt", False, self._clock.wall_ms(), detail)
            emit(LinkLost(link=f"mqtt.{self._client_id}", detail=detail))


@dataclass
class _Held:
    """Refusals for one reason that nobody was warned of yet, and the topic of the last one."""

    count: int = 0
    example: str = ""


@dataclass
class _Trouble:
    """A topic whose last message was refused: what waits behind it, and until when."""

    parked: list[Parcel] = field(default_factory=list)
    retry_at_s: float = 0.0
    attempts: int = 0
    is_probing: bool = False
