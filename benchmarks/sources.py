"""What the number of sources costs ingest: CPU per message and memory.

For each number of sources `matchday server --role ingest` runs on a fresh Mosquitto and fresh
topics. First every source is heard so often that there are as many messages as sources, or
`PRIME_MIN` if that is more; then the same number of messages is measured at full rate for
each, spread over the sources in turn. `bytes/source` is how much the process has grown in
the first part beyond what it had grown with one source, by source; the first part is encoded
as it is sent, so that a million of messages need no memory of their own.

A second part takes our own code alone (`steps_sources.py`), in the same unit, with the floor:
a bare dictionary of as many sources. `--sources-min` and `--sources-max` take a piece of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import Publisher, Sampler, Servers, running, service
from report import OTHER, OURS, Figure, arguments, figure, machine, progress, report, systems
from steps_sources import PRIME_MIN, SOURCE_COUNTS, of_checkout

from servers.process import wait_until

PRIME_RATE_PER_S = 200_000
"""More than anything takes: so the load is encoded while it is sent, and sent at full rate."""


def resident_bytes(pid: int) -> int:
    """Give the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def run(
    servers: Servers, system: str, *, sources: int, messages: int, against: Path | None
) -> tuple[Figure, int]:
    """Bridge messages of so many sources; give the figure and the growth by the sources."""
    servers.reset_topics()
    directory = servers.fresh_directory()
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        settings = {"MATCHDAY_MQTT__URL": broker.url, "MATCHDAY_STREAM__URL": servers.kafka.url}
        checkout = against if system == OTHER else None
        ours = service(directory, settings, "server", "--role", "ingest", checkout=checkout)
        pid = stack.enter_context(running(ours))
        wait_until(lambda: ours.links().get("mqtt", False), what="ingest takes messages")
        pids = {"itself": pid, "Mosquitto": broker.pid, "Kafka": servers.kafka.pid}
        sampler = Sampler(pids, servers.appended)
        before_bytes = resident_bytes(pid)
        each = max(1, PRIME_MIN // sources)
        prime = Publisher(
            broker.port, messages=each * sources, rate=PRIME_RATE_PER_S, sources=sources
        )
        stack.callback(prime.kill)
        prime.go()
        sampler.until(each * sources)
        grown_bytes = resident_bytes(pid) - before_bytes
        publisher = Publisher(
            broker.port, messages=messages, rate=0, sources=sources, seq_first=each + 1
        )
        stack.callback(publisher.kill)
        first = sampler.look()
        publisher.go()
        last = sampler.until(first.done + messages)
        notes = {"RSS MiB": resident_bytes(pid) / 2**20}
        counted = type(last)(last.at_s, first.done + messages, last.cpu)
        return figure(f"{system}, {sources:,}", first, counted, **notes), grown_bytes


def alone(system: str, sources: int, against: Path | None) -> Figure:
    """Give what our own code costs, by step, in CPU seconds per 100,000 messages."""
    found = of_checkout(sources, against if system == OTHER else None)
    each_bytes = found.pop("bytes/source", None)
    notes = {} if each_bytes is None else {"bytes/source": each_bytes}
    steps = {name: cost_us / 10 for name, cost_us in found.items()}
    return told(Figure(f"{system}, {sources:,}", 0, 0.0, steps, notes))


def told(one: Figure) -> Figure:
    """Say a figure at once: the table comes at the end of some minutes."""
    columns = ", ".join(f"{name} {value:,.2f}" for name, value in one.row().items())
    progress(f"{one.system}: {columns}")
    return one


def bridged(servers: Servers, system: str, counts: Sequence[int], **given: Any) -> list[Figure]:
    """Give the figures of one system on real servers, by number of sources."""
    figures: list[Figure] = []
    one_bytes = 0
    for sources in counts:
        progress(f"{system} with {sources:,} sources")
        one, grown_bytes = run(servers, system, sources=sources, **given)
        one_bytes = one_bytes or grown_bytes
        if sources >= PRIME_MIN:
            per_source = (grown_bytes - one_bytes) / sources
            one = replace(one, notes={**one.notes, "bytes/source": per_source})
        figures.append(told(one))
    return figures


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, messages=200_000, sources_min=1, sources_max=1_000_000)
    machine_is = machine()
    wanted = [one for one in SOURCE_COUNTS if given.sources_min <= one <= given.sources_max]
    both = [OURS] if given.against is None else [OURS, OTHER]
    progress("our own code, without servers")
    ours = [alone(system, sources, given.against) for sources in wanted for system in both]
    figures: list[Figure] = []
    with Servers(mongo=False) as servers:
        progress("warming Kafka up")
        run(servers, OURS, sources=1000, messages=100_000, against=given.against)
        for number in range(given.rounds):
            for system in (one for one in systems(given, round_number=number) if one in both):
                progress(f"round {number + 1}")
                # One source comes first: its growth is what everybody costs once.
                counts = wanted if 1 in wanted else [1, *wanted]
                figures += bridged(
                    servers, system, counts, messages=given.messages, against=given.against
                )
    parts = {
        f"{given.messages:,} messages at full rate, by number of sources": figures,
        "our own code alone, CPU s per 100,000 messages": ours,
    }
    report("Sources known to ingest", machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
