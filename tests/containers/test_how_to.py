"""Every command of the how-to pages works, in the order in which a reader meets them.

The ```bash blocks of a page are one script, in a fresh copy of the checkout that all pages
share, under the project's own name and on the documented ports: where somebody's
deployment has those, the pages cannot be run.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from containers.commands import docker, run, until
from containers.stack import ROOT, Stack

pytestmark = pytest.mark.timeout(600)

FOLDER = ROOT / "docs" / "how-to" / "compose"
PAGES = re.findall(r"\| \[(\S+\.md)\]", (FOLDER / "README.md").read_text(encoding="utf-8"))
PROJECT = "matchday"
PORTS = (1883, 8081, 8082, 9092, 27017)
PAGE_S = 360.0
GATEWAY = "{{(index .IPAM.Config 0).Gateway}}"
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def script_of(page: str) -> str:
    """Give the commands of a page as one script that ends at the first that goes wrong."""
    blocks = BLOCK.findall((FOLDER / page).read_text(encoding="utf-8"))
    commands = "".join(blocks)
    return f"set -euxo pipefail\n{commands}"


@pytest.fixture(scope="module")
def checkout(images, deployments, require, tmp_path_factory) -> Iterator[Path]:
    """Give a copy of the files that git knows or would take in."""
    deployments.end()
    label = f"label=com.docker.compose.project={PROJECT}"
    if docker("ps", "-aq", "--filter", label) + docker("volume", "ls", "-q", "--filter", label):
        require("containers", f"there is a deployment {PROJECT} already, which is left alone")
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                require("containers", f"port {port}, which the pages name, is in use")
    copy = tmp_path_factory.mktemp("how-to") / "matchday"
    listed = run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    try:
        yield copy
    finally:
        run(
            ["docker", "compose", "--profile", "*", "down", "-v", "--remove-orphans"],
            cwd=copy,
            environment=environment(),
        )


def environment() -> dict[str, str]:
    """Give a reader's environment."""
    names = ("PATH", "HOME", "DOCKER_HOST", "LANG")
    return {name: os.environ[name] for name in names if name in os.environ}


@pytest.fixture(scope="module")
def addresses(images) -> Iterator[Callable[[str], str]]:
    """Give a function that puts servers of ours in place of a page's example.org.

    They are started when a page names them: the bundled images under another project, on
    the address by which containers reach this host. MongoDB has a user with exactly the
    rights that the page asks for; Kafka's is its administrator.
    """
    host = docker("network", "inspect", "bridge", "--format", GATEWAY).strip()
    stack = Stack(
        f"md-ct-own-{os.getpid()}",
        settings={"BIND_ADDRESS": host, "KAFKA_ADVERTISED_HOST": host},
    )

    def replaced(script: str) -> str:
        if "example.org" not in script:
            return script
        stack.compose("up", "-d", "--wait", "mongo", "kafka")
        kafka_user = stack.secret("kafka-admin")
        make_store_user(stack, host)
        script = script.replace(
            "matchday:a-long-password@kafka.example.org:9092",
            f"admin:{kafka_user}@{host}:{stack.port('KAFKA')}",
        )
        return script.replace("mongo.example.org:27017", f"{host}:{stack.port('MONGO')}")

    try:
        yield replaced
    finally:
        stack.down(with_volumes=True)


def make_store_user(stack: Stack, host: str) -> None:
    """Make a replica set of one member, and the user of the page in it."""
    client: MongoClient[Any] = MongoClient(
        *(host, stack.port("MONGO")),
        username="root",
        password=stack.execute("mongo", "cat", "/run/secrets/root_password").stdout.strip(),
        directConnection=True,
    )
    with client:
        member = {"_id": 0, "host": f"{host}:{stack.port('MONGO')}"}
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
        until(lambda: client.admin.command("hello")["isWritablePrimary"], "primary", within_s=30)
        client.admin.command(
            "createUser",
            "matchday",
            pwd="a-long-password",
            roles=[{"role": role, "db": "server"} for role in ("readWrite", "dbAdmin")],
        )


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works(page: str, checkout: Path, addresses):
    script = checkout / ".how-to.sh"
    script.write_text(addresses(script_of(page)), encoding="utf-8")
    done = run(
        ["bash", str(script)],
        cwd=checkout,
        environment=environment(),
        timeout_s=PAGE_S,
        is_checked=False,
    )
    if done.returncode != 0:
        for question in (["ps", "-a"], ["logs", "--tail", "30"]):
            print(run(["docker", "compose", *question], cwd=checkout, is_checked=False).stdout)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def test_every_page_is_in_the_table_of_contents():
    assert {*PAGES, "README.md"} == {path.name for path in FOLDER.glob("*.md")}
