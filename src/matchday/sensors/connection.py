"""One connection of the publisher: what is in flight on it, and what its callbacks heard.

Owns the window: how many messages may be in flight at this moment. Does not own what is
to be sent, nor what an answer means; that is the publisher's.
"""

from __future__ import annotations

from typing import Any

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from matchday.sensors.outbox import Parcel


class Connection:
    """One connection, from CONNECT on.

    Attributes:
        client: The paho client, used for this connection only.
        deadline_s: Until when the broker has to answer CONNECT, monotonic seconds.
        is_accepted: The broker accepted the connection.
        refusal: Why it refused, once it did.
        farewell: What was said at the end of the connection.
        inflight: Messages sent and not answered, by packet identifier.
        packet_bytes_max: The largest packet the broker takes.
        window: How many messages may be in flight now.
        window_max: How many both sides agreed on.
    """

    def __init__(self, client: Client, inflight_max: int, *, deadline_s: float) -> None:
        self.client = client
        self.deadline_s = deadline_s
        self.is_accepted = False
        self.refusal: ReasonCode | None = None
        self.farewell = ""
        self.inflight: dict[int, Parcel] = {}
        self.packet_bytes_max = 2**28
        # A new connection sends one message alone: where nobody takes it, nothing that
        # follows can overtake it.
        self.window = 1
        self.window_max = inflight_max
        self._answers: list[tuple[int, ReasonCode]] = []
        client.max_inflight_messages_set(0)  # `window` bounds it instead.
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish

    def open_window(self) -> None:
        """Allow as many messages in flight as both sides agreed on."""
        self.window = self.window_max

    def narrow_window(self) -> None:
        """Allow one message in flight, until one is accepted."""
        self.window = 1

    def take_answers(self) -> list[tuple[int, ReasonCode]]:
        """Give the answers heard since the last call, in order."""
        answers, self._answers = self._answers, []
        return answers

    def drop(self) -> None:
        """Forget the connection; paho closes the socket with its client."""
        # Each knows the other: left to the collector, which looks rarely, every try of an
        # outage would keep its sockets and its TLS context, most of a megabyte.
        self.client.on_connect = self.client.on_disconnect = self.client.on_publish = None
        link = self.client.socket()
        if link is not None:
            link.close()

    def _on_connect(
        self,
        client: Client,
        userdata: Any,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.refusal = reason
            return
        self.is_accepted = True
        receive_max = getattr(properties, "ReceiveMaximum", None)
        if receive_max:
            self.window_max = min(self.window_max, receive_max)
        self.packet_bytes_max = getattr(properties, "MaximumPacketSize", self.packet_bytes_max)

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        self.farewell = f"{reason.getName()}"

    def _on_publish(
        self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Any
    ) -> None:
        self._answers.append((mid, reason))
