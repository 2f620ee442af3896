"""Find out how many messages a broker keeps for a subscriber that is away.

Owns one experiment: a session of its own subscribes, leaves, and counts what has been kept
when it comes again. Its topic begins with `$`, so that no wildcard subscription of anybody
gets these messages, and they and the session expire by themselves. MQTT 5 only. Judges
nothing: `services.broker_check` does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from matchday.clock import Clock
from matchday.sensors.broker import Broker, ProtocolChoice, connect, new_client

SENT_COUNT: Final = 1100
"""More than the default limit of Mosquitto, 1000, and what may be in flight beside it."""

EXPIRY_S: Final = 60
STEP_S: Final = 5.0
SILENCE_S: Final = 1.0


def kept_count(broker: Broker, *, clock: Clock) -> int | None:
    """Count how many of `SENT_COUNT` messages the broker keeps for a session that is away.

    Takes about two seconds. What the broker drops here shows in its own count of drops.

    Returns:
        The count, or None where the broker does not let us find out.

    Raises:
        UnavailableError: Nobody answers at the address.
    """
    return _Experiment(broker, clock).run()


class _Experiment:
    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._name = f"matchday-doctor-{secrets.token_hex(6)}"
        self._topic = f"$matchday-doctor/{self._name}"
        self._count = 0

    def run(self) -> int | None:
        """Do it all; see `kept_count`."""
        if not self._subscribe():
            return None
        try:
            if not self._publish():
                return None
            return self._collect()
        finally:
            self._remove()

    def _subscribe(self) -> bool:
        client = self._client(self._name)
        granted: list[bool] = []

        def on_connect(*_: Any) -> None:
            """Subscribe as soon as the broker has let us in."""
            client.subscribe(self._topic, qos=1)

        client.on_connect = on_connect
        client.on_subscribe = lambda _c, _d, _m, reasons, _p: granted.append(
            not any(reason.is_failure for reason in reasons)
        )
        self._open(client, is_new=True)
        is_answered = self._loop(client, lambda: bool(granted))
        client.disconnect()
        return is_answered and granted[0]

    def _publish(self) -> bool:
        client = self._client(f"{self._name}-sender")
        expiry = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        expiry.MessageExpiryInterval = EXPIRY_S
        taken: list[bool] = []
        client.on_publish = lambda _c, _d, _m, reason, _p: taken.append(not reason.is_failure)
        self._open(client, is_new=True)
        if not self._loop(client, client.is_connected):
            return False
        for _ in range(SENT_COUNT):
            client.publish(self._topic, b"?", qos=1, properties=expiry)
        is_done = self._loop(client, lambda: len(taken) >= SENT_COUNT)
        client.disconnect()
        return is_done and all(taken)

    def _collect(self) -> int:
        client = self._client(self._name)
        last_s = self._clock.monotonic_s()

        def on_message(*_: Any) -> None:
            """Count a message that the broker had kept, and note when it came."""
            nonlocal last_s
            self._count += 1
            last_s = self._clock.monotonic_s()

        client.on_message = on_message
        self._open(client, is_new=False)
        self._loop(
            client,
            lambda: self._count >= SENT_COUNT or self._clock.monotonic_s() > last_s + SILENCE_S,
        )
        client.disconnect()
        return self._count

    def _remove(self) -> None:
        """End the session: a clean start without expiry removes it."""
        client = new_client(self._broker, self._name, ProtocolChoice())
        connect(client, self._broker)
        self._loop(client, client.is_connected)
        client.disconnect()

    def _client(self, name: str) -> Client:
        client = new_client(self._broker, name, ProtocolChoice())
        client.max_inflight_messages_set(500)
        client.max_queued_messages_set(0)
        return client

    def _open(self, client: Client, *, is_new: bool) -> None:
        connect(client, self._broker, clean_start=is_new, session_expiry_s=EXPIRY_S)

    def _loop(self, client: Client, is_done: Callable[[], bool]) -> bool:
        until_s = self._clock.monotonic_s() + STEP_S
        while not is_done() and self._clock.monotonic_s() < until_s:
            client.loop(0.05)
        return is_done()
