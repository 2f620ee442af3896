"""The recorder against a real broker, and a recording replayed."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
import pytest

from flow.sensors_clients import Subscriber
from matchday.clock import SystemClock
from matchday.errors import ConfigError
from matchday.sensors.broker import parse_broker
from matchday.sensors.outbox import Outbox
from matchday.sensors.publisher import Publisher
from matchday.sensors.record import Recorded, record
from matchday.sensors.recordings import open_recording
from matchday.sensors.replay import ReplayOptions, replay
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mosquitto import Mosquitto

CLOCK = SystemClock()


def publish(port: int, messages: list[tuple[str, bytes]], *, until_taken: bool = True) -> None:
    """Publish at QoS 1; the first one again and again until somebody subscribed to it."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    codes: dict[int, int] = {}
    client.on_publish = lambda _c, _u, mid, reason, _p: codes.update({mid: reason.value})
    client.connect("127.0.0.1", port)
    client.loop_start()

    def is_taken() -> bool:
        info = client.publish(*messages[0], qos=1)
        info.wait_for_publish(10)
        return codes[info.mid] == 0

    if until_taken:
        wait_until(is_taken, what="the recorder subscribed")
        messages = messages[1:]
    for topic, payload in messages:
        client.publish(topic, payload, qos=1)
    wait_until(lambda: len(codes) == client._last_mid, what="all was acknowledged")
    client.disconnect()
    client.loop_stop()


def recorded_while(
    broker: Mosquitto, topic_filter: str, path: Path, act: Callable[[], None], *, messages: int
) -> Recorded:
    """Record while `act` runs and until that many messages are in the file."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(record, parse_broker(broker.url), [topic_filter], path, CLOCK, stop)
        try:
            act()
            wait_until(
                lambda: running.done() or lines_of(path) >= messages,
                what=f"{messages} messages are in the file",
            )
        finally:
            stop.set()
        return running.result(20)


def lines_of(path: Path) -> int:
    try:
        return sum(1 for _ in open_recording(path))
    except ConfigError:
        return 0


PAYLOADS = [
    b'{"t":1600000000000,"quantity":"q","value":1.50}',
    b"SPO2 is: 97%",
    b"\xff\xfe\x00",
    b'{\n "t": 1600000001000,\n "value": NaN}',
    b"[1, 2]",
    b'{"t":"2020-09-13T12:26:42Z","quantity":"q","value":2}',
]


@pytest.mark.parametrize("name", ["live.jsonl", "live.jsonl.gz"])
def test_recording_holds_every_payload_exactly(
    mosquitto: Mosquitto, tmp_path: Path, name: str
) -> None:
    topic = f"rec/{name}"

    got = recorded_while(
        mosquitto,
        topic,
        tmp_path / name,
        lambda: publish(mosquitto.port, [(topic, payload) for payload in PAYLOADS]),
        messages=6,
    )

    found = [message.payload for message in open_recording(tmp_path / name)]
    assert got == Recorded(6, sum(len(payload) for payload in PAYLOADS))
    assert found == [
        {"t": 1600000000000, "quantity": "q", "value": 1.5},
        PAYLOADS[1],
        PAYLOADS[2],
        PAYLOADS[3],
        [1, 2],
        {"t": "2020-09-13T12:26:42Z", "quantity": "q", "value": 2},
    ]


def test_recorded_traffic_can_be_replayed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    topic, path = "matchday/rec/scalar/s", tmp_path / "live.jsonl.gz"
    sent = [(topic, b'{"t":%d,"value":%d}' % (1_600_000_000_000 + i, i)) for i in range(500)]
    recorded_while(
        mosquitto, "matchday/rec/#", path, lambda: publish(mosquitto.port, sent), messages=500
    )

    publisher = Publisher(parse_broker(mosquitto.url), Outbox(), CLOCK, client_id="rec-replay")
    with Subscriber(mosquitto.port, "matchday/rec/#", "rec-sub") as subscriber:
        options = ReplayOptions(speed=math.inf)
        replay(open_recording(path), options, publisher, CLOCK, threading.Event())
        subscriber.wait_for(500)
    publisher.close()

    assert subscriber.seqs() == {topic: list(range(1, 501))}


def test_broker_restart_leaves_neither_hole_nor_repetition(
    fresh_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    broker, path = fresh_mosquitto(), tmp_path / "live.jsonl"

    def act() -> None:
        publish(broker.port, [("r/a", b'{"v":%d}' % i) for i in range(300)])
        broker.restart()
        # The broker keeps the recorder's session, so nothing waits for the recorder.
        more = [("r/a", b'{"v":%d}' % i) for i in range(300, 600)]
        publish(broker.port, more, until_taken=False)

    recorded_while(broker, "r/#", path, act, messages=600)

    values = [message.payload["v"] for message in open_recording(path)]
    assert values == list(range(600))


def test_killed_recorder_leaves_a_readable_file(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "live.jsonl.gz"
    code = (
        "import sys, pathlib, threading; from matchday.clock import SystemClock\n"
        "from matchday.sensors.broker import parse_broker\n"
        "from matchday.sensors.record import record\n"
        "record(parse_broker(sys.argv[1]), ['killed/#'], pathlib.Path(sys.argv[2]),\n"
        "       SystemClock(), threading.Event())"
    )
    sent = [("killed/a", b'{"v":%d}' % index) for index in range(1_000)]
    with subprocess.Popen([sys.executable, "-c", code, mosquitto.url, str(path)]) as child:
        publish(mosquitto.port, sent)
        wait_until(lambda: lines_of(path) == 1_000, what="all is in the file")
        child.send_signal(signal.SIGKILL)

    recording = open_recording(path)
    assert [message.payload["v"] for message in recording] == list(range(1_000))
    assert recording.skipped == {"cut off": 1}


@pytest.mark.parametrize(
    ("filters", "name", "says"),
    [
        ([], "a.jsonl", "no topic filter"),
        (["#"], "a.csv", "must end in"),
        (["#"], "no/a.jsonl", "No such file"),
    ],
)
def test_impossible_recording_is_a_config_error(
    tmp_path: Path, filters: list[str], name: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        record(
            parse_broker("mqtt://127.0.0.1:9"), filters, tmp_path / name, CLOCK, threading.Event()
        )
