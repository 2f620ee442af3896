"""Three secured servers that `matchday setup` has made ready, for tests of users and rights.

Owns the servers, the file of accounts and the settings of each of our services, each with its
own narrow user. Does not own any claim.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from servers.process import wait_until
from servers.secured import (
    KAFKA_USERS,
    SecuredKafka,
    SecuredMongo,
    SecuredMosquitto,
    new_password,
    secured_kafka,
    secured_mosquitto,
)
from servers.services import environment

SET_NAME = "rs0"
STORE_USERS = ("server", "dashboard", "mongo_express")


@dataclass
class SecuredGround:
    """The servers, running, and who may log in.

    Attributes:
        folder: Holds the file of accounts and the logs of services.
        store_passwords: Of the users that `setup` makes in MongoDB.
    """

    folder: Path
    mosquitto: SecuredMosquitto
    kafka: SecuredKafka
    mongo: SecuredMongo
    store_passwords: dict[str, str] = field(
        default_factory=lambda: {user: new_password() for user in STORE_USERS}
    )

    @property
    def secrets(self) -> list[str]:
        """Give every password, none of which may show anywhere."""
        return [
            *self.store_passwords.values(),
            *self.kafka.passwords.values(),
            *self.mosquitto.passwords.values(),
            self.mongo.root_password,
        ]

    def store_url(self, user: str) -> str:
        """Give the connection string of one of our users."""
        return self.mongo.url_of(user, self.store_passwords[user])

    def setup_settings(self, **more: str) -> dict[str, str]:
        """Give the environment of `matchday setup`, and write the file that it names."""
        accounts = self.folder / "accounts.json"
        accounts.write_text(json.dumps({"mongo": self.store_passwords, "kafka": KAFKA_USERS}))
        return {
            "MATCHDAY_STREAM__URL": self.kafka.url_of("admin"),
            "MATCHDAY_STORE__URL": self.mongo.root_url,
            "MATCHDAY_SETUP__ACCOUNTS_FILE": str(accounts),
            "MATCHDAY_SETUP__MEMBER": f"127.0.0.1:{self.mongo.port}",
            **more,
        }

    def settings_of(self, service: str, **more: str) -> dict[str, str]:
        """Give the environment of a service, with the logins that it needs and no others."""
        mqtt = {"server": "ingest", "sensor": "demo"}.get(service)
        found: dict[str, str] = {}
        if mqtt is not None:
            found["MATCHDAY_MQTT__URL"] = self.mosquitto.url_of(mqtt)
        if service in self.kafka.passwords:
            found["MATCHDAY_STREAM__URL"] = self.kafka.url_of(service)
        if service in self.store_passwords:
            found["MATCHDAY_STORE__URL"] = self.store_url(service)
        return {**found, **more}

    def setup(
        self, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `matchday setup` to its end."""
        return subprocess.run(
            environment(
                self.setup_settings() if settings is None else settings, ["setup", *arguments]
            ),
            capture_output=True,
            check=False,
            text=True,
            timeout=150,
        )


@contextmanager
def secured_ground(
    folder: Path, *, need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[SecuredGround]:
    """Start the three servers; nothing is set up in them yet."""
    for name in ("mosquitto", "kafka", "mongo"):
        need_server(name)
    mosquitto = secured_mosquitto(servers_dir("mosquitto"))
    kafka = secured_kafka(servers_dir("kafka"))
    mongo = SecuredMongo(servers_dir("mongo"), set_name=SET_NAME)
    with ExitStack() as stack:
        for server in (mosquitto, kafka, mongo):
            stack.callback(shutil.rmtree, server.data_dir, ignore_errors=True)
            stack.callback(server.kill)
            server.start()
        yield SecuredGround(folder, mosquitto, kafka, mongo)


class LoggedIn:
    """An MQTT 5 client that tells what the broker answered."""

    def __init__(self, client: Client) -> None:
        self.received: list[str] = []
        self._client = client
        self._codes: dict[int, int] = {}
        client.on_publish = self._on_publish
        client.on_message = self._on_message

    def publish_code(self, topic: str) -> int:
        """Publish with QoS 1; give the reason code of the answer."""
        message_id = self._client.publish(topic, b"{}", qos=1).mid
        wait_until(lambda: message_id in self._codes, what=f"{topic} is answered")
        return self._codes[message_id]

    def subscribe(self, topic_filter: str) -> None:
        """Ask for messages, whether or not that is allowed."""
        self._client.subscribe(topic_filter, qos=1)

    def _on_publish(
        self, _client: object, _data: object, message_id: int, code: Any, _more: object
    ) -> None:
        self._codes[message_id] = code.value

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        self.received.append(message.topic)


@contextmanager
def logged_in(ground: SecuredGround, user: str) -> Iterator[LoggedIn]:
    """Give a client that is connected as this user."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.username_pw_set(user, ground.mosquitto.passwords[user])
    made = LoggedIn(client)
    client.connect("127.0.0.1", ground.mosquitto.port)
    client.loop_start()
    try:
        yield made
    finally:
        client.disconnect()
        client.loop_stop()
