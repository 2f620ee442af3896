"""Numbered readings at a paced rate, and a list of those that were acknowledged.

Independent of the product's own sensors: paho-mqtt, which keeps unacknowledged messages and
sends them again after a reconnect.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from matchday.clock import SystemClock

OPEN_MAX = 20_000
"""Unacknowledged messages at most, then it falls behind its pace: packet ids, by which answers
are told apart, begin again after 65,535."""

_CLOCK = SystemClock()


@dataclass(frozen=True)
class _Pace:
    """A rate from a moment on, and how many readings were due until then."""

    since_s: float
    due_before: float
    rate_per_s: float

    def due(self, now_s: float) -> float:
        return self.due_before + (now_s - self.since_s) * self.rate_per_s


class Load:
    """Publishes `(source, seq)` readings in its own thread until stopped.

    Args:
        port: Of the broker or endpoint on this machine.
        rate_per_s: Readings per second of all sources together.
        sources: Their names; they speak in turn.
        client_id: Of the MQTT client.
        venue: The venue level of the topics.
        login: User and password, where they are asked for.

    Attributes:
        acknowledged: Every (source, seq) that the other side took over.
        acknowledged_s: When the last answer for each of them came, monotonic seconds.
        sent_count: Readings made so far; source number i of n has said every n-th of them.
    """

    def __init__(
        self,
        port: int,
        *,
        rate_per_s: float,
        sources: Sequence[str],
        client_id: str = "load",
        venue: str = "test",
        login: tuple[str, str] | None = None,
    ) -> None:
        self.acknowledged: set[tuple[str, int]] = set()
        self.acknowledged_s: dict[tuple[str, int], float] = {}
        self.sent_count = 0
        self._pace = _Pace(_CLOCK.monotonic_s(), 0, rate_per_s)
        self._sources = sources
        self._said_ms: dict[str, int] = {}
        self._venue = venue
        self._lock = threading.Lock()
        self._mids: dict[int, tuple[str, int, bytes]] = {}
        self._early: dict[int, ReasonCode] = {}
        self._refused: deque[tuple[str, int, bytes]] = deque()
        self._stop = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
        self._client.max_inflight_messages_set(500)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_publish = self._on_publish
        if login is not None:
            self._client.username_pw_set(*login)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def pace(self, rate_per_s: float) -> None:
        """Go on at another rate, readings per second of all sources together."""
        now_s = _CLOCK.monotonic_s()
        self._pace = _Pace(now_s, self._pace.due(now_s), rate_per_s)

    def payload(self, source: str, seq: int) -> bytes:
        """Give what a source says; called once for each number.

        Its times rise, also where it catches up with many in a millisecond: its newest reading is
        that of its highest number.
        """
        t_ms = self._said_ms[source] = max(_CLOCK.wall_ms(), self._said_ms.get(source, 0) + 1)
        said = {"quantity": "q", "value": float(seq), "seq": seq, "t": t_ms}
        return json.dumps(said).encode()

    def topic(self, source: str) -> str:
        """Give where a source says it."""
        return f"matchday/{self._venue}/scalar/{source}"

    def stop(self) -> None:
        """Stop publishing; acknowledgements still come in."""
        self._stop.set()
        self._thread.join()

    @property
    def open_count(self) -> int:
        """Give how many messages were sent and not acknowledged yet."""
        with self._lock:
            return len(self._mids)

    def close(self) -> None:
        """Disconnect."""
        self.stop()
        self._client.disconnect()
        self._client.loop_stop()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            due = int(self._pace.due(_CLOCK.monotonic_s()))
            while number < due and self.open_count < OPEN_MAX and not self._stop.is_set():
                source = self._sources[number % len(self._sources)]
                self._publish(source, number // len(self._sources))
                number += 1
            while self._refused:
                self._send(*self._refused.popleft())
            _CLOCK.wait(self._stop, 0.01)

    def _publish(self, source: str, seq: int) -> None:
        self._send(source, seq, self.payload(source, seq))
        self.sent_count += 1

    def _send(self, source: str, seq: int, payload: bytes) -> None:
        # No lock of ours around `publish`: it takes the client's own locks, which the
        # network thread holds while it calls `_on_publish`. So an answer may come before
        # the message is noted; it then waits in `_early`.
        sent = self._client.publish(self.topic(source), payload, qos=1)
        with self._lock:
            reason = self._early.pop(sent.mid, None)
            if reason is None:
                self._mids[sent.mid] = (source, seq, payload)
        if reason is not None:
            self._settle(source, seq, payload, reason)

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _props: Properties
    ) -> None:
        with self._lock:
            message = self._mids.pop(mid, None)
            if message is None:
                self._early[mid] = reason
        if message is not None:
            self._settle(*message, reason)

    def _settle(self, source: str, seq: int, payload: bytes, reason: ReasonCode) -> None:
        if reason.value == 0:
            self.acknowledged_s[source, seq] = _CLOCK.monotonic_s()
            self.acknowledged.add((source, seq))
        else:  # nobody took it over: say it again
            self._refused.append((source, seq, payload))
