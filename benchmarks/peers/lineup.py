"""Who takes part in a comparison, and how each is started on servers that run.

Owns the table of systems for each job: their processes, the fields under which each keeps a
reading's source, number and time, and why one is left out. Does not own how they are measured
(`compare`) nor the settings of the peers (`telegraf`, `connect`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import Servers, loop, running, service
from pymongo import MongoClient
from report import BASELINE, OTHER, OURS

from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.store.documents import Shape
from matchday.store.mongo import MongoStore
from peers import connect, telegraf
from peers.install import missing
from servers.mosquitto import Mosquitto
from servers.process import wait_until

MQTT_TO_KAFKA: Final = "hop1"
KAFKA_TO_MONGO: Final = "hop2"
MQTT_TO_MONGO: Final = "whole"
ANALYSED: Final = "matchday with analysis"
SPLIT: Final = "matchday by role"
REGULAR: Final = "matchday by role regular"
DIRECT: Final = "matchday without Mosquitto"
EMBEDDED: Final = "matchday server embedded"
UP: Final = "matchday up"
TELEGRAF: Final = "Telegraf"
CONNECT: Final = "Kafka Connect"
BOTH: Final = "Telegraf + Kafka Connect"
BOTH_REGULAR: Final = "Telegraf + Kafka Connect regular"
TWICE: Final = "Telegraf + Telegraf"

TOPIC: Final = str(Topic.ANALYTICS)
MOSQUITTO, KAFKA, MONGO = "Mosquitto", "Kafka", "MongoDB"
DATA: Final = "data"
"""Folder of the embedded parts, in the directory of a run."""


@dataclass(frozen=True)
class Place:
    """Where a system works: servers, and what is its own on them.

    Attributes:
        servers: Kafka, and MongoDB but for the first hop.
        broker: Mosquitto, where one has a part in it.
        port: Where the load is sent to: Mosquitto's, or the one for a port of our own.
        directory: For settings and logs.
        database: Of this run.
        checkout: The other checkout, where one takes part.
        partitions: Of the topics of readings and findings.
        linger_s: Longest that a store's writer waits for more: ours, and peers alike.
    """

    servers: Servers
    broker: Mosquitto | None
    port: int
    directory: Path
    database: str
    checkout: Path | None
    partitions: int
    linger_s: float

    @property
    def fetch_wait_ms(self) -> int:
        """Give how long a peer's fetch waits for more."""
        return round(1000 * self.linger_s)

    @property
    def url(self) -> str:
        """Give MongoDB's address."""
        assert self.servers.mongo is not None
        return self.servers.mongo.url

    @property
    def mqtt(self) -> Mosquitto:
        """Give the broker."""
        assert self.broker is not None
        return self.broker


@dataclass(frozen=True)
class System:
    """One that takes part.

    Attributes:
        name: In tables.
        start: Starts it; gives its processes by name, all killed with the stack.
        source: Where a stored record has its source, a dotted path.
        seq: Where it has its number.
        needs: Names of `peers.install.missing`.
        servers: Which servers have a part in it; the others stand idle.
    """

    name: str
    start: Callable[[ExitStack, Place], dict[str, int]]
    source: str
    seq: str
    needs: tuple[str, ...] = ()
    servers: tuple[str, ...] = (MOSQUITTO, KAFKA, MONGO)

    @property
    def lack(self) -> str | None:
        """Give why it cannot take part; None when it can."""
        lacks = [why for name, why in missing().items() if name in self.needs]
        return "; ".join(lacks) or None


def _ours(
    *commands: tuple[str, ...],
    is_other: bool = False,
    servers: tuple[str, ...] = (MOSQUITTO, KAFKA, MONGO),
    shape: Shape = "timeseries",
) -> Callable[[ExitStack, Place], dict[str, int]]:
    links = {"ingest": "mqtt", "persist": "store", "server": "mqtt", "analysis": "stream"}

    def start(stack: ExitStack, place: Place) -> dict[str, int]:
        settings = {
            "MATCHDAY_DATA_DIR": str(place.directory / DATA),
            "MATCHDAY_MQTT__PORT": str(place.port),
            "MATCHDAY_STREAM__PARTITIONS": str(place.partitions),
            "MATCHDAY_PERSIST__BATCH_LINGER_S": str(place.linger_s),
        }
        if KAFKA in servers:
            settings["MATCHDAY_STREAM__URL"] = place.servers.kafka.url
        if place.broker is not None:
            settings["MATCHDAY_MQTT__URL"] = place.broker.url
        if MONGO in servers and place.servers.mongo is not None:
            settings["MATCHDAY_STORE__URL"] = place.url
            settings["MATCHDAY_STORE__DATABASE"] = place.database
            settings["MATCHDAY_STORE__SHAPE"] = shape
            _prepare(place, shape)
        checkout = place.checkout if is_other else None
        found = {}
        for words in commands:
            one = service(place.directory, settings, *words, checkout=checkout)
            name = words[-1]
            found[name] = stack.enter_context(running(one))
            link = links.get(name, "mqtt")
            wait_until(lambda: one.links().get(link, False), what=f"{name} is connected")  # noqa: B023
        return found

    return start


def _prepare(place: Place, shape: Shape = "timeseries") -> None:
    clock = SystemClock()
    store = MongoStore(place.url, clock=clock, database=place.database, shape=shape)
    with closing(store):
        store.prepare()


def _loops(*roles: str) -> Callable[[ExitStack, Place], dict[str, int]]:
    def start(stack: ExitStack, place: Place) -> dict[str, int]:
        kafka = f"--kafka={place.servers.kafka.bootstrap}"
        found = {}
        for role in roles:
            if role == "ingest":
                words = [f"--mqtt-port={place.mqtt.port}"]
            else:
                words = [f"--mongo={place.url}", f"--database={place.database}"]
                _prepare(place)
            found[role] = stack.enter_context(running(loop(place.directory, role, kafka, *words)))
        return found

    return start


def _telegraf_ingest(stack: ExitStack, place: Place) -> dict[str, int]:
    one = telegraf.mqtt_to_kafka(
        place.directory,
        mqtt_port=place.mqtt.port,
        bootstrap=place.servers.kafka.bootstrap,
        topic=TOPIC,
        broker_log=place.mqtt.process.log_path,
    )
    return {"ingest": stack.enter_context(running(one))}


def _telegraf_persist(layout: str) -> Callable[[ExitStack, Place], dict[str, int]]:
    def start(stack: ExitStack, place: Place) -> dict[str, int]:
        one = telegraf.kafka_to_mongo(
            place.directory,
            bootstrap=place.servers.kafka.bootstrap,
            topic=TOPIC,
            url=place.url,
            database=place.database,
            layout=layout,
            fetch_wait_ms=place.fetch_wait_ms,
        )
        return {"persist": stack.enter_context(running(one))}

    return start


def _connect(
    time_field: str, meta_field: str, *, index: tuple[str, ...] = ()
) -> Callable[[ExitStack, Place], dict[str, int]]:
    """Start the sink: into a time series, or with an index given, into a regular collection."""

    def start(stack: ExitStack, place: Place) -> dict[str, int]:
        if index:
            client: MongoClient[dict[str, Any]] = MongoClient(place.url)
            with client:
                client[place.database]["sensors"].create_index([(name, 1) for name in index])
        one = connect.kafka_to_mongo(
            place.directory,
            bootstrap=place.servers.kafka.bootstrap,
            topic=TOPIC,
            url=place.url,
            database=place.database,
            time_field=time_field,
            meta_field=meta_field,
            fetch_wait_ms=place.fetch_wait_ms,
            is_time_series=not index,
        )
        return {"persist": stack.enter_context(running(one))}

    return start


def _after(
    *starts: Callable[[ExitStack, Place], dict[str, int]],
) -> Callable[[ExitStack, Place], dict[str, int]]:
    def start(stack: ExitStack, place: Place) -> dict[str, int]:
        return {name: pid for one in starts for name, pid in one(stack, place).items()}

    return start


_INGEST, _PERSIST = ("server", "--role", "ingest"), ("server", "--role", "persist")
_STORED = ("metadata.sensor_id", "seq")

LINEUP: Final[Mapping[str, tuple[System, ...]]] = {
    MQTT_TO_KAFKA: (
        System(OURS, _ours(_INGEST), "sensor", "seq"),
        System(OTHER, _ours(_INGEST, is_other=True), "sensor", "seq"),
        System(TELEGRAF, _telegraf_ingest, "tags.sensor", "fields.seq", ("telegraf",)),
        # The loop passes payloads on as they are: the source is in the key alone.
        System(BASELINE, _loops("ingest"), "", "seq"),
    ),
    KAFKA_TO_MONGO: (
        System(OURS, _ours(_PERSIST), *_STORED),
        System(OTHER, _ours(_PERSIST, is_other=True), *_STORED),
        System(
            TELEGRAF,
            _telegraf_persist(telegraf.OF_MATCHDAY),
            "tags.sensor",
            "seq",
            ("telegraf",),
        ),
        System(CONNECT, _connect("ts", "sensor"), "sensor", "seq", ("connect",)),
        System(BASELINE, _loops("persist"), *_STORED),
    ),
    MQTT_TO_MONGO: (
        System(OURS, _ours(("server",)), *_STORED),
        System(OTHER, _ours(("server",), is_other=True), *_STORED),
        System(SPLIT, _ours(_INGEST, _PERSIST), *_STORED),
        System(REGULAR, _ours(_INGEST, _PERSIST, shape="regular"), *_STORED),
        System(
            DIRECT,
            _ours(("server",), servers=(KAFKA, MONGO)),
            *_STORED,
            servers=(KAFKA, MONGO),
        ),
        System(EMBEDDED, _ours(("server",), servers=()), *_STORED, servers=()),
        System(UP, _ours(("up",), servers=()), *_STORED, servers=()),
        System(ANALYSED, _ours(("server",), ("analysis",)), *_STORED),
        System(
            BOTH,
            _after(_telegraf_ingest, _connect("timestamp", "tags")),
            "tags.sensor",
            "fields.seq",
            ("telegraf", "connect"),
        ),
        System(
            BOTH_REGULAR,
            _after(
                _telegraf_ingest,
                _connect("timestamp", "tags", index=("tags.sensor", "timestamp")),
            ),
            "tags.sensor",
            "fields.seq",
            ("telegraf", "connect"),
        ),
        System(
            TWICE,
            _after(_telegraf_ingest, _telegraf_persist(telegraf.OF_TELEGRAF)),
            "tags.tags_sensor",
            "fields_seq",
            ("telegraf",),
        ),
        System(BASELINE, _loops("ingest", "persist"), *_STORED),
    ),
}
