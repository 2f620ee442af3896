"""The analysis of one partition as a pure state machine, and of a recording without a stream.

Owns the order in which analysers see records and the offset to rewind to; knows no stream.
The same records from the same start give the same findings however they are batched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from matchday.analysis.analyser import Analyser
from matchday.analysis.forecast.seasonal import SeasonalForecast, SeriesStatus
from matchday.analysis.plan import Plan
from matchday.domain.finding import Finding
from matchday.domain.instants import SPELT_MS
from matchday.domain.reading import Count, Positions, Reading, Scalar
from matchday.domain.wire import decode_reading
from matchday.errors import RefusedError
from matchday.ports import StreamRecord


@dataclass
class Tally:
    """What happened besides findings since the last asking.

    Attributes:
        late: Late readings per source, counted once per reading.
        undecodable: Why records were skipped, one text per record.
        unusable: Findings dropped because a number in them is not finite, or their span ends
            where no time can be written any more.
    """

    late: dict[str, int] = field(default_factory=dict)
    undecodable: list[str] = field(default_factory=list)
    unusable: int = 0


class PartitionAnalysis:
    """All analysers of one partition; see `Analyser` for the rules they keep."""

    def __init__(self, plan: Plan) -> None:
        made = plan.analysers()
        self._analysers = [analyser for _, analyser in made]
        self._by_type: dict[type[Reading], list[Analyser]] = {
            kind: [analyser for kinds, analyser in made if name in kinds]
            for name, kind in (("scalar", Scalar), ("positions", Positions), ("count", Count))
        }
        self._stream_ms = 0
        self._undecodable: list[str] = []
        self._unusable = 0

    def consume(self, records: Sequence[StreamRecord]) -> list[Finding]:
        """Take the next records of the partition; give the findings they complete.

        Records that hold no reading are skipped and remembered in the tally.
        """
        made: list[Sequence[Finding]] = []
        for record in records:
            try:
                reading = decode_reading(record.value)
            except RefusedError as error:
                self._undecodable.append(f"offset {record.offset}: {error}")
                continue
            self._feed(reading, record.offset, record.time_ms, made)
        return self._settled(made)

    def take(self, reading: Reading, *, offset: int, stream_ms: int) -> list[Finding]:
        """Take one decoded reading; see `Analyser.feed` for the arguments."""
        made: list[Sequence[Finding]] = []
        self._feed(reading, offset, stream_ms, made)
        return self._settled(made)

    def finish(self) -> list[Finding]:
        """Close every window, at the end of a recording."""
        return self._usable([one for each in self._analysers for one in each.finish()])

    def rewind_offset(self, next_offset: int) -> int:
        """Give the offset from which a fresh analysis reaches the present state.

        Args:
            next_offset: The offset after the last record consumed.
        """
        return min(
            analyser.rewind(next_offset, stream_ms=self._stream_ms) for analyser in self._analysers
        )

    def provisional(self) -> list[Finding]:
        """Give what the open windows say so far: to be shown, never stored."""
        return self._usable([one for each in self._analysers for one in each.provisional()])

    def statuses(self) -> list[SeriesStatus]:
        """Tell how far the baselines of all series have come."""
        return [
            status
            for analyser in self._analysers
            if isinstance(analyser, SeasonalForecast)
            for status in analyser.statuses()
        ]

    def take_tally(self) -> Tally:
        """Give what happened since the last call, and begin a new count."""
        late: dict[str, int] = {}
        for analyser in self._analysers:
            # Several analysers may find the same reading late: it counts once.
            for source, count in analyser.take_late().items():
                late[source] = max(late.get(source, 0), count)
        tally = Tally(late, self._undecodable, self._unusable)
        self._undecodable, self._unusable = [], 0
        return tally

    def _feed(
        self, reading: Reading, offset: int, stream_ms: int, made: list[Sequence[Finding]]
    ) -> None:
        """Let the analysers see one reading; adds what they make, or promise, to `made`."""
        # Nothing falls due while the stream's time stands still.
        if stream_ms != self._stream_ms:
            self._stream_ms = stream_ms
            for analyser in self._analysers:
                if stream_ms >= analyser.deadline_ms:
                    made.append(analyser.pass_time(stream_ms))
        for analyser in self._by_type[type(reading)]:
            found = analyser.feed(reading, offset=offset, stream_ms=stream_ms)
            # A promise is a list that is empty still; an empty tuple is nothing.
            if found or type(found) is list:
                made.append(found)

    def _settled(self, made: list[Sequence[Finding]]) -> list[Finding]:
        if not made:
            return []
        for analyser in self._analysers:
            analyser.settle()
        return self._usable([one for each in made for one in each])

    def _usable(self, findings: Sequence[Finding]) -> list[Finding]:
        usable = [one for one in findings if _is_usable(one)]
        self._unusable += len(findings) - len(usable)
        return usable


def _is_usable(finding: Finding) -> bool:
    """Tell whether a finding can be written: its numbers are finite, its span has a spelling."""
    return (
        finding.span_start_ms in SPELT_MS
        and finding.span_end_ms in SPELT_MS
        and all(map(math.isfinite, finding.values.values()))
    )


def analyse_recording(readings: Iterable[Reading], plan: Plan) -> Iterator[Finding]:
    """Give the findings of a recording: the same analysers, with no stream and no server.

    Nothing is silent in a recording: windows close by watermark, the last ones at its end.
    """
    analysis = PartitionAnalysis(plan)
    for offset, reading in enumerate(readings):
        yield from analysis.take(reading, offset=offset, stream_ms=0)
    yield from analysis.finish()
