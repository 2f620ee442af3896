"""Numbered readings at a paced rate, and a list of those that were acknowledged.

Independent of the product's own sensors: paho-mqtt, which keeps unacknowledged messages and
sends them again after a reconnect.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from matchday.clock import SystemClock

_CLOCK = SystemClock()


class Load:
    """Publishes `(source, seq)` readings in its own thread until stopped.

    Attributes:
        acknowledged: Every (source, seq) that the other side took over.
    """

    def __init__(
        self, port: int, *, rate_per_s: float, sources: Sequence[str], client_id: str = "load"
    ) -> None:
        self.acknowledged: set[tuple[str, int]] = set()
        self.sent_count = 0
        self._rate_per_s = rate_per_s
        self._sources = sources
        self._lock = threading.Lock()
        self._mids: dict[int, tuple[str, int, bytes]] = {}
        self._early: dict[int, ReasonCode] = {}
        self._refused: deque[tuple[str, int, bytes]] = deque()
        self._stop = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
        self._client.max_inflight_messages_set(500)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_publish = self._on_publish
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

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
        began_s = _CLOCK.monotonic_s()
        number = 0
        while not self._stop.is_set():
            due = int((_CLOCK.monotonic_s() - began_s) * self._rate_per_s)
            while number < due and not self._stop.is_set():
                source = self._sources[number % len(self._sources)]
                self._publish(source, number // len(self._sources))
                number += 1
            while self._refused:
                self._send(*self._refused.popleft())
            _CLOCK.wait(self._stop, 0.01)

    def _publish(self, source: str, seq: int) -> None:
        payload = json.dumps(
            {"quantity": "q", "value": float(seq), "seq": seq, "t": _CLOCK.wall_ms()}
        ).encode()
        self._send(source, seq, payload)
        self.sent_count += 1

    def _send(self, source: str, seq: int, payload: bytes) -> None:
        # No lock of ours around `publish`: it takes the client's own locks, which the
        # network thread holds while it calls `_on_publish`. So an answer may come before
        # the message is noted; it then waits in `_early`.
        sent = self._client.publish(f"matchday/test/scalar/{source}", payload, qos=1)
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
            self.acknowledged.add((source, seq))
        else:  # nobody took it over: say it again
            self._refused.append((source, seq, payload))
