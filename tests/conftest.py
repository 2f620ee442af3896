"""Fixtures for tests on real servers.

Owns when servers start and end in a test run, and what happens when one is missing: the
test is skipped with the reason, or fails when the environment's REQUIRE names the server
("mosquitto", "kafka", "zookeeper", "mongo", separated by commas, or "all"). Does not own the
servers themselves (tests/servers). Client libraries are imported only when a server is asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from servers import install

if TYPE_CHECKING:
    from servers.kafka import Kafka
    from servers.mongo import Mongo
    from servers.mosquitto import Mosquitto
    from servers.process import Server
    from servers.zookeeper import ZooKeeperKafka

    AnyServer = TypeVar("AnyServer", bound=Server)


@pytest.fixture(scope="session")
def servers_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function that makes a new directory for a server of that name.

    Logs stay there after the run, as pytest keeps its last temporary directories; the
    servers' data is removed as soon as the server ends.
    """
    return lambda name: tmp_path_factory.mktemp(name, numbered=True)


@pytest.fixture(scope="session")
def need_server() -> Callable[[str], None]:
    """Give a function that skips, or fails where REQUIRE says so, without that server."""
    missing = install.missing()

    def need(name: str) -> None:
        if name not in missing:
            return
        if install.is_required(name, os.environ.get("REQUIRE", "")):
            pytest.fail(f"REQUIRE wants {name}: {missing[name]}", pytrace=False)
        pytest.skip(f"{name}: {missing[name]}")

    return need


@pytest.fixture(scope="session")
def mosquitto(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Mosquitto]:
    """Give the broker all tests share; use your own topics and client ids, never stop it."""
    need_server("mosquitto")
    from servers.mosquitto import Mosquitto

    with _running(Mosquitto(servers_dir("mosquitto"))) as server:
        yield server


@pytest.fixture(scope="session")
def kafka(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Kafka]:
    """Give the Kafka node all tests share; use your own topics and groups, never stop it."""
    need_server("kafka")
    from servers.kafka import Kafka

    with _running(Kafka(servers_dir("kafka"))) as server:
        yield server


@pytest.fixture(scope="session")
def zookeeper(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[ZooKeeperKafka]:
    """Give the Kafka 3.9 node on ZooKeeper that all tests share; never stop it."""
    need_server("zookeeper")
    from servers.zookeeper import ZooKeeperKafka

    with _running(ZooKeeperKafka(servers_dir("zookeeper"))) as server:
        yield server


@pytest.fixture(scope="session")
def mongo(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Mongo]:
    """Give the MongoDB all tests share; use your own database, never stop it."""
    need_server("mongo")
    from servers.mongo import Mongo

    with _running(Mongo(servers_dir("mongo"))) as server:
        yield server


@pytest.fixture
def fresh_mosquitto(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Callable[..., Mosquitto]]:
    """Give a function that starts a broker of the test's own; options as `Mosquitto`'s."""
    need_server("mosquitto")
    from servers.mosquitto import Mosquitto

    with ExitStack() as stack:

        def make(**options: Any) -> Mosquitto:
            return stack.enter_context(_running(Mosquitto(servers_dir("mosquitto"), **options)))

        yield make


@pytest.fixture
def fresh_kafka(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Callable[..., Kafka]]:
    """Give a function that starts a Kafka node of the test's own; options as `Kafka`'s."""
    need_server("kafka")
    from servers.kafka import Kafka

    with ExitStack() as stack:

        def make(**options: Any) -> Kafka:
            return stack.enter_context(_running(Kafka(servers_dir("kafka"), **options)))

        yield make


@pytest.fixture
def fresh_zookeeper(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Callable[[], ZooKeeperKafka]]:
    """Give a function that starts a Kafka 3.9 node on a ZooKeeper of the test's own."""
    need_server("zookeeper")
    from servers.zookeeper import ZooKeeperKafka

    with ExitStack() as stack:

        def make() -> ZooKeeperKafka:
            return stack.enter_context(_running(ZooKeeperKafka(servers_dir("zookeeper"))))

        yield make


@pytest.fixture
def fresh_mongo(
    need_server: Callable[[str], None], servers_dir: Callable[[str], Path]
) -> Iterator[Callable[..., Mongo]]:
    """Give a function that starts a MongoDB of the test's own; options as `Mongo`'s."""
    need_server("mongo")
    from servers.mongo import Mongo

    with ExitStack() as stack:

        def make(**options: Any) -> Mongo:
            return stack.enter_context(_running(Mongo(servers_dir("mongo"), **options)))

        yield make


@contextmanager
def _running(server: AnyServer) -> Iterator[AnyServer]:
    """Run a server whose data nobody needs afterwards, so a kill is the quickest end."""
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.data_dir, ignore_errors=True)
