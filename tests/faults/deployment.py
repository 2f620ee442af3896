"""What the faults happen to: our processes and their servers, by name, and their books.

Owns making and ending them and the settings that let time-outs pass within seconds. Does
not own faults or verdicts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from faults.books import Books, EmbeddedBooks, ServerBooks
from faults.verdict import LATENESS_MS, WINDOW_MS
from servers.ports import free_port
from servers.process import Server, wait_until
from servers.services import MatchdayService

if TYPE_CHECKING:
    from servers.mongo import Mongo

# A part that stands still for OUTAGE_S has outlived the group's session, the broker's patience
# (one and a half times the keep-alive) and ours with the broker (its I/O time-out of 10 s).
SESSION_S: Final = 3
KEEP_ALIVE_S: Final = 6
OUTAGE_S: Final = 12.0 if int(os.environ.get("FAULT_ROUNDS", "1")) < 2 else 120.0

BROKER_BOUNDS: Final[Mapping[str, str]] = {"group.min.session.timeout.ms": "1000"}
QUICK: Final[Mapping[str, str]] = {
    "MATCHDAY_STREAM__SESSION_TIMEOUT_S": str(SESSION_S),
    "MATCHDAY_MQTT__KEEP_ALIVE_S": str(KEEP_ALIVE_S),
    "MATCHDAY_ANALYSIS__WINDOW_S": str(WINDOW_MS / 1000),
    "MATCHDAY_ANALYSIS__LATENESS_S": str(LATENESS_MS / 1000),
    # No outage is to close a window; what stays silent holds back what a restart reads again.
    "MATCHDAY_ANALYSIS__IDLE_S": str(10 * OUTAGE_S),
}

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": ("server", "--role", "ingest"),
    "persist": ("server", "--role", "persist"),
    "server": ("server",),
    "analysis": ("analysis",),
    "up": ("up",),
}


@dataclass
class Deployment:
    """The product, running, with sensors connecting to `mqtt_port`.

    Attributes:
        settings: Environment of every one of its processes.
        mqtt_port: Of the broker, or of our own endpoint.
        processes: Ours, by name: a role, with a number where there are several of it.
        servers: Those of others: `mosquitto`, `kafka`, `mongo`.
        books: What is in stream and store.
    """

    settings: Mapping[str, str]
    mqtt_port: int
    processes: dict[str, MatchdayService]
    servers: dict[str, Server]
    books: Books
    folder: Path = field(repr=False)

    @property
    def parts(self) -> dict[str, Server]:
        """Give everything that a fault can hit."""
        return {**self.processes, **self.servers}

    def add(self, name: str, arguments: tuple[str, ...] | None = None) -> MatchdayService:
        """Make one process more, without starting it.

        Args:
            name: A role, with a number where there are several of it.
            arguments: What follows `matchday`; None for what belongs to the role.
        """
        arguments = arguments or ROLES[name.rstrip("0123456789")]
        self.processes[name] = MatchdayService(self.folder, arguments, self.settings)
        return self.processes[name]

    def start(self) -> None:
        """Start our processes and return when messages are taken."""
        for process in self.processes.values():
            process.start()
        wait_until(self.takes_messages, what="messages are taken", timeout_s=60)

    def takes_messages(self) -> bool:
        """Tell whether a process is connected to the broker, or lets sensors connect to it."""
        return any(
            process.links().get("mqtt", False)
            for process in self.processes.values()
            if process.is_running
        )

    def step_down(self) -> None:
        """Make the one member of MongoDB's set give up; it elects itself again in seconds."""
        from pymongo import MongoClient
        from pymongo.errors import AutoReconnect

        mongo: Mongo = self.servers["mongo"]  # type: ignore[assignment]
        with MongoClient[dict[str, Any]]("127.0.0.1", mongo.port, directConnection=True) as client:
            try:
                client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=0, force=True)
            except AutoReconnect:
                return  # it may close connections as it steps down

    def is_primary(self) -> bool:
        """Tell whether MongoDB takes writes; True where there is none."""
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        mongo: Mongo | None = self.servers.get("mongo")  # type: ignore[assignment]
        if mongo is None:
            return True
        try:
            with MongoClient[dict[str, Any]](
                "127.0.0.1", mongo.port, directConnection=True, serverSelectionTimeoutMS=1000
            ) as client:
                return bool(client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False

    def kill(self) -> None:
        """End our processes at once; no-op for those that ended."""
        for process in self.processes.values():
            process.kill()


@contextmanager
def on_servers(
    folder: Path,
    processes: Sequence[str],
    *,
    start: Mapping[str, Callable[..., Any]],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Deployment]:
    """Run processes of ours on servers of their own.

    Args:
        folder: Holds the logs.
        processes: Roles, each with a number where there are several of it.
        start: Functions that start a server, by the server's name: the fixtures `fresh_*`.
            Without `mosquitto` our own endpoint takes the messages.
        settings: Environment, over that of `QUICK`.
    """
    kafka, mongo = start["kafka"](settings=BROKER_BOUNDS), start["mongo"]()
    servers: dict[str, Server] = {"kafka": kafka, "mongo": mongo}
    found = {
        **QUICK,
        "MATCHDAY_STREAM__URL": kafka.url,
        "MATCHDAY_STORE__URL": mongo.url,
        **(settings or {}),
    }
    if "mosquitto" in start:
        servers["mosquitto"] = mosquitto = start["mosquitto"]()
        port, found["MATCHDAY_MQTT__URL"] = mosquitto.port, mosquitto.url
    else:
        port = free_port()
        found["MATCHDAY_MQTT__PORT"] = str(port)
    with ExitStack() as stack:
        books = stack.enter_context(ServerBooks(kafka.bootstrap, mongo.url))
        made = Deployment(found, port, {}, servers, books, folder)
        stack.callback(made.kill)
        for name in processes:
            made.add(name)
        made.start()
        yield made


@contextmanager
def embedded(folder: Path, *, settings: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    """Run `matchday up` on a data folder of its own below `folder`."""
    port, data = free_port(), folder / "data"
    found = {
        **QUICK,
        "MATCHDAY_DATA_DIR": str(data),
        "MATCHDAY_MQTT__PORT": str(port),
        **(settings or {}),
    }
    made = Deployment(found, port, {}, {}, EmbeddedBooks(data), folder)
    made.add("up")
    try:
        made.start()
        yield made
    finally:
        made.kill()
