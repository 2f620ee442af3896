"""What this host knows of a container beyond `docker inspect`: its use, its open doors."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.stack import Container


@dataclass(frozen=True)
class Use:
    """What a container uses: memory in bytes without the page cache, processor in seconds."""

    memory_bytes: int
    cpu_s: float


def use_of(container: Container) -> Use:
    """Ask the engine what a container has used."""
    answer = _engine_get(f"/containers/{container.identity}/stats?stream=false&one-shot=true")
    memory = answer["memory_stats"]
    cache = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    return Use(memory["usage"] - cache, answer["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)


def listening_ports(container: Container) -> set[tuple[str, int]]:
    """Give the (address, port) pairs on which a container's processes listen, as numbers.

    Read from the container's network namespace as the kernel lists it, so that nothing
    that listens can be overlooked. The address is "any", "loopback" or the address's hex.
    """
    found = set()
    for table in ("tcp", "tcp6"):
        text = Path(f"/proc/{container.pid}/net/{table}").read_text(encoding="ascii")
        for row in text.splitlines()[1:]:
            columns = row.split()
            if columns[3] != "0A":
                continue
            address, _, port = columns[1].partition(":")
            found.add((_scope(address), int(port, 16)))
    return found


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def _engine_get(path: str) -> Any:
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    connection = _UnixConnection(where.removeprefix("unix://"), timeout=20.0)
    try:
        connection.request("GET", path, headers={"Host": "engine"})
        return json.load(connection.getresponse())
    finally:
        connection.close()


def _scope(address: str) -> str:
    if set(address) == {"0"}:
        return "any"
    # Little-endian words: 127.x.y.z ends in 7F; ::1 and ::ffff:127.x.y.z likewise.
    is_loopback = bool(re.fullmatch(r"......7F|0{24}01000000|0{16}FFFF0000......7F", address))
    return "loopback" if is_loopback else address
