"""Hop 1, MQTT at QoS 1 -> Kafka with acks=all: messages per second and CPU, beside a paho loop.

Each round runs `matchday server --role ingest` and `baseline.py ingest` one after the other
(the order alternates), each on a fresh Mosquitto and fresh topics: first everything as fast
as the broker acknowledges, then paced. Afterwards `analytics` is read back: `lost` and
`twice` count numbers that are not there, or are there more than once. Once a round Mosquitto
serves the same load, as fast as it can, to its own C client `mosquitto_sub` with a persistent
session at QoS 1 and the same number of messages on their way: `of the C client's rate` is how
near the rate of a system comes to that bound.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness import Publisher, Sampler, Servers, cpu_s, loop, running, service
from report import (
    BASELINE,
    OTHER,
    Figure,
    arguments,
    figure,
    machine,
    progress,
    report,
    systems,
)

from servers.process import wait_until

C_CLIENT = "Mosquitto to its C client"


def run(
    servers: Servers, system: str, *, messages: int, rate_per_s: float, against: Path | None
) -> Figure:
    """Bridge `messages` by one system and give its figure; rate 0 is full rate."""
    servers.reset_topics()
    directory = servers.fresh_directory()
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        if system != BASELINE:
            settings = {
                "MATCHDAY_MQTT__URL": broker.url,
                "MATCHDAY_STREAM__URL": servers.kafka.url,
            }
            checkout = against if system == OTHER else None
            words = ("server", "--role", "ingest")
            ours = service(directory, settings, *words, checkout=checkout)
            pid = stack.enter_context(running(ours))
            wait_until(lambda: ours.links().get("mqtt", False), what="ingest takes messages")
        else:
            words = ("ingest", f"--mqtt-port={broker.port}", f"--kafka={servers.kafka.bootstrap}")
            pid = stack.enter_context(running(loop(directory, *words)))
        publisher = Publisher(broker.port, messages=messages, rate=rate_per_s)
        stack.callback(publisher.kill)
        pids = {"itself": pid, "Mosquitto": broker.pid, "Kafka": servers.kafka.pid}
        sampler = Sampler(pids, servers.appended)
        first = sampler.look()
        publisher.go()
        last = sampler.until(messages)
        # Markers of transactions have offsets too: what was sent is what is counted.
        found = servers.committed_keys()
        notes = {
            "lost": float(messages - len(set(found))),
            "twice": float(len(found) - len(set(found))),
        }
        counted = type(last)(last.at_s, first.done + messages, last.cpu)
        return figure(system, first, counted, **notes)


def serve_c_client(servers: Servers, program: str, *, messages: int) -> Figure:
    """Let Mosquitto serve a C client, which prints nothing; give the figure of that."""
    name = "bench-c-client"
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        version = ("-V", "mqttv5", "-x", "4294967295", "-D", "connect", "receive-maximum", "2000")
        words = [program, "-h", "127.0.0.1", "-p", str(broker.port), "-i", name, "-c", "-q", "1"]
        words += ["-t", "#", *version]
        subprocess.run([*words, "-E"], check=True, stdout=subprocess.DEVNULL)
        publisher = Publisher(broker.port, messages=messages, rate=0)
        stack.callback(publisher.kill)
        client = subprocess.Popen([*words, "-C", str(messages)], stdout=subprocess.DEVNULL)
        stack.callback(client.kill)
        log = broker.process.log_path
        wait_until(
            lambda: log.read_text(errors="replace").count(f"as {name} ") == 2,
            what="the C client is connected",
        )
        before_s, began_s = cpu_s(broker.pid), time.monotonic()
        publisher.go()
        # Its own account: the file in /proc is gone with the process.
        _, status, used = os.wait4(client.pid, 0)
        seconds = time.monotonic() - began_s
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode:
            raise SystemExit(f"benchmark: mosquitto_sub ended with {client.returncode}")
        cpu = {
            "itself": (used.ru_utime + used.ru_stime) * 1e5 / messages,
            "Mosquitto": (cpu_s(broker.pid) - before_s) * 1e5 / messages,
        }
    return Figure(C_CLIENT, messages, seconds, cpu)


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, messages=200_000, paced_rate=2000, paced_messages=40_000)
    machine_is = machine()
    full: list[Figure] = []
    paced: list[Figure] = []
    c_client = shutil.which("mosquitto_sub")
    if c_client is None:
        progress("no mosquitto_sub (package mosquitto-clients): the C client is left out")
    with Servers(mongo=False) as servers:
        progress("warming Kafka up")
        for system in systems(given):
            run(servers, system, messages=50_000, rate_per_s=0, against=given.against)
        for number in range(given.rounds):
            bound_per_s = 0.0
            if c_client:
                progress(f"round {number + 1}: {C_CLIENT}")
                full.append(serve_c_client(servers, c_client, messages=given.messages))
                bound_per_s = full[-1].per_s
            for system in systems(given, round_number=number):
                progress(f"round {number + 1}: {system} at full rate")
                options = {"messages": given.messages, "rate_per_s": 0}
                one = run(servers, system, **options, against=given.against)
                share = {"of the C client's rate": one.per_s / bound_per_s} if bound_per_s else {}
                full.append(replace(one, notes={**one.notes, **share}))
            for system in systems(given, round_number=number) if given.paced_messages else ():
                progress(f"round {number + 1}: {system} at {given.paced_rate}/s")
                options = {"messages": given.paced_messages, "rate_per_s": given.paced_rate}
                paced.append(run(servers, system, **options, against=given.against))
    parts = {f"full rate, {given.messages:,} messages (CPU: seconds per 100,000)": full}
    if paced:
        parts[f"{given.paced_rate:,} messages/s, {given.paced_messages:,} messages"] = paced
    title = "Hop 1: MQTT QoS 1 -> Kafka acks=all, 200-byte scalars of 100 sources"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
