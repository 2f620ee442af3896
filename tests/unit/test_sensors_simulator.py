"""The simulator: the same for the same seed, and within what bodies and zones can do."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchday.clock import ManualClock
from matchday.domain.reading import Count, Positions, Reading, Scalar
from matchday.domain.topics import DAY_MS, parse_native
from matchday.domain.venue import Pitch, read_venue
from matchday.errors import ConfigError
from matchday.sensors.players import ACCELERATION_MPS2_MAX, SPEED_MPS_MAX, Match
from matchday.sensors.simulator import SimulateOptions, Thermometer, generator_of, simulate
from unit.sensors_outlet import ListOutlet

EXAMPLES = Path(__file__).parents[2] / "examples"
OVAL = read_venue(EXAMPLES / "venues" / "oval.toml")
PITCHES = [Pitch("rectangle", 105.0, 68.0), OVAL.pitch]


def run(**options: Any) -> ListOutlet:
    outlet = ListOutlet(ManualClock())
    settings = {"source": "sim-0", "venue": OVAL, "messages_max": 20, **options}
    simulate(SimulateOptions(**settings), outlet, outlet.clock, threading.Event())
    outlet.pump(0.0)
    return outlet


def by_source(outlet: ListOutlet) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for topic, payload in outlet.sent:
        native = parse_native(topic)
        assert native is not None
        found[native.source].append(json.loads(payload))
    return found


def test_equal_seeds_give_equal_messages_and_another_seed_others() -> None:
    assert run(count=3, seed=5).sent == run(count=3, seed=5).sent
    assert run(count=3, seed=5).sent != run(count=3, seed=6).sent


def test_a_source_says_the_same_however_many_others_there_are() -> None:
    few, many = by_source(run(count=4)), by_source(run(count=9))

    assert all(few[name] == many[name] for name in few)


def test_messages_come_at_the_rate_and_say_when() -> None:
    outlet = run(rate_hz=10.0)

    times_ms = [payload["t"] for payload in outlet.payloads]
    assert times_ms == [1_700_000_000_000 + 100 * index for index in range(20)]
    assert outlet.sent_ms == pytest.approx(times_ms, abs=150)


def test_every_message_is_numbered_without_gap_and_has_a_session() -> None:
    for payloads in by_source(run(count=6)).values():
        assert [payload["seq"] for payload in payloads] == list(range(1, 21))
        assert len({payload["session"] for payload in payloads}) == 1


def test_mixed_sources_are_the_three_kinds_in_turn() -> None:
    kinds = [topic.split("/")[2] for topic, _ in run(count=4, messages_max=1).sent]

    assert kinds == ["positions", "count", "scalar", "positions"]


def test_occupancy_is_the_sum_of_in_and_out_within_the_capacity() -> None:
    (payloads,) = by_source(run(kind="counts", rate_hz=0.05, messages_max=2_000)).values()

    occupancy = 0
    for payload in payloads:
        occupancy += payload["in"] - payload["out"]
        assert payload["occupancy"] == occupancy
        assert min(payload["in"], payload["out"], occupancy) >= 0
        assert occupancy <= 1600
    assert {payload["zone"] for payload in payloads} == {"A1"}
    assert max(payload["occupancy"] for payload in payloads) > 400


def test_temperature_follows_the_day() -> None:
    model = Thermometer(generator_of(1, "t"))
    times_ms = range(0, 10 * DAY_MS, 600_000)

    readings = [model.fields(t_ms, 600.0) for t_ms in times_ms]

    hours = np.array(times_ms) // 3_600_000 % 24
    values_c = np.array([reading["value"] for reading in readings])
    # The daily swing is at least 4 degC either way, the noise 0.5 degC.
    assert values_c[hours == 15].mean() - values_c[hours == 3].mean() > 6.0
    assert {reading["unit"] for reading in readings} == {"degC"}


@pytest.mark.parametrize("pitch", PITCHES, ids=lambda pitch: pitch.shape)
def test_players_stay_within_what_bodies_can_do(pitch: Pitch) -> None:
    match = Match(pitch, generator_of(3, "match"))
    positions, velocities = [], []
    for _ in range(25 * 120):
        match.advance(0.04)
        positions.append(match.positions_m)
        velocities.append(match.velocities_mps)
    speeds_mps = np.linalg.norm(velocities, axis=-1)
    changes_mps2 = np.linalg.norm(np.diff(velocities, axis=0), axis=-1) / 0.04
    moved_mps = np.linalg.norm(np.diff(positions, axis=0), axis=-1) / 0.04

    # Rounding of floats apart; published limits of the game are 9.5 m/s and 5 m/s2.
    assert speeds_mps.max() <= SPEED_MPS_MAX + 1e-9
    assert changes_mps2.max() <= ACCELERATION_MPS2_MAX + 1e-9
    assert moved_mps == pytest.approx(speeds_mps[1:])
    assert 1.2 < speeds_mps.mean() < 3.2
    assert speeds_mps.max() > 6.0


@pytest.mark.parametrize("pitch", PITCHES, ids=lambda pitch: pitch.shape)
def test_players_and_ball_keep_to_the_field(pitch: Pitch) -> None:
    match = Match(pitch, generator_of(4, "match"))
    wider = Pitch(pitch.shape, pitch.length_m + 6, pitch.width_m + 6)

    for _ in range(25 * 60):
        match.advance(0.04)
        assert all(wider.contains(x, y) for x, y in match.positions_m)
        assert wider.contains(*match.ball_m)
        assert 0 <= match.ball_height_m < 15


def test_sides_have_eleven_on_a_rectangle_and_eighteen_on_an_oval() -> None:
    counts = [len(Match(pitch, generator_of(1, "m")).objects()) for pitch in PITCHES]

    assert counts == [23, 37]


def test_ball_changes_hands_and_players_follow_it() -> None:
    match = Match(PITCHES[0], generator_of(2, "match"))
    balls, centroids = [], []
    for _ in range(120 * 5):
        match.advance(0.2)
        balls.append(match.ball_m[0])
        centroids.append(match.positions_m[:, 0].mean())

    assert np.std(balls) > 8.0
    assert np.corrcoef(balls, centroids)[0, 1] > 0.5


def test_slow_rate_does_not_make_long_strides() -> None:
    match = Match(PITCHES[0], generator_of(2, "match"))
    before = match.positions_m

    match.advance(2.0)

    assert np.linalg.norm(match.positions_m - before, axis=-1).max() <= 2 * SPEED_MPS_MAX


def test_payloads_fit_the_readings_contract() -> None:
    shapes: dict[str, type[Reading]] = {"positions": Positions, "count": Count, "scalar": Scalar}
    named = {"in": "entered", "out": "left", "t": "t_ms"}

    for topic, payload in run(count=3, messages_max=1).sent:
        kind = topic.split("/")[2]
        fields = {named.get(name, name) for name in json.loads(payload)}
        assert fields <= set(shapes[kind].__struct_fields__)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"rate_hz": 0.0}, {"kind": "birds"}])
def test_impossible_option_is_a_config_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="simulating"):
        SimulateOptions(source="s", **wrong)
