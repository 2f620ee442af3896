"""Replay: a recording sent again, at its own pace or faster, as if it happened now.

Owns the mapping of recorded time to new time, sessions and pacing. The spacing of `t` is
never scaled: a second between two readings stays a second of event time at any speed, or
speeds and flows worked out from them would be wrong. Does not own files (`recordings`) or
the network (`publisher`).

Event time at speed X: the run takes duration / X, and the last reading must fall on the
moment it is sent; so the first one is dated (duration - duration / X) before the start. At
1x that is the start itself. Below 1x the run also starts now, and falls behind.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from matchday.clock import Clock
from matchday.domain.instants import iso_from_ms
from matchday.domain.topics import parse_native
from matchday.errors import ConfigError
from matchday.observe.events import RecordingRowsSkipped, emit
from matchday.sensors.native import event_time_ms
from matchday.sensors.outbox import Draft
from matchday.sensors.outlet import BATCH_MAX, WAIT_S, Outlet, hand_over, wait_until
from matchday.sensors.recorded import RecordedMessage
from matchday.sensors.recordings import Recording
from matchday.sensors.series import original_time

RESUME_WITHIN_MS: Final = 600_000
NOTE_EVERY_S: Final = 60.0
"""How often a run that waits for room notes that it goes on."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        speed: Event seconds per second of the clock; `math.inf` sends as fast as it can.
        keeps_recorded_time: Send `t` as recorded instead of moving it to now.
        is_looped: Begin again at the end, as a new session, until stopped.
        source_suffix: Added to every source, so that equal replays stay apart.

    Raises:
        ConfigError: The speed is not above 0.
    """

    speed: float = 1.0
    keeps_recorded_time: bool = False
    is_looped: bool = False
    source_suffix: str = ""

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ConfigError(f"replaying: speed {self.speed}: not above 0")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One pass through a recording: everything needed to go on with it after a kill.

    Attributes:
        recording: Which file and options it belongs to.
        stamp: Start of the run as text, part of the session.
        loop: Number of the pass, from 0.
        started_ms: Wall clock at its start, milliseconds UTC.
        shift_ms: Added to recorded times, milliseconds.
        position: How many messages of the pass were handed over.
        offered_ms: Wall clock when the last of them was, milliseconds UTC.
    """

    recording: str
    stamp: str
    loop: int
    started_ms: int
    shift_ms: int
    position: int = 0
    offered_ms: int = 0


def replay(
    recording: Recording,
    options: ReplayOptions,
    outlet: Outlet,
    clock: Clock,
    stop: threading.Event,
) -> int:
    """Send a recording to the outlet; return when all is acknowledged or `stop` is set.

    Every pass is a new session ("<its own or the file's name>-<start>-<loop>"), while `seq`
    goes on per source. A run cut off by a kill less than ten minutes ago is gone on with,
    where it stood and under its session: what is overdue is sent at once. A run that was
    stopped is over; what the outlet holds then may still be unacknowledged: flush it.

    Args:
        recording: What to send.
        options: How.
        outlet: Takes the messages; pumped while waiting.
        clock: Paces, and dates the start.
        stop: Ends it within about a tenth of a second.

    Returns:
        How many messages were handed over by this call.

    Raises:
        ConfigError: The recording cannot be read or is empty.
        UnavailableError: The disk of the outbox is full.
    """
    total = 0
    run = _interrupted(recording, options, outlet, clock)
    loop = 0 if run is None else run.loop
    while not stop.is_set():
        if run is None:
            run = _begin(recording, options, clock, loop)
        total += _Player(recording, options, outlet, clock, stop).play(run)
        if loop == 0 and not stop.is_set():
            _tell_skipped(recording)
        run, loop = None, loop + 1
        if not options.is_looped:
            break
    # A run is over once it is acknowledged: killed before, it has nothing left to hand over
    # and must not begin anew.
    while outlet.pending_count and not stop.is_set():
        outlet.pump(WAIT_S)
    outlet.offer((), notes={_note_name(recording): b""})
    return total


class _Player:
    """Plays one pass."""

    def __init__(
        self,
        recording: Recording,
        options: ReplayOptions,
        outlet: Outlet,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._recording = recording
        self._options = options
        self._outlet = outlet
        self._clock = clock
        self._stop = stop

    def play(self, run: Run) -> int:
        """Hand over what is left of the pass; give how many messages that was."""
        first_ms = self._recording.span().first_ms
        # From here on the monotonic clock paces, so a corrected wall clock does no harm.
        origin_s = self._clock.monotonic_s() - (self._clock.wall_ms() - run.started_ms) / 1000
        done = 0
        batch: list[Draft] = []
        for message in islice(self._recording, run.position, None):
            due_s = origin_s + (message.t_ms - first_ms) / 1000 / self._options.speed
            if batch and (len(batch) >= BATCH_MAX or due_s > self._clock.monotonic_s()):
                if not self._hand_over(batch, run, done):
                    return done
                done += len(batch)
                batch = []
            if not wait_until(due_s, self._outlet, self._clock, self._stop):
                return done
            batch.append(self._draft(message, run))
        if batch and self._hand_over(batch, run, done):
            done += len(batch)
        return done

    def _hand_over(self, batch: Sequence[Draft], run: Run, done: int) -> bool:
        noted_s = self._clock.monotonic_s()
        while self._outlet.is_full and not self._stop.is_set():
            self._outlet.pump(WAIT_S)
            if self._clock.monotonic_s() - noted_s >= NOTE_EVERY_S:
                # Killed in a long outage it is gone on with all the same.
                noted_s = self._clock.monotonic_s()
                self._outlet.offer((), notes=self._notes(run, done))
        notes = self._notes(run, done + len(batch))
        return hand_over(batch, self._outlet, self._stop, notes=notes)

    def _notes(self, run: Run, done: int) -> dict[str, bytes]:
        moved = msgspec.structs.replace(
            run, position=run.position + done, offered_ms=self._clock.wall_ms()
        )
        return {_note_name(self._recording): msgspec.json.encode(moved)}

    def _draft(self, message: RecordedMessage, run: Run) -> Draft:
        return _draft(
            message,
            run,
            stem=self._recording.path.name.split(".")[0],
            suffix=self._options.source_suffix,
        )


def _draft(message: RecordedMessage, run: Run, *, stem: str, suffix: str) -> Draft:
    """Give the message as it is to be sent in this run: times moved, session and source new."""
    payload = message.payload
    native = parse_native(message.topic)
    if native is None:
        if not isinstance(payload, dict) or "collectedAt" not in payload:
            return Draft(message.topic, payload, None)
        # The original's contract: no session and no number, so nothing is added.
        payload = dict(payload)
        payload["collectedAt"] = original_time(message.t_ms + run.shift_ms)
        if suffix and "sensorId" in payload:
            payload["sensorId"] = f"{payload['sensorId']}{suffix}"
        return Draft(message.topic, payload, None)
    topic = message.topic + suffix
    if not isinstance(payload, dict):
        return Draft(topic, payload, None)
    payload = {name: value for name, value in payload.items() if name != "seq"}
    # A time that no clock can have meant is sent as it was recorded.
    if event_time_ms(payload) is not None and "t" in payload:
        payload["t"] = message.t_ms + run.shift_ms
    payload["session"] = f"{payload.get('session', stem)}-{run.stamp}-{run.loop}"
    return Draft(topic, payload, f"{topic} {numbering(native.kind, payload)}")


def numbering(kind: str, payload: dict[str, Any]) -> str:
    """Name the series that a native payload's `seq` counts: the quantity, else the kind."""
    return str(payload.get("quantity", kind)) if kind == "scalar" else kind


def _begin(recording: Recording, options: ReplayOptions, clock: Clock, loop: int) -> Run:
    span = recording.span()
    now_ms = clock.wall_ms()
    duration_ms = span.last_ms - span.first_ms
    ahead_ms = max(0, duration_ms - round(duration_ms / options.speed))
    shift_ms = 0 if options.keeps_recorded_time else now_ms - ahead_ms - span.first_ms
    return Run(
        recording=_identity(recording, options),
        stamp=iso_from_ms(now_ms).replace("-", "").replace(":", "").replace(".", ""),
        loop=loop,
        started_ms=now_ms,
        shift_ms=shift_ms,
    )


def _interrupted(
    recording: Recording, options: ReplayOptions, outlet: Outlet, clock: Clock
) -> Run | None:
    """Give the run that a kill cut off, where it may be gone on with."""
    text = outlet.note(_note_name(recording))
    if not text:
        return None
    try:
        run = msgspec.json.decode(text, type=Run)
    except msgspec.MsgspecError:
        return None
    if run.recording != _identity(recording, options):
        return None
    due_ms = 0.0
    following = next(islice(recording, run.position, None), None)
    if following is None and outlet.pending_count:
        # However long ago: it has nothing left to hand over, and begun anew it would send all
        # of it a second time, under other numbers.
        return run
    if following is not None:
        since_first_ms = following.t_ms - recording.span().first_ms
        due_ms = run.started_ms + since_first_ms / options.speed
    is_fresh = clock.wall_ms() - max(due_ms, run.offered_ms) <= RESUME_WITHIN_MS
    return run if is_fresh else None


def _identity(recording: Recording, options: ReplayOptions) -> str:
    """Spell what makes two replays the same: the file as it is, how it is read and sent."""
    state = recording.path.stat()
    return f"{recording.path.resolve()} {state.st_size} {recording.options} {options}"


def _note_name(recording: Recording) -> str:
    return f"replay {recording.path.name}"


def _tell_skipped(recording: Recording) -> None:
    skipped = recording.skipped
    if skipped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
        path = str(recording.path)
        emit(RecordingRowsSkipped(path=path, count=sum(skipped.values()), reasons=reasons))
