"""Players who move like players: a seeded kinematic model of two sides and a ball.

Not a model of tactics. It keeps what analysis depends on: top speeds up to 9.3 m/s, changes
of velocity up to 4.8 m/s2 (sprinters reach about 5 to 6: Morin et al. 2012), sides that
shift with the ball, the nearest players chasing it, passes of 8 to 25 m/s, and mean speeds
near the 1.5 to 2.5 m/s of the games themselves.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from matchday.domain.venue import Pitch

SPEED_MPS_MAX: Final = 9.3
ACCELERATION_MPS2_MAX: Final = 4.8
STEP_S_MAX: Final = 0.04

_SIDES: Final = ("home", "away")
_SETTLE_S: Final = 0.6
_ARRIVE_S: Final = 1.6
_WANDER_M: Final = 4.0
_WANDER_S: Final = 15.0
_PASS_EVERY_S: Final = 2.5
_CONTROL_M: Final = 1.3
_BALL_DRAG_PER_S: Final = 0.35

# Places as shares of half the length and half the width, attacking towards +x.
_ELEVEN: Final = (
    (-0.93, 0.0),
    *((-0.55, y) for y in (-0.7, -0.25, 0.25, 0.7)),
    *((-0.1, y) for y in (-0.7, -0.25, 0.25, 0.7)),
    *((0.35, y) for y in (-0.25, 0.25)),
)
# Five lines of three, and three followers round the ball (the game's usual 18).
_EIGHTEEN: Final = (
    *((x, y) for x in (-0.75, -0.42, 0.0, 0.42, 0.75) for y in (-0.5, 0.0, 0.5)),
    *((0.03, y) for y in (-0.12, 0.12, 0.2)),
)

_Points = npt.NDArray[np.float64]


class Match:
    """Two sides and a ball, advanced step by step; equal generators give equal matches.

    11 a side on a rectangle, 18 on an oval. Positions are metres in the venue frame;
    players keep to the field within a few strides.

    Args:
        pitch: The field.
        generator: All chance comes from it.
    """

    def __init__(self, pitch: Pitch, generator: np.random.Generator) -> None:
        places = np.array(_EIGHTEEN if pitch.shape == "oval" else _ELEVEN)
        half = np.array([pitch.length_m / 2, pitch.width_m / 2])
        self._pitch = pitch
        self._half = half
        self._random = generator
        self._per_side = len(places)
        self._places: _Points = np.concatenate([places, -places]) * half
        count = len(self._places)
        # A goalkeeper hardly follows the ball.
        self._follow = np.full((count, 1), 0.45)
        if pitch.shape == "rectangle":
            self._follow[[0, self._per_side]] = 0.06
        self._fastest_mps = generator.uniform(7.4, SPEED_MPS_MAX, count)
        self._ease = generator.uniform(0.42, 0.58, count)
        self._wander: _Points = generator.normal(0.0, _WANDER_M, (count, 2))
        self.positions_m: _Points = self._places * 0.6
        self.velocities_mps: _Points = np.zeros((count, 2))
        self.ball_m: _Points = np.zeros(2)
        self.ball_height_m = 0.0
        self._ball_velocity: _Points = np.zeros(2)
        self._carrier: int | None = None
        self._passer: int | None = None
        self._flight_s = 0.0
        self._flight_total_s = 0.0

    @property
    def ids(self) -> list[str]:
        """Give the players' ids in the order of `positions_m`."""
        return [f"{side}_{number + 1}" for side in _SIDES for number in range(self._per_side)]

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps of at most 40 ms."""
        steps = max(1, math.ceil(seconds / STEP_S_MAX - 1e-9))
        for _ in range(steps):
            self._step(seconds / steps)

    def objects(self) -> list[dict[str, Any]]:
        """Give the objects of a positions reading, rounded to centimetres."""
        found: list[dict[str, Any]] = [
            {"id": name, "x": round(x, 2), "y": round(y, 2), "team": name.split("_")[0]}
            for name, (x, y) in zip(self.ids, self.positions_m.tolist(), strict=True)
        ]
        x, y = self.ball_m.tolist()
        found.append(
            {"id": "ball", "x": round(x, 2), "y": round(y, 2), "z": round(self.ball_height_m, 2)}
        )
        return found

    def _step(self, dt_s: float) -> None:
        self._move_players(dt_s)
        if self._carrier is None:
            self._roll_ball(dt_s)
        else:
            self._carry_ball(self._carrier, dt_s)

    def _move_players(self, dt_s: float) -> None:
        decay = math.exp(-dt_s / _WANDER_S)
        self._wander *= decay
        spread_m = _WANDER_M * math.sqrt(1 - decay**2)
        self._wander += self._random.normal(0.0, spread_m, self._wander.shape)
        targets = self._places + self._follow * (self.ball_m - self._places * 0.3) + self._wander
        effort = self._ease.copy()
        for player in self._chasers():
            targets[player] = self.ball_m + 0.4 * self._ball_velocity
            effort[player] = 1.0
        if self._carrier is not None:
            ahead = 1.0 if self._carrier < self._per_side else -1.0
            targets[self._carrier] = self.positions_m[self._carrier] + (
                8.0 * ahead,
                self._wander[self._carrier, 1],
            )
            effort[self._carrier] = 0.7
        gap = self._inside(targets) - self.positions_m
        gap_m = np.maximum(np.hypot(gap[:, 0], gap[:, 1]), 1e-9)
        # Nobody hurries for a stride or two.
        wanted_mps = np.minimum(effort * self._fastest_mps, np.maximum(gap_m - 0.8, 0) / _ARRIVE_S)
        change = (gap * (wanted_mps / gap_m)[:, None] - self.velocities_mps) / _SETTLE_S
        # New arrays each step: callers may keep the old ones.
        velocities = self.velocities_mps + _shortened(change, ACCELERATION_MPS2_MAX) * dt_s
        self.velocities_mps = _shortened(velocities, self._fastest_mps)
        self.positions_m = self.positions_m + self.velocities_mps * dt_s

    def _chasers(self) -> list[int]:
        """Give the player of each side nearest to the ball, except the one who has it."""
        away = np.hypot(*(self.positions_m - self.ball_m).T)
        if self._carrier is not None:
            away[self._carrier] = np.inf
        first = int(np.argmin(away[: self._per_side]))
        second = self._per_side + int(np.argmin(away[self._per_side :]))
        if self._carrier is None:
            return [first, second]
        return [second] if self._carrier < self._per_side else [first]

    def _carry_ball(self, carrier: int, dt_s: float) -> None:
        speed_mps = float(np.hypot(*self.velocities_mps[carrier]))
        heading = self.velocities_mps[carrier] / max(speed_mps, 0.5)
        step = self.positions_m[carrier] + 0.6 * heading - self.ball_m
        self._ball_velocity = _shortened((step / dt_s)[None, :], 12.0)[0]
        self.ball_m = self.ball_m + self._ball_velocity * dt_s
        self.ball_height_m = 0.11
        rivals = self._rivals(carrier)
        pressure = float(np.min(np.hypot(*(self.positions_m[rivals] - self.ball_m).T)))
        rate_per_s = (3.0 if pressure < 2.0 else 1.0) / _PASS_EVERY_S
        if self._random.random() < 1 - math.exp(-rate_per_s * dt_s):
            self._kick(carrier)

    def _rivals(self, player: int) -> slice:
        half = self._per_side
        return slice(half, None) if player < half else slice(0, half)

    def _kick(self, passer: int) -> None:
        first = 0 if passer < self._per_side else self._per_side
        mates = [one for one in range(first, first + self._per_side) if one != passer]
        away_m = np.hypot(*(self.positions_m[mates] - self.ball_m).T)
        forward_m = self.positions_m[mates, 0] - self.ball_m[0]
        if first:
            forward_m = -forward_m
        # The share of a pass falls with distance and rises with the ground it gains.
        appeal = np.exp(-np.abs(away_m - 14.0) / 9.0 + np.clip(forward_m, -15, 15) / 25.0)
        mate = mates[int(self._random.choice(len(mates), p=appeal / appeal.sum()))]
        lead_m = float(np.hypot(*(self.positions_m[mate] - self.ball_m)))
        pace_mps = min(25.0, 8.0 + 0.45 * lead_m)
        flight_s = lead_m / pace_mps
        goal = self._inside(
            self.positions_m[[mate]]
            + self.velocities_mps[[mate]] * flight_s
            + self._random.normal(0.0, 0.06 * lead_m, (1, 2))
        )[0]
        # Drag takes its part on the way, so the ball leaves a little faster.
        self._ball_velocity = (goal - self.ball_m) / max(flight_s, 0.2) * 1.15
        self._ball_velocity = _shortened(self._ball_velocity[None, :], 28.0)[0]
        self._flight_total_s = flight_s if lead_m > 18.0 else 0.0
        self._flight_s = 0.0
        self._carrier, self._passer = None, passer

    def _roll_ball(self, dt_s: float) -> None:
        self._flight_s += dt_s
        self._ball_velocity = self._ball_velocity * math.exp(-_BALL_DRAG_PER_S * dt_s)
        self.ball_m = self.ball_m + self._ball_velocity * dt_s
        share = self._flight_s / self._flight_total_s if self._flight_total_s else 1.0
        is_high = share < 1.0
        # A parabola whose height is that of its flight time: h = g T2 / 8.
        rise_m = 9.81 * self._flight_total_s**2 / 8
        self.ball_height_m = 0.11 + (4 * rise_m * share * (1 - share) if is_high else 0.0)
        kept = self._inside(self.ball_m[None, :])[0]
        if not np.allclose(kept, self.ball_m):
            # Over the line: it stays there until somebody fetches it.
            self.ball_m, self._ball_velocity = kept, np.zeros(2)
        away = np.hypot(*(self.positions_m - self.ball_m).T)
        if self._passer is not None and self._flight_s < 0.5:
            away[self._passer] = np.inf
        nearest = int(np.argmin(away))
        if away[nearest] < _CONTROL_M and self.ball_height_m < 2.2:
            self._carrier = nearest

    def _inside(self, points: _Points) -> _Points:
        """Draw points beyond the field back to its line."""
        if self._pitch.shape == "rectangle":
            clipped: _Points = np.clip(points, -self._half, self._half)
            return clipped
        out = np.hypot(*(points / self._half).T)
        drawn: _Points = points / np.maximum(out, 1.0)[:, None]
        return drawn


def _shortened(vectors: _Points, longest: float | npt.NDArray[np.float64]) -> _Points:
    """Shorten the vectors that are longer than allowed; directions stay.

    A projection on a ball never lengthens a difference, so limiting the speed keeps the
    limit on its change.
    """
    lengths = np.maximum(np.hypot(vectors[:, 0], vectors[:, 1]), 1e-12)
    return vectors * np.minimum(1.0, longest / lengths)[:, None]
