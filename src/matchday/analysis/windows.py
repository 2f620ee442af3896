"""Tumbling windows in event time: watermarks, lateness, silence, and what a rewind needs.

Owns when a window opens and closes; what is summed in it belongs to the analysers. One
watermark per track trails the highest event time by the lateness. A window closes, exactly
once, when the watermark reaches its end; for a track that went silent, when the stream's
record times are `idle_s` past both the track's last record and the window's end. Readings
for a closed window are late: counted, in no window.

What was *not* taken has a past too: a reading was late because of a higher time before it,
a silent track was left open because of one. Who begins to read between that cause and its
effect decides otherwise, which is harmless as long as it changes nothing that is still
held. Where it might, the lane notes a *need*: the offset of the cause, and until when.

State is bounded: a track silent for `forget_s` of stream time and for `FORGET_RECORDS` records
of others is dropped with its watermark. Time alone would not do: where the stream's clock jumps
ahead, tracks that speak all the time would be dropped too, and would then open windows anew that
were closed and emitted a moment before. Both are measured from the track's last record, and looked
at as soon as both may be full: whoever has read that record forgets the track at the same one.
Where the stream is fast, a track silent for `idle_s` is forgotten sooner, once the offsets are
`rest_records` past its last record: a restart would have to read all of them again. That is looked
at where a block of offsets ends, and by the track's last record alone: whoever began behind the
cause of its watermark holds other windows of it, and forgets it at the same record all the same.
A source whose clock stands still keeps its window open, and so its rewind, until it moves; one
whose clock was set back keeps its watermark, and its rewind, until its times are as high again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from matchday.analysis.analyser import Track
from matchday.analysis.needs import Needs
from matchday.analysis.policy import AnalysisPolicy, ms

A = TypeVar("A")

NEVER_MS = 1 << 62
FORGET_RECORDS = 1_000
"""Records of other tracks after which a silent one can be dropped; so many tracks more may be
kept in a partition."""
REST_BLOCKS = 10
"""Blocks in `rest_records_max` offsets; what is at rest is looked for where a block ends."""

_NO_TIME_MS = -(1 << 62)


class Closed(NamedTuple, Generic[A]):
    """A window of one subject that will not change any more (or, provisional, may)."""

    track: Track
    subject: str
    start_ms: int
    end_ms: int
    totals: A


class Held(Generic[A]):
    """What an open window holds of one subject, and the lowest offset it was made from."""

    __slots__ = ("since", "totals")

    def __init__(self, totals: A, since: int) -> None:
        self.totals = totals
        self.since = since


@dataclass(slots=True, eq=False)
class Lane(Generic[A]):
    """The state of one track; made and changed by `Windows` only."""

    track: Track
    seen_ms: int
    seen_count: int = 0
    seen_block: int = 0
    high_ms: int = _NO_TIME_MS
    high_offset: int = -1
    floor_ms: int = _NO_TIME_MS
    floor_offset: int = -1
    next_end_ms: int = NEVER_MS
    needs: dict[int, int] = field(default_factory=dict)
    open: dict[int, dict[str, Held[A]]] = field(default_factory=dict)
    is_queued: bool = False
    is_forgotten: bool = False


class Windows(Generic[A]):
    """The open windows of all tracks of a partition.

    Args:
        width_ms: Length of a window, event time; windows start at multiples of it.
        lateness_ms: How far the watermark trails, event time.
        idle_ms: Silence after which windows are closed, stream time.
        forget_ms: Silence after which a track is forgotten, stream time.
        rest_records: A silent track is forgotten already when so many offsets have passed since
            its last record, or up to a tenth more.
        make: Gives empty totals.
    """

    def __init__(
        self,
        *,
        width_ms: int,
        lateness_ms: int,
        idle_ms: int,
        forget_ms: int,
        rest_records: int,
        make: Callable[[], A],
    ) -> None:
        self._width_ms = width_ms
        self._lateness_ms = lateness_ms
        self._idle_ms = idle_ms
        self._forget_ms = forget_ms
        self._block_records = max(-(-rest_records // REST_BLOCKS), 1)
        self._block = 0
        self._is_block_new = False
        self._make = make
        self._lanes: dict[Track, Lane[A]] = {}
        self._needs: Needs[Lane[A]] = Needs()
        self._late: dict[str, int] = {}
        self._count = 0
        # When and from which time on a track is to be forgotten that only lacks records of others.
        self._ripe_count = NEVER_MS
        self._ripe_ms = NEVER_MS
        self.deadline_ms = NEVER_MS

    @classmethod
    def by(cls, policy: AnalysisPolicy, make: Callable[[], A]) -> Windows[A]:
        """Give windows with the numbers of a policy; see the class for `make`."""
        return cls(
            width_ms=ms(policy.window_s),
            lateness_ms=ms(policy.lateness_s),
            idle_ms=ms(policy.idle_s),
            forget_ms=ms(policy.forget_s),
            rest_records=policy.rest_records_max,
            make=make,
        )

    def lane(self, track: Track, *, stream_ms: int, offset: int) -> Lane[A]:
        """Give the state of a track that a record was just read of; ends its silence."""
        block = offset // self._block_records
        if block != self._block:
            self._block, self._is_block_new = block, True
            self.deadline_ms = _NO_TIME_MS
        lane = self._lanes.get(track)
        if lane is None:
            lane = self._lanes[track] = Lane(track, stream_ms)
        lane.seen_ms = stream_ms
        lane.seen_block = block
        self._count += 1
        lane.seen_count = self._count
        if self._count >= self._ripe_count:
            self.deadline_ms = min(self.deadline_ms, self._ripe_ms)
        # A lower bound is enough: `pass_time` looks closer when it is reached.
        if stream_ms + self._idle_ms < self.deadline_ms:
            self.deadline_ms = stream_ms + self._idle_ms
        return lane

    def is_late(self, lane: Lane[A], t_ms: int) -> bool:
        """Tell whether the window of `t_ms` is closed already."""
        start_ms = t_ms - t_ms % self._width_ms
        return (
            start_ms + self._width_ms <= lane.high_ms - self._lateness_ms
            or start_ms < lane.floor_ms
        )

    def closed_ms(self, lane: Lane[A]) -> int:
        """Give the event time before which every reading is late."""
        watermark_ms = lane.high_ms - self._lateness_ms
        return max(watermark_ms - watermark_ms % self._width_ms, lane.floor_ms)

    def closer(self, lane: Lane[A]) -> int:
        """Give the offset of the reading by which `closed_ms` stands, until a higher time comes."""
        is_silenced = lane.floor_ms > lane.high_ms - self._lateness_ms
        return lane.floor_offset if is_silenced else lane.high_offset

    def need(self, lane: Lane[A], *, until_ms: int, offset: int) -> None:
        """Note that readings before `until_ms` mean the same only with the one at `offset`.

        To one who begins to read behind it they may be another path, late, or not late. The
        need ends by itself when every reading before `until_ms` is late.
        """
        closed_ms = self.closed_ms(lane)
        if until_ms <= closed_ms:
            return
        needs = {end_ms: known for end_ms, known in lane.needs.items() if end_ms > closed_ms}
        needs[until_ms] = min(offset, needs.get(until_ms, offset))
        lane.needs = needs

    def since(self, lane: Lane[A], t_ms: int, *, offset: int) -> int:
        """Give the lowest offset that the meaning of the reading of `t_ms` depends on."""
        if not lane.needs:
            return offset
        return min([offset, *(known for end_ms, known in lane.needs.items() if end_ms > t_ms)])

    def count_late(self, lane: Lane[A]) -> None:
        """Count one reading of the lane's source as late."""
        source = lane.track.source
        self._late[source] = self._late.get(source, 0) + 1

    def held(self, lane: Lane[A], subject: str, t_ms: int) -> Held[A] | None:
        """Give what the window of `t_ms` holds of the subject so far, if anything."""
        window = lane.open.get(t_ms - t_ms % self._width_ms)
        return None if window is None else window.get(subject)

    def open(self, lane: Lane[A], subject: str, t_ms: int, *, since: int) -> Held[A]:
        """Start holding totals of the subject in the window of `t_ms`, which is not late.

        Args:
            lane: The track's state.
            subject: The subject; nothing is held of it in this window yet.
            t_ms: Event time.
            since: The lowest offset that the first contribution depends on.
        """
        start_ms = t_ms - t_ms % self._width_ms
        held = Held(self._make(), since)
        lane.open.setdefault(start_ms, {})[subject] = held
        lane.next_end_ms = min(lane.next_end_ms, start_ms + self._width_ms)
        return held

    def observe(self, lane: Lane[A], t_ms: int, *, offset: int) -> list[Closed[A]]:
        """Move the track's watermark and give the windows it passed, in order of time."""
        # Of equal times the newest offset counts: the rewind moves on with it.
        if t_ms >= lane.high_ms:
            lane.high_ms, lane.high_offset = t_ms, offset
            if not lane.is_queued:
                self._needs.add(lane, offset)
        watermark_ms = lane.high_ms - self._lateness_ms
        if watermark_ms < lane.next_end_ms:
            return []
        return self._close(lane, watermark_ms)

    def pass_time(
        self,
        stream_ms: int,
        *,
        before: Callable[[Lane[A]], None] | None = None,
        spared: Callable[[Lane[A]], None] | None = None,
    ) -> tuple[list[Closed[A]], list[Track]]:
        """Close the windows of silent tracks and forget the long silent ones.

        Args:
            stream_ms: Record time of the record about to be fed.
            before: Called with each lane about to be closed, to settle its last totals.
            spared: Called with each silent lane that is left open only for its highest
                time: all that is held of it depends on `high_offset` from now on.

        Returns:
            The closed windows in order of end and track, and the tracks forgotten.
        """
        if stream_ms < self.deadline_ms:
            return [], []
        closed: list[Closed[A]] = []
        forgotten: list[Track] = []
        self.deadline_ms = self._ripe_ms = self._ripe_count = NEVER_MS
        rest_block = self._block - REST_BLOCKS if self._is_block_new else -1
        self._is_block_new = False
        for lane in self._lanes.values():
            quiet_ms = max(lane.seen_ms, self._end_of(lane.high_ms))
            is_at_rest = lane.seen_block < rest_block and stream_ms >= lane.seen_ms + self._idle_ms
            is_silent = is_at_rest or stream_ms >= quiet_ms + self._idle_ms
            if is_silent and not self._is_settled(lane):
                if before is not None:
                    before(lane)
                closed += self._close(lane, NEVER_MS)
                end_ms = self._end_of(lane.high_ms)
                if end_ms > lane.floor_ms:
                    lane.floor_ms, lane.floor_offset = end_ms, lane.high_offset
            if is_at_rest:
                forgotten.append(lane.track)
                continue
            if stream_ms >= quiet_ms + self._forget_ms:
                if self._count - lane.seen_count >= FORGET_RECORDS:
                    forgotten.append(lane.track)
                else:
                    self._ripe_count = min(self._ripe_count, lane.seen_count + FORGET_RECORDS)
                    self._ripe_ms = min(self._ripe_ms, quiet_ms + self._forget_ms)
                continue
            self.deadline_ms = min(self.deadline_ms, self._next_ms(lane, stream_ms, quiet_ms))
            if self._is_spared(lane, stream_ms):
                self.need(lane, until_ms=quiet_ms, offset=lane.high_offset)
                if spared is not None:
                    spared(lane)
        for track in forgotten:
            self._lanes.pop(track).is_forgotten = True
        closed.sort(key=_order)
        return closed, forgotten

    def finish(self, *, before: Callable[[Lane[A]], None] | None = None) -> list[Closed[A]]:
        """Close every window and forget every track."""
        closed: list[Closed[A]] = []
        for lane in self._lanes.values():
            if before is not None:
                before(lane)
            closed += self._close(lane, NEVER_MS)
        self._lanes.clear()
        self._needs.clear()
        self.deadline_ms = NEVER_MS
        closed.sort(key=_order)
        return closed

    def provisional(self) -> list[Closed[A]]:
        """Give the open windows as they stand, in order of end and track."""
        opened = [
            Closed(lane.track, subject, start_ms, start_ms + self._width_ms, held.totals)
            for lane in self._lanes.values()
            for start_ms, subjects in lane.open.items()
            for subject, held in subjects.items()
        ]
        opened.sort(key=_order)
        return opened

    def rewind(self, next_offset: int) -> int:
        """Give the lowest offset that an open window or a watermark still needs."""
        since = self._needs.lowest(self._needed)
        return next_offset if since is None else since

    def take_late(self) -> dict[str, int]:
        """Give the late readings per source since the last call."""
        late, self._late = self._late, {}
        return late

    def _needed(self, lane: Lane[A]) -> int | None:
        return None if lane.is_forgotten else self._since(lane)

    def _since(self, lane: Lane[A]) -> int:
        since = lane.high_offset
        # A floor set by silence holds until the watermark says the same by itself.
        if lane.floor_ms > lane.high_ms - self._lateness_ms:
            since = min(since, lane.floor_offset)
        if lane.needs:
            since = self.since(lane, self.closed_ms(lane), offset=since)
        for subjects in lane.open.values():
            for held in subjects.values():
                since = min(since, held.since)
        return since

    def _next_ms(self, lane: Lane[A], stream_ms: int, quiet_ms: int) -> int:
        if self._is_settled(lane):
            return quiet_ms + self._forget_ms
        silent_ms = lane.seen_ms + self._idle_ms
        return silent_ms if stream_ms < silent_ms else quiet_ms + self._idle_ms

    def _is_spared(self, lane: Lane[A], stream_ms: int) -> bool:
        # One who has not read the highest time might close the lane here.
        is_silent = stream_ms >= lane.seen_ms + self._idle_ms
        return is_silent and not self._is_settled(lane)

    def _end_of(self, t_ms: int) -> int:
        return t_ms - t_ms % self._width_ms + self._width_ms

    def _is_settled(self, lane: Lane[A]) -> bool:
        return not lane.open and lane.floor_ms >= self._end_of(lane.high_ms)

    def _close(self, lane: Lane[A], watermark_ms: int) -> list[Closed[A]]:
        closed: list[Closed[A]] = []
        for start_ms in sorted(lane.open):
            end_ms = start_ms + self._width_ms
            if end_ms > watermark_ms:
                break
            subjects = lane.open.pop(start_ms)
            closed += (
                Closed(lane.track, subject, start_ms, end_ms, subjects[subject].totals)
                for subject in sorted(subjects)
            )
        lane.next_end_ms = min(lane.open, default=NEVER_MS) + self._width_ms
        return closed


def _order(item: Closed[A]) -> tuple[int, str, str, str, str]:
    track = item.track
    return item.end_ms, track.source, track.session or "", track.venue or "", item.subject
