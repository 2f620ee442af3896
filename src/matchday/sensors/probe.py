"""Ask a broker what it allows: connect once, subscribe, read its counters, leave.

Leaves no session behind and takes no message from anybody: the filters are subscribed
under a client id of its own, without a session.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from matchday.clock import Clock
from matchday.errors import UnavailableError
from matchday.sensors.broker import Broker, ProtocolChoice, connect, describe, new_client

ANSWER_S: Final = 5.0
COUNTERS_S: Final = 1.0
DROPPED: Final = "$SYS/broker/publish/messages/dropped"
VERSION: Final = "$SYS/broker/version"


@dataclass
class BrokerAnswers:
    """What a broker said.

    Attributes:
        is_v5: It speaks MQTT 5.
        refusal: Why it refused the connection; empty if it did not.
        refused_filters: Filters it would not subscribe, with its reason.
        limits: What CONNACK announced, by name.
        counters: What `$SYS` shows, by topic.
    """

    is_v5: bool = True
    refusal: str = ""
    refused_filters: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    counters: dict[str, str] = field(default_factory=dict)


def probe(broker: Broker, filters: tuple[str, ...], *, clock: Clock) -> BrokerAnswers:
    """Connect to a broker and collect its answers, within about six seconds.

    Raises:
        UnavailableError: Nobody answers at the address.
        ConfigError: The certificate authority cannot be read.
    """
    protocol = ProtocolChoice()
    while True:
        answers = BrokerAnswers(is_v5=protocol.is_v5)
        reason = _Probe(broker, filters, protocol, answers, clock).run()
        if reason is None or not protocol.refused(reason):
            return answers


class _Probe:
    def __init__(
        self,
        broker: Broker,
        filters: tuple[str, ...],
        protocol: ProtocolChoice,
        answers: BrokerAnswers,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._filters = filters
        self._answers = answers
        self._clock = clock
        self._refused: ReasonCode | None = None
        self._is_open = False
        self._asked: dict[int, str] = {}
        name = f"matchday-doctor-{random.randrange(16**8):08x}"
        self._client = new_client(broker, name, protocol)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def run(self) -> ReasonCode | None:
        """Give the reason code of a refused connection, None for an open one."""
        connect(self._client, self._broker)
        until_s = self._clock.monotonic_s() + ANSWER_S
        try:
            while not self._is_open and self._refused is None:
                self._loop(until_s, "no answer to CONNECT")
            if self._refused is not None:
                self._answers.refusal = describe(self._refused)
                return self._refused
            while self._asked:
                self._loop(until_s, "no answer to SUBSCRIBE")
            counters_until_s = self._clock.monotonic_s() + COUNTERS_S
            while len(self._answers.counters) < 2 and self._clock.monotonic_s() < counters_until_s:
                self._client.loop(0.1)
            return None
        finally:
            self._client.disconnect()

    def _loop(self, until_s: float, what: str) -> None:
        if self._clock.monotonic_s() > until_s:
            raise UnavailableError(f"asking {self._broker.shown}: {what} within {ANSWER_S:g} s")
        self._client.loop(0.1)

    def _on_connect(
        self,
        client: Client,
        _data: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refused = reason
            return
        self._is_open = True
        for name in ("ReceiveMaximum", "MaximumPacketSize", "MaximumQoS"):
            if properties is not None and hasattr(properties, name):
                self._answers.limits[name] = getattr(properties, name)
        for topic_filter in (*self._filters, DROPPED, VERSION):
            _, mid = client.subscribe(topic_filter, qos=1)
            if mid is not None:
                self._asked[mid] = topic_filter

    def _on_subscribe(
        self,
        _client: Client,
        _data: Any,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        topic_filter = self._asked.pop(mid, "")
        if topic_filter in self._filters and any(reason.is_failure for reason in reasons):
            self._answers.refused_filters[topic_filter] = describe(reasons[0])

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.topic in (DROPPED, VERSION):
            self._answers.counters[message.topic] = message.payload.decode(errors="replace")[:80]
