"""At rest: what each service costs when nothing, or next to nothing, comes, and how soon it is up.

Runs `server`, `analysis`, `dashboard` and one `sensor` as processes of their own on real
servers, in four parts: no message at all; the sensor's one message a second; the same with
a page open in a browser; and each server gone for some seconds and back. CPU is the time
on a processor of all threads of a process, from the scheduler's own account in nanoseconds.
Wake-ups are its voluntary context switches. Memory is what is resident, and the share that
is the process's own (PSS), at the end of a part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT, Servers
from report import machine, progress

from browser.conftest import FLAGS, find_chromium, missing_browser
from servers.mosquitto import Mosquitto
from servers.process import Server, wait_until
from servers.services import MatchdayService

READY_S_MAX = 60.0
SETTLE_S = 15.0
OUTAGE_S = 15.0
SILENT_HZ = 0.0001
FILES = ("--venue", str(ROOT / "examples" / "venues" / "oval.toml"))
MODEL = ROOT / "examples" / "models" / "yosemite.json"

Row = dict[str, float | str]


@dataclass(frozen=True)
class Use:
    """What a process has used up to now: seconds on a processor, and wake-ups."""

    cpu_s: float
    wakeups: int
    threads: Mapping[str, float]


def use_of(pid: int) -> Use:
    """Read the account of all threads of a process; ended threads are no longer in it."""
    wakeups, threads = 0, {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            ran_ns = int((task / "schedstat").read_text(encoding="ascii").split()[0])
            status = (task / "status").read_text(encoding="utf-8")
            name = (task / "comm").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        wakeups += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        threads[f"{name}/{task.name}"] = ran_ns / 1e9
    # Of the whole process, ended threads included, but in ticks of 10 ms.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks_s = (int(fields[11]) + int(fields[12])) / 100
    return Use(max(sum(threads.values()), ticks_s), wakeups, threads)


def memory_mb(pid: int) -> tuple[float, float]:
    """Give the resident memory of a process and its proportional share, megabytes (10^6)."""
    kb = dict.fromkeys(("Rss:", "Pss:"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, number = line.split()[:2]
        if name in kb:
            kb[name] = int(number)
    return kb["Rss:"] * 1024 / 1e6, kb["Pss:"] * 1024 / 1e6


class System:
    """Our four services on running servers."""

    def __init__(self, servers: Servers, broker: Mosquitto, *, sensor_hz: float) -> None:
        assert servers.mongo is not None
        directory = servers.fresh_directory()
        settings = {
            "MATCHDAY_MQTT__URL": broker.url,
            "MATCHDAY_STREAM__URL": servers.kafka.url,
            "MATCHDAY_STORE__URL": servers.mongo.url,
            "MATCHDAY_STORE__DATABASE": directory.name,
            "MATCHDAY_ANALYSIS__MODEL_PATH": str(MODEL),
            "MATCHDAY_VENUE__FILES": FILES[1],
            "MATCHDAY_SENSOR__STATE_DIR": str(directory / "sensor"),
            "MATCHDAY_LOG__LEVEL": "warning",
        }
        simulate = ("sensor", "simulate", "--rate", str(sensor_hz), *FILES)
        commands = (("server",), ("analysis",), ("dashboard",), simulate)
        self.services = {
            words[0]: MatchdayService(directory, words, settings) for words in commands
        }

    def ready_s(self, name: str) -> float:
        """Give how long a service takes from now until it says that it is ready, seconds."""
        began_s = time.monotonic()
        wait_until(
            lambda: all((links := self.services[name].links()).values()) and bool(links),
            what=f"{name} is ready",
            timeout_s=READY_S_MAX,
        )
        return time.monotonic() - began_s

    def start(self) -> dict[str, float]:
        """Start all, one after the other; give how long each took to be ready, seconds."""
        took_s = {}
        for name, service in self.services.items():
            began_s = time.monotonic()
            service.start()
            self.ready_s(name)
            took_s[name] = time.monotonic() - began_s
        return took_s

    def rows(self, part: str, *, seconds: float, shows_threads: bool) -> list[Row]:
        """Let time pass and give what each service used of it."""
        time.sleep(SETTLE_S)
        began_s = time.monotonic()
        before = {name: use_of(one.pid) for name, one in self.services.items()}
        time.sleep(seconds)
        passed_s = time.monotonic() - began_s
        rows: list[Row] = []
        for name, service in self.services.items():
            first, last = before[name], use_of(service.pid)
            resident, own = memory_mb(service.pid)
            rows.append(
                {
                    "part": part,
                    "service": name,
                    "CPU % of a core": 100 * (last.cpu_s - first.cpu_s) / passed_s,
                    "wake-ups/s": (last.wakeups - first.wakeups) / passed_s,
                    "RSS MB": resident,
                    "PSS MB": own,
                    "threads": len(last.threads),
                }
            )
            if shows_threads:
                used = {
                    thread: 100 * (cpu_s - first.threads.get(thread, 0.0)) / passed_s
                    for thread, cpu_s in last.threads.items()
                }
                for thread, percent in sorted(used.items(), key=lambda one: -one[1])[:12]:
                    progress(f"{name:<10} {thread:<24} {percent:6.3f} %")
        return rows

    def stop(self) -> None:
        """End all of them."""
        for service in self.services.values():
            service.kill()


@contextmanager
def page(url: str) -> Iterator[None]:
    """Keep the dashboard's page open in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        opened = browser.new_page()
        opened.goto(url)
        yield
        browser.close()


def back_after(system: System, server: Server, name: str) -> list[Row]:
    """Take a server away for a while; give how soon after its first answer each one is ready."""
    server.stop()
    time.sleep(OUTAGE_S)
    server.start()
    began_s = time.monotonic()
    pending = dict.fromkeys(system.services, "")
    rows: list[Row] = []
    while pending and time.monotonic() - began_s < READY_S_MAX:
        for one in sorted(pending):
            links = system.services[one].links()
            down = [link for link, is_up in links.items() if not is_up]
            if down:
                pending[one] = ", ".join(down)
            elif links:
                took_s = time.monotonic() - began_s
                last = pending.pop(one) or "-"
                rows.append(_back(name, one, took_s, last))
        time.sleep(0.02)
    rows += [_back(name, one, -1.0, last) for one, last in pending.items()]
    return rows


def _back(name: str, service: str, took_s: float, last: str) -> Row:
    return {"part": f"{name} back", "service": service, "ready after s": took_s, "last link": last}


def run(servers: Servers, *, seconds: float, shows_threads: bool) -> list[Row]:
    """Take all parts."""
    assert servers.mongo is not None
    rows: list[Row] = []
    with servers.broker() as broker, ExitStack() as stack:
        for part, sensor_hz in (("silent", SILENT_HZ), ("1 message/s", 1.0)):
            progress(part)
            system = System(servers, broker, sensor_hz=sensor_hz)
            stack.callback(system.stop)
            took_s = system.start()
            rows += [
                {"part": "start", "service": name, "ready after s": value}
                for name, value in took_s.items()
            ]
            rows += system.rows(part, seconds=seconds, shows_threads=shows_threads)
            if sensor_hz == SILENT_HZ:
                system.stop()
        if (reason := missing_browser()) is None:
            progress("with an open page")
            with page(system.services["dashboard"].url):
                given = system.rows("1 message/s, a page open", seconds=seconds, shows_threads=True)
            rows += [row for row in given if row["service"] == "dashboard"]
        else:
            progress(f"no page: {reason}")
        for server, name in (
            (broker, "Mosquitto"),
            (servers.kafka, "Kafka"),
            (servers.mongo, "MongoDB"),
        ):
            progress(f"without {name}")
            rows += back_after(system, server, name)
    return rows


def show(rows: list[Row]) -> None:
    """Print the rows as tables, one for each set of columns."""
    columns: tuple[str, ...] = ()
    for row in rows:
        if tuple(row) != columns:
            columns = tuple(row)
            print(
                "\n"
                + "".join(
                    f"{name:<26}" if at < 1 else f"{name:>17}" for at, name in enumerate(columns)
                )
            )
        cells = [value if isinstance(value, str) else f"{value:.2f}" for value in row.values()]
        print("".join(f"{text:<26}" if at < 1 else f"{text:>17}" for at, text in enumerate(cells)))


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a part")
    parser.add_argument("--threads", action="store_true", help="say which threads use it")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    given = parser.parse_args()
    machine_is = machine()
    with Servers(mongo=True) as servers:
        rows = run(servers, seconds=given.seconds, shows_threads=given.threads)
    if given.json:
        print(json.dumps({"machine": machine_is, "rows": rows}, indent=1))
        return
    for name, text in machine_is.items():
        print(f"  {name:<9}{text}")
    show(rows)


if __name__ == "__main__":
    main()
