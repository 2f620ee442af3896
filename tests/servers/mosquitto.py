"""Mosquitto, the MQTT broker, with settings that keep every acknowledged message.

Owns its configuration file and the readiness exchange. Does not own clients, and serves
plain TCP on loopback only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from matchday.errors import ConfigError
from servers import install
from servers.ports import LOOPBACK, free_port
from servers.process import Server, ServerProcess

# With the broker's own defaults (1,000 queued, 20 in flight, saved every 30 min) a slow
# consumer loses acknowledged QoS 1 messages, and so does a crash.
LOSSLESS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "allow_anonymous": "true",
        "autosave_interval": "1",
        "max_inflight_messages": "1000",
        "max_queued_messages": "0",
        "persistence": "true",
    }
)

# MQTT 3.1.1 section 3.1: CONNECT, clean session, keep-alive 10 s, empty client id.
_CONNECT: Final = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
_CONNACK_TYPE: Final = b"\x20"
_DISCONNECT: Final = b"\xe0\x00"


@dataclass(eq=False)
class Mosquitto(Server):
    """One broker on a free loopback port.

    A clean stop keeps sessions, queues and retained messages; a kill loses what came in
    since the last save, up to a second.

    Attributes:
        directory: Holds the configuration, `mosquitto.log` and `data/`.
        settings: Lines of mosquitto.conf, over those of `LOSSLESS`; read at each start.
        port: Chosen free unless given.

    Raises:
        ConfigError: Mosquitto is not installed; the text says how to get it.
    """

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port, kw_only=True)
    process: ServerProcess = field(init=False, repr=False)

    def __post_init__(self) -> None:
        program = install.find_mosquitto()
        if program is None:
            raise ConfigError(f"starting mosquitto: {install.missing()['mosquitto']}")
        self.process = ServerProcess(
            name=f"mosquitto on port {self.port}",
            argv=[str(program), "-c", str(self._config_path)],
            log_path=self.directory / "mosquitto.log",
            answers=self.answers,
            ready_s=20.0,
        )

    @property
    def url(self) -> str:
        """Give the broker's address, `mqtt://127.0.0.1:PORT`."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Write the configuration, start, and wait for an answer; see `Server.start`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._config_path.write_text(self._config_text(), encoding="utf-8")
        self.process.start()

    def answers(self) -> bool:
        """Tell whether the broker replies to CONNECT; a refusal is a reply too."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1.0) as link:
                link.sendall(_CONNECT)
                replied = link.recv(4)[:1] == _CONNACK_TYPE
                link.sendall(_DISCONNECT)
                return replied
        except OSError:
            return False

    @property
    def _config_path(self) -> Path:
        return self.directory / "mosquitto.conf"

    def _config_text(self) -> str:
        lines = {**LOSSLESS, "persistence_location": f"{self.data_dir}/", "log_dest": "stderr"}
        if os.geteuid() == 0:
            # Started as root it would become the user mosquitto, who may not write here.
            lines["user"] = "root"
        lines.update(self.settings)
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        return f"listener {self.port} {LOOPBACK}\n{text}"
