"""The embedded feed: sensors connect to this process directly over MQTT.

Owns the calls of `Feed` and the endpoint's one thread; what the thread does is in
`listener`, what a client meets in `peer`. It is an ingest endpoint and not a broker:
messages go one way, and a PUBACK is sent only once the owner has acknowledged.
"""

from __future__ import annotations

import random
import threading
from typing import Final

from matchday.clock import Clock
from matchday.mqtt.address import Address
from matchday.mqtt.handover import Handover
from matchday.mqtt.listener import Listener
from matchday.mqtt.settings import EndpointSettings
from matchday.ports import Deliveries, LinkState

_JOIN_SPARE_S: Final = 2.0


class EndpointFeed:
    """A `Feed` from sensors that connect here; listening from construction on.

    At `receive_max` unacknowledged messages nothing more is read from any sensor, and TCP
    holds them back; nothing is dropped. Every delivery counts until it is acknowledged,
    also those of QoS 0 and of connections that are gone. `receive` and `acknowledge` may be
    called from different threads.
    """

    def __init__(self, settings: EndpointSettings, *, clock: Clock, rng: random.Random) -> None:
        """Bind the port and start the thread.

        Raises:
            ConfigError: The port is in use or cannot be had; names it and its flag.
        """
        self._settings = settings
        self._clock = clock
        self._handover = Handover()
        self._listener = Listener(settings, clock=clock, rng=rng, handover=self._handover)
        self.address = Address(
            host=settings.host, port=self._listener.port, is_tls=settings.tls is not None
        )
        self._opened_ms = clock.wall_ms()
        self._closed_ms: int | None = None
        self._thread = threading.Thread(
            target=self._listener.run, name=settings.thread_name, daemon=True
        )
        self._thread.start()

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        """Give the messages of all sensors, one element per connection; see `Feed.receive`.

        Messages of one connection that came at times too far apart to share an arrival
        time (`handover.MERGE_MS`) are given as several elements.
        """
        if self._closed_ms is not None:
            return []
        return self._handover.take(timeout_s=timeout_s)

    def acknowledge(self, deliveries: Deliveries) -> None:
        """Let the PUBACKs be sent; never blocks. See `Feed.acknowledge`."""
        self._handover.acknowledge(deliveries, wake=self._listener.wake)

    def keep_alive(self) -> None:
        """Do nothing: the endpoint's own thread keeps the connections alive."""

    def link(self) -> LinkState:
        """Tell whether the endpoint listens; may be called from any thread."""
        closed_ms = self._closed_ms
        if closed_ms is not None:
            return LinkState("mqtt", False, closed_ms, f"{self.address}: closed")
        if not self._thread.is_alive():
            return LinkState("mqtt", False, self._opened_ms, f"{self.address}: crashed")
        return LinkState("mqtt", True, self._opened_ms, f"listening on {self.address}")

    def close(self, *, drain_s: float = 0.0) -> None:
        """Stop reading, send the acknowledgements there are, and disconnect all sensors.

        What was read and not acknowledged is sent again by the sensors to the next process.

        Args:
            drain_s: How long to wait for another thread to acknowledge what was given
                out, seconds.
        """
        if self._closed_ms is not None:
            return
        self._closed_ms = self._clock.wall_ms()
        self._listener.stop(drain_s=drain_s)
        self._thread.join(drain_s + self._settings.io_timeout_s + _JOIN_SPARE_S)
