"""The product on real servers with a proxy of ours on every connection between them.

Owns where the proxies stand and that nobody finds a way around them: Kafka tells every client
the address it came by, and MongoDB's set knows its member by the proxy's. Troubles are the
proxies' verbs; readings, recovery and verdict are `campaign`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pymongo import MongoClient

from faults.books import ServerBooks
from faults.campaign import SEED
from faults.deployment import BROKER_BOUNDS, QUICK, ROLES, Deployment
from servers.keys import Keys
from servers.mongo import Mongo
from servers.ports import LOOPBACK, free_port, free_ports
from servers.process import wait_until
from servers.proxy import Proxy
from servers.services import MatchdayService

LINKS: Final[Mapping[str, tuple[str, str]]] = {
    "ingest-mosquitto": ("ingest", "mqtt"),
    "ingest-kafka": ("ingest", "stream"),
    "persist-kafka": ("persist", "stream"),
    "persist-mongo": ("persist", "store"),
    "analysis-kafka": ("analysis", "stream"),
}
"""Which process shows which link, by the connection that a proxy stands in."""

SENSORS: Final = "sensors-mosquitto"


@dataclass
class Network:
    """A deployment and the proxies of its connections, by the names in `LINKS`."""

    deployment: Deployment
    proxies: Mapping[str, Proxy]

    def is_shown(self, connection: str, *, is_up: bool) -> bool:
        """Tell whether the process at a connection shows its link so in `/readyz`."""
        role, link = LINKS[connection]
        return self.deployment.processes[role].links().get(link) is is_up


@contextmanager
def on_network(
    folder: Path, *, start: Mapping[str, Callable[..., Any]], keys: Keys | None = None
) -> Iterator[Network]:
    """Run ingest, analysis and persist, each connected through proxies only.

    Args:
        folder: Holds the logs.
        start: The fixtures `fresh_*` by the server's name.
        keys: With them our processes connect to Mosquitto and Kafka by TLS; sensors do not.
    """
    with ExitStack() as stack:
        kafka_port, controller_port, *ports = free_ports(5)
        listeners = dict(zip(("INGEST", "PERSIST", "ANALYSIS"), ports, strict=True))
        proxies = {
            f"{name.lower()}-kafka": stack.enter_context(Proxy(port, seed=SEED))
            for name, port in listeners.items()
        }
        advertised = {name: proxies[f"{name.lower()}-kafka"].port for name in listeners}
        kafka = start["kafka"](
            port=kafka_port,
            controller_port=controller_port,
            settings={
                **BROKER_BOUNDS,
                **_listeners(kafka_port, controller_port, listeners, advertised),
                **_encrypted(listeners, keys),
            },
        )
        broker_port = free_port()
        door = {} if keys is None else keys.of_mosquitto
        mosquitto = start["mosquitto"](settings={"listener": f"{broker_port} {LOOPBACK}", **door})
        mongo = start["mongo"]()
        proxies[SENSORS] = stack.enter_context(Proxy(mosquitto.port, seed=SEED))
        proxies["ingest-mosquitto"] = stack.enter_context(Proxy(broker_port, seed=SEED))
        proxies["persist-mongo"] = stack.enter_context(Proxy(mongo.port, seed=SEED))
        _advertise(mongo, proxies["persist-mongo"].port)
        direct = f"mongodb://{LOOPBACK}:{mongo.port}/?directConnection=true"
        settings = {
            **QUICK,
            "MATCHDAY_STREAM__URL": kafka.url,
            "MATCHDAY_STORE__URL": direct,
            **_at_mosquitto(proxies["ingest-mosquitto"].port, keys),
        }
        secret, trust = ("", "") if keys is None else ("s", f"?ca={quote(str(keys.authority))}")
        through = (
            f"mongodb://{LOOPBACK}:{proxies['persist-mongo'].port}/?replicaSet={mongo.set_name}"
        )
        books = stack.enter_context(ServerBooks(kafka.bootstrap, direct))
        servers = {"mosquitto": mosquitto, "kafka": kafka, "mongo": mongo}
        deployment = Deployment(settings, proxies[SENSORS].port, {}, servers, books, folder)
        stack.callback(deployment.kill)
        for role in ("ingest", "persist", "analysis"):
            stream = f"kafka{secret}://{LOOPBACK}:{proxies[f'{role}-kafka'].port}{trust}"
            own = {**settings, "MATCHDAY_STREAM__URL": stream, "MATCHDAY_STORE__URL": through}
            deployment.processes[role] = MatchdayService(folder, ROLES[role], own)
        deployment.start()
        yield Network(deployment, proxies)


def _at_mosquitto(port: int, keys: Keys | None) -> dict[str, str]:
    """Give the settings by which our processes connect to Mosquitto; with keys by TLS."""
    if keys is None:
        return {"MATCHDAY_MQTT__URL": f"mqtt://{LOOPBACK}:{port}"}
    return {
        "MATCHDAY_MQTT__URL": f"mqtts://{LOOPBACK}:{port}",
        "MATCHDAY_MQTT__CA_FILE": str(keys.authority),
    }


def _listeners(
    port: int, controller_port: int, listeners: Mapping[str, int], advertised: Mapping[str, int]
) -> dict[str, str]:
    """Give a listener for each client, told to come again by its proxy; the broker's is direct."""
    names = ("PLAINTEXT", *listeners)
    bound = {"PLAINTEXT": port, **listeners}
    told = {"PLAINTEXT": port, **advertised}
    places = [f"{name}://{LOOPBACK}:{bound[name]}" for name in names]
    return {
        "listeners": ",".join([*places, f"CONTROLLER://{LOOPBACK}:{controller_port}"]),
        "advertised.listeners": ",".join(f"{name}://{LOOPBACK}:{told[name]}" for name in names),
        "listener.security.protocol.map": ",".join(
            f"{name}:PLAINTEXT" for name in (*names, "CONTROLLER")
        ),
        "inter.broker.listener.name": "PLAINTEXT",
    }


def _encrypted(listeners: Mapping[str, int], keys: Keys | None) -> dict[str, str]:
    """Give what makes our processes' listeners speak TLS, over what `_listeners` gives."""
    if keys is None:
        return {}
    by_name = {
        **dict.fromkeys(("PLAINTEXT", "CONTROLLER"), "PLAINTEXT"),
        **dict.fromkeys(listeners, "SSL"),
    }
    protocols = ",".join(f"{name}:{protocol}" for name, protocol in by_name.items())
    return {"listener.security.protocol.map": protocols, **keys.of_kafka}


def _advertise(mongo: Mongo, port: int) -> None:
    """Let the set's one member be known by another port, at which it is reached as well."""
    with MongoClient[dict[str, Any]](LOOPBACK, mongo.port, directConnection=True) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        config["members"][0]["host"] = f"{LOOPBACK}:{port}"
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
    with MongoClient[dict[str, Any]](
        LOOPBACK, mongo.port, directConnection=True, serverSelectionTimeoutMS=30_000
    ) as client:
        wait_until(
            lambda: bool(client.admin.command("hello")["isWritablePrimary"]),
            what="the member is primary by its other address",
        )
