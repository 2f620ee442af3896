"""What the files of a deployment's secrets say: from the passwords to each server's own form.

Pure: the same passwords and addresses give the same bytes, so that making the files again
changes nothing. Owns names, owners and contents of every file. Does not make passwords and
touches no disk (`services.secrets`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from matchday.domain.topics import NATIVE_ROOT
from matchday.errors import ConfigError

DATABASE: Final = "server"
INGEST: Final = "ingest"
DEMO: Final = "demo"
SALT_BYTES: Final = 12
KEY: Final = "mongo-key"
PASSWORDS: Final = (
    "mongo-root",
    "mongo-server",
    "mongo-dashboard",
    "mongo-express",
    "kafka-admin",
    "kafka-server",
    "kafka-analysis",
    "kafka-dashboard",
    "zookeeper-kafka",
    "page-token",
    "web-password",
    "web-session",
)
"""Every password but those of MQTT users and the replica set's key; `show` knows them so."""

# User ids that the images run as; each group has the same number.
_OURS: Final = 10001
OWNERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "mongo": 999,
        "mosquitto": 1883,
        "kafka": 1000,
        "zookeeper": 1000,
        "mongo-express": 1000,
        "setup": _OURS,
        "server": _OURS,
        "sensor": _OURS,
        "model_analysis": _OURS,
        "dashboard": _OURS,
    }
)
"""The folders, and the user and group id that owns each and all in it."""

# mosquitto_passwd 2.0 writes so many. They protect weak passwords; ours have 256 random bits.
_ITERATIONS: Final = 101
# What the original's sensors publish to; the name the demo's sensors log in with may too.
_ORIGINAL_TOPICS: Final = ("temperature", "image", "Image")
_PASSWORD: Final = re.compile(r"[A-Za-z0-9_-]{32,512}")
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{64,1024}")
_SALT: Final = re.compile(r"[A-Za-z0-9+/]{16}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


@dataclass(frozen=True)
class MqttLogin:
    """The password of one MQTT user.

    Attributes:
        password: URL-safe characters, at least 32.
        salt: Of its hash, base64 of `SALT_BYTES`; kept, so that the hash stays the same.
    """

    password: str = field(repr=False)
    salt: str = field(repr=False)


@dataclass(frozen=True)
class Made:
    """All that is random about a deployment; every file follows from it and the addresses.

    Attributes:
        passwords: By the names in `PASSWORDS`, and the replica set's key as `KEY`.
        mqtt: By user: `INGEST`, and the venue of each group of sensors.
    """

    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    mqtt: Mapping[str, MqttLogin] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Make sure that everything here can stand in the files unquoted.

        Raises:
            ConfigError: A password is too short or has other characters: it was not made
                here, or was damaged. The text names it and does not show it.
        """
        for name, password in self.passwords.items():
            if not (_KEY if name == KEY else _PASSWORD).fullmatch(password):
                raise ConfigError(
                    f"reading password {name!r}: {len(password)} characters, not at least 32 of"
                    " the alphabet it is made of"
                )
        for user, login in self.mqtt.items():
            check_name(user)
            if not _PASSWORD.fullmatch(login.password) or not _SALT.fullmatch(login.salt):
                raise ConfigError(f"reading password of MQTT user {user!r}: damaged")


@dataclass(frozen=True)
class Addresses:
    """Where the servers are.

    Attributes:
        kafka_host: Name of the Kafka container.
        stream_url: Kafka of one's own in place of the container; holds a password.
        store_url: MongoDB of one's own in place of the container; holds a password.

    Raises:
        ConfigError: The host is no host name.
    """

    kafka_host: str = "kafka"
    stream_url: str | None = field(default=None, repr=False)
    store_url: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.kafka_host):
            raise ConfigError(f"reading --kafka-host {self.kafka_host!r}: not a host name")


@dataclass(frozen=True)
class SecretFile:
    """One file for one service.

    Attributes:
        folder: The service's, one of `OWNERS`.
        name: Of the file.
        text: What it says; with no line end where it is one value.
        mode: Permission bits.
    """

    folder: str
    name: str
    text: str = field(repr=False)
    mode: int = 0o400


def check_name(user: str) -> None:
    """Make sure that a name can be an MQTT user and one level of a topic.

    Raises:
        ConfigError: It has characters that mean something in a topic filter or in the
            broker's files, or is longer than 64.
    """
    if not _NAME.fullmatch(user):
        raise ConfigError(
            f"naming a sensor's venue {user[:80]!r}: not 1 to 64 letters, digits, '.', '_' or"
            " '-', beginning with a letter or digit"
        )


def render(made: Made, addresses: Addresses) -> list[SecretFile]:
    """Give every file of every service."""
    return [
        *_mongo(made),
        *mosquitto(made),
        SecretFile("kafka", "kafka_server_jaas.conf", kafka_jaas(made)),
        SecretFile("zookeeper", "zookeeper_jaas.conf", zookeeper_jaas(made)),
        *_setup(made, addresses),
        SecretFile("server", "mqtt_url", mqtt_url(made, INGEST)),
        SecretFile("server", "stream_url", stream_url(made, addresses, "server")),
        SecretFile("server", "store_url", store_url(made, addresses, "server")),
        SecretFile("sensor", "mqtt_url", mqtt_url(made, DEMO)),
        SecretFile("model_analysis", "stream_url", stream_url(made, addresses, "analysis")),
        SecretFile("dashboard", "stream_url", stream_url(made, addresses, "dashboard")),
        SecretFile("dashboard", "store_url", store_url(made, addresses, "dashboard")),
        SecretFile("dashboard", "page_token", made.passwords["page-token"]),
        *_mongo_express(made, addresses),
    ]


def mosquitto(made: Made) -> list[SecretFile]:
    """Give the two files of the MQTT broker, which it reads again on SIGHUP."""
    # Mosquitto warns of a file that others may read or that is not its own.
    return [
        SecretFile("mosquitto", "users", mosquitto_users(made), 0o600),
        SecretFile("mosquitto", "acl", mosquitto_acl(made), 0o600),
    ]


def mosquitto_users(made: Made) -> str:
    """Give Mosquitto's password_file: `name:$7$iterations$salt$hash`.

    The hash is PBKDF2 (RFC 8018) with HMAC-SHA-512, 64 bytes long, as mosquitto_passwd 2.0
    makes it; salt and hash are in base64.
    """
    return "".join(
        f"{user}:{mosquitto_hash(made.mqtt[user].password, made.mqtt[user].salt)}\n"
        for user in sorted(made.mqtt)
    )


def mosquitto_hash(password: str, salt: str) -> str:
    """Give the part of a password_file's line that follows the name."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt), _ITERATIONS)
    return f"$7${_ITERATIONS}${salt}${base64.b64encode(digest).decode()}"


def mosquitto_acl(made: Made) -> str:
    """Give Mosquitto's acl_file: ingest reads all, a sensor writes below its venue.

    Whom a line does not name may do nothing.
    """
    blocks = []
    for user in sorted(made.mqtt):
        if user == INGEST:
            lines = ["topic read #", "topic read $SYS/#"]
        else:
            lines = [f"topic write {NATIVE_ROOT}/{user}/#"]
        if user == DEMO:
            lines += [f"topic write {topic}" for topic in _ORIGINAL_TOPICS]
        blocks.append("\n".join([f"user {user}", *lines]) + "\n")
    return "\n".join(blocks)


def kafka_jaas(made: Made) -> str:
    """Give Kafka's JAAS file: who may log in, and its own logins to itself and ZooKeeper."""
    admin = made.passwords["kafka-admin"]
    users = {
        user: made.passwords[f"kafka-{user}"]
        for user in ("admin", "server", "analysis", "dashboard")
    }
    plain = {"username": "admin", "password": admin} | {
        f"user_{user}": password for user, password in users.items()
    }
    digest = {"username": "kafka", "password": made.passwords["zookeeper-kafka"]}
    return (
        _jaas("KafkaServer", "org.apache.kafka.common.security.plain.PlainLoginModule", plain)
        + "\n"
        + _jaas("Client", "org.apache.zookeeper.server.auth.DigestLoginModule", digest)
    )


def zookeeper_jaas(made: Made) -> str:
    """Give ZooKeeper's JAAS file: Kafka alone may log in."""
    login = {"user_kafka": made.passwords["zookeeper-kafka"]}
    return _jaas("Server", "org.apache.zookeeper.server.auth.DigestLoginModule", login)


def mqtt_url(made: Made, user: str) -> str:
    """Give the broker's address with the login of one of its users."""
    return f"mqtt://{_login(user, made.mqtt[user].password)}@mosquitto:1883"


def stream_url(made: Made, addresses: Addresses, user: str) -> str:
    """Give the stream's address with a login; one's own where that is set."""
    if addresses.stream_url is not None:
        return addresses.stream_url
    login = _login(user, made.passwords[f"kafka-{user}"])
    return f"kafka://{login}@{addresses.kafka_host}:9092"


def store_url(made: Made, addresses: Addresses, user: str) -> str:
    """Give the store's address with a login; one's own where that is set.

    The root user goes to the one member directly: it comes before the replica set exists.
    """
    if addresses.store_url is not None:
        return addresses.store_url
    login = _login(user, made.passwords[f"mongo-{user}"])
    way = "directConnection=true" if user == "root" else "replicaSet=rs0"
    return f"mongodb://{login}@mongo:27017/?authSource=admin&{way}"


def with_database(url: str, database: str = DATABASE) -> str:
    """Give a `mongodb://` address that names a database, which is all some clients show.

    A database in the path would also become where the login is looked up; that is
    `admin` otherwise, and stays so.
    """
    parts = urlsplit(url)
    if parts.path.strip("/"):
        return url
    options = parts.query
    if "@" in parts.netloc and "authsource" not in {
        name.lower() for name, _ in parse_qsl(options, keep_blank_values=True)
    }:
        options = f"{options}&authSource=admin" if options else "authSource=admin"
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", options, ""))


def _mongo(made: Made) -> list[SecretFile]:
    return [
        SecretFile("mongo", "root_user", "root"),
        SecretFile("mongo", "root_password", made.passwords["mongo-root"]),
        SecretFile("mongo", "key_file", made.passwords[KEY]),
    ]


def _setup(made: Made, addresses: Addresses) -> list[SecretFile]:
    # A server of one's own has accounts of one's own: none is made there.
    accounts = {
        "mongo": {}
        if addresses.store_url is not None
        else {
            "server": made.passwords["mongo-server"],
            "dashboard": made.passwords["mongo-dashboard"],
            "mongo_express": made.passwords["mongo-express"],
        },
        "kafka": [] if addresses.stream_url is not None else ["server", "analysis", "dashboard"],
    }
    return [
        SecretFile("setup", "stream_url", stream_url(made, addresses, "admin")),
        SecretFile("setup", "store_url", store_url(made, addresses, "root")),
        SecretFile("setup", "accounts.json", json.dumps(accounts, indent=2) + "\n"),
    ]


def _mongo_express(made: Made, addresses: Addresses) -> list[SecretFile]:
    own = addresses.store_url
    login = _login("mongo_express", made.passwords["mongo-express"])
    url = own if own is not None else f"mongodb://{login}@mongo:27017/?replicaSet=rs0"
    return [
        SecretFile("mongo-express", "mongo_url", with_database(url)),
        SecretFile("mongo-express", "web_user", "admin"),
        SecretFile("mongo-express", "web_password", made.passwords["web-password"]),
        SecretFile("mongo-express", "session_secret", made.passwords["web-session"]),
    ]


def _login(user: str, password: str) -> str:
    return f"{quote(user, safe='')}:{quote(password, safe='')}"


def _jaas(section: str, module: str, options: Mapping[str, str]) -> str:
    # No value needs escaping: `Made.check` lets only URL-safe characters through.
    lines = "\n".join(f'    {name}="{value}"' for name, value in options.items())
    return f"{section} {{\n    {module} required\n{lines};\n}};\n"
