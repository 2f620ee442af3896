"""What the real servers make of the files that `matchday secrets` writes for them.

Owns the proof that each server takes its file and grants what the file says, no more. What
is in the files and how they come about is in tests/unit/test_secrets.py.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from matchday.services import secrets
from matchday.services.secret_files import Addresses, mosquitto_hash
from servers.ports import LOOPBACK
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mosquitto import Mosquitto
    from servers.secured import SecuredKafka

WAIT_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    secrets.create(tmp_path / "secrets", Addresses())
    return tmp_path / "secrets"


@pytest.fixture
def broker(folder: Path, fresh_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    return fresh_mosquitto(
        settings={
            "allow_anonymous": "false",
            "password_file": str(folder / "mosquitto/users"),
            "acl_file": str(folder / "mosquitto/acl"),
            "sys_interval": "1",
        }
    )


@pytest.fixture(scope="module")
def kafka_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    secrets.create(folder, Addresses())
    return folder


@pytest.fixture(scope="module")
def secured(
    kafka_folder: Path, need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[SecuredKafka]:
    need_server("kafka")
    from servers.secured import secured_kafka

    server = secured_kafka(servers_dir("kafka"))
    jaas = (kafka_folder / "kafka/kafka_server_jaas.conf").read_text()
    admin = {**server.client, "sasl.password": secrets.reveal(kafka_folder, "kafka-admin")}
    server = replace(server, jaas=jaas, client=admin)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Client:
    """A logged-in MQTT 5 client, which is told of each refusal."""

    def __init__(self, broker: Mosquitto, user: str, password: str) -> None:
        self.messages: queue.Queue[str] = queue.Queue()
        self.answers: queue.Queue[ReasonCode] = queue.Queue()
        self.connected: queue.Queue[ReasonCode] = queue.Queue()
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.paho.username_pw_set(user, password)
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self.connected.put(code)
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self.answers.put(code)
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self.answers.put(codes[0])
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message.topic)
        self.paho.connect(LOOPBACK, broker.port)
        self.paho.loop_start()

    def publish(self, topic: str) -> bool:
        """Publish at QoS 1; tell whether the broker took it."""
        self.paho.publish(topic, b"1", qos=1)
        code = self.answers.get(timeout=WAIT_S)
        refused = ReasonCode(PacketTypes.PUBACK, "Not authorized")
        assert not code.is_failure or code == refused
        return not code.is_failure

    def subscribe(self, pattern: str) -> None:
        self.paho.subscribe(pattern, qos=1)
        self.answers.get(timeout=WAIT_S)


@contextmanager
def logged_in(broker: Mosquitto, user: str, password: str) -> Iterator[Client]:
    client = Client(broker, user, password)
    try:
        assert not client.connected.get(timeout=WAIT_S).is_failure
        yield client
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


def may_log_in(broker: Mosquitto, user: str, password: str) -> bool:
    client = Client(broker, user, password)
    try:
        return not client.connected.get(timeout=WAIT_S).is_failure
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


def test_hash_is_the_one_mosquitto_passwd_makes_of_the_same_salt(
    tmp_path: Path, need_server: Callable[[str], None]
):
    need_server("mosquitto")
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is not installed beside the broker")
    plain = "a-Very_long.password"
    (tmp_path / "users").write_text(f"somebody:{plain}\n")
    subprocess.run([program, "-U", str(tmp_path / "users")], check=True, capture_output=True)
    user, _, hashed = (tmp_path / "users").read_text().strip().partition(":")
    assert user == "somebody"
    assert mosquitto_hash(plain, hashed.split("$")[3]) == hashed


def test_broker_lets_in_only_who_has_the_password(broker: Mosquitto, folder: Path):
    ingest = secrets.reveal(folder, "mqtt-ingest")
    assert may_log_in(broker, "ingest", ingest)
    assert may_log_in(broker, "demo", secrets.reveal(folder, "mqtt-demo"))
    assert not may_log_in(broker, "demo", ingest)
    assert not may_log_in(broker, "ingest", "")
    assert not may_log_in(broker, "stranger", ingest)


def test_sensor_may_write_below_its_venue_and_nowhere_else(broker: Mosquitto, folder: Path):
    with logged_in(broker, "demo", secrets.reveal(folder, "mqtt-demo")) as demo:
        for topic in ("matchday/demo/scalar/a", "temperature", "image", "Image"):
            assert demo.publish(topic), topic
        for topic in ("matchday/demos/scalar/a", "matchday/oval/scalar/a", "other", "$SYS/x"):
            assert not demo.publish(topic), topic


def test_ingest_writes_nothing(broker: Mosquitto, folder: Path):
    with logged_in(broker, "ingest", secrets.reveal(folder, "mqtt-ingest")) as ingest:
        assert not ingest.publish("matchday/demo/scalar/a")


def test_ingest_reads_everything_and_a_sensor_nothing(broker: Mosquitto, folder: Path):
    with (
        logged_in(broker, "ingest", secrets.reveal(folder, "mqtt-ingest")) as ingest,
        logged_in(broker, "demo", secrets.reveal(folder, "mqtt-demo")) as demo,
    ):
        ingest.subscribe("#")
        demo.subscribe("#")
        assert demo.publish("matchday/demo/scalar/b")
        assert ingest.messages.get(timeout=WAIT_S) == "matchday/demo/scalar/b"
        # The broker answers in order: what it had for demo would have come before this.
        demo.subscribe("temperature")
        assert demo.messages.empty()
        ingest.subscribe("$SYS/#")
        assert ingest.messages.get(timeout=WAIT_S).startswith("$SYS/")


def test_new_sensor_may_log_in_once_the_broker_was_told(broker: Mosquitto, folder: Path):
    password = secrets.add_sensor(folder, "oval")
    assert not may_log_in(broker, "oval", password)
    os.kill(broker.process.pid, signal.SIGHUP)
    wait_until(
        lambda: may_log_in(broker, "oval", password), what="oval may log in", timeout_s=WAIT_S
    )
    with logged_in(broker, "oval", password) as oval:
        assert oval.publish("matchday/oval/scalar/a")
        assert not oval.publish("matchday/demo/scalar/a")


@pytest.mark.parametrize(
    ("user", "password_of", "is_let_in"),
    [
        ("admin", "admin", True),
        ("server", "server", True),
        ("analysis", "analysis", True),
        ("dashboard", "dashboard", True),
        ("server", "dashboard", False),
        ("stranger", "server", False),
    ],
)
def test_kafka_lets_in_only_who_has_the_password(
    secured: SecuredKafka, kafka_folder: Path, user: str, password_of: str, is_let_in: bool
):
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    told: list[KafkaError] = []
    client = AdminClient(
        {
            **secured.client,
            "bootstrap.servers": secured.bootstrap,
            "sasl.username": user,
            "sasl.password": secrets.reveal(kafka_folder, f"kafka-{password_of}"),
            "error_cb": told.append,
            "log_level": 0,
        }
    )
    if is_let_in:
        assert client.list_topics(timeout=WAIT_S).brokers
        return
    with pytest.raises(KafkaException):
        client.list_topics(timeout=3)
    client.poll(0)
    assert KafkaError._AUTHENTICATION in {error.code() for error in told}
