"""`Feed`: messages from sensors, to be acknowledged once their fate is durable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from matchday.ports.link import LinkState


@dataclass(frozen=True, slots=True, eq=False)
class Deliveries:
    """Messages of one connection in the order they came: parallel sequences of equal length.

    Attributes:
        origin: Client id of the publisher, or "" behind a broker (packet ids are then the
            broker's).
        connection: Number of the connection; acknowledgements never cross connections.
        arrived_ms: Arrival time, wall clock, milliseconds UTC.
        topics: MQTT topic of each message.
        payloads: Payload of each message.
        packet_ids: MQTT packet identifier of each message; 0 for QoS 0.
        is_resumed: The broker had kept the session since the deliveries before. If not it
            numbers packets anew, and nothing comes again under the identifiers of before.
            The same for all deliveries of a connection; always so at our own endpoint.
    """

    origin: str
    connection: int
    arrived_ms: int
    topics: Sequence[str]
    payloads: Sequence[bytes]
    packet_ids: Sequence[int]
    is_resumed: bool = True

    def __len__(self) -> int:
        return len(self.topics)


class Feed(Protocol):
    """Messages from sensors, to be acknowledged once their fate is durable."""

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        """Wait at most `timeout_s` for messages and give those that came, oldest first.

        An empty list is normal. Messages stay unacknowledged; when `receive_max` are, the
        publishers are held back by MQTT flow control and nothing more arrives. A lost
        connection is re-established in here, with back-off; what was not acknowledged
        comes again under a new `connection` number.

        Raises:
            FencedError: Another owner took the MQTT session over: stop.
        """

    def acknowledge(self, deliveries: Deliveries) -> None:
        """Send the acknowledgements for `deliveries`; call in the order received.

        Acknowledgements for a connection that is gone are dropped silently: its messages
        are delivered again. Never blocks on the network longer than `io_timeout_s`.
        """

    def keep_alive(self) -> None:
        """Keep the connection open without taking messages; never blocks.

        Call it at least every few seconds while something else keeps `receive` from
        being called, such as a stream that does not answer.
        """

    def link(self) -> LinkState:
        """Tell the state of the connection; may be called from any thread."""

    def close(self) -> None:
        """Stop taking messages and disconnect; safe to call twice."""
