"""An hour of mixed load with a fault every 30 s, and what it did to memory, files, lag, latency.

Owns the loads, the samples and the report. The faults, the readings and the verdict are those
of the fault suite (`tests/faults`). Ends with exit code 1 where anything was lost, written
twice or wrong in the account.

    .venv/bin/python benchmarks/long_run.py --minutes 60 --report long-run.md
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from report import machine
from timeline import Line, Panel, draw

from faults.campaign import CLOCK, WATCHED, Campaign
from faults.deployment import OUTAGE_S, Deployment, on_servers
from faults.outbox import empty_outbox, numbered
from faults.schedule import mixture
from faults.verdict import Verdict
from faults.watch import Look
from servers import install
from servers.kafka import Kafka
from servers.mongo import Mongo
from servers.mosquitto import Mosquitto
from servers.process import Server

ROLES: Final = ("ingest", "persist", "analysis")
SERVERS: Final = ("mosquitto", "kafka", "mongo")
SAMPLE_EVERY_S: Final = 1.0
PLAYERS: Final = ("sensor", "simulate", "--kind", "players", "--count", "2")
PLAYERS_HZ: Final = 10
LAG_METRIC: Final = "matchday_persist_lag_records"


@dataclass
class Samples:
    """Lag and latency, taken once a second in a thread of its own.

    Attributes:
        lag: Records that persist has not stored, as it says itself; a gap while it is down.
        behind_s: Age of the newest stored reading of one source that never pauses.
    """

    deployment: Deployment
    began_s: float
    lag: list[tuple[float, float]] = field(default_factory=list)
    behind_s: list[tuple[float, float]] = field(default_factory=list)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take samples until the block ends."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,), name="long-run.samples")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        while not CLOCK.wait(stop, SAMPLE_EVERY_S):
            at_s = CLOCK.monotonic_s() - self.began_s
            with suppress(OSError, ValueError):
                self.lag.append((at_s, self._lag()))
            newest = self.deployment.books.newest(WATCHED[0])
            if newest is not None:
                self.behind_s.append((at_s, (CLOCK.wall_ms() - newest.t_ms) / 1000))

    def _lag(self) -> float:
        url = f"{self.deployment.processes['persist'].url}/metrics"
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            lines = answer.read().decode().splitlines()
        told = [float(line.split()[-1]) for line in lines if line.startswith(LAG_METRIC)]
        if not told or told[0] < 0:
            raise ValueError("persist does not know its lag now")
        return told[0]


def main() -> int:
    """Run, write the report, and tell by the exit code whether all was well."""
    options = _options()
    missing = [why for name, why in install.missing().items() if name in SERVERS]
    if missing:
        raise SystemExit(f"long run: {'; '.join(missing)}")
    about = machine()
    folder = Path(tempfile.mkdtemp(prefix="matchday-long-run-"))
    try:
        complaints = _run(options, folder, about)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(*complaints, sep="\n")
    return 1 if complaints else 0


def _run(options: argparse.Namespace, folder: Path, about: dict[str, str]) -> list[str]:
    state = folder / "state"
    settings = {"MATCHDAY_SENSOR__STATE_DIR": str(state)}
    with ExitStack() as stack:
        start = _starters(folder, stack)
        deployment = stack.enter_context(on_servers(folder, ROLES, start=start, settings=settings))
        campaign = Campaign(
            deployment,
            seed=options.seed,
            rate_per_s=options.rate,
            burst_per_s=3 * options.rate,
            keeps_looks=True,
        )
        stack.enter_context(campaign)
        deployment.add("sensor", (*PLAYERS, "--rate", str(PLAYERS_HZ))).start()
        began_s = CLOCK.monotonic_s()
        samples = Samples(deployment, began_s)
        with samples.taken():
            for fault in mixture(
                options.seed,
                [one for one in (*ROLES, "sensor") if one in options.hit],
                [one for one in SERVERS if one in options.hit],
                every_s=options.every,
                pause_s=OUTAGE_S,
            ):
                if CLOCK.monotonic_s() - began_s + options.every > options.minutes * 60:
                    break
                campaign.strike(fault)
                print(f"{campaign.struck[-1]}: {campaign.recoveries[-1].took_s:.1f} s", flush=True)
        span_s = CLOCK.monotonic_s() - began_s
        empty_outbox(deployment, *PLAYERS, "--rate", str(PLAYERS_HZ), "--messages", "2")
        verdict = campaign.settle(also=numbered(state))
    picture = options.report.with_suffix(".svg")
    picture.write_text(_picture(campaign, samples, began_s, span_s), encoding="utf-8")
    text = _report(verdict, campaign, options, about)
    options.report.write_text(text, encoding="utf-8")
    print(text)
    return verdict.complaints()


def _starters(folder: Path, stack: ExitStack) -> dict[str, Callable[..., Any]]:
    """Give the functions that start servers, which end with the stack."""

    def starter(name: str, kind: Callable[..., Server]) -> Callable[..., Any]:
        def start(**options: Any) -> Server:
            return stack.enter_context(kind(folder / name, **options))

        return start

    kinds = {"mosquitto": Mosquitto, "kafka": Kafka, "mongo": Mongo}
    return {name: starter(name, kind) for name, kind in kinds.items()}


def _picture(campaign: Campaign, samples: Samples, began_s: float, span_s: float) -> str:
    looks = campaign.watch.looks
    panels = [
        Panel("resident memory, MiB", _lines(looks, began_s, span_s, "rss_mib")),
        Panel("open file descriptors", _lines(looks, began_s, span_s, "files_count")),
        Panel("records in the stream and not stored", {"persist": samples.lag}),
        Panel("age of the newest stored reading, s", {WATCHED[0]: samples.behind_s}),
    ]
    return draw(panels, span_s=span_s, marks_s=[at - began_s for at in campaign.struck_s])


def _lines(looks: list[Look], began_s: float, span_s: float, what: str) -> dict[str, Line]:
    found: dict[str, list[tuple[float, float]]] = {}
    for look in looks:
        # Of the servers of others only our own effect on them would be of interest.
        if look.part in (*ROLES, "sensor") and 0.0 <= look.at_s - began_s <= span_s:
            point = (look.at_s - began_s, float(getattr(look, what)))
            found.setdefault(look.part, []).append(point)
    return dict(found)


def _report(
    verdict: Verdict, campaign: Campaign, options: argparse.Namespace, about: dict[str, str]
) -> str:
    took_s = sorted(one.took_s for one in verdict.recoveries) or [0.0]
    rows = [
        (
            "faults",
            f"{len(campaign.struck)}, one {options.every:g} s after the recovery from the last",
        ),
        ("acknowledged readings", f"{len(verdict.acknowledged)}"),
        ("of them not stored", f"{len(verdict.lost)}"),
        ("stored twice", f"{sum(count > 1 for count in verdict.in_store.values())}"),
        ("missing by the account", f"{verdict.account['totals']['missing']}"),
        ("account adds up, documents counted", f"{verdict.account['adds_up']}"),
        ("recovery, median and longest", f"{took_s[len(took_s) // 2]:.1f} s, {took_s[-1]:.1f} s"),
    ]
    rows += [
        (f"{part}: peak memory, most files", f"{mib:.0f} MiB, {campaign.watch.files_max[part]}")
        for part, mib in sorted(verdict.peaks_mib.items())
    ]
    lines = [
        f"# Long run: {options.minutes:g} min, {options.rate:g} readings/s, seed {options.seed}",
        "",
        f"![over time]({options.report.with_suffix('.svg').name})",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        *(f"| {name} | {value} |" for name, value in about.items()),
        "",
        "Vertical lines are faults:",
        "",
        *(f"- {one.fault}: recovered after {one.took_s:.1f} s" for one in verdict.recoveries),
        "",
        *(f"**{text}**" for text in verdict.complaints()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long readings flow")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two faults")
    parser.add_argument("--rate", type=float, default=400.0, help="readings per second")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    hit = (*ROLES, "sensor", *SERVERS)
    parser.add_argument("--hit", nargs="+", choices=hit, default=hit, help="only these parts")
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("long-run.md"),
        help="where to write the report; the picture lies beside it as .svg",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
