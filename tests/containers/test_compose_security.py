"""Nobody gets in without credentials, nobody further than they reach, and attempts are logged.

On the deployment of `test_compose_flow`, mongo-express included. Every port that listens
is found in the kernel's tables, so that a door that nobody thought of fails the test.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from containers import accounting, probe
from containers.commands import docker, until
from containers.host import listening_ports
from containers.reading import get, mqtt_login
from containers.stack import ROOT, VERSION, Container, Stack

pytestmark = pytest.mark.timeout(600)

DOORS = {
    ("mosquitto", 1883): "mqtt",
    ("kafka", 9092): "kafka",
    ("kafka", 9094): "kafka",
    ("kafka-zookeeper", 9092): "kafka",
    ("kafka-zookeeper", 9094): "kafka",
    ("zookeeper", 2181): "zookeeper",
    ("mongo", 27017): "mongo",
    ("dashboard", 8081): "page",
    ("mongo-express", 8081): "page",
}
Door = tuple[str, int, str]


@pytest.fixture(scope="module")
def stack(quiet) -> Stack:
    return quiet.stack


def inner_doors(stack: Stack) -> list[Door]:
    """Give every address in every network on which something listens.

    Raises:
        AssertionError: Something listens that `DOORS` does not know.
    """
    doors = []
    for one in (one for one in stack.containers() if one.status == "running"):
        for scope, port in listening_ports(one):
            if scope == "loopback":
                continue
            assert (one.service, port) in DOORS, f"{one.name} listens on {scope}:{port}"
            protocol = DOORS[one.service, port]
            doors += [(address, port, protocol) for address in one.addresses.values()]
    return doors


def published_doors(stack: Stack, host: str = "127.0.0.1") -> list[Door]:
    """Give the addresses that this host publishes, with `host` for its name."""
    doors = []
    for one in (one for one in stack.containers() if one.status == "running"):
        for inner, outer in (one.details["NetworkSettings"]["Ports"] or {}).items():
            for at in outer or ():  # none where the image only declares the port
                protocol = DOORS[one.service, int(inner.partition("/")[0])]
                doors.append((host, int(at["HostPort"]), protocol))
    return doors


def knock_from_sensors(stack: Stack, doors: list[Door]) -> dict[Door, str]:
    """Knock from a container that is where the sensors are."""
    answers = docker(
        *("run", "--rm", "--network", f"{stack.project}_sensors"),
        *("--volume", f"{ROOT}/tests/containers/probe.py:/probe.py:ro", "--entrypoint", "python"),
        *(f"matchday:{VERSION}", "/probe.py", json.dumps(doors)),
    )
    return dict(zip(doors, json.loads(answers), strict=True))


# --- doors ------------------------------------------------------------------------------------


def test_nothing_on_this_host_answers_without_credentials(stack):
    outer = published_doors(stack)
    assert len(outer) >= 4
    doors = [*outer, *inner_doors(stack)]
    answers = dict(zip(doors, probe.knock_all(doors), strict=True))
    assert {door: said for door, said in answers.items() if said.startswith("open")} == {}
    assert {answers[door] for door in outer} == {"refused"}, answers


def test_sensors_reach_the_broker_and_nothing_else(stack):
    gateway = docker(
        *("network", "inspect", f"{stack.project}_sensors"),
        *("--format", "{{(index .IPAM.Config 0).Gateway}}"),
    ).strip()
    doors = [*inner_doors(stack), *published_doors(stack, gateway)]
    broker = stack.container("mosquitto").addresses[f"{stack.project}_sensors"]
    answers = knock_from_sensors(stack, doors)
    assert answers.pop((broker, 1883, "mqtt")) == "refused"
    assert set(answers.values()) == {"unreachable"}, answers


def test_the_probe_would_notice_an_open_door(mosquitto, kafka, mongo):
    for server, protocol in ((mosquitto, "mqtt"), (kafka, "kafka"), (mongo, "mongo")):
        port = urllib.parse.urlsplit(server.url).port
        assert probe.knock("127.0.0.1", port or 0, protocol).startswith("open"), protocol


# --- a sensor's credentials -------------------------------------------------------------------


class Sensor:
    """A paho client with a sensor's credentials, that notes what it is told."""

    def __init__(self, stack: Stack, user: str, password: str) -> None:
        self.connect_reason = 0xFF
        self.acknowledged: dict[int, int] = {}
        self.subscribed: list[int] = []
        self.received: list[str] = []
        self._answered = threading.Condition()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="ct-sensor", protocol=MQTTv5)
        self.client.username_pw_set(user, password)
        self.client.on_connect = self._on_connect
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = lambda _c, _d, message: self.received.append(message.topic)
        self.client.connect("127.0.0.1", stack.port("MQTT"))
        self.client.loop_start()
        self._await(lambda: self.connect_reason != 0xFF)

    def publish(self, topic: str, payload: bytes) -> int:
        """Publish with QoS 1 and give the reason code of the answer."""
        mid = self.client.publish(topic, payload, qos=1).mid
        self._await(lambda: mid in self.acknowledged)
        return self.acknowledged[mid]

    def subscribe(self, topic_filter: str) -> int:
        """Subscribe and give the reason code of the answer."""
        count = len(self.subscribed)
        self.client.subscribe(topic_filter, qos=1)
        self._await(lambda: len(self.subscribed) > count)
        return self.subscribed[-1]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _await(self, condition: Any) -> None:
        with self._answered:
            assert self._answered.wait_for(condition, 10.0), "no answer of the broker in 10 s"

    def _note(self, note: Any) -> None:
        with self._answered:
            note()
            self._answered.notify_all()

    def _on_connect(self, _c: Any, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._note(lambda: setattr(self, "connect_reason", reason.value))

    def _on_publish(self, _c: Any, _d: Any, mid: int, reason: Any, _p: Any) -> None:
        self._note(lambda: self.acknowledged.setdefault(mid, reason.value))

    def _on_subscribe(self, _c: Any, _d: Any, _mid: int, reasons: Any, _p: Any) -> None:
        self._note(lambda: self.subscribed.append(reasons[0].value))


@pytest.fixture
def sensor(stack: Stack) -> Iterator[Sensor]:
    connected = Sensor(stack, *mqtt_login(stack))
    assert connected.connect_reason == 0
    yield connected
    connected.close()


READING = b'{"quantity": "q", "value": 1.0}'


def test_a_sensor_may_publish_for_its_own_venue_only(stack, sensor):
    assert sensor.publish("matchday/demo/scalar/honest", READING) == 0
    for topic in ("matchday/other/scalar/honest", "matchday", "elsewhere", "$SYS/x"):
        assert sensor.publish(topic, READING) >= 0x80, topic
    until(
        lambda: accounting.lines(stack).get("honest", {}).get("stored"), "the reading", within_s=20
    )
    assert accounting.lines(stack)["honest"]["received"] == 1


def test_a_sensor_reads_nothing_not_even_its_own(stack, sensor):
    for topic_filter in ("#", "matchday/#", "matchday/demo/#", "$SYS/#"):
        sensor.subscribe(topic_filter)
    assert sensor.publish("matchday/demo/scalar/overheard", READING) == 0
    until(
        lambda: accounting.lines(stack).get("overheard", {}).get("stored"),
        "the reading",
        within_s=20,
    )
    assert sensor.received == []


def test_the_servers_own_user_publishes_nothing(stack):
    reader = Sensor(stack, *mqtt_login(stack, "server"))
    try:
        assert reader.connect_reason == 0
        assert reader.publish("matchday/demo/scalar/forged", READING) >= 0x80
    finally:
        reader.close()


# --- wrong passwords --------------------------------------------------------------------------


def await_log(stack: Stack, service: str, pattern: str) -> None:
    """Wait until a service has written a line that matches."""
    until(
        lambda: re.search(pattern, stack.logs(service), re.IGNORECASE),
        f"{pattern!r} in the log of {service}",
        within_s=15,
    )


def test_a_wrong_mqtt_password_is_refused_and_logged(stack):
    user, _ = mqtt_login(stack)
    guest = Sensor(stack, user, "wrong")
    guest.close()
    assert guest.connect_reason in (0x86, 0x87)
    await_log(stack, "mosquitto", r"not authori[sz]ed")


def test_a_wrong_kafka_password_is_refused_and_logged(stack):
    client = AdminClient(
        {
            "bootstrap.servers": f"127.0.0.1:{stack.port('KAFKA')}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "server",
            "sasl.password": "wrong",
            "log_level": 0,
        }
    )
    with pytest.raises(KafkaException):
        client.list_topics(timeout=5)
    await_log(stack, "kafka", r"failed authentication")


def test_a_wrong_database_password_is_refused_and_logged(stack):
    client: MongoClient[Any] = MongoClient(
        *("127.0.0.1", stack.port("MONGO")),
        username="root",
        password="wrong",
        directConnection=True,
    )
    with client, pytest.raises(OperationFailure) as refused:
        client["server"]["sensors"].find_one()
    assert refused.value.code == 18
    await_log(stack, "mongo", r"authentication failed")


def test_a_wrong_page_token_is_refused_and_logged(stack):
    url = f"http://127.0.0.1:{stack.port('PAGE')}/login"
    assert get(url, body=b"token=wrong").status == 401
    await_log(stack, "dashboard", r"login_?refused|log-?in")


# --- mongo-express ----------------------------------------------------------------------------


def files_of(stack: Stack, folder: str) -> dict[str, str]:
    """Give the secret files of one service, read as the machine's administrator."""
    listed = docker(
        *("run", "--rm", "--network", "none", "--user", "0:0"),
        *("--volume", f"{stack.project}_secrets:/secrets:ro", "--entrypoint", "python"),
        f"matchday:{VERSION}",
        "-c",
        "import json, pathlib; print(json.dumps({str(p.relative_to('/secrets')): p.read_text()"
        f" for p in pathlib.Path('/secrets/{folder}').rglob('*') if p.is_file()}}))",
    )
    return {name: text.strip() for name, text in json.loads(listed).items()}


def test_mongo_express_shows_the_data_to_its_own_user_only(stack):
    url = f"http://127.0.0.1:{stack.port('MONGO_EXPRESS')}"
    files = files_of(stack, "mongo-express")
    user, password = (files[f"mongo-express/web_{part}"] for part in ("user", "password"))

    def basic(word: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()}

    assert get(url).status == 401
    assert get(url, headers=basic("wrong")).status == 401
    shown = get(f"{url}/db/server/", headers=basic(password))
    assert shown.status == 200
    assert b"sensors" in shown.body


def test_mongo_expresss_database_user_can_read_and_not_write(stack):
    urls = [
        text for text in files_of(stack, "mongo-express").values() if text.startswith("mongodb://")
    ]
    parts = urllib.parse.urlsplit(urls[0])
    client: MongoClient[Any] = MongoClient(
        *("127.0.0.1", stack.port("MONGO")),
        username=urllib.parse.unquote(parts.username or ""),
        password=urllib.parse.unquote(parts.password or ""),
        authSource="admin",
        directConnection=True,
    )
    with client:
        assert client["server"]["sensors"].find_one() is not None
        with pytest.raises(OperationFailure) as refused:
            client["server"]["sensors"].insert_one({"collected_at": None})
        assert refused.value.code == 13


# --- secrets ----------------------------------------------------------------------------------


def processes(one: Container) -> list[int]:
    return [int(row) for row in docker("top", one.identity, "-eo", "pid").split()[1:]]


def test_no_secret_shows_in_inspect_logs_environment_or_command_lines(stack):
    texts = files_of(stack, ".").items()
    # Of what is hashed for the broker, only the hash may be known, and that nowhere else.
    secrets = {
        word
        for name, text in texts
        if name != "mosquitto/users"
        for word in re.findall(r"[A-Za-z0-9_-]{32,}", text)
    }
    assert len(secrets) >= 10
    seen = {"logs": stack.logs(), "config": stack.compose("config").stdout}
    for one in stack.containers():
        seen[f"inspect {one.name}"] = json.dumps(one.details)
        # The image of mongo-express takes the database's address from its environment alone; a
        # script of ours sets it there, where `docker inspect` does not show it.
        parts = ("cmdline",) if one.service == "mongo-express" else ("environ", "cmdline")
        for pid in processes(one) if one.status == "running" else ():
            for part in parts:
                try:
                    text = Path(f"/proc/{pid}/{part}").read_text(errors="replace")
                except (FileNotFoundError, ProcessLookupError):
                    continue  # a health check that has ended
                seen[f"{part} of process {pid} of {one.name}"] = text
    leaks = [place for place, text in seen.items() if any(word in text for word in secrets)]
    assert leaks == []
