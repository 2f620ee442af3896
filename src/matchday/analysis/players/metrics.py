"""The analyser of players: distance, time in view, top speed and fast running per window.

Owns who counts as a player and what is summed. An object is a player unless it is a ball;
where it names no team and the venue is known, only on the pitch or close to it, so that a
crowd seen by the same kind of sensor is not taken for athletes. Findings are increments:
the sums over all windows are the sums over the whole session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matchday.analysis.analyser import Track
from matchday.analysis.players.kinematics import Motion, MotionPolicy, Step
from matchday.analysis.policy import AnalysisPolicy, ms
from matchday.analysis.windows import Closed, Lane, Windows
from matchday.domain.finding import Finding
from matchday.domain.reading import Positions, Reading, TrackedObject
from matchday.domain.venue import Pitch, Venue

MODEL = "player-kinematics/1"


class PlayerTotals:
    """What one player did in one window; metres, seconds, metres per second."""

    __slots__ = ("distance_m", "hsr_m", "speed_max_mps", "sprint_m", "time_s")

    def __init__(self) -> None:
        self.distance_m = 0.0
        self.time_s = 0.0
        self.speed_max_mps = 0.0
        self.hsr_m = 0.0
        self.sprint_m = 0.0


class PlayerMetrics:
    """Makes a `player_metric` per player and window."""

    def __init__(self, policy: AnalysisPolicy, venues: Mapping[str, Venue]) -> None:
        self._policy = policy
        self._venues = venues
        self._motion_policy = MotionPolicy(
            half_width_s=policy.filter_half_width_s,
            gap_s=policy.gap_s,
            min_step_s=policy.min_step_s,
            speed_mps_max=policy.speed_mps_max,
        )
        self._hsr_mps = policy.hsr_mps
        self._sprint_mps = policy.sprint_mps
        self._gap_ms = ms(policy.gap_s)
        self._motions: dict[Track, Motion] = {}
        self._windows: Windows[PlayerTotals] = Windows(
            width_ms=ms(policy.window_s),
            lateness_ms=ms(policy.lateness_s),
            idle_ms=ms(policy.idle_s),
            forget_ms=ms(policy.forget_s),
            make=PlayerTotals,
        )

    @property
    def deadline_ms(self) -> int:
        """Give a stream time before which no track can be silent."""
        return self._windows.deadline_ms

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Move the players of a positions reading; see `Analyser.feed`."""
        assert isinstance(reading, Positions)
        players = self._players(reading)
        if not players:
            return ()
        track = Track(reading.source, reading.session, reading.venue)
        windows = self._windows
        lane = windows.lane(track, stream_ms=stream_ms)
        t_ms = reading.t_ms
        if windows.is_late(lane, t_ms):
            windows.count_late(lane)
            # Were it not late, a path that is seen within the gap would begin with it.
            reach_ms = t_ms + self._gap_ms + 1
            windows.need(lane, until_ms=reach_ms, offset=windows.closer(lane))
            return _findings(windows.observe(lane, t_ms, offset=offset))
        motion = self._motions.get(track)
        if motion is None:
            motion = self._motions[track] = Motion(self._motion_policy)
        if t_ms < lane.high_ms:
            newer = motion.overtaken(t_ms, [*players])
            if newer < offset:
                windows.need(lane, until_ms=t_ms + 1, offset=int(newer))
        places = [(item.x, item.y) for item in players.values()]
        since = windows.since(lane, t_ms, offset=offset)
        self._add(lane, motion.frame(t_ms, [*players], places, offset=since))
        return _findings(windows.observe(lane, t_ms, offset=offset))

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Close the windows of silent tracks; see `Analyser.pass_time`."""
        closed, forgotten = self._windows.pass_time(stream_ms, before=self._end, spared=self._hold)
        for track in forgotten:
            self._motions.pop(track, None)
        return _findings(closed)

    def finish(self) -> Sequence[Finding]:
        """Close every window."""
        closed = self._windows.finish(before=self._end)
        self._motions.clear()
        return _findings(closed)

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the lowest offset still needed; see `Analyser.rewind`."""
        since = self._windows.rewind(next_offset)
        for motion in self._motions.values():
            held = motion.since()
            if held < since:
                since = int(held)
        return since

    def provisional(self) -> Sequence[Finding]:
        """Give the totals of the open windows so far."""
        return _findings(self._windows.provisional())

    def take_late(self) -> dict[str, int]:
        """Give the late readings per source since the last call."""
        return self._windows.take_late()

    def _players(self, reading: Positions) -> dict[str, TrackedObject]:
        balls = self._policy.ball_ids
        venue = None if reading.venue is None else self._venues.get(reading.venue)
        margin_m = self._policy.pitch_margin_m
        return {
            item.id: item
            for item in reading.objects
            if item.id not in balls
            and (item.team is not None or venue is None or is_near(venue.pitch, item, margin_m))
            and math.isfinite(item.x)
            and math.isfinite(item.y)
        }

    def _end(self, lane: Lane[PlayerTotals]) -> None:
        motion = self._motions.get(lane.track)
        if motion is not None:
            self._add(lane, motion.end())

    def _hold(self, lane: Lane[PlayerTotals]) -> None:
        motion = self._motions.get(lane.track)
        if motion is not None:
            motion.depend(lane.high_offset)

    def _add(self, lane: Lane[PlayerTotals], steps: Sequence[Step]) -> None:
        windows = self._windows
        hsr_mps, sprint_mps = self._hsr_mps, self._sprint_mps
        for step in steps:
            speed = step.speed_mps
            if not math.isfinite(speed):
                continue
            held = windows.held(lane, step.entity, step.t_ms)
            if held is None:
                if windows.is_late(lane, step.t_ms):
                    continue
                held = windows.open(lane, step.entity, step.t_ms, since=step.since)
            elif step.since < held.since:
                held.since = step.since
            totals = held.totals
            totals.distance_m += step.distance_m
            totals.time_s += step.time_s
            if speed > totals.speed_max_mps:
                totals.speed_max_mps = speed
            if speed >= hsr_mps:
                totals.hsr_m += step.distance_m
                if speed >= sprint_mps:
                    totals.sprint_m += step.distance_m


def is_near(pitch: Pitch, item: TrackedObject, margin_m: float) -> bool:
    """Tell whether an object is on the pitch or at most about `margin_m` off it."""
    wider = Pitch(pitch.shape, pitch.length_m + 2 * margin_m, pitch.width_m + 2 * margin_m)
    return wider.contains(item.x, item.y)


def _findings(closed: Sequence[Closed[PlayerTotals]]) -> list[Finding]:
    return [
        Finding(
            subject=item.subject,
            kind="player_metric",
            span_start_ms=item.start_ms,
            span_end_ms=item.end_ms,
            model=MODEL,
            values={
                "distance_m": item.totals.distance_m,
                "time_in_view_s": item.totals.time_s,
                "speed_max_mps": item.totals.speed_max_mps,
                "hsr_distance_m": item.totals.hsr_m,
                "sprint_distance_m": item.totals.sprint_m,
            },
            sensor=item.track.source,
            venue=item.track.venue,
            session=item.track.session,
        )
        for item in closed
    ]
