"""A Docker engine with Compose and Buildx for the tests, where the machine has none running.

Owns bringing one up and down again: `python -m containers.engine up|down|status` (with `tests`
on PYTHONPATH), or the functions. An engine that answers is used as it is, and never stopped or
changed. Where there is none, and this is Debian and root may install packages, one is installed
and started on a folder of its own (`.engine/`, git-ignored), which keeps its images between
runs. `down` ends that one alone, gives the host's packet filter its policy back and removes the
bridge that came with it; the engine's rules stay in the filter, and match nothing then. Does
not own the packages (`engine_install`), the images (`standins`) or what runs on the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from containers import engine_install
from containers.commands import CLOCK, until
from containers.engine_install import (
    ANSWER_TIMEOUT_S,
    COMPOSE_VERSION_MIN,
    ENGINE_VERSION_MIN,
    dotted,
    printed,
    said,
    version_of,
)
from containers.standins import images
from matchday.errors import UnavailableError

ENGINE_DIR: Final = Path(__file__).resolve().parents[2] / ".engine"
DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
# The tests' Compose projects; a deployment under its own name is somebody's and stays.
TEST_PROJECTS: Final = "md-ct-"

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 90.0

_STARTED: list[subprocess.Popen[bytes]] = []
"""Held, or Python would complain that a process was forgotten; its pid file ends it."""

# The bridge's packets must fit the narrowest link that a virtual machine is likely to have.
_MTU_BYTES: Final = 1400
_BRIDGE: Final = "docker0"


@dataclass(frozen=True)
class Engine:
    """One engine, running or not.

    Attributes:
        host: The address of its socket, as in DOCKER_HOST.
        folder: Where everything of an engine started here lives.
    """

    host: str = DEFAULT_HOST
    folder: Path = ENGINE_DIR

    @property
    def pid_path(self) -> Path:
        """Where the engine writes its process's id."""
        return self.folder / "dockerd.pid"

    @property
    def found_path(self) -> Path:
        """Where `up` notes how it found the host."""
        return self.folder / "found.json"


def default_engine() -> Engine:
    """Give the engine that DOCKER_HOST names, else the one on the usual socket."""
    return Engine(host=os.environ.get("DOCKER_HOST") or DEFAULT_HOST)


@contextmanager
def running(*, may_start: bool, engine: Engine | None = None) -> Iterator[str | None]:
    """See to a running engine, and end it afterwards if it was started here.

    Gives None, or the reason why there is none.
    """
    engine = engine or default_engine()
    reason = lack(engine)
    if reason is None or not may_start:
        yield reason
        return
    try:
        up(engine)
    except UnavailableError as error:
        yield str(error)
        return
    try:
        yield None
    finally:
        down(engine)


def ensure_images() -> None:
    """Build a stand-in for every third-party image that is missing.

    Raises:
        UnavailableError: Some could not be built; names them and why.
    """
    images.ensure()


def lack(engine: Engine | None = None) -> str | None:
    """Tell why no test can run containers now; None when they can."""
    engine = engine or default_engine()
    if shutil.which("docker") is None:
        return "no docker command: run python -m containers.engine up"
    answer = _docker(engine, "version", "--format", "{{.Server.Version}}")
    if answer is None:
        return f"no engine answers at {engine.host}: run python -m containers.engine up"
    if version_of(answer) < ENGINE_VERSION_MIN:
        return f"the engine is {answer}, below {dotted(ENGINE_VERSION_MIN)}"
    compose = _docker(engine, "compose", "version", "--short")
    if compose is None or version_of(compose) < COMPOSE_VERSION_MIN:
        return f"Compose is {compose or 'missing'}, below {dotted(COMPOSE_VERSION_MIN)}"
    if _docker(engine, "buildx", "version") is None:
        return "no Buildx: install the package 'docker-buildx'"
    return None


def up(engine: Engine | None = None) -> str:
    """See to a running engine; safe to call again. Gives what was done, in words.

    Raises:
        UnavailableError: There is none and this machine allows none; says why.
    """
    engine = engine or default_engine()
    if lack(engine) is None:
        return f"an engine answers at {engine.host}; nothing done"
    if _docker(engine, "version", "--format", "{{.Server.Version}}") is not None:
        raise UnavailableError(f"using the engine at {engine.host}: {lack(engine)}")
    if not engine.host.startswith("unix://"):
        raise UnavailableError(f"starting an engine: {engine.host} is not a socket of this host")
    if os.geteuid() != 0:
        raise UnavailableError("starting an engine: only root may")
    if _own_pid(engine) is not None:
        raise UnavailableError(f"starting an engine: {engine.folder} is in use at another address")
    if not engine_install.is_installed():
        engine_install.install()
    _start(engine)
    reason = lack(engine)
    if reason is not None:
        down(engine)
        raise UnavailableError(f"starting an engine: {reason}")
    return f"started an engine at {engine.host} on {engine.folder}"


def down(engine: Engine | None = None) -> str:
    """End the engine that `up` started and what ran on it; gives what was done, in words.

    The projects of tests go with their volumes; any other deployment is stopped, and its data
    stays in the folder. An engine that was there before is left alone.
    """
    engine = engine or default_engine()
    pid = _own_pid(engine)
    if pid is None:
        return f"no engine was started on {engine.folder}; nothing stopped"
    _remove_test_projects(engine)
    os.kill(pid, signal.SIGTERM)
    until(lambda: _own_pid(engine) is None, f"the end of dockerd {pid}", within_s=STOP_TIMEOUT_S)
    engine.pid_path.unlink(missing_ok=True)
    _give_back(engine)
    return f"stopped the engine on {engine.folder}; its images stay there"


def _start(engine: Engine) -> None:
    """Run dockerd apart from this process and wait until it answers."""
    engine.folder.mkdir(parents=True, exist_ok=True)
    # A file left over from a crash would be taken for a running engine's.
    engine.pid_path.unlink(missing_ok=True)
    # After a crash the note of then still says how the host was without an engine.
    if not engine.found_path.exists():
        engine.found_path.write_text(json.dumps(_host_state()), encoding="utf-8")
    log_path = engine.folder / "dockerd.log"
    with log_path.open("ab") as log:
        server = subprocess.Popen(
            [
                "dockerd",
                f"--host={engine.host}",
                f"--data-root={engine.folder / 'data'}",
                f"--exec-root={engine.folder / 'exec'}",
                f"--pidfile={engine.pid_path}",
                f"--mtu={_MTU_BYTES}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline_s = CLOCK.monotonic_s() + START_TIMEOUT_S
    while _docker(engine, "version", "--format", "{{.Server.Version}}") is None:
        if server.poll() is not None or CLOCK.monotonic_s() > deadline_s:
            server.terminate()
            server.wait(STOP_TIMEOUT_S)
            _give_back(engine)
            last = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            raise UnavailableError(f"starting dockerd: {' / '.join(last) or 'no answer'}")
        with suppress(subprocess.TimeoutExpired):
            server.wait(0.2)
    _STARTED.append(server)


def _own_pid(engine: Engine) -> int | None:
    """Give the id of the running dockerd on this folder, as its command line proves."""
    try:
        pid = int(engine.pid_path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    # Where this process is the parent, an ended dockerd stays listed until it is waited for.
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return pid if f"--data-root={engine.folder / 'data'}".encode() in words else None


def _remove_test_projects(engine: Engine) -> None:
    """Remove the containers, networks and volumes that tests have left."""
    label = "com.docker.compose.project"
    kinds = (
        (("ps", "--all"), ("rm", "--force", "--volumes"), f'{{{{.ID}}}} {{{{.Label "{label}"}}}}'),
        (("network", "ls"), ("network", "rm"), f'{{{{.ID}}}} {{{{.Label "{label}"}}}}'),
        (("volume", "ls"), ("volume", "rm"), f'{{{{.Name}}}} {{{{.Label "{label}"}}}}'),
    )
    for listing, removal, shape in kinds:
        listed = _docker(engine, *listing, f"--filter=label={label}", "--format", shape) or ""
        pairs = [line.split() for line in listed.splitlines()]
        for identity, project in pairs:
            if project.startswith(TEST_PROJECTS):
                _docker(engine, *removal, identity, timeout_s=STOP_TIMEOUT_S)


def _host_state() -> dict[str, str]:
    """Give what dockerd changes on the host and `down` gives back."""
    rules = said(["iptables", "-S", "FORWARD"])
    policy = re.search(r"^-P FORWARD (\w+)", rules, re.MULTILINE)
    forwards = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip()
    has_bridge = "yes" if said(["ip", "link", "show", _BRIDGE]) else "no"
    return {"policy": policy.group(1) if policy else "", "forwards": forwards, "bridge": has_bridge}


def _give_back(engine: Engine) -> None:
    """Bring the host back to how `up` found it, as far as dockerd changed it."""
    try:
        found = json.loads(engine.found_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if found["policy"]:
        said(["iptables", "-P", "FORWARD", found["policy"]])
    if found["bridge"] == "no":
        said(["ip", "link", "delete", _BRIDGE])
    # A dockerd that was killed once leaves its folder mounted on itself, and nobody else ends that.
    said(["umount", str(engine.folder / "data")])
    with suppress(OSError):
        Path("/proc/sys/net/ipv4/ip_forward").write_text(found["forwards"], encoding="ascii")
    engine.found_path.unlink()


def _docker(engine: Engine, *arguments: str, timeout_s: float = ANSWER_TIMEOUT_S) -> str | None:
    """Give what a docker command printed; None when it went wrong."""
    answer = printed(["docker", f"--host={engine.host}", *arguments], timeout_s=timeout_s)
    return None if answer is None else answer.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and give the exit code."""
    parser = argparse.ArgumentParser(prog="containers.engine", description=__doc__.split("\n")[0])
    parser.add_argument("verb", choices=("up", "down", "status"))
    parser.add_argument("--host", help="socket of the engine, as unix:///path/to/socket")
    parser.add_argument("--folder", type=Path, default=ENGINE_DIR, help="where a new one lives")
    chosen = parser.parse_args(argv)
    engine = Engine(chosen.host or default_engine().host, chosen.folder.resolve())
    try:
        if chosen.verb == "up":
            print(up(engine))
        elif chosen.verb == "down":
            print(down(engine))
        else:
            reason = lack(engine)
            print(reason or f"an engine answers at {engine.host}")
            return 1 if reason else 0
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
