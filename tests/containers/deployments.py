"""Which deployment runs during a test session: one at a time, shared by name, always removed.

A deployment costs half a minute and two gigabytes, so modules that can live with each
other's traces ask for the same one, and asking for another ends it. Owns leftovers of
earlier sessions too: a project names the process that made it, and those of dead processes
are removed at the start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from containers.commands import docker, run
from containers.stack import Stack

PREFIX = "md-ct-"


@dataclass
class Deployment:
    """A running stack and how long its first start took.

    Attributes:
        stack: What runs.
        started_s: Seconds from `up` to healthy, images at hand and no volume there yet.
    """

    stack: Stack
    started_s: float


@dataclass
class Deployments:
    """Starts deployments on demand and keeps at most one.

    Attributes:
        logs_dir: Where the logs of a deployment are written when it ends.
    """

    logs_dir: Path
    _current: Deployment | None = field(default=None, init=False)

    def use(
        self,
        name: str,
        *,
        scale: Mapping[str, int],
        profiles: tuple[str, ...] = (),
        env_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Deployment:
        """Give the deployment of that name, started if another one, or none, runs."""
        project = f"{PREFIX}{name}-{os.getpid()}"
        if self._current is not None and self._current.stack.project == project:
            return self._current
        self.end()
        stack = Stack(project, env_file=env_file, settings=dict(settings or {}))
        if profiles:
            stack.settings["COMPOSE_PROFILES"] = ",".join(profiles)
        # Known before it is up, so that a start that goes wrong is cleaned up as well.
        self._current = Deployment(stack, started_s=float("nan"))
        self._current.started_s = stack.up(scale=scale, within_s=240.0)
        return self._current

    def current(self) -> Stack | None:
        """Give what runs, if anything."""
        return None if self._current is None else self._current.stack

    def end(self) -> None:
        """Write the logs of what runs and remove it, volumes included; no-op without."""
        if self._current is None:
            return
        stack, self._current = self._current.stack, None
        name = stack.project.rpartition("-")[0]
        (self.logs_dir / f"{name}.log").write_text(stack.logs(), encoding="utf-8")
        stack.down(with_volumes=True)


def remove_leftovers() -> None:
    """Remove the projects that killed test sessions have left."""
    for row in json.loads(docker("compose", "ls", "--all", "--format", "json")):
        project = row["Name"]
        owner = project.rpartition("-")[2]
        if project.startswith(PREFIX) and not (owner.isdecimal() and _is_alive(int(owner))):
            # By the name alone: the file it was started from may be gone.
            run(
                ["docker", "compose", "--project-name", project, "down", "-v", "--remove-orphans"],
                cwd=Path("/"),
            )


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
