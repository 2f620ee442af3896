"""Kafka as it was before KRaft: a broker of the 3.9 line coordinated by ZooKeeper.

Owns ZooKeeper's configuration and the broker's few other properties; the rest is in `kafka`.
Both come from one set of jars.
"""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from matchday.errors import ConfigError
from servers import install
from servers.kafka import Kafka
from servers.ports import LOOPBACK, free_port
from servers.process import Server, ServerProcess

_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


@dataclass(eq=False)
class ZooKeeper(Server):
    """One ZooKeeper server on a free loopback port.

    Attributes:
        directory: Holds `zookeeper.cfg`, `zookeeper.log` and `data/`.
        port: Chosen free unless given.

    Raises:
        ConfigError: Java or the jars are not installed; the text says how to get them.
    """

    directory: Path
    port: int = field(default_factory=free_port, kw_only=True)
    process: ServerProcess = field(init=False, repr=False)

    def __post_init__(self) -> None:
        java = install.find_java()
        jars = install.find_kafka_jars(install.KAFKA_ZOOKEEPER_VERSION)
        if java is None or jars is None:
            raise ConfigError(f"starting zookeeper: {install.missing()['zookeeper']}")
        self.process = ServerProcess(
            name=f"zookeeper on port {self.port}",
            argv=[
                str(java),
                *("-Xmx128m", "-XX:-UsePerfData", "-cp", f"{jars}/*"),
                *(_MAIN, str(self.directory / "zookeeper.cfg")),
            ],
            log_path=self.directory / "zookeeper.log",
            answers=self.answers,
        )

    @property
    def url(self) -> str:
        """Give what a broker takes as `zookeeper.connect`."""
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Write the configuration, start, and wait for an answer; see `Server.start`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lines = {
            "dataDir": self.data_dir,
            "clientPort": self.port,
            "clientPortAddress": LOOPBACK,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "ruok",
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        (self.directory / "zookeeper.cfg").write_text(text, encoding="utf-8")
        self.process.start()

    def answers(self) -> bool:
        """Tell whether it says that it is well."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as link:
                link.sendall(b"ruok")
                return link.recv(4) == b"imok"
        except OSError:
            return False


@dataclass(eq=False)
class ZooKeeperKafka(Kafka):
    """A Kafka 3.9 node with a ZooKeeper of its own; both start and end together.

    `pause` and the process id are the broker's.
    """

    zookeeper: ZooKeeper = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.zookeeper = ZooKeeper(self.directory / "zookeeper")
        super().__post_init__()

    def start(self) -> None:
        """Start ZooKeeper where it is not running, then the broker; see `Server.start`."""
        if not self.zookeeper.is_running:
            self.zookeeper.directory.mkdir(parents=True, exist_ok=True)
            self.zookeeper.start()
        super().start()

    def stop(self) -> bool:
        """Stop the broker, then ZooKeeper; see `Server.stop`."""
        is_clean = super().stop()
        return self.zookeeper.stop() and is_clean

    def kill(self) -> None:
        """Kill both and remove what ZooKeeper kept; the broker's data is the caller's."""
        super().kill()
        self.zookeeper.kill()
        shutil.rmtree(self.zookeeper.data_dir, ignore_errors=True)

    @property
    def _version(self) -> str:
        return install.KAFKA_ZOOKEEPER_VERSION

    def _properties(self) -> dict[str, str]:
        return {
            "broker.id": "1",
            "zookeeper.connect": self.zookeeper.url,
            "listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self.data_dir),
        }

    def _make_ready(self) -> None:
        """Do nothing: only KRaft's storage is formatted before the first start."""
