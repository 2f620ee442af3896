"""The verdict over a campaign: what sensors were told against what is in stream and store.

Pure: takes what was read and compares it. Reading is in `books`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from faults.books import Numbers, Span, Streamed, WindowCounts

RECOVERY_S_MAX: Final = 30.0
"""From a dependency's return until readings made after it are stored, seconds at most."""

RSS_MIB_MAX: Final[Mapping[str, float]] = {
    "ingest": 200.0,
    "persist": 200.0,
    "server": 250.0,
    "analysis": 200.0,
    "up": 300.0,
}
"""Resident memory of a process by role, MiB at most."""

WINDOW_MS: Final = 2000
LATENESS_MS: Final = 2000

SHOWN_MAX: Final = 5


@dataclass(frozen=True)
class Recovery:
    """How long it took from the end of a fault until newer readings were stored, seconds."""

    fault: str
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a campaign found.

    Attributes:
        acknowledged: Every (source, seq) that sensors were told is taken over.
        sent: Every (source, seq) that sensors said.
        streamed: What is in the stream, each source's readings in order.
        in_store: How often each is in the store.
        findings: How often each finding over a span is stored.
        window_counts: What the windows of `windowed` sources say; others are not compared.
        windowed: Sources that say one number at a time and name no session.
        refused_sent: Raw bytes of acknowledged messages that no contract accepts.
        refused_kept: How often each is kept as a dead letter.
        account: `matchday ledger --json --verify` with its exit code as "exit".
        recoveries: One for each fault after which was waited for it.
        peaks_mib: Highest resident memory by process, MiB.
        endings: What processes said that ended without being asked to.
    """

    acknowledged: Set[tuple[str, int]]
    sent: Set[tuple[str, int]]
    streamed: Sequence[Streamed]
    in_store: Numbers
    findings: Counter[Span]
    window_counts: WindowCounts
    windowed: Collection[str]
    refused_sent: Collection[bytes]
    refused_kept: Counter[bytes]
    account: Mapping[str, Any]
    recoveries: tuple[Recovery, ...] = ()
    peaks_mib: Mapping[str, float] = field(default_factory=dict)
    endings: tuple[str, ...] = ()

    @property
    def in_stream(self) -> Numbers:
        """Give how often each (source, seq) is in the stream."""
        return Counter((one.source, one.seq) for one in self.streamed)

    @property
    def lost(self) -> set[tuple[str, int]]:
        """Give what was acknowledged and is not stored."""
        return set(self.acknowledged) - set(self.in_store)

    def complaints(self) -> list[str]:
        """Give a sentence for everything that must not be; empty when all is well.

        Losses are complained of as they are: who allows some (a broker that was killed)
        takes them out of `acknowledged` first.
        """
        said = [
            _some(
                "acknowledged and not in the stream", set(self.acknowledged) - set(self.in_stream)
            ),
            _some("acknowledged and not stored", self.lost),
            _some("twice in the stream", _repeated(self.in_stream)),
            _some("stored twice", _repeated(self.in_store)),
            _some("stored and never sent", set(self.in_store) - set(self.sent)),
            _some("findings stored twice", _repeated(self.findings)),
            _some("refused and not kept", set(self.refused_sent) - set(self.refused_kept)),
            *self._about_account(),
            *self._about_findings(),
            *(
                f"recovery after {one.fault} took {one.took_s:.1f} s, bound {RECOVERY_S_MAX:g} s"
                for one in self.recoveries
                if one.took_s > RECOVERY_S_MAX
            ),
            *(
                f"{part} held {mib:.0f} MiB, bound {bound:.0f} MiB"
                for part, mib in self.peaks_mib.items()
                if (bound := RSS_MIB_MAX.get(part.rstrip("0123456789"), mib)) < mib
            ),
            *(f"ended by itself: {text}" for text in self.endings),
        ]
        return [text for text in said if text]

    def figures(self) -> str:
        """Give the figures in one line, for people."""
        worst = max(self.recoveries, key=lambda one: one.took_s, default=Recovery("no fault", 0.0))
        peaks = ", ".join(f"{part} {mib:.0f}" for part, mib in sorted(self.peaks_mib.items()))
        totals = self.account["totals"]
        return (
            f"{len(self.acknowledged)} acknowledged, {len(self.lost)} lost, "
            f"{len(_repeated(self.in_store))} twice, {totals['duplicate']} duplicates caught, "
            f"{len(self.findings)} findings, "
            f"{sum(self.refused_kept.values())} dead letters; longest recovery "
            f"{worst.took_s:.1f} s after {worst.fault}; peak MiB: {peaks}"
        )

    def _about_findings(self) -> Iterable[str]:
        due = windows_due(one for one in self.streamed if one.source in self.windowed)
        said = {
            window: count
            for window, count in self.window_counts.items()
            if window[0] in self.windowed
        }
        yield _some("windows without a finding", due.keys() - said.keys())
        yield _some("findings of windows that are not over", said.keys() - due.keys())
        yield _some(
            "findings of other readings than their window's",
            [one for one in due.keys() & said.keys() if due[one] != said[one]],
        )

    def _about_account(self) -> Iterable[str]:
        totals = self.account["totals"]
        if not self.account["adds_up"] or self.account["exit"] != 0:
            yield f"the account does not add up: {self.account.get('mismatches', totals)}"
        if totals["pending"] != 0:
            yield f"{totals['pending']} pending in the account"
        if totals["stored"] != self.in_store.total():
            yield f"{totals['stored']} stored by the account, {self.in_store.total()} documents"
        if totals["missing"] != len(gone := set(self.sent) - set(self.in_store)):
            yield f"{totals['missing']} missing by the account, {len(gone)} did not arrive"
        if totals["refused"] != self.refused_kept.total():
            yield f"{totals['refused']} refused, {self.refused_kept.total()} dead letters"


def windows_due(streamed: Iterable[Streamed]) -> WindowCounts:
    """Give what a single analyser that never stops would find: every window that is over.

    Computed once more here from the definition: a source's watermark trails the highest event
    time by `LATENESS_MS`, a window is over when the watermark reaches its end, and readings
    for a window that is over are late and in none.
    """
    high_ms: dict[str, int] = {}
    counts: WindowCounts = {}
    for source, _, t_ms in streamed:
        start_ms = t_ms - t_ms % WINDOW_MS
        high = high_ms.get(source, 0)
        if start_ms + WINDOW_MS > high - LATENESS_MS:
            counts[source, start_ms] = counts.get((source, start_ms), 0) + 1
        high_ms[source] = max(high, t_ms)
    return {
        (source, start_ms): count
        for (source, start_ms), count in counts.items()
        if start_ms + WINDOW_MS <= high_ms[source] - LATENESS_MS
    }


def _repeated(counted: Counter[Any]) -> list[Any]:
    return [one for one, count in counted.items() if count > 1]


def _some(what: str, found: Collection[Any]) -> str:
    if not found:
        return ""
    shown = ", ".join(map(str, sorted(found)[:SHOWN_MAX]))
    return f"{len(found)} {what}: {shown}{', ...' if len(found) > SHOWN_MAX else ''}"
