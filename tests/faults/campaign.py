"""A campaign: numbered readings flow, faults strike, and a verdict is given.

Owns the loads, striking and undoing, waiting for recovery, and the command that repeats a
seed. Which faults is `schedule`, what is compared is `verdict`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self

from faults.books import Streamed
from faults.deployment import Deployment
from faults.schedule import Blow, Fault
from faults.verdict import Recovery, Verdict, windows_due
from faults.watch import Watch
from matchday.clock import SystemClock
from matchday.errors import UnavailableError
from servers.load import Load
from servers.process import wait_until
from servers.services import ask

CLOCK: Final = SystemClock()

RATE_PER_S: Final = 400.0
BURST_PER_S: Final = 1500.0
REFUSED_PER_S: Final = 2.0
SOURCES: Final = tuple(f"tag-{number:02}" for number in range(40))
VENUES: Final = ("north", "south")
WATCHED: Final = SOURCES[::5]
"""Whose readings tell that all is well again: enough to be in every partition."""

RECOVERY_GIVE_UP_S: Final = 120.0
AUTOSAVE_S: Final = 2.5
"""What Mosquitto took over so long before a SIGKILL may be lost: its autosave interval of one
second, which it counts in whole seconds of its clock, and the time for saving."""

FLOW_ORDER: Final = ("sensor", "ingest", "server", "up", "analysis", "persist")

LINES: Final = 8
"""How much of what each process said is shown when a campaign fails."""

SEED: Final = int(os.environ.get("FAULT_SEED", "1"))
ROUNDS: Final = int(os.environ.get("FAULT_ROUNDS", "1"))
"""How many times as many faults as in the short form; from 2 on outages last two minutes."""


class Campaign:
    """Readings and messages that nobody accepts flow from entry to `settle`.

    Args:
        deployment: Running.
        seed: Named in the command that repeats the campaign.
        sources: Names of the sources.
        rate_per_s: Readings of all sources together, normally.
        burst_per_s: The same within a burst.
        keeps_looks: Keep every look of `watch`, not the peaks alone.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        seed: int = SEED,
        sources: tuple[str, ...] = SOURCES,
        rate_per_s: float = RATE_PER_S,
        burst_per_s: float = BURST_PER_S,
        keeps_looks: bool = False,
    ) -> None:
        self.deployment = deployment
        self.watch = Watch(lambda: deployment.parts, is_kept=keeps_looks)
        self.struck: list[str] = []
        self.struck_s: list[float] = []
        self.recoveries: list[Recovery] = []
        self.endings: list[str] = []
        self.kills_s: list[tuple[str, float]] = []
        self.forgotten_s: list[float] = []
        self._seed = seed
        self._sources = sources
        self._rate_per_s = rate_per_s
        self._burst_per_s = burst_per_s
        self._stack = ExitStack()
        self._never = threading.Event()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.watch)
        port = self.deployment.mqtt_port
        self.load = Readings(port, rate_per_s=self._rate_per_s, sources=self._sources)
        self._stack.callback(self.load.close)
        self.rubbish = Rubbish(
            port, rate_per_s=REFUSED_PER_S, sources=["rubbish"], client_id="rubbish"
        )
        self._stack.callback(self.rubbish.close)
        wait_until(lambda: bool(self.load.acknowledged), what="readings flow", timeout_s=60)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        if error is not None:
            # Shown by pytest beside the error.
            print("struck so far:", *self.struck, sep="\n  ")
            for name, process in self.deployment.processes.items():
                print(f"{name} said last:", *process.log().splitlines()[-LINES:], sep="\n  ")
            print(self.repeat())

    def repeat(self) -> str:
        """Give the command that repeats this campaign."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "tests/faults").partition(" ")[0]
        return f"FAULT_SEED={self._seed} FAULT_ROUNDS={ROUNDS} make test-faults ARGS='{test}'"

    def run(self, faults: Iterable[Fault]) -> None:
        """Let all faults strike, one after another."""
        for fault in faults:
            self.strike(fault)

    def strike(self, fault: Fault) -> None:
        """Let one fault strike and undo it; waits for recovery where the fault says so."""
        self.struck.append(str(fault))
        self.load.pace(self._burst_per_s if fault.is_in_burst else self._rate_per_s)
        self.hold(fault.wait_s)
        self.see_to_endings()
        self.struck_s.append(CLOCK.monotonic_s())
        for blow in fault.blows:
            self.hit(blow)
        self.hold(fault.hold_s)
        for blow in fault.blows:
            self.undo(blow)
        self.load.pace(self._rate_per_s)
        if fault.must_recover:
            self.recover(str(fault))

    def hit(self, blow: Blow) -> None:
        """Strike one part; `undo` makes up for it."""
        part = self.deployment.parts[blow.part]
        if blow.verb == "kill":
            self.kills_s.append((blow.part, CLOCK.monotonic_s()))
            part.kill()
        elif blow.verb == "pause":
            part.pause()
        else:
            self.deployment.step_down()

    def undo(self, blow: Blow) -> None:
        """Bring one part back; returns when it answers."""
        part = self.deployment.parts[blow.part]
        if blow.verb == "kill":
            part.start()
        elif blow.verb == "pause":
            if not part.is_running:
                raise UnavailableError(f"resuming {blow.part}: it ended while it was paused")
            part.resume()
        else:
            wait_until(self.deployment.is_primary, what="mongod is primary again", timeout_s=60)

    def recover(self, after: str) -> Recovery:
        """Wait until readings made from now on are stored; note how long that took."""
        returned_ms, returned_s = CLOCK.wall_ms(), CLOCK.monotonic_s()
        waiting = [source for source in self._sources if source in WATCHED] or [self._sources[0]]

        def is_well() -> bool:
            self.see_to_endings()
            while waiting:
                newest = self.deployment.books.newest(waiting[-1])
                if newest is None or newest.t_ms < returned_ms:
                    return False
                waiting.pop()
            return True

        wait_until(is_well, what=f"recovered after {after}", timeout_s=RECOVERY_GIVE_UP_S)
        recovery = Recovery(after, CLOCK.monotonic_s() - returned_s)
        self.recoveries.append(recovery)
        return recovery

    def hold(self, span_s: float) -> None:
        """Let so many seconds pass; this is how long a fault lasts, not a wait for anything."""
        CLOCK.wait(self._never, max(span_s, 0.0))

    def flow(self, count: int) -> None:
        """Wait until so many readings more were acknowledged."""
        target = len(self.load.acknowledged) + count
        wait_until(
            lambda: len(self.load.acknowledged) >= target,
            what=f"{count} more readings are acknowledged",
            timeout_s=60,
        )

    def see_to_endings(self) -> None:
        """Note processes of ours that ended by themselves, and start them as a supervisor does."""
        for name, process in self.deployment.processes.items():
            if not process.is_running:
                self.endings.append(f"{name}: {process.log()[-1500:]}")
                process.start()

    def settle(self, *, also: Collection[tuple[str, int]] = ()) -> Verdict:
        """Stop the readings, let everything come through, stop our processes, and compare.

        What Mosquitto took over right before it was killed does not count as acknowledged.

        Args:
            also: What other sensors than the campaign's own have had acknowledged.
        """
        self.load.stop()
        self.rubbish.stop()
        wait_until(
            lambda: self.load.open_count + self.rubbish.open_count == 0,
            what="all is acknowledged",
            timeout_s=90,
        )
        self.see_to_endings()
        self._wait_for_last()
        books = self.deployment.books
        streamed = books.in_stream()
        self._wait_for_findings(streamed)
        account = self._stopped_account()
        in_store = books.in_store()
        self.forgotten_s = self._ages(self.load.acknowledged - set(in_store))
        kept = set(also) - self._forgotten(set(also) - set(in_store), streamed)
        return Verdict(
            acknowledged=self._counted(self.load) | kept,
            sent=self.load.acknowledged | set(also),
            streamed=streamed,
            in_store=in_store,
            findings=books.findings(),
            window_counts=books.window_counts(),
            windowed=self._sources,
            refused_sent={self.rubbish.payload(*one) for one in self._counted(self.rubbish)},
            refused_kept=books.refused(),
            account=account,
            recoveries=tuple(self.recoveries),
            peaks_mib={
                part: mib
                for part, mib in self.watch.peaks_mib.items()
                if part in self.deployment.processes
            },
            endings=tuple(self.endings),
        )

    def check(self, verdict: Verdict) -> None:
        """Print the figures; raise with every complaint and the command that repeats."""
        print(f"{len(self.struck)} faults, seed {self._seed}: {verdict.figures()}")
        if self.forgotten_s:
            print(
                f"{len(self.forgotten_s)} acknowledged by Mosquitto and forgotten in a SIGKILL, "
                f"the oldest {max(self.forgotten_s):.2f} s before it; missing by the account: "
                f"{verdict.account['totals']['missing']}"
            )
        complaints = verdict.complaints()
        assert not complaints, "\n".join([*complaints, self.repeat()])

    def _wait_for_last(self) -> None:
        """Wait until the last reading of every source is stored: all before it are as well."""
        count = len(self._sources)
        last = {
            source: (self.load.sent_count - 1 - number) // count
            for number, source in enumerate(self._sources)
            if self.load.sent_count > number
        }

        def is_stored() -> bool:
            while last:
                source, seq = next(iter(last.items()))
                newest = self.deployment.books.newest(source)
                if newest is None or newest.seq != seq:
                    return False
                del last[source]
            return True

        wait_until(is_stored, what="the last readings are stored", timeout_s=120)

    def _wait_for_findings(self, streamed: list[Streamed]) -> None:
        """Wait until the windows that are over are stored; the verdict tells which are not."""
        due = windows_due(one for one in streamed if one.source in self._sources)
        with suppress(UnavailableError):
            wait_until(
                lambda: due.keys() <= self.deployment.books.window_counts().keys(),
                what="every window is stored",
                timeout_s=60,
            )

    def _stopped_account(self) -> dict[str, Any]:
        """Wait until nothing is pending, stop in flow order, and give the account."""
        settings = self.deployment.settings

        def is_settled() -> bool:
            return bool(ask(settings, "ledger")["totals"]["pending"] == 0)

        wait_until(is_settled, what="nothing is pending", timeout_s=60)
        ordered = sorted(
            self.deployment.processes.items(),
            key=lambda item: FLOW_ORDER.index(item[0].rstrip("0123456789")),
        )
        for name, process in ordered:
            if process.is_running and not process.stop():
                self.endings.append(f"{name} had to be killed: {process.log()[-1500:]}")
        found: dict[str, Any] = ask(settings, "ledger", "--verify")
        return found

    def _ages(self, numbers: Iterable[tuple[str, int]]) -> list[float]:
        """Give how long before a broker's next kill each was acknowledged, seconds."""
        kills_s = [at_s for part, at_s in self.kills_s if part == "mosquitto"]
        acknowledged_s = (self.load.acknowledged_s[one] for one in numbers)
        return [
            min((abs(killed_s - at_s) for killed_s in kills_s), default=float("inf"))
            for at_s in acknowledged_s
        ]

    def _forgotten(
        self, numbers: Iterable[tuple[str, int]], streamed: Iterable[Streamed]
    ) -> set[tuple[str, int]]:
        """Give which of these a killed broker may have forgotten, by when they were made.

        Nobody noted when other sensors' readings were acknowledged; the stream tells when the
        one before was made, and they are acknowledged at once but in an outage.
        """
        began_ms = CLOCK.wall_ms() - CLOCK.monotonic_s() * 1000
        made_s = {(one.source, one.seq): (one.t_ms - began_ms) / 1000 for one in streamed}
        found = set()
        for source, seq in numbers:
            before = next(
                (made_s[source, n] for n in range(seq, 0, -1) if (source, n) in made_s), None
            )
            if before is not None and self._is_forgivable(before):
                found.add((source, seq))
        return found

    def _is_forgivable(self, at_s: float) -> bool:
        kills_s = [killed_s for part, killed_s in self.kills_s if part == "mosquitto"]
        return any(killed_s - AUTOSAVE_S <= at_s <= killed_s + 1.0 for killed_s in kills_s)

    def _counted(self, load: Load) -> set[tuple[str, int]]:
        """Give what was acknowledged, without what a killed broker may have forgotten."""
        return {
            number for number, at_s in load.acknowledged_s.items() if not self._is_forgivable(at_s)
        }


class Readings(Load):
    """Numbered readings, half of them at each of two venues."""

    def topic(self, source: str) -> str:
        """Give a topic of the venue that the source's name says."""
        return f"matchday/{VENUES[int(source[-2:]) % 2]}/scalar/{source}"


class Rubbish(Load):
    """Messages that no contract accepts, each different."""

    def payload(self, source: str, seq: int) -> bytes:
        """Give text that is not JSON."""
        return f"{source} number {seq}".encode()
