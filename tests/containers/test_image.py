"""Claims about our own image: what is in it, as whom it runs, how it starts, stops and answers.

Builds it under a tag of its own, on the base that is there (a stand-in where the real one
cannot be had; sizes are differences to it). Needs an engine, but none of the services.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from containers import engine
from containers.commands import CLOCK, docker, run, until
from containers.standins import images
from containers.standins.python import build as python_base

ROOT = Path(__file__).resolve().parents[2]
# Of this process alone: other sessions on the same engine have tags of their own.
IMAGE = f"matchday:image-test-{os.getpid()}"
ADDED_MB_MAX = 150
BUILD_S = 900.0
STATE_DIR = "--tmpfs=/var/lib/matchday:uid=10001,gid=10001,mode=0700"
CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that images are built from: a copy, as the checkout may change."""
    return tmp_path_factory.mktemp("context")


@pytest.fixture(scope="module")
def image(require: Callable[[str, str], None], context: Path) -> Iterator[str]:
    """Build the image as `make image` does; its layers stay in the build cache.

    Not by the fixture of the Compose tests: that one ends with removing the tag that every
    session on this engine shares.
    """
    may_start = os.environ.get("MATCHDAY_TEST_ENGINE") == "start"
    with engine.running(may_start=may_start) as lack:
        if lack is not None:
            require("containers", lack)
        if not python_base.is_built():
            images.ensure()
        copy_sources(context)
        build(context, "kafka,mongo", tag=IMAGE, revision="0123abc")
        yield IMAGE
        docker("image", "rm", IMAGE)


def copy_sources(context: Path) -> None:
    """Copy what the Dockerfile takes, by the names that .dockerignore lets through."""
    listed = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (word[1:] for word in listed if word.startswith("!")):
        source, target = ROOT / name, context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    for name in (".dockerignore", "deploy/Dockerfile"):
        shutil.copy2(ROOT / name, context / name)


def build(context: Path, extras: str, *, tag: str, revision: str = "unknown") -> str:
    """Build an image and give the build's own account of its steps."""
    words = ["docker", "build", "--progress=plain", "--file=deploy/Dockerfile", f"--tag={tag}"]
    words += [f"--build-arg=EXTRAS={extras}", f"--build-arg=REVISION={revision}", "."]
    return run(words, cwd=context, timeout_s=BUILD_S).stderr


def inspected(name: str) -> Any:
    """Give all that the engine knows of an image or a container."""
    return json.loads(docker("inspect", name))[0]


def inside(image: str, program: str, *words: str, user: str = "10001") -> str:
    """Run a program in a container of the image and give what it printed."""
    entry = (f"--entrypoint={program}", f"--user={user}", "--network=none", "--workdir=/")
    return docker("run", "--rm", *CONFINED, *entry, image, *words)


@contextmanager
def started(image: str, *options: str) -> Iterator[str]:
    """Run everything in one confined container; gives its id, and removes it afterwards."""
    identity = docker("run", "--detach", *CONFINED, STATE_DIR, *options, image, "up").strip()
    try:
        yield identity
    finally:
        docker("rm", "--force", "--volumes", identity)


def stopped(identity: str, *, patience_s: int) -> tuple[int, float]:
    """Ask a container to stop; gives the exit code, and how long it took in seconds."""
    began_s = CLOCK.monotonic_s()
    docker("stop", f"--time={patience_s}", identity)
    return inspected(identity)["State"]["ExitCode"], CLOCK.monotonic_s() - began_s


def test_our_layers_add_less_than_150_mb_to_the_base(
    image: str, record_figure: Callable[[str, str], None]
):
    base = inspected(image_of_base())["Size"]
    added = inspected(image)["Size"] - base
    record_figure("base image, MB", f"{base / 1e6:.0f}")
    record_figure("our layers with kafka,mongo, MB", f"{added / 1e6:.0f}")
    assert added < ADDED_MB_MAX * 1e6


def test_the_labels_tell_version_licence_and_revision(image: str):
    labels = inspected(image)["Config"]["Labels"]
    told = {name: labels[f"org.opencontainers.image.{name}"] for name in ("version", "licenses")}
    version = docker("run", "--rm", *CONFINED, image, "--version").strip()
    assert told == {"version": version, "licenses": "Apache-2.0"}
    assert labels["org.opencontainers.image.revision"] == "0123abc"
    for name in ("title", "description"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_a_service_runs_as_a_user_without_rights_or_a_shell(image: str):
    assert inspected(image)["Config"]["User"] == "10001:10001"
    assert inside(image, "id", "-u") == "10001\n"
    entry = inside(image, "grep", "^matchday:", "/etc/passwd").strip()
    assert entry.endswith(":/var/lib/matchday:/usr/sbin/nologin")


def test_nothing_is_left_of_what_built_it(image: str):
    tools = "for one in gcc cc g++ c++ make ld git; do command -v $one; done; true"
    assert inside(image, "sh", "-c", tools, user="0") == ""
    caches = "find /root /tmp /var/cache /var/lib/apt/lists -type f 2>/dev/null | sort"
    of_base = inside(image_of_base(), "sh", "-c", caches, user="0")
    assert inside(image, "sh", "-c", caches, user="0") == of_base
    names = ("pip", "pip-*", "setuptools", "tests", "*.whl", "*.pyi")
    wanted = " -o ".join(f"-name '{name}'" for name in names)
    assert inside(image, "sh", "-c", f"find /opt/matchday {wanted}", user="0") == ""
    assert inside(image, "sh", "-c", "ls /source /build /wheels /lock 2>/dev/null; true") == ""


def test_nothing_in_it_belongs_to_the_user_that_it_runs_as(image: str):
    found = inside(image, "find", "/opt/matchday", "/usr/local", "-xdev", "-uid", "10001", user="0")
    assert found == ""
    writable = inside(image, "find", "/opt/matchday", "-xdev", "-perm", "-002", "!", "-type", "l")
    assert writable == ""


def test_every_module_is_compiled_so_that_none_is_at_the_start(image: str):
    program = (
        "import sysconfig, importlib.util as u, pathlib\n"
        "where = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "print(*(p for p in where.rglob('*.py')"
        " if not pathlib.Path(u.cache_from_source(str(p))).exists()), sep='\\n')\n"
    )
    lacking = [line for line in inside(image, "python", "-c", program).split() if line]
    assert lacking == []


def test_every_package_has_the_version_of_the_lock(image: str):
    program = (
        "from importlib.metadata import distributions as all_\n"
        "print(*sorted(f'{one.name}=={one.version}' for one in all_(path=[p])))\n"
    )
    find = "import sysconfig\np = sysconfig.get_path('purelib')\n"
    found = {_known(one) for one in inside(image, "python", "-c", find + program).split()}
    locked = (ROOT / "lock" / "all.txt").read_text(encoding="utf-8").split()
    strangers = found - {_known(one) for one in locked}
    assert {one.partition("==")[0] for one in strangers} == {"matchday"}
    assert {"confluent-kafka", "pymongo"} <= {one.partition("==")[0] for one in found}


def test_the_bundled_recordings_and_models_come_with_it(image: str):
    program = (
        "from matchday.services.bundled import examples\n"
        "print(*sorted(p.name for p in examples().rglob('*') if p.is_file()))\n"
    )
    found = inside(image, "python", "-c", program).split()
    assert {"match.csv.gz", "yosemite.json", "oval.toml"} <= set(found)


def test_it_serves_on_a_read_only_root_with_no_capability_and_drains_on_sigterm(image: str):
    with started(image) as identity:
        until(lambda: health_of(identity) == "healthy", "it is healthy", within_s=60)
        assert docker("exec", identity, "cat", "/proc/1/comm") == "matchday\n"
        status = docker("exec", identity, "cat", "/proc/1/status")
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert docker("diff", identity) == ""
        code, took_s = stopped(identity, patience_s=60)
        log = docker("logs", identity) + run(["docker", "logs", identity]).stderr
    assert code == 0
    assert took_s < 30
    assert "service_stopped" in log


def test_sigterm_ends_a_command_that_serves_nothing_as_well(image: str):
    # The first process of a container does not get a signal that it has no answer to, so
    # that `docker stop` would wait for its whole patience. This one waits for a silent Kafka.
    silent = ("--network=none", "--env=MATCHDAY_STREAM__URL=kafka://127.0.0.1:9")
    identity = docker("run", "--detach", *CONFINED, STATE_DIR, *silent, image, "doctor").strip()
    try:
        until(lambda: is_listening_to_sigterm(identity), "our code runs", within_s=60)
        code, took_s = stopped(identity, patience_s=60)
    finally:
        docker("rm", "--force", "--volumes", identity)
    assert code == 143
    assert took_s < 30


def test_the_health_check_asks_the_port_it_is_told(image: str):
    with started(image, "--env=MATCHDAY_HTTP__PORT=8099") as identity:
        until(lambda: health_of(identity) == "healthy", "it found the port", within_s=60)
        check = ["docker", "exec", identity, "/opt/matchday/healthy"]
        assert run([*check, "8099"]).returncode == 0
        assert run([*check, "9999"], is_checked=False).returncode == 1
        assert run([*check, "1883"], is_checked=False).returncode == 1


def test_the_wheel_is_built_once_whatever_the_extras(image: str, context: Path):
    tag = f"{IMAGE}-bare"
    try:
        steps = build(context, "kafka", tag=tag)
        found = re.search(r"^#(\d+) \[wheel .*pip wheel", steps, re.MULTILINE)
        assert found is not None
        assert re.search(rf"^#{found.group(1)} CACHED", steps, re.MULTILINE)
    finally:
        run(["docker", "image", "rm", tag], is_checked=False)


def image_of_base() -> str:
    """Give the name of the base image, as the Dockerfile has it."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert found is not None
    return found.group(1)


def health_of(identity: str) -> str:
    """Give the health of a container as its image's own check finds it."""
    return str(inspected(identity)["State"]["Health"]["Status"])


def is_listening_to_sigterm(identity: str) -> bool:
    """Tell whether the container's first process has an answer to SIGTERM."""
    pid = inspected(identity)["State"]["Pid"]
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s+([0-9a-f]+)$", status, re.MULTILINE)
    return bool(pid and caught and int(caught.group(1), 16) & 1 << 14)


def _known(requirement: str) -> str:
    name, _, version = requirement.partition("==")
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"
