"""What the number of sources costs ingest: CPU per message, memory, and the ledger's sweeps.

For each number of sources `matchday server --role ingest` runs on a fresh Mosquitto and fresh
topics. First every source is heard so often that there are as many messages as sources, or
`PRIME_MIN` if that is more; then the same number of messages is measured at full rate for
each, spread over the sources in turn. `bytes/source` is how much the process has grown in
the first part beyond what it had grown with one source, by source.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness import Publisher, Sampler, Servers, running, service
from report import OTHER, OURS, Figure, arguments, figure, machine, progress, report, systems

from servers.process import wait_until

SOURCE_COUNTS = (1, 1_000, 100_000, 1_000_000)
PRIME_MIN = 100_000


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
        sampler = Sampler({"itself": pid, "Kafka": servers.kafka.pid}, servers.appended)
        before_bytes = resident_bytes(pid)
        each = max(1, PRIME_MIN // sources)
        prime = Publisher(broker.port, messages=each * sources, rate=0, sources=sources)
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


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, messages=200_000, sources_max=1_000_000)
    machine_is = machine()
    figures: list[Figure] = []
    with Servers(mongo=False) as servers:
        progress("warming Kafka up")
        run(servers, OURS, sources=1000, messages=100_000, against=given.against)
        for number in range(given.rounds):
            for system in systems(given, round_number=number):
                if system not in (OURS, OTHER):
                    continue
                one_bytes = 0
                for sources in SOURCE_COUNTS:
                    if sources > given.sources_max:
                        continue
                    progress(f"round {number + 1}: {system} with {sources:,} sources")
                    one, grown_bytes = run(
                        servers,
                        system,
                        sources=sources,
                        messages=given.messages,
                        against=given.against,
                    )
                    one_bytes = one_bytes or grown_bytes
                    if sources >= PRIME_MIN:
                        per_source = (grown_bytes - one_bytes) / sources
                        one = replace(one, notes={**one.notes, "bytes/source": per_source})
                    figures.append(one)
    parts = {f"{given.messages:,} messages at full rate, by number of sources": figures}
    report("Sources known to ingest", machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
