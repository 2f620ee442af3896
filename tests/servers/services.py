"""Our own services as child processes, with the same verbs as the servers they work on."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.ports import free_port
from servers.process import Server, ServerProcess


@dataclass
class MatchdayService(Server):
    """One `matchday` command that serves until it is stopped.

    Attributes:
        directory: Holds the log.
        arguments: What follows `matchday`, such as ("server", "--role", "ingest").
        settings: Environment, such as MATCHDAY_STREAM__URL.
        port: Where it answers /readyz.
    """

    directory: Path
    arguments: Sequence[str]
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port, kw_only=True)
    process: ServerProcess = field(init=False, repr=False)

    def __post_init__(self) -> None:
        name = "-".join(part.strip("-") for part in self.arguments if "/" not in part)
        port_setting = "MATCHDAY_HEALTH__PORT"
        if self.arguments[0] in ("up", "dashboard"):
            port_setting = "MATCHDAY_HTTP__PORT"
        self.process = ServerProcess(
            name=f"matchday {name} on port {self.port}",
            argv=environment({**self.settings, port_setting: str(self.port)}, self.arguments),
            log_path=self.directory / f"{name}-{self.port}.log",
            answers=self.answers,
        )

    @property
    def url(self) -> str:
        """Give the address of its health answers."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Tell whether it is alive; it may still wait for its dependencies."""
        try:
            with urllib.request.urlopen(f"{self.url}/livez", timeout=1.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def links(self) -> dict[str, bool]:
        """Give which links are up, by name; empty while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2.0) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        except OSError:
            return {}
        return {
            str(row.get("link", row.get("name"))): bool(row.get("up", row.get("is_up")))
            for row in found["links"]
        }

    def is_ready(self) -> bool:
        """Tell whether it answers and all its links are up."""
        links = self.links()
        return bool(links) and all(links.values())

    def log(self) -> str:
        """Give all that the process wrote."""
        path = self.process.log_path
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def environment(settings: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """Give the command line that runs `matchday` with these settings in its environment."""
    assigned = [f"{name}={value}" for name, value in settings.items()]
    return ["/usr/bin/env", *assigned, sys.executable, "-m", "matchday", *arguments]


def ask(settings: Mapping[str, str], *arguments: str, timeout_s: float = 60.0) -> Any:
    """Run a reading command with --json and give its answer with the exit code added.

    Raises:
        AssertionError: It printed no JSON; carries what it said.
    """
    done = subprocess.run(
        environment(settings, [*arguments, "--json"]),
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise AssertionError(
            f"matchday {' '.join(arguments)}: exit {done.returncode}: {done.stderr.decode()}"
        ) from error
    if isinstance(answer, dict):
        answer["exit"] = done.returncode
    return answer
