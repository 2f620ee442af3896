"""The feed behind an MQTT broker: one persistent session, acknowledged by its owner.

Owns connecting and reconnecting, subscribing and the state of the link. Has no thread:
everything happens inside the calls, which never block on the network (`dial` says what the
resolver may do). Does not own what lives on one connection (`connection`).
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from threading import Event
from typing import Final

from matchday.clock import Clock
from matchday.errors import ConfigError, FencedError, UnavailableError
from matchday.mqtt.channel import wait_until_ready
from matchday.mqtt.codes import V5, Code, ProtocolError, code_text
from matchday.mqtt.connection import Connection
from matchday.mqtt.dial import Greeting, Opened, Waiting, dial
from matchday.mqtt.fields import Properties, Property
from matchday.mqtt.layouts import decode, encode
from matchday.mqtt.packets import (
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Suback,
    Subscribe,
    Subscription,
)
from matchday.mqtt.publish import Batch
from matchday.mqtt.settings import BrokerSettings
from matchday.observe.events import LinkLost, LinkRestored, emit
from matchday.ports import Deliveries, LinkState

_NEVER_RETAINED: Final = 2

THROWN_OUT_MAX: Final = 5
"""After so many connections in a row that were closed soon after they were up, and none that
was refused, somebody else must be using our client id; a broker that crashes refuses some."""


@dataclass(slots=True)
class _Attempt:
    """A connection being opened, and what its next step waits for."""

    steps: Generator[Waiting, None, Opened]
    until_s: float
    waiting: Waiting | None = None


class BrokerFeed:
    """A `Feed` from a broker; every method but `link` belongs to one thread.

    Call `receive`, or `keep_alive` while waiting for something else, at least twice per
    `keep_alive_s`: nothing else keeps the connection alive.
    """

    def __init__(self, settings: BrokerSettings, *, clock: Clock, rng: random.Random) -> None:
        """Make the feed; it connects in `receive`.

        Raises:
            ConfigError: The certificates cannot be read.
        """
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._tls = _tls_context(settings) if settings.address.is_tls else None
        self._greeting = Greeting(
            client_id=settings.client_id,
            keep_alive_s=settings.keep_alive_s,
            receive_max=settings.receive_max,
            packet_bytes_max=settings.packet_bytes_max,
        )
        self._link: Connection | None = None
        self._attempt: _Attempt | None = None
        self._connection_count = 0
        self._failure_count = 0
        self._thrown_out_count = 0
        self._retry_at_s = clock.monotonic_s()
        self._given_s = self._retry_at_s - settings.linger_s
        self._is_session_ours = False
        self._is_resumed = True
        self._has_given = False
        self._is_loss_told = False
        self._fence: FencedError | None = None
        self._is_closed = False
        self._never = Event()
        self._state = LinkState("mqtt", False, clock.wall_ms(), f"{settings.address}: not tried")

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        """Wait for messages; see `Feed.receive`. Gives at most one element.

        Raises:
            FencedError: Another client took the session over. With 3.1.1, and Mosquitto
                before 2.0.15, the broker only closes the connection: then the two owners
                throw each other out, at growing pauses, `THROWN_OUT_MAX` times.
        """
        until_s = self._clock.monotonic_s() + timeout_s
        self._linger(until_s)
        while not self._is_closed:
            if self._fence is not None:
                raise self._fence
            if self._link is None:
                self._advance()
            if self._link is not None:
                deliveries = self._take(self._link)
                if deliveries is not None:
                    return [deliveries]
                self.keep_alive()
            if not self._wait(until_s):
                break
        return []

    def acknowledge(self, deliveries: Deliveries) -> None:
        """Send the acknowledgements; see `Feed.acknowledge`. Never blocks.

        What the connection does not take at once follows in the next call of any method.
        Deliveries of QoS 0 are acknowledged too: they count against `receive_max`.
        """
        if self._link is not None and deliveries.connection == self._link.number:
            self._link.acknowledge(deliveries)

    def keep_alive(self) -> None:
        """Keep the connection alive without taking messages; cheap, call it while waiting."""
        link = self._link
        if link is None:
            return
        link.tend()
        if link.failure is None:
            return
        if link.has_more:
            # First that is given, and it may say who has the session now.
            self._tell(is_up=False, detail=str(link.failure))
        else:
            self._drop(link, link.failure)

    def link(self) -> LinkState:
        """Tell the state of the connection; may be called from any thread."""
        return self._state

    def close(self, *, drain_s: float = 2.0) -> None:
        """Send what is acknowledged and disconnect; the broker keeps the session.

        Args:
            drain_s: How long to wait at most until the broker has read everything, seconds.
                What it has not read is delivered again to the session's next owner.
        """
        self._is_closed = True
        if self._attempt is not None:
            self._attempt.steps.close()
            self._attempt = None
        link, self._link = self._link, None
        if link is None:
            return
        link.finish(drain_s=drain_s)
        self._tell(is_up=False, detail=f"{self._settings.address}: closed")

    # --- reading ----------------------------------------------------------------------------

    def _linger(self, until_s: float) -> None:
        now_s = self._clock.monotonic_s()
        rest_s = min(self._given_s + self._settings.linger_s, until_s) - now_s
        if rest_s > 0 and self._link is not None:
            self._clock.wait(self._never, rest_s)

    def _take(self, link: Connection) -> Deliveries | None:
        """Read, answer what needs an answer, and give the messages."""
        batch = link.read()
        try:
            for head, body in batch.others:
                self._on_packet(link, decode(head, body, version=link.version))
        except UnavailableError as error:
            link.failure = error
        if batch:
            return self._deliveries(link, batch)
        if link.failure is not None:
            self._drop(link, link.failure)
        return None

    def _deliveries(self, link: Connection, batch: Batch) -> Deliveries:
        self._given_s = self._clock.monotonic_s()
        self._has_given = True
        return Deliveries(
            origin="",
            connection=link.number,
            arrived_ms=self._clock.wall_ms(),
            topics=batch.topics,
            payloads=batch.payloads,
            packet_ids=batch.packet_ids,
            is_resumed=self._is_resumed,
        )

    def _on_packet(self, link: Connection, packet: Packet) -> None:
        address = self._settings.address
        if isinstance(packet, Pingresp):
            return
        if isinstance(packet, Suback):
            fault = _suback_fault(packet, self._settings)
            if fault is not None:
                raise UnavailableError(fault)
            self._is_session_ours = True
            self._restore(link)
        elif isinstance(packet, Disconnect):
            reason = _reason(packet.code, packet.properties)
            text = f"session on {address}: ended by the broker, {reason}"
            if packet.code == Code.SESSION_TAKEN_OVER:
                self._fence = FencedError(text)
            raise UnavailableError(text)
        else:
            raise ProtocolError(
                f"session on {address}: {type(packet).__name__} is not for a subscriber",
                code=Code.PROTOCOL_ERROR,
            )

    def _wait(self, until_s: float) -> bool:
        """Wait for the next thing to do; tell whether there is one before `until_s`."""
        now_s = self._clock.monotonic_s()
        waiting = None
        if self._link is not None:
            if self._link.has_more:
                return True
            waiting, due_s = self._link.waiting(), self._link.due_s()
        elif self._attempt is not None:
            waiting, due_s = self._attempt.waiting, self._attempt.until_s
        else:
            due_s = self._retry_at_s
        if now_s >= until_s:
            return False
        rest_s = max(0.0, min(due_s, until_s) - now_s)
        if waiting is None:
            self._clock.wait(self._never, rest_s)
        elif wait_until_ready(waiting.fileno, waiting.events, timeout_s=rest_s):
            return True
        return due_s < until_s

    # --- connecting -------------------------------------------------------------------------

    def _advance(self) -> None:
        """Go on with connecting as far as it goes without waiting."""
        now_s = self._clock.monotonic_s()
        if self._attempt is None:
            if now_s < self._retry_at_s:
                return
            steps = dial(self._settings.address, self._greeting, tls=self._tls)
            self._attempt = _Attempt(steps, now_s + self._settings.io_timeout_s)
        attempt = self._attempt
        try:
            if now_s >= attempt.until_s:
                attempt.steps.close()
                raise UnavailableError(
                    f"connecting to {self._settings.address}: "
                    f"no answer within {self._settings.io_timeout_s:g} s"
                )
            waiting = attempt.waiting
            if waiting and not wait_until_ready(waiting.fileno, waiting.events, timeout_s=0.0):
                return
            attempt.waiting = next(attempt.steps)
        except StopIteration as done:
            self._attempt = None
            self._begin(done.value)
        except UnavailableError as error:
            self._attempt = None
            self._thrown_out_count = 0
            self._lose(error)

    def _begin(self, opened: Opened) -> None:
        self._connection_count += 1
        link = self._link = Connection(
            opened, number=self._connection_count, settings=self._settings, clock=self._clock
        )
        # A session that began on a connection without messages is still new to the owner.
        self._is_resumed = link.is_session_present and (self._is_resumed or self._has_given)
        self._has_given = False
        fault = _unfit(opened.connack, self._settings)
        if fault is not None:
            self._drop(link, UnavailableError(fault))
        elif link.version == V5 or not (link.is_session_present and self._is_session_ours):
            # Version 5 can subscribe again without being sent retained messages, so it
            # always does: the filters may have changed, and a session whose SUBSCRIBE was
            # lost would stay silent for ever. With 3.1.1 that costs the retained messages
            # once a process.
            wanted = tuple(
                Subscription(one, qos=1, retain_handling=_NEVER_RETAINED)
                for one in self._settings.filters
            )
            subscribe = Subscribe(packet_id=1, subscriptions=wanted)
            link.send(encode(subscribe, version=link.version))
        else:
            self._restore(link)

    def _restore(self, link: Connection) -> None:
        self._is_loss_told = False
        version = "5" if link.version == V5 else "3.1.1"
        detail = f"{self._settings.address} with MQTT {version}"
        self._tell(is_up=True, detail=detail)
        emit(LinkRestored(link=f"mqtt.{self._settings.client_id}", detail=detail))

    def _drop(self, link: Connection, error: UnavailableError) -> None:
        link.abandon(error)
        self._link = None
        # A link that does not last is no success: two owners of one session would otherwise
        # throw each other out at the shortest pause for ever.
        has_lasted = self._clock.monotonic_s() - link.opened_s >= self._settings.retry_s_max
        if has_lasted:
            self._failure_count = 0
        is_thrown_out = self._state.is_up and not has_lasted and not _is_ours(error)
        self._thrown_out_count = self._thrown_out_count + 1 if is_thrown_out else 0
        if self._thrown_out_count >= THROWN_OUT_MAX and self._fence is None:
            self._fence = FencedError(
                f"session on {self._settings.address}: closed {self._thrown_out_count} times in a "
                f"row soon after it was up; does another program use the client id "
                f"{self._settings.client_id}? ({error})"
            )
        self._lose(error)

    def _lose(self, error: UnavailableError) -> None:
        doubled_s = self._settings.retry_s_min * 2.0 ** min(self._failure_count, 30)
        pause_s = min(self._settings.retry_s_max, doubled_s) * self._rng.uniform(0.5, 1.0)
        self._failure_count += 1
        self._retry_at_s = self._clock.monotonic_s() + pause_s
        self._tell(is_up=False, detail=str(error))
        if not self._is_loss_told:
            self._is_loss_told = True
            emit(LinkLost(link=f"mqtt.{self._settings.client_id}", detail=str(error)))

    def _tell(self, *, is_up: bool, detail: str) -> None:
        old = self._state
        since_ms = old.since_ms if old.is_up == is_up else self._clock.wall_ms()
        self._state = LinkState("mqtt", is_up, since_ms, detail)


def _is_ours(error: UnavailableError) -> bool:
    """Tell whether we ended the connection, for what the broker sent."""
    return isinstance(error, ProtocolError)


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
    except OSError as error:
        raise ConfigError(
            f"reading certificates {settings.ca_file}: {error.strerror or 'not PEM'}"
        ) from error


def _unfit(connack: Connack, settings: BrokerSettings) -> str | None:
    """Tell why a broker that accepted us cannot serve without loss, or None."""
    properties = connack.properties
    if properties.get(Property.QOS_MAX, 2) < 1:
        return f"session on {settings.address}: the broker grants only QoS 0, 1 is needed"
    has_wildcard = any("+" in one or "#" in one for one in settings.filters)
    if has_wildcard and not properties.get(Property.WILDCARD_AVAILABLE, 1):
        return f"session on {settings.address}: the broker has no wildcard subscriptions"
    has_shared = any(one.startswith("$share/") for one in settings.filters)
    if has_shared and not properties.get(Property.SHARED_AVAILABLE, 1):
        return f"session on {settings.address}: the broker has no shared subscriptions"
    return None


def _suback_fault(packet: Suback, settings: BrokerSettings) -> str | None:
    """Tell which subscription the broker did not grant as asked, or None."""
    if len(packet.codes) != len(settings.filters):
        return (
            f"subscribing on {settings.address}: {len(packet.codes)} answers "
            f"to {len(settings.filters)} filters"
        )
    for one, code in zip(settings.filters, packet.codes, strict=True):
        if code != 1:
            said = "QoS 0 granted, 1 is needed" if code == 0 else _reason(code, packet.properties)
            return f"subscribing to {one} on {settings.address}: {said}"
    return None


def _reason(code: int, properties: Properties) -> str:
    text = str(properties.get(Property.REASON_STRING, ""))[:200]
    return f"{code_text(code)} {text}".rstrip()
