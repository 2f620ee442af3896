"""One open connection to a broker: reading in batches, answering, pings, and its bounds.

Owns what lives as long as one TCP connection. Does not own connecting (`dial`), the
subscriptions or the state of the link (`session`).
"""

from __future__ import annotations

import select
from typing import Final

from matchday.clock import Clock
from matchday.errors import UnavailableError
from matchday.mqtt.channel import wait_until_ready
from matchday.mqtt.codes import V5, ProtocolError
from matchday.mqtt.dial import Opened, Waiting
from matchday.mqtt.fields import Property
from matchday.mqtt.layouts import PINGREQ, encode
from matchday.mqtt.packets import Disconnect
from matchday.mqtt.publish import Batch, pack_pubacks
from matchday.mqtt.settings import BrokerSettings
from matchday.ports import Deliveries

READ_ROUND_BYTES: Final = 2**20
"""A round of reading ends after about so many bytes, so that the next step can begin."""


class Connection:
    """An accepted connection, used by the thread of its feed.

    Attributes:
        number: Tells it from all connections before.
        version: The protocol level agreed on.
        is_session_present: The broker had kept the session.
        opened_s: Monotonic second at which it began.
        failure: Why it cannot go on, or None; what was read before is still to be given out.
    """

    def __init__(
        self, opened: Opened, *, number: int, settings: BrokerSettings, clock: Clock
    ) -> None:
        server_s = opened.connack.properties.get(Property.SERVER_KEEP_ALIVE_S, 0)
        # A third: two pings fit in before the broker may hang up, even when one is late.
        self._ping_every_s = min(server_s or settings.keep_alive_s, settings.keep_alive_s) / 3
        self.number = number
        self.version = opened.version
        self.is_session_present = opened.connack.is_session_present
        self.failure: UnavailableError | None = None
        self._channel = opened.channel
        self._decoder = opened.decoder
        self._batch = opened.batch
        self._settings = settings
        self._clock = clock
        self.opened_s = self._sent_s = clock.monotonic_s()
        self._ping_sent_s: float | None = None
        self._open_count = 0
        self._open_bytes = 0
        self._gathered_bytes = 0

    @property
    def is_full(self) -> bool:
        """Tell whether so much is unacknowledged that nothing more is to be read.

        A broker that honours the receive-maximum of version 5 stops by itself at QoS 1;
        for QoS 0 and 3.1.1 this is the only bound.
        """
        return (
            self._open_count + len(self._batch) >= self._settings.receive_max
            or self._open_bytes + self._gathered_bytes >= self._settings.receive_bytes_max
        )

    @property
    def has_more(self) -> bool:
        """Tell whether something was read that `read` has not given yet."""
        return bool(self._batch or self._batch.others)

    def read(self) -> Batch:
        """Read what is there and give it; what goes wrong is kept in `failure`."""
        self._gather()
        batch, self._batch = self._batch, Batch()
        self._gathered_bytes = 0
        self._open_count += len(batch)
        self._open_bytes += sum(map(len, batch.payloads))
        return batch

    def acknowledge(self, deliveries: Deliveries) -> None:
        """Send the acknowledgements; what does not go out at once follows in `tend`."""
        self._open_count -= len(deliveries)
        self._open_bytes -= sum(map(len, deliveries.payloads))
        self.send(pack_pubacks(deliveries.packet_ids))

    def send(self, data: bytes | bytearray) -> None:
        """Send as far as the connection takes it now; a break is kept in `failure`."""
        if data:
            self._channel.write(data)
            self._sent_s = self._clock.monotonic_s()
        try:
            self._channel.flush()
        except UnavailableError as error:
            self.failure = error

    def tend(self) -> None:
        """Send what is unsent, ping when it is time, and judge a missing answer.

        For the last two it reads, as far as there is room, and keeps that for `read`.
        """
        now_s = self._clock.monotonic_s()
        timeout_s = self._settings.io_timeout_s
        is_due = self._ping_sent_s is None and now_s - self._sent_s >= self._ping_every_s
        if is_due or self._is_answer_late(now_s):
            # Nobody else reads while the owner waits for something else. Read before asking,
            # so that what came before is no answer, and before judging: it may be there.
            self._gather()
        if self.failure is not None:
            return
        if self._is_answer_late(now_s):
            self.failure = UnavailableError(
                f"pinging {self._channel.peer}: no answer within {timeout_s:g} s"
            )
            return
        self.send(PINGREQ if is_due else b"")
        if is_due and not self.is_full:
            # While full nothing is read, so that no answer could be seen.
            self._ping_sent_s = now_s

    def due_s(self) -> float:
        """Give the monotonic second at which `tend` has something to do."""
        if self._ping_sent_s is not None:
            return self._ping_sent_s + self._settings.io_timeout_s
        return self._sent_s + self._ping_every_s

    def waiting(self) -> Waiting | None:
        """Give what to poll for, or None where only time can bring a change."""
        events = 0 if self.is_full else select.POLLIN
        if self._channel.unsent_bytes:
            events |= select.POLLOUT
        return Waiting(self._channel.fileno(), events) if events else None

    def _gather(self) -> None:
        """Read what is there into the batch to be given next, about a round at most."""
        taken_bytes = 0
        try:
            while self.failure is None and taken_bytes < READ_ROUND_BYTES and not self.is_full:
                chunk = self._channel.read()
                if chunk is None:
                    break
                taken_bytes += len(chunk)
                self._gathered_bytes += len(chunk)
                # Any sign of life will do in place of the answer to a ping.
                self._ping_sent_s = None
                self.failure = self._decoder.decode(chunk, self._batch).error
        except UnavailableError as error:
            self.failure = error

    def _is_answer_late(self, now_s: float) -> bool:
        sent_s = self._ping_sent_s
        return sent_s is not None and now_s - sent_s >= self._settings.io_timeout_s

    def finish(self, *, drain_s: float) -> None:
        """Say good-bye and close once the broker has, at the latest after `drain_s`.

        The broker closes when it has read up to our DISCONNECT, and so every PUBACK. Without
        the wait, a next owner that connects at once takes the session over while they are
        still unread (Mosquitto reads one packet a turn), and gets those messages again.
        """
        self.send(encode(Disconnect(), version=self.version))
        until_s = self._clock.monotonic_s() + drain_s
        while self.failure is None and (rest_s := until_s - self._clock.monotonic_s()) > 0:
            events = select.POLLIN | (select.POLLOUT if self._channel.unsent_bytes else 0)
            if not wait_until_ready(self._channel.fileno(), events, timeout_s=rest_s):
                break
            self.send(b"")
            try:
                while self._channel.read() is not None:
                    pass  # Messages that were on their way stay unacknowledged.
            except UnavailableError as error:
                self.failure = error
        self._channel.close()

    def abandon(self, reason: UnavailableError) -> None:
        """Close at once; a broker of version 5 that broke the protocol is told how."""
        if self.version == V5 and isinstance(reason, ProtocolError):
            self.send(encode(Disconnect(code=reason.code), version=V5))
        self._channel.close()
