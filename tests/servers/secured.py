"""The three servers as a deployment runs them: nobody gets in without a password.

Owns how users and rights are switched on: Kafka with SASL/PLAIN from a JAAS file and its
standard authorizer, MongoDB with a key file, a root user and no replica set yet, Mosquitto
with a password file and an ACL. Does not own what is granted to whom beyond Mosquitto's ACL:
that is the business of `matchday setup`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pymongo import MongoClient

from servers.kafka import Kafka
from servers.mongo import Mongo
from servers.mosquitto import Mosquitto
from servers.ports import LOOPBACK, free_ports
from servers.process import ServerProcess, accepts

ADMIN: Final = "admin"
ROOT: Final = "root"
KAFKA_USERS: Final = ("server", "analysis", "dashboard")
VENUES: Final = ("demo", "oval")
PBKDF2_ROUNDS: Final = 101

SASL: Final[Mapping[str, str]] = {
    "allow.everyone.if.no.acl.found": "false",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "super.users": f"User:{ADMIN}",
}


def new_password() -> str:
    """Give a password as a deployment has them."""
    return secrets.token_urlsafe(24)


def secured_kafka(directory: Path, *, encrypted: Mapping[str, str] | None = None) -> SecuredKafka:
    """Make a KRaft node on which only `admin` may do anything; not started yet.

    Args:
        directory: As of `Kafka`.
        encrypted: Properties of the TLS key; clients then connect by TLS.
    """
    port, controller_port = free_ports(2)
    passwords = {name: new_password() for name in (ADMIN, *KAFKA_USERS)}
    transport = "SASL_PLAINTEXT" if encrypted is None else "SASL_SSL"
    settings = {
        **SASL,
        **(encrypted or {}),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "inter.broker.listener.name": "CLIENTS",
        "listener.security.protocol.map": f"CLIENTS:{transport},CONTROLLER:SASL_PLAINTEXT",
        "listeners": f"CLIENTS://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "sasl.mechanism.controller.protocol": "PLAIN",
    }
    client = {
        "security.protocol": transport,
        "sasl.mechanism": "PLAIN",
        "sasl.username": ADMIN,
        "sasl.password": passwords[ADMIN],
    }
    if encrypted is not None:
        client["ssl.ca.location"] = str(directory / "ca.pem")
    return SecuredKafka(
        directory,
        settings,
        jaas=_jaas(passwords),
        client=client,
        port=port,
        controller_port=controller_port,
        passwords=passwords,
    )


@dataclass(eq=False)
class SecuredKafka(Kafka):
    """A node that knows some users.

    Attributes:
        passwords: By user.
    """

    passwords: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)

    def url_of(self, user: str, password: str | None = None) -> str:
        """Give the address with a login: the user's own password unless given."""
        return f"kafka://{user}:{password or self.passwords[user]}@{self.bootstrap}"


@dataclass(eq=False)
class SecuredMongo(Mongo):
    """A mongod with a root user, started for a replica set that nobody has initiated.

    Attributes:
        root_password: Of the user `root`.
        set_name: Name of the set in its command line.
    """

    root_password: str = field(default_factory=new_password, kw_only=True, repr=False)

    def start(self) -> None:
        """Make the root user if there is none yet, then start with authentication."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        argv = [str(part) for part in self.process.argv]
        if not self._key_path.exists():
            self._make_root(argv)
        if "--keyFile" not in argv:
            self.process.argv = [*argv, "--keyFile", str(self._key_path)]
        self.process.start()

    @property
    def root_url(self) -> str:
        """Give the connection string of the root user, for this server alone."""
        return self.url_of(
            ROOT, self.root_password, options="authSource=admin&directConnection=true"
        )

    def url_of(self, user: str, password: str, *, options: str = "") -> str:
        """Give the connection string of a user, by the set's name unless told otherwise."""
        wanted = options or f"replicaSet={self.set_name}&authSource=admin"
        return f"mongodb://{user}:{password}@{LOOPBACK}:{self.port}/?{wanted}"

    @property
    def _key_path(self) -> Path:
        return self.directory / "key_file"

    def _make_root(self, argv: list[str]) -> None:
        """Add the user to a server without a set, as the image's own first start does."""
        alone = [part for part in argv if part not in ("--replSet", self.set_name)]
        with_nobody = ServerProcess(
            name=f"{self.process.name}, first start",
            argv=alone,
            log_path=self.process.log_path,
            answers=self.answers,
        )
        with_nobody.start()
        try:
            with MongoClient[dict[str, object]](LOOPBACK, self.port) as client:
                client.admin.command("createUser", ROOT, pwd=self.root_password, roles=["root"])
        finally:
            with_nobody.stop()
        self._key_path.write_text(base64.b64encode(secrets.token_bytes(96)).decode())
        self._key_path.chmod(0o400)


def secured_mosquitto(
    directory: Path, *, encrypted: Mapping[str, str] | None = None
) -> SecuredMosquitto:
    """Make a broker for `ingest` and one sensor's user per venue of `VENUES`."""
    passwords = {name: new_password() for name in ("ingest", *VENUES)}
    acl = ["user ingest", "topic read #", "topic read $SYS/#"]
    for venue in VENUES:
        acl += [f"user {venue}", f"topic write matchday/{venue}/#"]
    directory.mkdir(parents=True, exist_ok=True)
    users, rules = directory / "users", directory / "acl"
    users.write_text("".join(f"{name}:{_mosquitto_hash(passwords[name])}\n" for name in passwords))
    rules.write_text("".join(f"{line}\n" for line in acl))
    for file in (users, rules):
        file.chmod(0o600)
    settings = {
        "acl_file": str(rules),
        "allow_anonymous": "false",
        "password_file": str(users),
        **(encrypted or {}),
    }
    return SecuredMosquitto(directory, settings, passwords=passwords)


@dataclass(eq=False)
class SecuredMosquitto(Mosquitto):
    """A broker that knows some users.

    Attributes:
        passwords: By user.
    """

    passwords: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)

    def answers(self) -> bool:
        """Tell whether it replies to CONNECT, or, with TLS, at least listens."""
        return accepts(self.port) if "certfile" in self.settings else super().answers()

    def url_of(self, user: str, password: str | None = None) -> str:
        """Give the address with a login: the user's own password unless given."""
        return f"mqtt://{user}:{password or self.passwords[user]}@{LOOPBACK}:{self.port}"


def _jaas(passwords: Mapping[str, str]) -> str:
    known = "\n".join(f'  user_{name}="{word}"' for name, word in passwords.items())
    return (
        "KafkaServer {\n"
        "  org.apache.kafka.common.security.plain.PlainLoginModule required\n"
        f'  username="{ADMIN}"\n  password="{passwords[ADMIN]}"\n{known};\n'
        "};\n"
    )


def _mosquitto_hash(password: str) -> str:
    """Give a line's second half in Mosquitto's own form: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"
