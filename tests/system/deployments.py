"""The two ways to run the product, behind the same few verbs, for tests that compare them.

Owns starting and ending our processes and their servers, reading their stores from outside,
and knowing when everything sent has come through. Does not own what is sent or expected.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchday.domain.instants import iso_from_ms
from matchday.store.embedded_query import EmbeddedQuery
from servers.ports import free_port
from servers.process import Server, wait_until
from servers.services import MatchdayService, ask, environment

if TYPE_CHECKING:
    from paho.mqtt.client import Client

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DATABASE = "server"

END_SOURCE = "end-of-test"
END_T_MS = 1_700_000_000_000
END_SPAN_MS = 3_600_000

Document = dict[str, Any]


@dataclass
class Deployment:
    """The product, running, with sensors connecting to `mqtt_port`.

    Attributes:
        settings: Environment of every one of its processes.
        services: Its processes by role, in the order the data flows.
        mqtt_port: Of the broker, or of our own endpoint.
        read: Gives all documents of a collection, beside running processes or without.
    """

    settings: Mapping[str, str]
    services: Mapping[str, MatchdayService]
    mqtt_port: int
    read: Callable[[str], list[Document]] = field(repr=False)

    def start(self) -> None:
        """Start its processes and return when messages are taken."""
        for service in self.services.values():
            service.start()
        wait_until(self._takes_messages, what="messages are taken", timeout_s=60)

    def stop(self) -> None:
        """End its processes cleanly, in the order the data flows."""
        for name, service in self.services.items():
            assert service.stop(), f"{name} had to be killed: {service.log()[-2000:]}"

    def kill(self) -> None:
        """End its processes at once; no-op for those that ended."""
        for service in self.services.values():
            service.kill()

    def replay(self, recording: Path, *options: str) -> None:
        """Replay a recording as fast as it goes, with its own times, until acknowledged."""
        arguments = ["sensor", "replay", str(recording), "--speed", "max", "--start", "recorded"]
        done = subprocess.run(
            environment(self.settings, [*arguments, *options]),
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def settled_account(self, received: int) -> dict[str, Any]:
        """Give the account once so many messages have come in and nothing is pending."""
        account: dict[str, Any] = {}

        def is_settled() -> bool:
            account.update(ask(self.settings, "ledger"))
            totals = account["totals"]
            return bool(totals["received"] >= received and totals["pending"] == 0)

        wait_until(is_settled, what=f"{received} messages are settled", timeout_s=90)
        return account

    def finish(self, venue: str) -> dict[str, Any]:
        """Stop once every reading and every finding of the venue is stored; give the account.

        Two last counts, an hour apart, complete a window of a zone of their own. Records of
        one key keep their order through stream, analysis and persist, so whatever was found
        before is stored before, at the latest with the same batch, which a clean stop ends.
        """
        with mqtt_client(self.mqtt_port, "end") as client:
            for seq in range(2):
                payload = {
                    "zone": END_SOURCE,
                    "occupancy": 1,
                    "seq": seq,
                    "t": iso_from_ms(END_T_MS + seq * END_SPAN_MS),
                }
                topic = f"matchday/{venue}/count/{END_SOURCE}"
                client.publish(topic, json.dumps(payload), qos=1).wait_for_publish(30)
        wait_until(
            lambda: any(is_of_the_end(one) for one in self.read("crowd_metrics")),
            what="the last finding is stored",
            timeout_s=60,
        )
        account = self.settled_account(received=0)
        self.stop()
        return account

    def compared(self, collection: str) -> Counter[str]:
        """Count equal documents, leaving out what differs from run to run.

        That is the place in the stream (`_id`) and the session, which names the run's start.
        """
        documents = [one for one in self.read(collection) if not is_of_the_end(one)]
        return Counter(comparable(one) for one in documents)

    def _takes_messages(self) -> bool:
        return any(service.links().get("mqtt", False) for service in self.services.values())


@contextmanager
def embedded(folder: Path, settings: Mapping[str, str]) -> Iterator[Deployment]:
    """Run `matchday up` on a data folder of its own below `folder`."""
    port, data = free_port(), folder / "data"
    settings = {
        **settings,
        "MATCHDAY_DATA_DIR": str(data),
        "MATCHDAY_MQTT__PORT": str(port),
    }

    def read(collection: str) -> list[Document]:
        query = EmbeddedQuery(data)
        try:
            return query.newest(collection, limit=1_000_000)
        finally:
            query.close()

    services = {"up": MatchdayService(folder, ("up",), settings)}
    yield from _running(Deployment(settings, services, port, read))


@contextmanager
def real(
    folder: Path,
    settings: Mapping[str, str],
    *,
    need_server: Callable[[str], None],
    servers_dir: Callable[[str], Path],
) -> Iterator[Deployment]:
    """Run `matchday server` and `matchday analysis` on Mosquitto, Kafka and MongoDB.

    The servers are this deployment's own, since topics and database have fixed names; their
    data is removed with them.
    """
    for name in ("mosquitto", "kafka", "mongo"):
        need_server(name)
    from pymongo import MongoClient

    from servers.kafka import Kafka
    from servers.mongo import Mongo
    from servers.mosquitto import Mosquitto

    mosquitto = Mosquitto(servers_dir("mosquitto"))
    kafka, mongo = Kafka(servers_dir("kafka")), Mongo(servers_dir("mongo"))
    settings = {
        **settings,
        "MATCHDAY_MQTT__URL": mosquitto.url,
        "MATCHDAY_STREAM__URL": kafka.url,
        "MATCHDAY_STORE__URL": mongo.url,
    }

    def read(collection: str) -> list[Document]:
        with MongoClient[Document](mongo.url, tz_aware=True) as client:
            return list(client[DATABASE][collection].find())

    services = {
        "server": MatchdayService(folder, ("server",), settings),
        "analysis": MatchdayService(folder, ("analysis",), settings),
    }
    with ExitStack() as stack:
        for server in (mosquitto, kafka, mongo):
            stack.callback(_remove, server)
            server.start()
        yield from _running(Deployment(settings, services, mosquitto.port, read))


@contextmanager
def mqtt_client(port: int, client_id: str) -> Iterator[Client]:
    """Give a connected MQTT 3.1.1 client, as most sensors have."""
    from paho.mqtt.client import Client, MQTTv311
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv311)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def comparable(document: Document) -> str:
    """Spell a document, without its place in the stream and its session, in one way only."""
    kept = {name: value for name, value in document.items() if name != "_id"}
    kept["metadata"] = {
        name: value for name, value in document["metadata"].items() if name != "session"
    }
    return json.dumps(kept, sort_keys=True, default=datetime.isoformat)


def is_of_the_end(document: Document) -> bool:
    """Tell whether it comes from the counts that `Deployment.finish` sends."""
    return bool(document["metadata"]["sensor_id"] == END_SOURCE)


def _running(deployment: Deployment) -> Iterator[Deployment]:
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.kill()


def _remove(server: Server) -> None:
    server.kill()
    shutil.rmtree(server.data_dir, ignore_errors=True)
