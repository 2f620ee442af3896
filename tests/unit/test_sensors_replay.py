"""Replay: pacing, the mapping of time, sessions, and going on after a kill."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from matchday.clock import ManualClock
from matchday.errors import ConfigError
from matchday.sensors.outbox import Outbox
from matchday.sensors.recordings import Recording, open_recording
from matchday.sensors.replay import ReplayOptions, replay
from unit.sensors_outlet import ListOutlet

START_MS = 1_700_000_000_000
RECORDED_MS = 1_500_000_000_000
TOPIC = "matchday/demo/scalar/s"


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """A native recording of 5 readings, 10 s apart."""
    return write(tmp_path, [{"t": RECORDED_MS + 10_000 * i, "value": i} for i in range(5)])


def write(folder: Path, payloads: list[Any], topic: str = TOPIC) -> Recording:
    path = folder / "five.jsonl"
    path.write_text("".join(json.dumps({"topic": topic, "payload": p}) + "\n" for p in payloads))
    return open_recording(path)


def play(
    recording: Recording,
    outlet: ListOutlet,
    stop: threading.Event | None = None,
    **options: Any,
) -> int:
    return replay(
        recording, ReplayOptions(**options), outlet, outlet.clock, stop or threading.Event()
    )


def outlet_at_start(**options: Any) -> ListOutlet:
    return ListOutlet(ManualClock(wall_ms=START_MS), **options)


def test_at_1x_it_starts_now_and_keeps_the_spacing(recording: Recording) -> None:
    outlet = outlet_at_start()

    assert play(recording, outlet) == 5

    expected = [START_MS + 10_000 * index for index in range(5)]
    assert [payload["t"] for payload in outlet.payloads] == expected
    # A wait ends within a tenth of a second, and the list is filled at the next pump.
    assert outlet.sent_ms == pytest.approx(expected, abs=200)


def test_at_10x_spacing_is_not_scaled_and_the_last_reading_is_now(recording: Recording) -> None:
    outlet = outlet_at_start()

    play(recording, outlet, speed=10.0)

    times_ms = [payload["t"] for payload in outlet.payloads]
    assert times_ms == [START_MS - 36_000 + 10_000 * index for index in range(5)]
    assert outlet.sent_ms[-1] == pytest.approx(START_MS + 4_000, abs=200)
    assert times_ms[-1] == START_MS + 4_000


def test_as_fast_as_possible_ends_now_at_once(recording: Recording) -> None:
    outlet = outlet_at_start()

    play(recording, outlet, speed=math.inf)

    assert [p["t"] for p in outlet.payloads] == [START_MS - 40_000 + 10_000 * i for i in range(5)]
    assert outlet.sent_ms[-1] == START_MS


def test_slower_than_recorded_starts_now(recording: Recording) -> None:
    outlet = outlet_at_start()

    play(recording, outlet, speed=0.5)

    assert [p["t"] for p in outlet.payloads] == [START_MS + 10_000 * i for i in range(5)]
    assert outlet.sent_ms[-1] == pytest.approx(START_MS + 80_000, abs=200)


def test_recorded_times_can_be_kept(recording: Recording) -> None:
    outlet = outlet_at_start()

    play(recording, outlet, speed=math.inf, keeps_recorded_time=True)

    assert [p["t"] for p in outlet.payloads] == [RECORDED_MS + 10_000 * i for i in range(5)]


def test_every_loop_is_a_new_session_and_numbers_go_on(recording: Recording) -> None:
    stop = threading.Event()
    outlet = outlet_at_start(stop=stop, stop_after=12)

    play(recording, outlet, stop, is_looped=True)

    sessions = [payload["session"] for payload in outlet.payloads]
    assert [payload["seq"] for payload in outlet.payloads] == list(range(1, len(sessions) + 1))
    assert sessions[:5] == [sessions[0]] * 5
    assert sessions[5:10] == [sessions[5]] * 5
    assert len(set(sessions)) == 3
    assert outlet.payloads[5]["t"] >= outlet.payloads[4]["t"]


def test_every_run_is_a_new_session(recording: Recording) -> None:
    outlet = outlet_at_start()

    play(recording, outlet)
    outlet.clock.advance(1.0)
    play(recording, outlet)

    assert len({payload["session"] for payload in outlet.payloads}) == 2
    assert outlet.payloads[-1]["seq"] == 10


def test_stop_ends_it_between_two_readings(recording: Recording) -> None:
    stop = threading.Event()
    outlet = outlet_at_start(stop=stop, stop_after=2)

    assert play(recording, outlet, stop) == 2


def test_full_outbox_slows_it_down_and_loses_nothing(recording: Recording) -> None:
    outlet = outlet_at_start(outbox=Outbox(messages_max=1))

    play(recording, outlet, speed=math.inf)

    assert [payload["seq"] for payload in outlet.payloads] == [1, 2, 3, 4, 5]


def test_quantities_of_one_source_are_numbered_apart(tmp_path: Path) -> None:
    payloads = [
        {"t": RECORDED_MS + i, "quantity": quantity, "value": i, "seq": 77, "session": "match-1"}
        for i, quantity in enumerate(["temperature", "humidity", "temperature"])
    ]
    outlet = outlet_at_start()

    play(write(tmp_path, payloads), outlet)

    assert [(p["quantity"], p["seq"]) for p in outlet.payloads] == [
        ("temperature", 1),
        ("humidity", 1),
        ("temperature", 2),
    ]
    assert outlet.payloads[0]["session"].startswith("match-1-20231114T221320000Z-0")


def test_suffix_keeps_equal_replays_apart(recording: Recording) -> None:
    outlet = outlet_at_start()

    play(recording, outlet, source_suffix="-3")

    assert {topic for topic, _ in outlet.sent} == {f"{TOPIC}-3"}


def test_originals_message_gets_a_new_time_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "demo_data.csv"
    path.write_text("Image\r1\r2\r")
    outlet = outlet_at_start()

    play(open_recording(path), outlet)

    assert outlet.sent[0][0] == "Image"
    assert outlet.payloads == [
        {"sensorId": "replay", "Image": 1, "collectedAt": "2023-11-14 22:13:20"},
        {"sensorId": "replay", "Image": 2, "collectedAt": "2023-11-14 22:13:21"},
    ]


def test_rubbish_of_a_native_recording_is_sent_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rubbish.jsonl"
    path.write_text(
        f'{{"topic":"{TOPIC}","text":"not json","arrived":{RECORDED_MS}}}\n'
        f'{{"topic":"odd/topic","payload":[1,2],"arrived":{RECORDED_MS + 1000}}}\n'
        f'{{"topic":"{TOPIC}","payload":{{"t":"2999-01-01T00:00:00Z","value":1}}}}\n'
    )
    outlet = outlet_at_start()

    play(open_recording(path), outlet)

    assert [payload for _, payload in outlet.sent[:2]] == [b"not json", b"[1,2]"]
    assert outlet.payloads_of(2)["t"] == "2999-01-01T00:00:00Z"
    assert outlet.sent_ms[1] - outlet.sent_ms[0] == pytest.approx(1000, abs=200)


class Killed(BaseException):
    """Stands for a SIGKILL in a test without processes."""


class DyingOutlet(ListOutlet):
    """Dies at the pump that finds that many messages handed over."""

    dies_at = 3

    def pump(self, timeout_s: float) -> None:
        super().pump(timeout_s)
        if len(self.sent) >= self.dies_at:
            raise Killed


def killed_replay(recording: Recording, path: Path, **options: Any) -> DyingOutlet:
    outlet = DyingOutlet(ManualClock(wall_ms=START_MS), Outbox(path))
    with pytest.raises(Killed):
        play(recording, outlet, **options)
    outlet.outbox.close()
    return outlet


def test_killed_run_is_gone_on_with_where_it_stood(recording: Recording, tmp_path: Path) -> None:
    first = killed_replay(recording, tmp_path / "o.sqlite")
    clock = ManualClock(wall_ms=first.clock.wall_ms() + 5_000)
    second = ListOutlet(clock, Outbox(tmp_path / "o.sqlite"))

    play(recording, second)

    both = first.payloads + second.payloads
    assert [payload["seq"] for payload in both] == [1, 2, 3, 4, 5]
    assert [payload["t"] for payload in both] == [START_MS + 10_000 * i for i in range(5)]
    assert len({payload["session"] for payload in both}) == 1
    assert second.sent_ms == pytest.approx([START_MS + 30_000, START_MS + 40_000], abs=200)
    second.outbox.close()


def test_run_killed_long_ago_begins_anew_under_new_numbers(
    recording: Recording, tmp_path: Path
) -> None:
    killed_replay(recording, tmp_path / "o.sqlite")
    clock = ManualClock(wall_ms=START_MS + 3_600_000)
    second = ListOutlet(clock, Outbox(tmp_path / "o.sqlite"))

    assert play(recording, second) == 5

    assert [payload["seq"] for payload in second.payloads] == [4, 5, 6, 7, 8]
    second.outbox.close()


def test_killed_run_is_not_mixed_with_another_speed(recording: Recording, tmp_path: Path) -> None:
    first = killed_replay(recording, tmp_path / "o.sqlite")
    second = ListOutlet(first.clock, Outbox(tmp_path / "o.sqlite"))

    assert play(recording, second, speed=2.0) == 5
    second.outbox.close()


def test_run_killed_before_its_last_acknowledgement_does_not_begin_anew(
    recording: Recording, tmp_path: Path
) -> None:
    DyingOutlet.dies_at, before = 5, DyingOutlet.dies_at
    try:
        first = killed_replay(recording, tmp_path / "o.sqlite", speed=math.inf)
    finally:
        DyingOutlet.dies_at = before
    second = ListOutlet(first.clock, Outbox(tmp_path / "o.sqlite"))

    assert play(recording, second, speed=math.inf) == 0
    second.outbox.close()


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_impossible_speed_is_a_config_error(speed: float) -> None:
    with pytest.raises(ConfigError, match="speed"):
        ReplayOptions(speed=speed)


class AwayOutlet(ListOutlet):
    """Its broker is away; the process dies when that was so for eleven minutes."""

    def pump(self, timeout_s: float) -> None:
        self.clock.advance(timeout_s)
        if self.clock.wall_ms() > START_MS + 660_000:
            raise Killed


@pytest.mark.parametrize("room", [50_000, 3])
def test_run_killed_in_a_long_outage_is_gone_on_with(
    recording: Recording, tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matchday.sensors.replay.BATCH_MAX", 1)
    box = Outbox(tmp_path / "o.sqlite", messages_max=room)
    first = AwayOutlet(ManualClock(wall_ms=START_MS), box)
    with pytest.raises(Killed):
        play(recording, first, speed=math.inf)
    box.close()
    second = ListOutlet(first.clock, Outbox(tmp_path / "o.sqlite", messages_max=room))

    play(recording, second, speed=math.inf)

    assert [payload["seq"] for payload in second.payloads] == [1, 2, 3, 4, 5]
    assert len({payload["session"] for payload in second.payloads}) == 1
    second.outbox.close()
