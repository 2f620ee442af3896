"""The partitions a worker holds: taking over by rewinding, working, giving up in order.

Owns the state per partition, the findings not committed yet, and the bookmark's metadata
`{"format": 1, "rewind": OFFSET}`. What is silent and what is out loud, `protocols.rewinding`
says. Does not own the stream's objects: the worker commits what `Shares` has gathered, also
when asked to from within a poll.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from matchday.analysis.forecast.seasonal import SeriesStatus
from matchday.analysis.pipeline import PartitionAnalysis
from matchday.analysis.plan import Plan
from matchday.clock import Clock
from matchday.domain.account import Counts, LedgerRecord, encode_ledger
from matchday.domain.finding import Finding
from matchday.domain.instants import iso_from_ms
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_finding
from matchday.errors import ConfigError, FencedError, MatchdayError, UnavailableError
from matchday.observe import events
from matchday.ports import Bookmark, Partition, Record, StreamRecord
from matchday.protocols.ownership import Event, Ownership
from matchday.protocols.positions import New
from matchday.protocols.rewinding import Phase, Progress

FORMAT = 1
LEDGER_SLOT = "analysis"


class _Metadata(msgspec.Struct, frozen=True):
    format: int
    rewind: int


@dataclass(eq=False)
class _Share:
    """One partition: its state, and how far it is."""

    analysis: PartitionAnalysis
    progress: Progress
    began_s: float

    @property
    def is_dirty(self) -> bool:
        """Tell whether its bookmark could move on."""
        return self.progress.phase is Phase.AHEAD


class Shares:
    """The assignee of the analysis; used by the worker's thread.

    Only `provisional` and `statuses` may be called from other threads.

    Args:
        plan: What is computed.
        clock: Measures how long rewinding took.
        flush: Commits what is gathered; called when partitions are to be given up.

    Attributes:
        ownership: Whether what is gathered may be written; the worker tells it of commits.
        trouble: What went wrong inside a callback of the stream; the worker raises it.
    """

    def __init__(self, plan: Plan, *, clock: Clock, flush: Callable[[], None]) -> None:
        self._plan = plan
        self._clock = clock
        self._flush = flush
        self._held: dict[Partition, _Share] = {}
        self._parked: dict[Partition, _Share] = {}
        self._results: list[Record] = []
        self._ledger: list[Record] = []
        self._late_count = 0
        # Held while state changes, never while waiting on the stream.
        self._lock = threading.Lock()
        self.ownership = Ownership()
        self.trouble: MatchdayError | None = None

    # --- membership, called by the stream from within `poll` and `close` -------------------

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        """Take partitions over: read again from where the open state began.

        A partition that comes back to where this worker left it goes on with its state.
        """
        starts: dict[Partition, int] = {}
        with self._lock:
            parked, self._parked = self._parked, {}
            for partition, bookmark in bookmarks.items():
                share = parked.get(partition)
                offset = None if bookmark is None else bookmark.offset
                if share is None or not share.progress.can_resume(offset):
                    share = self._fresh(partition, bookmark)
                self._held[partition] = share
                starts[partition] = share.progress.next_offset
        self.ownership.follow(Event.SHARED)
        return starts

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Commit what is gathered, then give the partitions up."""
        try:
            self._flush()
        except UnavailableError as error:
            # Raised in here it would end the client's own work: the worker joins again.
            self.trouble = error
        with self._lock:
            for partition in partitions:
                share = self._held.pop(partition, None)
                if share is not None:
                    self._parked[partition] = share

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Drop what belongs to somebody else, and with it all that is not committed."""
        events.emit(events.OwnershipLost("analysis", f"{len(partitions)} partitions"))
        if set(self._held) - set(partitions):
            # What is gathered of the others cannot be told apart: they are rebuilt as well.
            self.trouble = FencedError("analysing: some partitions belong to another worker")
            self.ownership.follow(Event.REFUSAL)
        self.drop()

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        """Go on at the oldest record; tell of those that no finding was made from."""
        share = self._held.get(partition)
        if share is None:
            return
        missed = share.progress.passed_over(wanted, first)
        if missed:
            events.emit(events.RecordsExpired("analysis", str(partition), missed))

    # --- work ------------------------------------------------------------------------------

    def take(self, records: Sequence[StreamRecord]) -> None:
        """Analyse records; findings of those committed already are computed in silence."""
        by_partition: dict[Partition, list[StreamRecord]] = {}
        for record in records:
            by_partition.setdefault(Partition(record.topic, record.partition), []).append(record)
        with self._lock:
            for partition, taken in by_partition.items():
                share = self._held.get(partition)
                if share is not None:
                    self._take(partition, share, taken)

    @property
    def finding_count(self) -> int:
        """Give how many findings wait for a commit."""
        return len(self._results)

    @property
    def is_dirty(self) -> bool:
        """Tell whether any bookmark could move on."""
        return any(share.is_dirty for share in self._held.values())

    def outputs(self) -> dict[Topic, list[Record]]:
        """Give the records to commit."""
        outputs = {Topic.RESULTS: self._results, Topic.LATE: self._ledger}
        return {topic: records for topic, records in outputs.items() if records}

    def bookmarks(self) -> dict[Partition, Bookmark]:
        """Give the bookmarks to commit, each with the offset to rewind to."""
        with self._lock:
            return {
                partition: Bookmark(share.progress.next_offset, _metadata_of(share))
                for partition, share in self._held.items()
                if share.is_dirty
            }

    def confirmed(self) -> None:
        """Learn that `outputs` and `bookmarks` are durable."""
        if self._results:
            events.emit(events.FindingsEmitted(len(self._results)))
        if self._late_count:
            events.emit(events.ReadingsLate(self._late_count))
        self._results, self._ledger, self._late_count = [], [], 0
        for share in self._held.values():
            share.progress.confirmed()

    def drop(self) -> None:
        """Forget all state and all that is not committed."""
        with self._lock:
            self._held.clear()
            self._parked.clear()
        self._results, self._ledger, self._late_count = [], [], 0

    def provisional(self) -> list[Finding]:
        """Give what the open windows say so far; from any thread."""
        with self._lock:
            shares = self._held.values()
            return [one for share in shares for one in share.analysis.provisional()]

    def statuses(self) -> list[SeriesStatus]:
        """Tell how far the baselines have come; from any thread."""
        with self._lock:
            shares = self._held.values()
            return [one for share in shares for one in share.analysis.statuses()]

    def _fresh(self, partition: Partition, bookmark: Bookmark | None) -> _Share:
        progress = (
            Progress.begin(None, None)
            if bookmark is None
            else Progress.begin(bookmark.offset, self._rewind_of(partition, bookmark))
        )
        return _Share(PartitionAnalysis(self._plan), progress, self._clock.monotonic_s())

    def _take(self, partition: Partition, share: _Share, records: Sequence[StreamRecord]) -> None:
        progress = share.progress
        part = progress.part_out_loud(records[0].offset, records[-1].offset)
        if part is not New.ALL:
            known = [record for record in records if record.offset < progress.committed]
            share.analysis.consume(known)
            share.analysis.take_tally()
            progress.redid(known[-1].offset + 1, count=len(known))
            records = records[len(known) :]
        if records:
            self._tell_rewound(partition, share)
            self._gather(partition, share, records)

    def _gather(self, partition: Partition, share: _Share, records: Sequence[StreamRecord]) -> None:
        findings = share.analysis.consume(records)
        share.progress.worked(records[-1].offset + 1)
        self._results += [Record(_key_of(one), encode_finding(one)) for one in findings]
        tally = share.analysis.take_tally()
        if tally.undecodable:
            example = f"{partition} {tally.undecodable[0]}"
            events.emit(events.RecordUndecodable("analysis", example, len(tally.undecodable)))
        if tally.unusable:
            events.emit(events.FindingsUnusable(tally.unusable))
        if tally.late:
            self._late_count += sum(tally.late.values())
            entry = LedgerRecord(
                slot=LEDGER_SLOT,
                tick=f"{partition}@{share.progress.next_offset}",
                ts=iso_from_ms(records[-1].time_ms),
                counts={source: Counts(late=count) for source, count in tally.late.items()},
            )
            self._ledger.append(Record(LEDGER_SLOT.encode(), encode_ledger(entry)))

    def _rewind_of(self, partition: Partition, bookmark: Bookmark) -> int | None:
        try:
            metadata = msgspec.json.decode(bookmark.metadata or b"null", type=_Metadata)
        except msgspec.MsgspecError:
            # Set by a person with Kafka's own tools, say: begin with empty windows there.
            return None
        if metadata.format > FORMAT:
            self.trouble = ConfigError(
                f"taking over {partition}: its bookmark has format {metadata.format}, "
                f"above {FORMAT}: a newer version of this program wrote it"
            )
        return metadata.rewind

    def _tell_rewound(self, partition: Partition, share: _Share) -> None:
        if share.progress.redone:
            seconds = self._clock.monotonic_s() - share.began_s
            events.emit(events.AnalysisRewound(str(partition), share.progress.redone, seconds))
            share.progress.redone = 0


def _key_of(finding: Finding) -> bytes:
    if finding.kind == "forecast" or finding.venue is None:
        return finding.sensor.encode()
    return finding.venue.encode()


def _metadata_of(share: _Share) -> str:
    rewind = share.analysis.rewind_offset(share.progress.next_offset)
    return msgspec.json.encode(_Metadata(FORMAT, rewind)).decode()
