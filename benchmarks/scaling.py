"""How the pipeline scales: processes per role, and CPU by its causes, with a fitted model.

Part one (`processes`) takes each hop with 1, 2 and 4 processes at full rate: ingest by as many
slots, each with its share of the sources; then persist, then analysis, which stood still
meanwhile, drain what was written. Two cores are the same for all, so the rate says how the
cores are shared, and CPU per 100,000 what more processes cost. Part two (`paced`) runs the
whole pipeline at rest and at loads that differ in one thing at a time (rate, tick, partitions,
sources), and fits what every role takes to its causes (`model`). Part three (`sizes`) says
what a message takes on disk and in the network, all hops together.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from confluent_kafka import TopicPartition
from harness import Publisher, Sampler, Servers, cpu_s, running, service
from model import CAUSES, Load, Sizes, fit, needs, predicted
from pymongo import MongoClient
from report import Figure, Sample, figure, machine, progress, report
from warming import SECONDS, warm

from matchday.clock import SystemClock
from matchday.domain.topics import PLANS, Topic
from matchday.observe.logs import configure
from matchday.store.mongo import MongoStore
from matchday.stream.kafka import KafkaStream
from servers.mosquitto import Mosquitto
from servers.process import wait_until
from servers.services import MatchdayService

COUNTS: Final = (1, 2, 4)
SOURCES: Final = 100
SENSORS: Final = (10_000, 1_000_000, 100_000_000)
EVERY_S: Final = (60, 10, 1)
SETTLE_S: Final = 3.0
MARKERS_MAX: Final = 20
GROUP: Final = "matchday-analysis"
WORST: Final = "worst relative error"
ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": ("server", "--role", "ingest"),
    "persist": ("server", "--role", "persist"),
    "analysis": ("analysis",),
}
LINKS: Final = {"ingest": "mqtt", "persist": "store", "analysis": "stream"}
# What differs from two thousand messages a second of a hundred sources, one thing at a time.
PACED: Final = (
    Load(0),
    Load(500),
    Load(2000),
    Load(8000),
    Load(20_000),
    Load(2000, tick_s=0.2),
    Load(2000, partitions=1),
    Load(2000, partitions=16),
    Load(2000, sources=10_000),
    Load(8000, sources=10_000, tick_s=0.2),
)


class Cluster(Servers):
    """Servers whose readings lie in another number of partitions."""

    partitions = PLANS[Topic.ANALYTICS].partitions

    def stream(self) -> KafkaStream:
        """Open the product's stream with that many partitions."""
        wanted = {Topic.ANALYTICS: self.partitions, Topic.RESULTS: self.partitions}
        return KafkaStream(self.kafka.url, clock=SystemClock(), partitions=wanted)

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(str(Topic.ANALYTICS), number) for number in range(self.partitions)]

    def topic_bytes(self) -> int:
        """Give the size of the segments of all partitions of the readings."""
        folders = self.kafka.data_dir.glob(f"{Topic.ANALYTICS}-*")
        return sum(one.stat().st_size for folder in folders for one in folder.glob("*.log"))


@dataclass(frozen=True)
class Crew:
    """The processes of one role, with their ids by name."""

    services: Sequence[MatchdayService]
    pids: dict[str, int]

    def pause(self) -> None:
        """Freeze all, for less than their session time-out."""
        for one in self.services:
            one.pause()

    def resume(self) -> None:
        """Let all go on."""
        for one in self.services:
            one.resume()


@dataclass(frozen=True)
class Site:
    """A fresh broker, fresh topics and a fresh database."""

    cluster: Cluster
    broker: Mosquitto
    directory: Path
    settings: dict[str, str]
    database: str

    @contextmanager
    def processes(self, role: str, count: int) -> Iterator[Crew]:
        """Run so many of a role; each of ingest has a slot of its own."""
        settings = dict(self.settings)
        if role == "ingest" and count > 1:
            rows = [f"slot-{number % count}=matchday/+/+/tag-{number}" for number in range(SOURCES)]
            settings["MATCHDAY_INGEST__SLOTS"] = ",".join(rows)
        services = [service(self.directory, settings, *ROLES[role]) for _ in range(count)]
        with ExitStack() as stack:
            pids = {}
            for number, one in enumerate(services):
                name = role if count == 1 else f"{role} {number + 1}"
                pids[name] = stack.enter_context(running(one))
            for one in services:
                # One that stands by shows no link to the broker, or it is down.
                wait_until(lambda: one.links().get(LINKS[role], False), what=f"{role} is at work")  # noqa: B023
            yield Crew(services, pids)

    @property
    def servers(self) -> dict[str, int]:
        """Give the servers' processes."""
        assert self.cluster.mongo is not None
        return {
            "Mosquitto": self.broker.pid,
            "Kafka": self.cluster.kafka.pid,
            "MongoDB": self.cluster.mongo.pid,
        }

    def analysed(self) -> int:
        """Give how many offsets analysis has committed."""
        return self.cluster.appended() - self.cluster.unread(GROUP)


@contextmanager
def site(cluster: Cluster, load: Load) -> Iterator[Site]:
    """Prepare everything but our processes."""
    assert cluster.mongo is not None
    cluster.partitions = load.partitions
    cluster.reset_topics()
    directory = cluster.fresh_directory()
    database = directory.name
    with closing(MongoStore(cluster.mongo.url, clock=SystemClock(), database=database)) as store:
        store.prepare()
    with Mosquitto(directory) as broker:
        settings = {
            "MATCHDAY_MQTT__URL": broker.url,
            "MATCHDAY_STREAM__URL": cluster.kafka.url,
            "MATCHDAY_STREAM__PARTITIONS": str(load.partitions),
            "MATCHDAY_STREAM__SESSION_TIMEOUT_S": "29",
            "MATCHDAY_STORE__URL": cluster.mongo.url,
            "MATCHDAY_STORE__DATABASE": database,
            "MATCHDAY_INGEST__TICK_S": str(load.tick_s),
            "MATCHDAY_PERSIST__BATCH_LINGER_S": str(load.linger_s),
        }
        yield Site(cluster, broker, directory, settings, database)


# --- processes per role -----------------------------------------------------------------------


def at_full_rate(cluster: Cluster, count: int, messages: int) -> dict[str, Figure]:
    """Take every hop with so many processes; gives figures by role."""
    name = f"{count} {'process' if count == 1 else 'processes'}"
    found = {}
    with site(cluster, Load(0)) as at, ExitStack() as stack:
        drains = {
            "persist": cluster.stored(at.database),
            "analysis": at.analysed,
        }
        crews = {role: stack.enter_context(at.processes(role, count)) for role in drains}
        for crew in crews.values():
            crew.pause()
        with at.processes("ingest", count) as ingest:
            sampler = Sampler({**ingest.pids, **at.servers}, cluster.appended)
            publisher = Publisher(at.broker.port, messages=messages, rate=0.0)
            first = sampler.look()
            publisher.go()
            last = sampler.until(first.done + messages)
            publisher.result()
        # Markers of transactions have offsets too: what was sent is what is counted.
        counted = Sample(last.at_s, first.done + messages, last.cpu)
        found["ingest"] = _summed(figure(name, first, counted), "ingest")
        for role, done in drains.items():
            sampler = Sampler({**crews[role].pids, **at.servers}, done)
            first = sampler.look()
            crews[role].resume()
            last = sampler.until(messages - MARKERS_MAX)
            found[role] = _summed(figure(name, first, last), role)
    return found


def _summed(one: Figure, role: str) -> Figure:
    """Give a figure with the role's processes as one column, and the servers."""
    own = {name: cpu for name, cpu in one.cpu_per_100k.items() if name.startswith(role)}
    servers = {name: cpu for name, cpu in one.cpu_per_100k.items() if name not in own}
    cpu = {"programs": sum(own.values()), **servers}
    return Figure(one.system, one.messages, one.seconds, cpu, {"largest share": max(own.values())})


# --- CPU by its causes ------------------------------------------------------------------------


def at_load(cluster: Cluster, load: Load, seconds: float) -> dict[str, float]:
    """Run everything at one load; give CPU seconds a second by role, and memory in MB."""
    label = label_of(load)
    progress(label)
    with site(cluster, load) as at, ExitStack() as stack:
        pids = dict(at.servers)
        for role in ROLES:
            pids |= stack.enter_context(at.processes(role, 1)).pids
        if load.rate_per_s:
            publisher = Publisher(
                at.broker.port,
                messages=int(load.rate_per_s * (seconds + SETTLE_S + 3.0)),
                rate=load.rate_per_s,
                sources=int(load.sources),
            )
            stack.callback(publisher.kill)
            publisher.go()
        time.sleep(SETTLE_S)
        began_s, lo_before = time.monotonic(), loopback_bytes()
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        passed_s = time.monotonic() - began_s
        used = {name: (cpu_s(pid) - before[name]) / passed_s for name, pid in pids.items()}
        sent_bytes = (loopback_bytes() - lo_before) / passed_s
        memory = {f"MB {name}": resident_mb(pid) for name, pid in pids.items()}
    progress(", ".join(f"{name} {one:.4f}" for name, one in used.items()))
    network = {"network B a message": sent_bytes / load.rate_per_s} if load.rate_per_s else {}
    return {**used, **memory, **network}


def label_of(load: Load) -> str:
    """Name a load by what it is."""
    return (
        f"{load.rate_per_s:g}/s, {load.sources:g} sources, tick {load.tick_s * 1000:g} ms, "
        f"{load.partitions} partitions"
    )


def loopback_bytes() -> int:
    """Give the bytes that went over the loopback since the machine's start (proc_pid_net(5))."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    return 0


def resident_mb(pid: int) -> float:
    """Give the resident set of a process, MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def fitted(taken: Mapping[Load, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Give the coefficients of every role, and the largest relative error among loads."""
    found = {}
    for role, causes in CAUSES.items():
        used = [taken[load][role] for load in taken]
        coefficients = fit(list(taken), used, causes)
        wrong = [
            abs(predicted(coefficients, load) - one) / max(one, 0.01)
            for load, one in zip(taken, used, strict=True)
        ]
        found[role] = {**coefficients, WORST: max(wrong)}
    return found


# --- what a message takes ---------------------------------------------------------------------


def sizes(cluster: Cluster, sources: int, messages: int) -> dict[str, float]:
    """Give bytes a message on disk, in the stream and in the store, at full rate."""
    assert cluster.mongo is not None
    with site(cluster, Load(0)) as at, ExitStack() as stack:
        for role in ("ingest", "persist"):
            stack.enter_context(at.processes(role, 1))
        publisher = Publisher(at.broker.port, messages=messages, rate=0.0, sources=sources)
        publisher.go()
        Sampler({}, cluster.stored(at.database)).until(messages)
        publisher.result()
        client: MongoClient[dict[str, Any]] = MongoClient(cluster.mongo.url)
        with client:
            client.admin.command("fsync")
            told = client[at.database].command("collStats", "sensors")
        return {
            "stream B": cluster.topic_bytes() / messages,
            "store B": told["storageSize"] / messages,
            "store B, indexes": told["totalIndexSize"] / messages,
            "readings a source": messages / sources,
        }


def main() -> None:
    """Take the figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="at full rate")
    parser.add_argument("--seconds", type=float, default=10.0, help="each paced load")
    parser.add_argument("--warm-seconds", type=float, default=SECONDS, help="see warming.py")
    parser.add_argument("--only", default="processes,paced,sizes", help="these parts alone")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    given = parser.parse_args()
    configure(level="warning")
    wanted = given.only.split(",")
    parts: dict[str, list[Figure]] = {}
    machine_is = machine()
    coefficients: dict[str, dict[str, float]] = {}
    with Cluster(mongo=True) as cluster:
        progress("warming the servers up")
        warm(cluster, given.warm_seconds)
        for count in COUNTS if "processes" in wanted else ():
            progress(f"{count} processes a role")
            for role, one in at_full_rate(cluster, count, given.messages).items():
                parts.setdefault(f"{role} at full rate", []).append(one)
        if "paced" in wanted:
            taken = {load: at_load(cluster, load, given.seconds) for load in PACED}
            parts["CPU seconds a second, and resident memory"] = [
                Figure(label_of(load), 0, given.seconds, {}, one) for load, one in taken.items()
            ]
            coefficients = fitted(taken)
        if "sizes" in wanted:
            parts["bytes a message on disk"] = [
                Figure(f"{sources} sources", 0, 1.0, {}, sizes(cluster, sources, given.messages))
                for sources in (SOURCES, 10_000)
            ]
    if coefficients:
        # Microseconds a cause: CPU seconds a second per one of it a second.
        parts["model: microseconds of CPU by cause (rest: of each second)"] = [
            Figure(
                role,
                0,
                1.0,
                {},
                {name: one if name == WORST else 1e6 * one for name, one in row.items()},
            )
            for role, row in coefficients.items()
        ]
        roles = {
            role: {name: one for name, one in row.items() if name != WORST}
            for role, row in coefficients.items()
        }
        parts["deployments by the model"] = [
            Figure(f"{sensors:,} sensors, every {every_s} s", 0, 1.0, {}, one)
            for sensors, every_s in product(SENSORS, EVERY_S)
            for one in (needs(roles, sensors, every_s, Sizes()),)
        ]
    title = "Scaling: 200-byte scalars, sensor -> Mosquitto -> Kafka -> MongoDB, and analysis"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
