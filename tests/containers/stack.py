"""One Compose deployment under test, driven by the commands that a user would type.

Owns the project's name, its ports on this host, the states of its containers and what can
be done to them. Does not own images or the engine (`engine`), how commands are run and
waited for (`commands`), nor what the services ought to do (the tests).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from containers.commands import CLOCK, COMMAND_S, docker, run, until
from servers.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
PORT_NAMES: Final = (
    "MQTT_PORT",
    "KAFKA_PORT",
    "KAFKA_ZOOKEEPER_PORT",
    "ZOOKEEPER_PORT",
    "MONGO_PORT",
    "PAGE_PORT",
    "MONGO_EXPRESS_PORT",
)
# The tests' own tag: an image that somebody built is neither used nor replaced.
VERSION: Final = "0.1.0-test"
OURS: Final = ("server", "sensor", "model_analysis", "dashboard")
ONE_SHOT: Final = ("secrets", "setup")


@dataclass(frozen=True)
class Container:
    """One container as the engine sees it now.

    Attributes:
        identity: Its id.
        name: Its name.
        service: The service it belongs to.
        pid: Its main process on this host; 0 while it is not running.
        status: "running", "exited", "paused", ...
        health: "healthy", "starting", "unhealthy"; "" without a health check.
        restart_count: How often the engine started it again by itself.
        is_oom_killed: Whether its last end was the kernel's, for want of memory.
        details: All that `docker inspect` says.
    """

    identity: str
    name: str
    service: str
    pid: int
    status: str
    health: str
    restart_count: int
    is_oom_killed: bool
    details: Mapping[str, Any] = field(repr=False)

    @property
    def addresses(self) -> dict[str, str]:
        """Give its address in every network it is connected to, by the network's name."""
        networks = self.details["NetworkSettings"]["Networks"]
        return {name: at["IPAddress"] for name, at in networks.items() if at["IPAddress"]}


@dataclass
class Stack:
    """A deployment of the repository's `compose.yaml` under a name and on ports of its own.

    Attributes:
        project: The Compose project's name; begins with "md-ct-".
        root: The checkout with `compose.yaml`.
        env_file: What `--env-file` names besides the ports, such as deploy/zookeeper.env.
        settings: Further variables of `.env`.
    """

    project: str
    root: Path = ROOT
    env_file: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.ports = {name: free_port() for name in PORT_NAMES}

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment of every command; it wins over the files."""
        own = {name: str(port) for name, port in self.ports.items()}
        outer = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COMPOSE_", "MATCHDAY_"))
        }
        return {
            **outer,
            **own,
            "COMPOSE_PROJECT_NAME": self.project,
            "MATCHDAY_VERSION": VERSION,
            **self.settings,
        }

    def port(self, name: str) -> int:
        """Give a published port: "MQTT", "KAFKA", "ZOOKEEPER", "MONGO", "PAGE", ..."""
        return self.ports[f"{name}_PORT"]

    # --- commands --------------------------------------------------------------------------

    def compose(
        self, *arguments: str, timeout_s: float = COMMAND_S, is_checked: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose ARGUMENTS`.

        Raises:
            AssertionError: It did not exit with 0, unless `is_checked` is False.
        """
        # `.env` is what a user has; it is named because --env-file replaces it.
        files = ["--env-file", str(self.env_file)] if self.env_file else []
        argv = ["docker", "compose", *files, *arguments]
        return run(
            argv,
            cwd=self.root,
            environment=self.environment,
            timeout_s=timeout_s,
            is_checked=is_checked,
        )

    def up(
        self, *services: str, scale: Mapping[str, int] | None = None, within_s: float = 90.0
    ) -> float:
        """Run `up -d --wait` and give the seconds until all was healthy.

        Raises:
            AssertionError: It was not healthy in time; carries states and log tails.
        """
        scales = [f"--scale={name}={count}" for name, count in (scale or {}).items()]
        began_s = CLOCK.monotonic_s()
        done = self.compose(
            *("up", "-d", "--wait", "--wait-timeout", str(round(within_s)), *scales, *services),
            timeout_s=within_s + 60,
            is_checked=False,
        )
        taken_s = CLOCK.monotonic_s() - began_s
        assert done.returncode == 0, f"up: {done.stderr[-2000:]}\n{self.diagnosis()}"
        return taken_s

    def down(self, *, with_volumes: bool = False) -> None:
        """Run `down`, with `-v` on request, profiles included."""
        options = ["-v"] if with_volumes else []
        self.compose("--profile", "*", "down", "--remove-orphans", *options)

    def execute(
        self, service: str, *command: str, is_checked: bool = True, timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the first container of a service."""
        return self.compose(
            "exec", "-T", service, *command, is_checked=is_checked, timeout_s=timeout_s
        )

    def secret(self, name: str) -> str:
        """Give a secret as `matchday secrets show` prints it to the administrator."""
        return self.compose(
            "run", "--rm", "-T", "secrets", "secrets", "show", "--dir", "/secrets", name
        ).stdout.strip()

    def logs(self, *services: str) -> str:
        """Give all that these services (none: all) have written."""
        done = self.compose("--profile", "*", "logs", "--no-color", *services, is_checked=False)
        return done.stdout + done.stderr

    # --- what is there ---------------------------------------------------------------------

    def containers(self, *services: str) -> list[Container]:
        """Give the project's containers, also those that have ended, of these services."""
        listed = docker(
            *("ps", "-aq", "--no-trunc", "--filter"),
            f"label=com.docker.compose.project={self.project}",
        ).split()
        if not listed:
            return []
        # A container may go between the two questions; what is left is what there is.
        done = run(["docker", "inspect", *listed], is_checked=False)
        found = [_container(details) for details in json.loads(done.stdout or "[]")]
        return sorted(
            (one for one in found if not services or one.service in services),
            key=lambda one: one.name,
        )

    def container(self, service: str) -> Container:
        """Give the only, or first, container of a service."""
        found = self.containers(service)
        assert found, f"no container of {service}"
        return found[0]

    def leftovers(self) -> dict[str, list[str]]:
        """Give what exists of this project, by kind: containers, volumes, networks."""
        label = f"label=com.docker.compose.project={self.project}"
        return {
            "containers": docker("ps", "-aq", "--filter", label).split(),
            "volumes": docker("volume", "ls", "-q", "--filter", label).split(),
            "networks": docker("network", "ls", "-q", "--filter", label).split(),
        }

    def is_healthy(self, *services: str) -> bool:
        """Tell whether all containers of these services (none: all) run and are healthy."""
        found = [one for one in self.containers(*services) if one.service not in ONE_SHOT]
        return bool(found) and all(
            one.status == "running" and one.health in ("", "healthy") for one in found
        )

    def await_healthy(self, *services: str, within_s: float = 60.0) -> float:
        """Wait until `is_healthy` and give the seconds it took."""
        return until(
            lambda: self.is_healthy(*services),
            f"{', '.join(services) or 'all'} healthy",
            within_s=within_s,
            explain=self.diagnosis,
        )

    def diagnosis(self) -> str:
        """Give the states of all containers and the ends of the logs, for a failed test."""
        states = [f"{one.name}: {one.status} {one.health}" for one in self.containers()]
        tail = self.compose(
            "--profile", "*", "logs", "--no-color", "--tail", "15", is_checked=False
        )
        return "\n".join([*states, tail.stdout[-12_000:]])

    # --- faults ----------------------------------------------------------------------------

    def kill(self, service: str) -> Container:
        """Kill a service's main process from the host, as a crash would; gives the victim.

        `docker kill` would be taken for a wish, and the container would stay down.
        """
        victim = self.container(service)
        os.kill(victim.pid, signal.SIGKILL)
        return victim

    def exhaust_memory(self, service: str) -> Container:
        """Make the kernel kill a service for want of memory, and give the victim.

        A second process in the container asks for more than its limit; the kernel is told
        to prefer the service's own as the victim, since it would take the larger one.
        """
        victim = self.container(service)
        for row in docker("top", victim.identity, "-eo", "pid").splitlines()[1:]:
            Path(f"/proc/{row.strip()}/oom_score_adj").write_text("1000", encoding="ascii")
        eater = "held = []\nwhile True: held.append(bytearray(8 * 2**20))"
        run(["docker", "exec", victim.identity, "python", "-c", eater], is_checked=False)
        return victim

    def await_restarted(self, victim: Container, *, within_s: float = 60.0) -> float:
        """Wait until the engine has started a killed container again and it is healthy."""

        def is_back() -> bool:
            return any(
                one.identity == victim.identity
                and one.pid not in (0, victim.pid)
                and one.health in ("", "healthy")
                for one in self.containers(victim.service)
            )

        return until(
            is_back, f"{victim.name} started again", within_s=within_s, explain=self.diagnosis
        )

    def disconnect(self, service: str) -> Callable[[], None]:
        """Cut a service's container off all networks; gives the way back."""
        victim = self.container(service)
        names = list(victim.addresses)
        for name in names:
            docker("network", "disconnect", name, victim.identity)

        def connect() -> None:
            for name in names:
                docker("network", "connect", "--alias", service, name, victim.identity)

        return connect


def _container(details: Mapping[str, Any]) -> Container:
    state = details["State"]
    return Container(
        identity=details["Id"],
        name=details["Name"].lstrip("/"),
        service=details["Config"]["Labels"].get("com.docker.compose.service", ""),
        pid=state["Pid"],
        status=state["Status"],
        health=state.get("Health", {}).get("Status", ""),
        restart_count=details["RestartCount"],
        is_oom_killed=state["OOMKilled"],
        details=details,
    )
