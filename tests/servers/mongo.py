"""MongoDB as a replica set of one member, which is what retryable writes need.

Owns the command line, the initiation of the set and waiting for the primary. Does not own
databases, collections or users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from matchday.errors import ConfigError, UnavailableError
from servers import install
from servers.ports import LOOPBACK, free_port
from servers.process import Server, ServerProcess, accepts, wait_until

SET_NAME: Final = "matchday"
ALREADY_INITIALIZED: Final = 23
PRIMARY_TIMEOUT_S: Final = 30.0

BUCKET_MAX_COUNT: Final = 120
"""Measurements in a bucket of a time series, as in `compose.yaml`; why: decision 0018."""

USUAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "diagnosticDataCollectionEnabled": "false",
        "timeseriesBucketMaxCount": str(BUCKET_MAX_COUNT),
    }
)


@dataclass(eq=False)
class Mongo(Server):
    """One mongod on a free loopback port, primary of its own set.

    What was acknowledged with majority and journal survives a kill.

    Attributes:
        directory: Holds `mongod.log` and `data/`.
        parameters: Server parameters (`--setParameter`), over those of `USUAL`.
        cache_gb: The WiredTiger cache, GB.
        oplog_mb: The oplog's upper bound, MB; the server's least is 990.
        set_name: Of the replica set.
        port: Chosen free unless given.

    Raises:
        ConfigError: mongod is not installed; the text says how to get it.
    """

    directory: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    cache_gb: float = field(default=0.5, kw_only=True)
    oplog_mb: int = field(default=1024, kw_only=True)
    set_name: str = field(default=SET_NAME, kw_only=True)
    port: int = field(default_factory=free_port, kw_only=True)
    process: ServerProcess = field(init=False, repr=False)

    def __post_init__(self) -> None:
        program = install.find_mongod()
        if program is None:
            raise ConfigError(f"starting mongo: {install.missing()['mongo']}")
        parameters = {**USUAL, **self.parameters}
        self.process = ServerProcess(
            name=f"mongod on port {self.port}",
            argv=[
                str(program),
                *("--replSet", self.set_name, "--dbpath", str(self.data_dir)),
                *("--port", str(self.port), "--bind_ip", LOOPBACK, "--nounixsocket"),
                *("--wiredTigerCacheSizeGB", str(self.cache_gb)),
                *("--oplogSize", str(self.oplog_mb)),
                *("--networkMessageCompressors", "snappy,zstd"),
                *(
                    word
                    for name, value in parameters.items()
                    for word in ("--setParameter", f"{name}={value}")
                ),
            ],
            log_path=self.directory / "mongod.log",
            answers=self.answers,
        )

    @property
    def url(self) -> str:
        """Give the connection string, which names the replica set."""
        return f"mongodb://{LOOPBACK}:{self.port}/?replicaSet={self.set_name}"

    def start(self) -> None:
        """Start, make the set if it is new, wait for the primary; see `Server.start`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.process.start()
        try:
            self._become_primary()
        except BaseException:
            self.process.kill()
            raise

    def answers(self) -> bool:
        """Tell whether the server replies to a ping; it need not be primary yet."""
        if not accepts(self.port):
            return False
        try:
            with self._connect(timeout_ms=1000) as client:
                client.admin.command("ping")
                return True
        except PyMongoError:
            return False

    def _connect(self, *, timeout_ms: int) -> MongoClient[dict[str, Any]]:
        return MongoClient(
            LOOPBACK,
            self.port,
            directConnection=True,
            serverSelectionTimeoutMS=timeout_ms,
            socketTimeoutMS=timeout_ms,
        )

    def _become_primary(self) -> None:
        member = {"_id": 0, "host": f"{LOOPBACK}:{self.port}"}
        with self._connect(timeout_ms=round(PRIMARY_TIMEOUT_S * 1000)) as client:
            try:
                client.admin.command("replSetInitiate", {"_id": self.set_name, "members": [member]})
            except OperationFailure as error:
                if error.code != ALREADY_INITIALIZED:
                    raise UnavailableError(
                        f"initiating replica set {self.set_name} on port {self.port}: {error}"
                    ) from error
            wait_until(
                lambda: bool(client.admin.command("hello")["isWritablePrimary"]),
                what=f"mongod on port {self.port} is primary of {self.set_name}",
                timeout_s=PRIMARY_TIMEOUT_S,
            )
