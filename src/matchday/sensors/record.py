"""The recorder: live traffic of a broker into a native recording.

Owns the subscription and the file. A message is acknowledged to the broker only after it
was written, and the broker keeps the session through short interruptions, so a recording
at QoS 1 has no hole that the broker did not have. What a line looks like is in `native`.
"""

from __future__ import annotations

import gzip
import os
import random
import threading
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, error_string
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from matchday.clock import Clock
from matchday.errors import ConfigError, UnavailableError
from matchday.observe.events import LinkLost, LinkRestored, emit
from matchday.sensors.broker import Broker, ProtocolChoice, connect, describe, new_client
from matchday.sensors.native import line_of

WAIT_S: Final = 0.2
FLUSH_EVERY_S: Final = 1.0
FLUSH_COUNT: Final = 500
SESSION_EXPIRY_S: Final = 600
BACKOFF_MAX_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Recorded:
    """What a recording got.

    Attributes:
        messages: Messages written.
        bytes: Payload bytes among them.
    """

    messages: int
    bytes: int


def record(
    broker: Broker,
    filters: Sequence[str],
    path: Path,
    clock: Clock,
    stop: threading.Event,
) -> Recorded:
    """Write every message of the topic filters to a file until `stop` is set.

    The file is new or is emptied first; `.gz` at the end of its name compresses it. It is
    readable at any time up to the last second, also after a SIGKILL. A lost connection is
    re-established with back-off, and what the broker kept meanwhile is recorded then.
    Retained messages are recorded once.

    Args:
        broker: Where to listen.
        filters: MQTT topic filters, subscribed at QoS 1.
        path: Must end in .jsonl or .jsonl.gz.
        clock: For arrival times and back-off.
        stop: Ends it within about a fifth of a second.

    Raises:
        ConfigError: The file cannot be written, or the other side refuses a subscription
            (our own endpoint does: it takes readings in and hands none out).
        UnavailableError: The disk is full; what was written before is readable.
    """
    if not filters:
        raise ConfigError(f"recording to {path}: no topic filter")
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"recording to {path}: must end in .jsonl or .jsonl.gz")
    try:
        sink: _Sink = _GzipSink(path) if path.suffix == ".gz" else _PlainSink(path)
    except OSError as error:
        raise ConfigError(f"recording to {path}: {error.strerror}") from error
    recorder = _Recorder(broker, filters, sink, clock)
    try:
        while not stop.is_set():
            recorder.pump(stop)
        recorded = recorder.close()
        sink.close()
        return recorded
    except OSError as error:
        raise UnavailableError(f"recording to {path}: {error.strerror}") from error
    finally:
        # What is left in its buffer is tried once more, and no news.
        with suppress(OSError):
            sink.close()


class _Sink(Protocol):
    """A file of lines that is readable after every `flush`."""

    def write(self, line: bytes) -> None:
        """Take a line, with its end; OSError where there is no room."""

    def flush(self) -> None:
        """Return once all lines are on the disk."""

    def close(self) -> None:
        """End the file."""


class _PlainSink:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, line: bytes) -> None:
        """Take a line."""
        self._file.write(line)

    def flush(self) -> None:
        """Return once all lines are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _GzipSink:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=self._file)

    def write(self, line: bytes) -> None:
        """Take a line and compress it."""
        self._gzip.write(line)

    def flush(self) -> None:
        """Return once all lines are on the disk, and can be read without a trailer."""
        # Ends the block, so that a reader gets everything up to here without the trailer.
        self._gzip.flush(zlib.Z_SYNC_FLUSH)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the trailer and close the file."""
        self._gzip.close()
        self._file.close()


class _Recorder:
    """Keeps the connection, writes what comes, acknowledges what is written."""

    def __init__(self, broker: Broker, filters: Sequence[str], sink: _Sink, clock: Clock) -> None:
        self._broker = broker
        self._filters = list(filters)
        self._sink = sink
        self._clock = clock
        self._client_id = f"matchday-record-{random.getrandbits(48):012x}"
        self._protocol = ProtocolChoice()
        self._client: Client | None = None
        self._heard = _Heard()
        self._attempts = 0
        self._unacknowledged: list[tuple[MQTTMessage, tuple[str, bytes]]] = []
        self._in_doubt: Counter[tuple[str, bytes]] = Counter()
        self._flush_at_s = 0.0
        self._messages = self._bytes = 0

    def pump(self, stop: threading.Event) -> None:
        """Connect where needed and take what comes, for a fifth of a second or so."""
        if self._client is None:
            self._open(stop)
            return
        code = self._client.loop(WAIT_S)
        self._write()
        if self._heard.refused_filters:
            raise ConfigError(
                f"recording from {self._broker.shown}: subscription refused, "
                f"{self._heard.refused_filters}; our own endpoint only takes readings in,"
                " record from a broker"
            )
        if self._heard.refusal is not None:
            is_retry_useful = self._protocol.refused(self._heard.refusal)
            self._lost(f"refused the connection, {describe(self._heard.refusal)}")
            self._attempts = 0 if is_retry_useful else self._attempts
        elif code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            if not self._heard.is_accepted:
                self._protocol.closed_silently()
            self._lost(error_string(code))
        elif not self._heard.is_accepted and self._clock.monotonic_s() > self._heard.deadline_s:
            self._lost("no answer to CONNECT")
        elif self._heard.is_new:
            self._subscribe(self._client)

    def close(self) -> Recorded:
        """Write and acknowledge what came, end the session, and say goodbye."""
        self._write()
        self._flush()
        if self._client is not None:
            if self._protocol.is_v5:
                goodbye = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
                goodbye.SessionExpiryInterval = 0
                self._client.disconnect(properties=goodbye)
            else:
                self._client.disconnect()
            self._drop()
        return Recorded(self._messages, self._bytes)

    def _open(self, stop: threading.Event) -> None:
        if self._attempts:
            pause_s = min(BACKOFF_MAX_S, 0.2 * 2 ** min(self._attempts, 10))
            if self._clock.wait(stop, pause_s * random.uniform(0.5, 1.0)):
                return
        client = new_client(self._broker, self._client_id, self._protocol)
        client.manual_ack_set(True)
        deadline_s = self._clock.monotonic_s() + ANSWER_TIMEOUT_S
        self._heard = _Heard(client, self._clock, deadline_s=deadline_s)
        try:
            # Never a clean start, the id is new anyway: Mosquitto 2.0.11 does not save a
            # session that began with one, whatever its expiry says.
            connect(
                client,
                self._broker,
                clean_start=False,
                session_expiry_s=SESSION_EXPIRY_S,
                receive_max=2 * FLUSH_COUNT,
            )
        except UnavailableError as error:
            client.on_connect = client.on_subscribe = client.on_message = None
            self._lost(str(error))
            return
        self._client = client

    def _subscribe(self, client: Client) -> None:
        self._heard.is_new = False
        self._attempts = 0
        emit(LinkRestored(link="mqtt", detail=self._broker.shown))
        # Also where the session was kept: it costs nothing and heals a lost one.
        if not self._protocol.is_v5:
            client.subscribe([(name, 1) for name in self._filters])
            return
        # Else what is retained would come, and be recorded, anew with every connection.
        how = SubscribeOptions(1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        client.subscribe([(name, how) for name in self._filters])

    def _write(self) -> None:
        for arrived_ms, message in self._heard.take():
            payload = bytes(message.payload)
            content = (message.topic, payload)
            self._unacknowledged.append((message, content))
            if message.dup and self._in_doubt[content]:
                # Written before the connection was lost, and acknowledged only now.
                self._in_doubt[content] -= 1
                continue
            self._sink.write(line_of(message.topic, payload, arrived_ms=arrived_ms))
            self._messages += 1
            self._bytes += len(payload)
        # MQTT 3.1.1 cannot ask the broker for more than its few messages in flight.
        count_max = FLUSH_COUNT if self._protocol.is_v5 else 1
        now_s = self._clock.monotonic_s()
        is_due = now_s >= self._flush_at_s or len(self._unacknowledged) >= count_max
        if self._unacknowledged and is_due:
            self._flush_at_s = now_s + FLUSH_EVERY_S
            self._flush()

    def _flush(self) -> None:
        self._sink.flush()
        if self._client is not None:
            for message, _ in self._unacknowledged:
                self._client.ack(message.mid, message.qos)
        self._unacknowledged.clear()

    def _lost(self, detail: str) -> None:
        if self._attempts == 0:
            emit(LinkLost(link="mqtt", detail=f"{self._broker.shown}: {detail}"))
        self._attempts += 1
        # Acknowledgements never cross connections: what is written comes once more. What
        # came at QoS 0 does not.
        # More than one try may be lost before they do.
        self._in_doubt.update(content for message, content in self._unacknowledged if message.qos)
        self._unacknowledged.clear()
        self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            # See `Connection.drop`.
            self._client.on_connect = self._client.on_subscribe = self._client.on_message = None
            link = self._client.socket()
            if link is not None:
                link.close()
            self._client = None


class _Heard:
    """What the callbacks of one connection heard."""

    def __init__(
        self, client: Client | None = None, clock: Clock | None = None, *, deadline_s: float = 0.0
    ) -> None:
        self.deadline_s = deadline_s
        self.is_accepted = False
        self.is_new = False
        self.refusal: ReasonCode | None = None
        self.refused_filters = ""
        self._clock = clock
        self._messages: list[tuple[int, MQTTMessage]] = []
        if client is not None:
            client.on_connect = self._on_connect
            client.on_subscribe = self._on_subscribe
            client.on_message = self._on_message

    def take(self) -> list[tuple[int, MQTTMessage]]:
        """Give the messages since the last call with their arrival times."""
        messages, self._messages = self._messages, []
        return messages

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
        else:
            self.is_accepted = self.is_new = True

    def _on_subscribe(
        self, client: Client, userdata: Any, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        refused = [describe(reason) for reason in reasons if reason.is_failure]
        self.refused_filters = ", ".join(refused)

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        assert self._clock is not None
        self._messages.append((self._clock.wall_ms(), message))
