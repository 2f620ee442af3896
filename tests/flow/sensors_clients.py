"""What the sensor flow tests share: a subscriber that never loses, and a broker of old."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from servers.process import wait_until


class Subscriber:
    """Collects all messages of a filter through a persistent session, broker restarts included."""

    def __init__(self, port: int, topic_filter: str, client_id: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._filter = topic_filter
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5
        )
        self._client.reconnect_delay_set(0.05, 0.2)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._keep
        keeps = Properties(PacketTypes.CONNECT)
        keeps.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, 10, clean_start=False, properties=keeps)

    def _subscribe(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(self._filter, qos=1)

    def _keep(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload)))

    def wait_for(self, count: int, timeout_s: float = 30.0) -> None:
        wait_until(
            lambda: len(self.messages) >= count,
            what=f"{count} messages came",
            timeout_s=timeout_s,
        )

    def seqs(self) -> dict[str, list[int]]:
        """Give each topic's numbers in order of arrival."""
        found: dict[str, list[int]] = defaultdict(list)
        for topic, payload in list(self.messages):
            found[topic].append(json.loads(payload)["seq"])
        return found

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def first_seen(numbers: list[int]) -> list[int]:
    """Leave out numbers that came before: what a receiver keeps."""
    return list(dict.fromkeys(numbers))


class OldBroker(threading.Thread):
    """Speaks MQTT 3.1.1 only: refuses version 5 with code 1, acknowledges every PUBLISH."""

    def __init__(self) -> None:
        super().__init__(name="old-broker", daemon=True)
        self.versions: list[int] = []
        self.published = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link, link.makefile("rb") as stream:
                while self._answer(link, stream):
                    pass

    def _answer(self, link: socket.socket, stream: Any) -> bool:
        head = stream.read(1)
        if not head:
            return False
        length = shift = 0
        while True:
            byte = stream.read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = stream.read(length)
        kind = head[0] >> 4
        if kind == 1:
            self.versions.append(body[6])
            link.sendall(b"\x20\x02\x00" + (b"\x00" if body[6] == 4 else b"\x01"))
            return body[6] == 4
        if kind == 3:
            self.published += 1
            topic_length = int.from_bytes(body[:2], "big")
            link.sendall(b"\x40\x02" + body[2 + topic_length : 4 + topic_length])
        return kind != 14

    def close(self) -> None:
        # A shutdown wakes `accept`; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join(5)
