"""Kafka as a single KRaft node: broker and controller in one Java process.

Owns formatting the storage, the node's properties and readiness. Does not create topics:
automatic creation is off, so a test that forgets one sees the error a user would see.
"""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from matchday.errors import ConfigError, UnavailableError
from servers import install
from servers.ports import LOOPBACK, free_port
from servers.process import Server, ServerProcess, accepts

# One node can hold one replica; few partitions of the internal topics keep starts short.
# After a kill the controller refuses the broker until its old session has run out: 12 s with
# Kafka's 9 s session, 5 s with 3 s. The cleaner's buffer of 128 MB would be half the heap.
SINGLE_NODE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "auto.create.topics.enable": "false",
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "offsets.topic.num.partitions": "3",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "3",
        "transaction.state.log.replication.factor": "1",
    }
)

FORMAT_TIMEOUT_S: Final = 60.0


@dataclass(eq=False)
class Kafka(Server):
    """One Kafka node on two free loopback ports (clients, controller).

    Acknowledged records survive a kill of the process, not of the machine: as everywhere
    with Kafka they may still be in the page cache.

    Attributes:
        directory: Holds `server.properties`, `kafka.log` and `data/`.
        settings: Broker properties, over those of `SINGLE_NODE`; read at each start.
        jaas: Text of the JAAS file with the logins that the node knows; empty for none.
        client: How the readiness question logs in, by the client's own names.
        heap_mb: The Java heap's upper bound, MiB.
        port: For clients; chosen free unless given.
        controller_port: For the controller; chosen free unless given.

    Raises:
        ConfigError: Java or the broker is not installed; the text says how to get it.
    """

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    jaas: str = field(default="", kw_only=True, repr=False)
    client: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    heap_mb: int = field(default=512, kw_only=True)
    port: int = field(default_factory=free_port, kw_only=True)
    controller_port: int = field(default_factory=free_port, kw_only=True)
    process: ServerProcess = field(init=False, repr=False)

    def __post_init__(self) -> None:
        java, jars = install.find_java(), install.find_kafka_jars(self._version)
        if java is None or jars is None:
            raise ConfigError(f"starting kafka {self._version}: {install.missing()}")
        self._java = [
            str(java),
            f"-Xmx{self.heap_mb}m",
            # Without it each killed JVM leaves a file in the machine's /tmp/hsperfdata_*.
            "-XX:-UsePerfData",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            *([f"-Djava.security.auth.login.config={self._jaas_path}"] if self.jaas else []),
            "-cp",
            f"{jars}/*",
        ]
        self.process = ServerProcess(
            name=f"kafka on port {self.port}",
            argv=[*self._java, "kafka.Kafka", str(self._properties_path)],
            log_path=self.directory / "kafka.log",
            answers=self.answers,
        )

    @property
    def bootstrap(self) -> str:
        """Give what clients take as `bootstrap.servers`, `127.0.0.1:PORT`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        """Give the node's address, `kafka://127.0.0.1:PORT`."""
        return f"kafka://{self.bootstrap}"

    def start(self) -> None:
        """Format the storage if it is new, start, and wait; see `Server.start`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self.jaas:
            self._jaas_path.write_text(self.jaas, encoding="utf-8")
        properties = {**self._properties(), **SINGLE_NODE, **self.settings}
        self._properties_path.write_text(
            "".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8"
        )
        self._make_ready()
        self.process.start()

    def answers(self) -> bool:
        """Tell whether the node gives cluster metadata that lists itself as a broker."""
        if not accepts(self.port):
            return False
        settings: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "socket.timeout.ms": 1000,
            "log_level": 0,
            # Connection errors are an answer here, not something to print.
            "error_cb": lambda _error: None,
            **self.client,
        }
        client = AdminClient(settings)
        try:
            return len(client.list_topics(timeout=1.0).brokers) == 1
        except KafkaException:
            return False

    def _make_ready(self) -> None:
        if not (self.data_dir / "meta.properties").exists():
            self._format()

    @property
    def _properties_path(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _jaas_path(self) -> Path:
        return self.directory / "jaas.conf"

    @property
    def _version(self) -> str:
        return install.KAFKA_VERSION

    def _properties(self) -> dict[str, str]:
        """Give what makes the node find itself, and those that belong to it."""
        controller = f"{LOOPBACK}:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "log.dirs": str(self.data_dir),
        }

    def _format(self) -> None:
        config = str(self._properties_path)
        tool = ["kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", config]
        try:
            done = subprocess.run(
                [*self._java, *tool],
                capture_output=True,
                check=False,
                text=True,
                timeout=FORMAT_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"formatting {self.data_dir}: not done after {FORMAT_TIMEOUT_S:.0f} s"
            ) from error
        if done.returncode != 0:
            raise UnavailableError(
                f"formatting {self.data_dir}: exit code {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )


def _new_cluster_id() -> str:
    """Give 16 random bytes in base64url; the tool takes a leading dash for an option."""
    while True:
        text = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        if not text.startswith("-"):
            return text
