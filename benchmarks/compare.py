"""The same job by other programs, in one run, in alternation: CPU, rate, lost and twice.

Three jobs: MQTT at QoS 1 -> Kafka with acks=all (`hop1`), Kafka -> MongoDB time series (`hop2`),
and both (`whole`). Who takes part and with which settings is in `peers/`; what is not installed
is left out and named (`python benchmarks/peers/install.py` gets it). The servers are warmed up
first (`warming`). Each system starts on fresh topics, a fresh broker and a fresh database, first
handles `--warm-messages` that are not counted (a JVM needs that), at four times the paced rate,
and then, as the same processes, the paced part and the part at full rate. `--partitions` and
`--linger-s` take several values each, separated by commas: every system is then taken with each
pair of them, one after the other. The linger is ours and the peers' alike, of their fetches.

CPU is user and system time of `/proc/PID/stat` per 100,000 messages. *programs* are the system's
own processes, *together* is those and all servers, and *machine* is what `/proc/stat` says that
the whole machine was busy, less the load and this program: a check that nothing is forgotten.
Servers that a system does without stand idle meanwhile, and are in *machine* alone.
*behind* is how old the oldest reading is that is sent and not stored, in the paced part, looked
at every 0.25 s after the first 3 s. Lost and twice come from reading everything back by number.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path

from harness import TICKS_PER_S, Publisher, Sampler
from hop2 import fill
from peers.counting import Arrivals, through
from peers.install import versions
from peers.lineup import (
    KAFKA,
    KAFKA_TO_MONGO,
    LINEUP,
    MONGO,
    MOSQUITTO,
    MQTT_TO_KAFKA,
    Place,
    System,
)
from report import (
    BASELINE,
    OTHER,
    Figure,
    Sample,
    arguments,
    figure,
    machine,
    progress,
    report,
)
from scaling import Cluster
from warming import SECONDS, warm

from matchday.config import load
from servers.mosquitto import Mosquitto
from servers.ports import free_port

SOURCES = 100
SETTLE_S = 3.0
PACED_LOOK_S = 0.25
WARM_TIMES = 4
# A time series' buckets grow dearer until they hold 1,000 measurements of a source. So many
# messages leave them at 300, and the paced part takes them to 700: the mean of all.
WARM_MESSAGES = 130_000
MACHINE, HERE = "machine", "here"
# As many in flight as ours asks for by itself (MQTT 5); who speaks MQTT 3 depends on this.
BROKER = {"max_inflight_messages": "2000", "log_type": "subscribe"}


class MachineSampler(Sampler):
    """A sampler that also notes how busy the whole machine was, and this program."""

    def until_sent(self, ends_s: float) -> None:
        """Sample rarely until that monotonic second: what is asked costs the servers, too."""
        while (left_s := ends_s - time.monotonic()) > 0:
            time.sleep(min(PACED_LOOK_S, left_s))
            self.look()

    def look(self) -> Sample:
        """Take a sample now."""
        one = super().look()
        cpu = {**one.cpu, MACHINE: busy_s(), HERE: time.process_time()}
        self.samples[-1] = Sample(one.at_s, one.done, cpu)
        return self.samples[-1]


def busy_s() -> float:
    """Give the seconds that all processors together were not idle (proc(5), /proc/stat)."""
    fields = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft_irq = map(int, fields[:7])
    return (user + nice + system + irq + soft_irq) / TICKS_PER_S


def whole_figure(
    name: str, first: Sample, last: Sample, *, load_cpu_s: float, notes: Mapping[str, float]
) -> Figure:
    """Make the figure of a phase: programs, servers, together, and the machine's own account."""
    raw = figure(name, first, last).cpu_per_100k
    servers = {one: raw[one] for one in (MOSQUITTO, KAFKA, MONGO) if one in raw}
    programs = {one: raw[one] for one in raw if one not in servers and one not in (MACHINE, HERE)}
    load = load_cpu_s * 1e5 / (last.done - first.done)
    cpu = {
        **(programs if len(programs) > 1 else {}),
        "programs": sum(programs.values()),
        **servers,
        "together": sum(programs.values()) + sum(servers.values()),
        MACHINE: raw[MACHINE] - raw[HERE] - load,
    }
    return Figure(name, last.done - first.done, last.at_s - first.at_s, cpu, notes)


def behind_ms(
    samples: list[Sample], *, began_s: float, rate_per_s: float, messages: int
) -> dict[str, float]:
    """Give how far the store was behind the load, from looks at a paced phase."""
    first, ages_ms = samples[0], []
    for one in samples:
        sent = (one.at_s - began_s) * rate_per_s
        if SETTLE_S * rate_per_s < sent < messages:
            ages_ms.append(1000 * (sent - (one.done - first.done)) / rate_per_s)
    ages_ms.sort()
    if not ages_ms:
        return {}
    return {
        "behind p50 ms": max(0.0, ages_ms[len(ages_ms) // 2]),
        "behind p99 ms": max(0.0, ages_ms[len(ages_ms) * 99 // 100]),
    }


class Run:
    """One system at one job: started, warmed, measured, counted."""

    def __init__(self, stack: ExitStack, job: str, system: System, place: Place) -> None:
        self._job, self._system, self._place = job, system, place
        self._seq_next = 1
        self._taken: list[tuple[Callable[[dict[str, float]], Figure], int, int, int]] = []
        self.pids = system.start(stack, place)
        if place.broker is not None:
            self.pids[MOSQUITTO] = place.broker.pid
        if KAFKA in system.servers:
            self.pids[KAFKA] = place.servers.kafka.pid
        if MONGO in system.servers and place.servers.mongo is not None:
            self.pids[MONGO] = place.servers.mongo.pid
        self._done = through(place, job, system)

    def publish(self, messages: int, *, rate_per_s: float, is_counted: bool = True) -> None:
        """Send so many readings and wait until all are through; rate 0 is full rate."""
        seq_first = self._seq_next
        self._seq_next += -(-messages // SOURCES)
        sampler = MachineSampler(self.pids, self._done)
        publisher = Publisher(
            self._place.port, messages=messages, rate=rate_per_s, seq_first=seq_first
        )
        try:
            first = sampler.look()
            began_s = time.monotonic()
            publisher.go()
            if rate_per_s:
                sampler.until_sent(began_s + messages / rate_per_s)
            last = sampler.until(first.done + messages)
            load_cpu_s = publisher.result()["cpu_s"]
        finally:
            publisher.kill()
        if not is_counted:
            return
        notes = {}
        if rate_per_s and self._job != MQTT_TO_KAFKA:
            notes = behind_ms(
                sampler.samples, began_s=began_s, rate_per_s=rate_per_s, messages=messages
            )
        # Markers of transactions have offsets too: what was sent is what is counted.
        counted = Sample(last.at_s, first.done + messages, last.cpu)

        def finish(found: dict[str, float]) -> Figure:
            return whole_figure(
                self._system.name,
                Sample(began_s, first.done, first.cpu),
                counted,
                load_cpu_s=load_cpu_s,
                notes={**notes, **found},
            )

        self._taken.append((finish, seq_first, self._seq_next, messages))

    def drain(self, messages: int, *, warm: int) -> None:
        """Store what is in the stream; the first `warm` are not in the figure."""
        sampler = MachineSampler(self.pids, self._done)
        sampler.look()
        last = sampler.until(messages + warm)
        first = sampler.first_above(warm)

        def finish(found: dict[str, float]) -> Figure:
            return whole_figure(self._system.name, first, last, load_cpu_s=0.0, notes=found)

        self._taken.append((finish, 1, 1 + -(-(messages + warm) // SOURCES), messages + warm))

    def figures(self) -> list[Figure]:
        """Read everything back and give the figures in the order taken."""
        arrivals = Arrivals(self._place, self._job, self._system)
        return [
            finish(arrivals.notes(seq_first, seq_end, sent))
            for finish, seq_first, seq_end, sent in self._taken
        ]


def run(
    servers: Cluster, job: str, system: System, given: Namespace, *, linger_s: float
) -> list[Figure]:
    """Take one system through a job; gives the paced figure, if any, and that at full rate."""
    directory = servers.fresh_directory()
    if job != KAFKA_TO_MONGO:
        servers.reset_topics()
    with ExitStack() as stack:
        broker = None
        if job != KAFKA_TO_MONGO and MOSQUITTO in system.servers:
            broker = stack.enter_context(Mosquitto(directory, BROKER))
        port = broker.port if broker is not None else free_port()
        place = Place(
            servers=servers,
            broker=broker,
            port=port,
            directory=directory,
            database=f"run-{directory.name}",
            checkout=given.against,
            partitions=servers.partitions,
            linger_s=linger_s,
        )
        one = Run(stack, job, system, place)
        if job == KAFKA_TO_MONGO:
            one.drain(given.messages, warm=given.warm_messages)
        else:
            warm_rate = WARM_TIMES * given.paced_rate
            one.publish(given.warm_messages, rate_per_s=warm_rate, is_counted=False)
            if given.paced_messages:
                one.publish(given.paced_messages, rate_per_s=given.paced_rate)
            one.publish(given.messages, rate_per_s=0)
        return one.figures()


def lineup(job: str, given: Namespace, *, round_number: int) -> list[System]:
    """Give who takes part in a round; odd rounds go the other way round."""
    wanted = [one.strip() for one in given.systems.split(",") if one.strip()]
    found = []
    for one in LINEUP[job]:
        if wanted and one.name not in wanted:
            continue
        if (one.name == OTHER and given.against is None) or (one.name == BASELINE and given.alone):
            continue
        if one.lack is not None:
            if round_number == 0:
                progress(f"{job}: {one.name} is left out: {one.lack}")
            continue
        found.append(one)
    return found[::-1] if round_number % 2 else found


def settings(given: Namespace, *, round_number: int) -> list[tuple[int, float]]:
    """Give the pairs of partitions and linger of a round; odd rounds go the other way round."""
    counts = [int(one) for one in given.partitions.split(",")]
    lingers_s = [float(one) for one in given.linger_s.split(",")]
    found = list(product(counts, lingers_s))
    return found[::-1] if round_number % 2 else found


def take(
    servers: Cluster, job: str, given: Namespace, *, round_number: int
) -> Iterator[list[Figure]]:
    """Take every system of a round with every pair of settings; gives the figures of each."""
    pairs = settings(given, round_number=round_number)
    for servers.partitions, linger_s in pairs:
        of = f", {servers.partitions} partitions, {1000 * linger_s:g} ms" if len(pairs) > 1 else ""
        if job == KAFKA_TO_MONGO:
            servers.reset_topics()
            progress(f"{job}, round {round_number + 1}: filling the stream")
            fill(servers, given.messages + given.warm_messages)
        for system in lineup(job, given, round_number=round_number):
            progress(f"{job}, round {round_number + 1}: {system.name}{of}")
            taken = run(servers, job, system, given, linger_s=linger_s)
            yield [replace(one, system=f"{one.system}{of}") for one in taken]


def compare(job: str, given: Namespace) -> dict[str, list[Figure]]:
    """Take all rounds of one job; gives its parts."""
    full: list[Figure] = []
    paced: list[Figure] = []
    with Cluster(mongo=job != MQTT_TO_KAFKA) as servers:
        progress(f"{job}: warming the servers up")
        warm(servers, given.warm_seconds)
        for number in range(given.rounds):
            for taken in take(servers, job, given, round_number=number):
                for one in taken:
                    told = ", ".join(f"{name} {value:.2f}" for name, value in one.row().items())
                    progress(f"{one.system}: {told}")
                paced += taken[:-1]
                full += taken[-1:]
    titles = {MQTT_TO_KAFKA: "MQTT -> Kafka", KAFKA_TO_MONGO: "Kafka -> MongoDB"}
    title = titles.get(job, "MQTT -> Kafka -> MongoDB")
    parts = {f"{title}, full rate, {given.messages:,} messages": full}
    if paced:
        parts[f"{title}, {given.paced_rate:,}/s, {given.paced_messages:,} messages"] = paced
    return parts


def absent(jobs: list[str]) -> dict[str, str]:
    """Give the systems that are left out, with the reason."""
    return {one.name: one.lack for job in jobs for one in LINEUP[job] if one.lack is not None}


def main() -> None:
    """Take the figures and print them."""
    ours = load().settings
    given = arguments(
        __doc__,
        messages=200_000,
        warm_messages=WARM_MESSAGES,
        warm_seconds=SECONDS,
        paced_rate=2000,
        paced_messages=40_000,
        only=",".join(LINEUP),
        systems="",
        partitions=str(ours.stream.partitions),
        linger_s=str(ours.persist.batch_linger_s),
    )
    jobs = [job for job in LINEUP if job in given.only.split(",")]
    machine_is = {**machine(), "peers": versions()}
    if left_out := absent(jobs):
        machine_is["absent"] = "; ".join(f"{name}: {why}" for name, why in left_out.items())
    parts: dict[str, list[Figure]] = {}
    for job in jobs:
        parts |= compare(job, given)
    title = "Side by side, 200-byte scalars of 100 sources (CPU: seconds per 100,000 messages)"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
