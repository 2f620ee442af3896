"""A client that publishes raw packets at a rate that the usual libraries do not reach.

Owns one MQTT 3.1.1 connection, pacing, and counting what was acknowledged. It never sends
anything again: what is not acknowledged when it ends is in doubt, and it says how much.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from matchday.clock import SystemClock
from servers.ports import LOOPBACK

_CLOCK: Final = SystemClock()
TICK_S: Final = 0.01
IDS: Final = 60_000
OPEN_MAX: Final = 20_000


class Flood:
    """Publishes what `message` gives, at QoS 1, from entry to exit.

    Args:
        port: Of the broker or endpoint on this machine.
        message: Gives topic and payload of the message of a number.
        rate_per_s: Messages per second; it falls behind where the other side is slower.
        count_max: How many at most.

    Attributes:
        sent_count: Messages sent.
        acknowledged_count: Acknowledgements that came.
    """

    def __init__(
        self,
        port: int,
        message: Callable[[int], tuple[str, bytes]],
        *,
        rate_per_s: float,
        count_max: int = 10**9,
    ) -> None:
        self.sent_count = 0
        self.acknowledged_count = 0
        self._message = message
        self._rate_per_s = rate_per_s
        self._count_max = count_max
        self._stop = threading.Event()
        self._link = socket.create_connection((LOOPBACK, port), timeout=30)
        self._threads = [
            threading.Thread(target=self._send, name="flood.send", daemon=True),
            threading.Thread(target=self._receive, name="flood.receive", daemon=True),
        ]

    def __enter__(self) -> Self:
        client_id = b"flood-%d" % self._link.getsockname()[1]
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack("!H", len(client_id)) + client_id
        self._link.sendall(b"\x10" + _length(len(body)) + body)
        greeting = self._link.recv(4)
        assert greeting == b"\x20\x02\x00\x00", greeting
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._link.close()

    @property
    def open_count(self) -> int:
        """Give how many messages are not acknowledged."""
        return self.sent_count - self.acknowledged_count

    def stop(self) -> None:
        """Send no more; acknowledgements still come."""
        self._stop.set()
        self._threads[0].join()

    def _send(self) -> None:
        began_s = _CLOCK.monotonic_s()
        while not self._stop.is_set() and self.sent_count < self._count_max:
            due = int((_CLOCK.monotonic_s() - began_s) * self._rate_per_s)
            due = min(due, self._count_max, self.acknowledged_count + OPEN_MAX)
            out = bytearray()
            for number in range(self.sent_count, due):
                topic, payload = self._message(number)
                out += publish(topic, payload, number % IDS + 1)
            try:
                self._link.sendall(out)
            except OSError:
                return
            self.sent_count = max(due, self.sent_count)
            _CLOCK.wait(self._stop, TICK_S)

    def _receive(self) -> None:
        rest = b""
        self._link.settimeout(None)
        while True:
            try:
                chunk = self._link.recv(65536)
            except OSError:
                return
            if not chunk:
                return
            rest += chunk
            count = len(rest) // 4  # a PUBACK of MQTT 3.1.1 has four bytes
            self.acknowledged_count += count
            rest = rest[4 * count :]


def publish(topic: str, payload: bytes, packet_id: int) -> bytes:
    """Encode a PUBLISH packet at QoS 1 for MQTT 3.1.1."""
    name = topic.encode()
    body = struct.pack("!H", len(name)) + name + struct.pack("!H", packet_id) + payload
    return b"\x32" + _length(len(body)) + body


def _length(count: int) -> bytes:
    found = bytearray()
    while True:
        count, low = divmod(count, 128)
        found.append(low | (0x80 if count else 0))
        if not count:
            return bytes(found)
