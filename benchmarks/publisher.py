"""The load: one MQTT 3.1.1 connection that publishes numbered readings at QoS 1.

Run as a child process by the benchmarks, so that its CPU is nobody else's. Packets are
encoded before the start (full rate) or while sending (paced, so that `t` is the moment of
sending); a window of unacknowledged packets bounds what is on its way. Says `ready`, waits
for a line, sends, and prints what it did as JSON. Owns its few bytes of MQTT by itself: a
benchmark of our codec must not be fed by our codec.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

PAYLOAD_BYTES = 200
FRAME_OBJECTS = 23
EVENTS_PER_MS = 15
PLAYERS_PER_MS = 7
PLAYER_TAGS = 35
BALL_TAGS = 4
WINDOW = 2000
PACKET_IDS = 60_000
CHUNK = 50
PUBACK_BYTES = 4
IDLE_S = 60.0


@dataclass(frozen=True)
class Load:
    """What to publish.

    Attributes:
        port: The broker's port on loopback.
        messages: How many.
        sources: Spread over so many sources, in turn.
        rate_per_s: Messages per second; 0 is as fast as the broker acknowledges.
        seq_first: Every source's first number.
        label: Session of the readings.
        kind: scalar, frame or event.
    """

    port: int
    messages: int
    sources: int
    rate_per_s: float
    seq_first: int
    label: str
    kind: str = "scalar"


def payload(load: Load, index: int, t_ms: int) -> bytes:
    """Give the native scalar message number `index`, padded to 200 bytes by its session."""
    seq = load.seq_first + index // load.sources
    head = (
        f'{{"quantity":"temperature","value":{15 + index % 1000 / 100:.2f},"unit":"degC",'
        f'"t":{t_ms},"seq":{seq},"session":"{load.label} '
    )
    return f'{head}{"x" * (PAYLOAD_BYTES - len(head) - 2)}"}}'.encode()


def frame(load: Load, index: int, t_ms: int) -> bytes:
    """Give a native positions message of a whole team and its opponents, about 1.1 kB."""
    step = index // load.sources
    rows = ",".join(
        f'{{"id":"p{number}","x":{number * 4 - 45 + step % 40 * 0.05:.2f},'
        f'"y":{number * 2.5 - 28 + step % 30 * 0.04:.2f},'
        f'"team":"{"home" if number < FRAME_OBJECTS // 2 else "away"}"}}'
        for number in range(FRAME_OBJECTS)
    )
    seq = load.seq_first + step
    return f'{{"t":{t_ms},"seq":{seq},"session":"{load.label}","objects":[{rows}]}}'.encode()


def event(load: Load, index: int, t_ms: int) -> tuple[str, bytes]:
    """Give tag and native positions message of one object."""
    at_ms, place = divmod(index, EVENTS_PER_MS)
    if place < PLAYERS_PER_MS:
        tag = (at_ms * PLAYERS_PER_MS + place) % PLAYER_TAGS
        name, seq = f"p{tag}", at_ms * PLAYERS_PER_MS // PLAYER_TAGS
        team = f',"team":"{"home" if tag % 2 else "away"}"'
    else:
        again, tag = divmod(place - PLAYERS_PER_MS, BALL_TAGS)
        tag += PLAYER_TAGS
        name, seq, team = "ball", at_ms * 2 + again, ""
    x, y = tag - 20 + at_ms % 4000 * 0.003, tag * 0.7 - 14
    text = (
        f'{{"t":{t_ms},"seq":{load.seq_first + seq},"session":"{load.label}",'
        f'"objects":[{{"id":"{name}","x":{x:.2f},"y":{y:.2f}{team}}}]}}'
    )
    return f"tag-{tag}", text.encode()


def message(load: Load, index: int, t_ms: int) -> tuple[str, bytes]:
    """Give topic and payload of message number `index`."""
    if load.kind == "frame":
        venue = index % load.sources
        return f"matchday/bench-{venue}/positions/cameras-{venue}", frame(load, index, t_ms)
    if load.kind == "event":
        tag, body = event(load, index, t_ms)
        return f"matchday/bench/positions/{tag}", body
    return f"matchday/bench/scalar/tag-{index % load.sources}", payload(load, index, t_ms)


def packet(load: Load, index: int, t_ms: int) -> bytes:
    """Give the PUBLISH packet number `index` (MQTT 3.1.1 section 3.3), QoS 1."""
    name, text = message(load, index, t_ms)
    topic = name.encode()
    body = b"".join(
        (
            len(topic).to_bytes(2, "big"),
            topic,
            (index % PACKET_IDS + 1).to_bytes(2, "big"),
            text,
        )
    )
    if len(body) < 128:
        return bytes((0x32, len(body))) + body
    # Up to 16,383 bytes: a remaining length of two bytes.
    return bytes((0x32, len(body) % 128 | 0x80, len(body) // 128)) + body


class Broker:
    """The connection: sends chunks, counts acknowledgements."""

    def __init__(self, port: int, name: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text = name.encode()
        connect = b"\x00\x04MQTT\x04\x02\x00\x00" + len(text).to_bytes(2, "big") + text
        self._socket.sendall(bytes((0x10, len(connect))) + connect)
        answer = self._socket.recv(4)
        if answer != b"\x20\x02\x00\x00":
            raise SystemExit(f"publisher: the broker answered CONNECT with {answer!r}")
        self.sent = 0
        self._acknowledged_bytes = 0

    @property
    def open_count(self) -> int:
        """Give how many messages are sent and not acknowledged."""
        return self.sent - self._acknowledged_bytes // PUBACK_BYTES

    def send(self, data: bytes, count: int) -> None:
        """Send packets, waiting while the window is full."""
        self.read(0.0)
        while self.open_count + count > WINDOW:
            self.read(IDLE_S)
        self._socket.sendall(data)
        self.sent += count

    def read(self, timeout_s: float) -> None:
        """Count acknowledgements; ends the program when none comes for a minute."""
        if select.select((self._socket,), (), (), timeout_s)[0]:
            data = self._socket.recv(65536)
            if not data:
                raise SystemExit("publisher: the broker closed the connection")
            self._acknowledged_bytes += len(data)
        elif timeout_s >= IDLE_S:
            raise SystemExit(f"publisher: no acknowledgement within {IDLE_S:.0f} s")

    def close(self) -> None:
        """Wait for the last acknowledgement, then disconnect."""
        while self.open_count:
            self.read(IDLE_S)
        self._socket.sendall(b"\xe0\x00")
        self._socket.close()


def chunks(load: Load) -> list[tuple[bytes, int]]:
    """Encode everything: joined packets, and how many they are."""
    t_ms = time.time_ns() // 1_000_000
    found = []
    for begin in range(0, load.messages, CHUNK):
        end = min(begin + CHUNK, load.messages)
        found.append((b"".join(packet(load, i, t_ms) for i in range(begin, end)), end - begin))
    return found


def due(load: Load) -> Iterator[tuple[int, int]]:
    """Give what is due now as (first, one after the last), sleeping in between."""
    began_s = time.monotonic()
    done = 0
    while done < load.messages:
        wanted = int((time.monotonic() - began_s) * load.rate_per_s) + 1
        # After a pause more is due than the window holds: in pieces, or it would wait for ever.
        now = min(wanted, load.messages, done + WINDOW // 4)
        if now > done:
            yield done, now
            done = now
        # A millisecond is finer than anything measured with it.
        time.sleep(max(0.001, began_s + done / load.rate_per_s - time.monotonic()))


def publish(load: Load) -> dict[str, float]:
    """Publish everything; give seconds until the last acknowledgement and CPU seconds."""
    broker = Broker(load.port, f"bench-load-{load.kind}-{load.seq_first}")
    ready = [] if load.rate_per_s else chunks(load)
    print("ready", flush=True)
    sys.stdin.readline()
    began_s, cpu_s = time.monotonic(), time.process_time()
    if load.rate_per_s:
        for first, end in due(load):
            t_ms = time.time_ns() // 1_000_000
            broker.send(b"".join(packet(load, i, t_ms) for i in range(first, end)), end - first)
    else:
        for data, count in ready:
            broker.send(data, count)
    broker.close()
    return {"seconds": time.monotonic() - began_s, "cpu_s": time.process_time() - cpu_s}


def main() -> None:
    """Read the arguments and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--sources", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seq-first", type=int, default=1)
    parser.add_argument("--label", default="benchmark")
    parser.add_argument("--kind", choices=("scalar", "frame", "event"), default="scalar")
    given = parser.parse_args()
    load = Load(
        port=given.port,
        messages=given.messages,
        sources=given.sources,
        rate_per_s=given.rate,
        seq_first=given.seq_first,
        label=given.label,
        kind=given.kind,
    )
    print(json.dumps(publish(load)), flush=True)


if __name__ == "__main__":
    main()
