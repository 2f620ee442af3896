"""The analyser of players: distance, time in view, top speed and fast running per window.

Owns who counts as a player, and when what is pending is worked out. An object is a player unless
it is a ball; where it names no team and the venue is known, only on the pitch or close to it, so
that a crowd seen by the same kind of sensor is not taken for athletes. Findings are increments:
the sums over all windows are the sums over the whole session.

A reading is only looked at as it comes: whether it is late, which window it opens or closes, what
it depends on. The arithmetic on its positions waits until many can be worked through at once,
of all tracks together: at the latest when a window that they belong to is to be told of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.analyser import Track
from matchday.analysis.players.crews import Crew, Crews, Mark
from matchday.analysis.players.paths import MotionPolicy, Paths
from matchday.analysis.players.pending import Pending
from matchday.analysis.players.totals import VALUES, Totals
from matchday.analysis.policy import AnalysisPolicy, ms
from matchday.analysis.windows import Closed, Lane, Windows
from matchday.domain.finding import Finding
from matchday.domain.reading import Positions, Reading, TrackedObject
from matchday.domain.venue import Pitch, Venue

MODEL = "player-kinematics/1"
PENDING_MAX = 16_384
"""So many samples and frames wait at most; memory per one is about 100 bytes."""

# A window holds the whole crew, whose sums are in `Totals`.
_CREW = ""

Rows = NDArray[np.intp]


class _Seen(NamedTuple):
    """Who was seen and where, metres in the venue frame; columns of one length."""

    names: list[str]
    x: list[float]
    y: list[float]


_NOBODY = _Seen([], [], [])


class _Due(NamedTuple):
    """A window that is over: `findings` are filled in when it is worked out."""

    window: Closed[None]
    findings: list[Finding]


class PlayerMetrics:
    """Makes a `player_metric` per player and window."""

    def __init__(self, policy: AnalysisPolicy, venues: Mapping[str, Venue]) -> None:
        self._motion = MotionPolicy(
            half_width_s=policy.filter_half_width_s,
            gap_s=policy.gap_s,
            min_step_s=policy.min_step_s,
            speed_mps_max=policy.speed_mps_max,
        )
        self._policy = policy
        self._balls = frozenset(policy.ball_ids)
        self._grounds = {
            venue.id: _wider(venue.pitch, policy.pitch_margin_m) for venue in venues.values()
        }
        self._gap_ms = ms(policy.gap_s)
        self._grid_ms = policy.min_step_s * 1000.0
        # Behind this a path of the frame's entities may have ended unnoticed.
        self._reach_ms = self._gap_ms - math.ceil(self._grid_ms)
        self._windows: Windows[None] = Windows.by(policy, lambda: None)
        self._empty()

    def _empty(self) -> None:
        self._crews = Crews()
        self._paths = Paths(self._motion)
        self._totals = Totals(self._policy)
        self._pending = Pending()
        self._reaching: dict[int, Crew] = {}
        self._due: list[_Due] = []

    @property
    def deadline_ms(self) -> int:
        """Give a stream time before which no track can be silent."""
        return self._windows.deadline_ms

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Take the players of a positions reading; see `Analyser.feed`."""
        assert isinstance(reading, Positions)
        seen = self._players(reading)
        if not seen.names:
            return ()
        track = Track(reading.source, reading.session, reading.venue)
        windows = self._windows
        lane = windows.lane(track, stream_ms=stream_ms, offset=offset)
        t_ms = reading.t_ms
        if windows.is_late(lane, t_ms):
            windows.count_late(lane)
            # Were it not late, a path that is seen within the gap would begin with it.
            reach_ms = t_ms + self._gap_ms + 1
            windows.need(lane, until_ms=reach_ms, offset=windows.closer(lane))
        else:
            found = self._take(lane, seen, t_ms=t_ms, offset=offset)
            if found:
                return found
        closed = windows.observe(lane, t_ms, offset=offset)
        return self._later(closed) if closed else ()

    def settle(self) -> None:
        """Work out the windows that are over; see `Analyser.settle`."""
        if not self._due:
            return
        self._work()
        due, self._due = self._due, []
        for item in due:
            self._crews[item.window.track].closing.remove(item.window.start_ms)
            item.findings.extend(self._close(item.window))

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Close the windows of silent tracks; see `Analyser.pass_time`."""
        self.settle()
        self._work()
        ending: list[Rows] = []

        def end(lane: Lane[None]) -> None:
            """Note the rows of a silent track, before its windows are closed."""
            ending.append(self._crews[lane.track].row_array())

        closed, forgotten = self._windows.pass_time(stream_ms, before=end, spared=self._hold)
        if ending:
            self._end(np.concatenate(ending))
        findings = [one for item in closed for one in self._close(item)]
        for track in forgotten:
            self._crews.forget(track)
        return findings

    def finish(self) -> Sequence[Finding]:
        """Close every window."""
        self.settle()
        self._work()
        self._end(np.arange(self._paths.capacity))
        closed = self._windows.finish()
        findings = [one for item in closed for one in self._close(item)]
        self._empty()
        return findings

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the lowest offset still needed; see `Analyser.rewind`."""
        # What is pending depends on no more than the windows that it opened and the paths that
        # it will go on with, as they are.
        since = self._windows.rewind(next_offset)
        return min(since, self._paths.since(), self._totals.since())

    def provisional(self) -> Sequence[Finding]:
        """Give the totals of the open windows so far."""
        self.settle()
        self._work()
        return [one for item in self._windows.provisional() for one in self._findings(item)]

    def take_late(self) -> dict[str, int]:
        """Give the late readings per source since the last call."""
        return self._windows.take_late()

    def _players(self, reading: Positions) -> _Seen:
        """Give the players of a reading, each once."""
        balls, objects = self._balls, reading.objects
        ground = None if reading.venue is None else self._grounds.get(reading.venue)
        if ground is None:
            found = [item for item in objects if item.id not in balls]
        else:
            found = [
                item
                for item in objects
                if (item.team is not None or ground.contains(item.x, item.y))
                and item.id not in balls
            ]
        if not found:
            return _NOBODY
        seen = _seen(found)
        # One number that is not finite makes the sum so.
        if not math.isfinite(sum(seen.x) + sum(seen.y)):
            found = [one for one in found if math.isfinite(one.x) and math.isfinite(one.y)]
            seen = _seen(found)
        if len(seen.names) > 1 and len(set(seen.names)) < len(seen.names):
            # Of an entity that is there twice the last place counts.
            seen = _seen([*{one.id: one for one in found}.values()])
        return seen

    def _take(self, lane: Lane[None], seen: _Seen, *, t_ms: int, offset: int) -> Sequence[Finding]:
        """Put the players of a reading that is not late among what is pending.

        The first one of a lane is never late, so every lane has a crew.

        Returns:
            Findings of windows that had to be closed first, mostly none.
        """
        windows, crew = self._windows, self._crews.of(lane.track)
        findings: Sequence[Finding] = ()
        if t_ms < lane.high_ms:
            self._fall_behind(lane, crew, seen.names, t_ms=t_ms, offset=offset)
        since = windows.since(lane, t_ms, offset=offset) if lane.needs else offset
        cell = t_ms // self._grid_ms
        fresh = crew.fresh(seen.names, cell)
        if fresh is not None:
            if not fresh:
                self._pass(crew, t_ms)
                return findings
            seen = _Seen._make([column[place] for place in fresh] for column in seen)
        held = windows.held(lane, _CREW, t_ms)
        if held is None:
            if self._totals.share_cells(t_ms, [*lane.open, *crew.closing]):
                findings = self._make_room(lane, crew, t_ms, offset=offset)
            windows.open(lane, _CREW, t_ms, since=since)
        elif since < held.since:
            held.since = since
        rows = self._crews.rows_of(crew, seen.names)
        if self._crews.capacity > self._paths.capacity:
            self._paths.grow(self._crews.capacity)
            self._totals.grow(self._crews.capacity)
        crew.mark(seen.names, Mark(cell, t_ms, since))
        if crew.reach_ms is not None:
            if crew.reach_ms > t_ms:
                self._tell_reach(crew)
            crew.reach_ms = None
        self._pending.add(crew.number, t_ms, since=since, rows=rows, x=seen.x, y=seen.y)
        if len(self._pending) >= PENDING_MAX:
            self._work()
        return findings

    def _make_room(
        self, lane: Lane[None], crew: Crew, t_ms: int, *, offset: int
    ) -> Sequence[Finding]:
        """Close the windows that a frame leaves so far behind that their cells are wanted again.

        All that belongs to them is settled by the frame's time alone, for every path that
        reaches into them has ended by then.
        """
        self._pass(crew, t_ms)
        findings = self._later(self._windows.observe(lane, t_ms, offset=offset))
        self.settle()
        return findings

    def _fall_behind(
        self, lane: Lane[None], crew: Crew, names: Sequence[str], *, t_ms: int, offset: int
    ) -> None:
        """Prepare for a frame that is older than the newest of its track."""
        self._pending.break_order()
        if t_ms < lane.high_ms - self._reach_ms:
            # Whose path has ended since begins anew with this frame: find out who.
            self._work()
        newer = crew.overtaken(names, t_ms, offset=offset)
        if newer < offset:
            self._windows.need(lane, until_ms=t_ms + 1, offset=newer)

    def _pass(self, crew: Crew, t_ms: int) -> None:
        """Note that a track has reached a time at which none of its entities had a sample."""
        if crew.reach_ms is None or t_ms > crew.reach_ms:
            crew.reach_ms = t_ms
            self._reaching[crew.number] = crew

    def _tell_reach(self, crew: Crew) -> None:
        assert crew.reach_ms is not None
        self._pending.add(crew.number, crew.reach_ms, since=0, rows=(), x=(), y=())

    def _hold(self, lane: Lane[None]) -> None:
        self._paths.depend(self._crews[lane.track].row_array(), lane.high_offset)

    def _later(self, closed: Sequence[Closed[None]]) -> list[Finding]:
        """Promise the findings of closed windows."""
        findings: list[Finding] = []
        for item in closed:
            self._due.append(_Due(item, findings))
            self._crews[item.track].closing.append(item.start_ms)
        return findings

    def _work(self) -> None:
        """Work through what is pending."""
        for crew in self._reaching.values():
            if crew.reach_ms is not None:
                self._tell_reach(crew)
                crew.reach_ms = None
        self._reaching.clear()
        if not self._pending:
            return
        samples, reach_ms = self._pending.take(self._crews.track_of)
        # Whoever is not seen any more makes room first for those who come.
        unseen_ms = reach_ms.copy()
        unseen_ms[samples.row] = -np.inf
        self._end(self._paths.gone(unseen_ms))
        for steps in self._paths.advance(samples):
            self._totals.add(steps)
        self._end(self._paths.gone(reach_ms))

    def _end(self, rows: Rows) -> None:
        """End the paths of rows, if they are open."""
        if len(rows):
            self._totals.add(self._paths.finish(rows))
            self._crews.unmark(rows)

    def _close(self, window: Closed[None]) -> list[Finding]:
        """Give the findings of a window that is over, and forget it."""
        crew = self._crews[window.track]
        findings = self._findings(window)
        rows = crew.row_array()
        self._totals.clear(rows, window.start_ms)
        is_held = self._paths.are_open()[rows] | ~self._totals.are_empty(rows)
        if not is_held.all():
            self._crews.release(crew, rows[~is_held])
        return findings

    def _findings(self, window: Closed[None]) -> list[Finding]:
        """Give what each player did in a window so far, players sorted."""
        crew = self._crews[window.track]
        seen, sums = self._totals.of(crew.row_array(), window.start_ms)
        names = [*crew.rows]
        found = sorted(zip([names[place] for place in seen], sums.T.tolist(), strict=True))
        return [
            Finding(
                subject=name,
                kind="player_metric",
                span_start_ms=window.start_ms,
                span_end_ms=window.end_ms,
                model=MODEL,
                values=dict(zip(VALUES, values, strict=True)),
                sensor=window.track.source,
                venue=window.track.venue,
                session=window.track.session,
            )
            for name, values in found
        ]


def _seen(players: Sequence[TrackedObject]) -> _Seen:
    return _Seen(
        [item.id for item in players], [item.x for item in players], [item.y for item in players]
    )


def _wider(pitch: Pitch, margin_m: float) -> Pitch:
    """Give the pitch with about `margin_m` around it, metres."""
    return Pitch(pitch.shape, pitch.length_m + 2 * margin_m, pitch.width_m + 2 * margin_m)
