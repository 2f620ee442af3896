"""Evaluates a Prophet model: `yhat` for many instants at once, and a repeatable interval.

The interval has *horizon* semantics: for an instant after the training data it is what
Prophet draws in a call that predicts every step from the end of training up to it, so it
does not depend on which readings happen to share a batch. New changes of the trend come as
a Poisson process with the training's rate and mean size (Taylor & Letham 2018, section
3.1.4). It is simulated once, with a fixed seed, up to `HORIZON` training spans after the
training; beyond that it stays as wide as there.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchday.analysis.forecast.prophet_json import ProphetModel

Floats = NDArray[np.float64]

HORIZON = 2.0
_GRID_POINTS = 33
_FACTOR_POINTS = 9
_PATHS = 2000
_SEED = 20_170_501
_DAY_S = 86_400.0


class Forecasts(NamedTuple):
    """Forecasts for n instants, each (n,) float64 in the unit of the training data."""

    yhat: Floats
    lower: Floats
    upper: Floats


class Evaluator:
    """A model ready to forecast; immutable, so it may be shared between threads."""

    def __init__(self, model: ProphetModel) -> None:
        self.model = model
        self._changes = np.array(model.changepoints_t)
        self._deltas = np.array(model.deltas)
        self._additive = _Fourier(model, "additive", model.y_scale)
        self._multiplicative = _Fourier(model, "multiplicative", 1.0)
        if model.growth == "logistic":
            self._gammas = _offsets(model, self._changes, self._deltas)
        self._simulate()

    def at(self, instants_ms: Floats | NDArray[np.int64]) -> Forecasts:
        """Forecast for instants given in milliseconds UTC, (n,), in any order."""
        seconds = np.asarray(instants_ms, dtype=np.float64) / 1000.0
        t = (seconds - self.model.start_s) / self.model.span_s
        days = seconds / _DAY_S
        factor = 1.0 + self._multiplicative.at(days)
        yhat = self._trend(t) * factor + self._additive.at(days)
        return Forecasts(
            yhat,
            yhat + self._reach(self._lower, t, factor),
            yhat + self._reach(self._upper, t, factor),
        )

    def _trend(self, t: Floats) -> Floats:
        model = self.model
        if model.growth == "flat":
            scaled = np.full_like(t, model.m)
        elif model.growth == "linear":
            passed = (self._changes[None, :] <= t[:, None]) * self._deltas
            rate = passed.sum(axis=1) + model.k
            scaled = rate * t + (passed * -self._changes).sum(axis=1) + model.m
        else:
            passed_mask = self._changes[None, :] <= t[:, None]
            rate = (passed_mask * self._deltas).sum(axis=1) + model.k
            offset = (passed_mask * self._gammas).sum(axis=1) + model.m
            scaled = _logistic(self._cap_scaled(), rate * (t - offset))
        return scaled * model.y_scale + model.floor

    def _cap_scaled(self) -> float:
        assert self.model.cap is not None
        return (self.model.cap - self.model.floor) / self.model.y_scale

    def _reach(self, table: Floats, t: Floats, factor: Floats) -> Floats:
        """Interpolate a simulated bound, (horizon, factor), at t and trend factor."""
        along = np.clip((t - 1.0) / HORIZON, 0.0, 1.0) * (_GRID_POINTS - 1)
        column = np.minimum(along.astype(np.intp), _GRID_POINTS - 2)
        part = along - column
        if len(self._factors) == 1:
            bounds = table[:, 0]
            return np.asarray(bounds[column] * (1 - part) + bounds[column + 1] * part)
        span = self._factors[-1] - self._factors[0]
        across = np.clip((factor - self._factors[0]) / span, 0.0, 1.0) * (_FACTOR_POINTS - 1)
        row = np.minimum(across.astype(np.intp), _FACTOR_POINTS - 2)
        rest = across - row
        near = table[column, row] * (1 - rest) + table[column, row + 1] * rest
        far = table[column + 1, row] * (1 - rest) + table[column + 1, row + 1] * rest
        return np.asarray(near * (1 - part) + far * part)

    def _simulate(self) -> None:
        """Fill the tables of interval bounds relative to yhat, in the data's unit."""
        model = self.model
        random = np.random.default_rng(_SEED)
        grid = 1.0 + HORIZON * np.arange(_GRID_POINTS) / (_GRID_POINTS - 1)
        drift = self._drift(grid, random) * model.y_scale
        # Evenly spread quantiles of the noise in random order: no sampling error where the
        # trend is certain.
        ranks = (np.arange(_PATHS) + 0.5) / _PATHS
        spread = np.array([NormalDist().inv_cdf(rank) for rank in ranks])
        noise = np.stack([random.permutation(spread) for _ in grid], axis=1)
        noise *= model.sigma * model.y_scale
        self._factors = self._trend_factors()
        tails = ((1 - model.interval_ratio) / 2, (1 + model.interval_ratio) / 2)
        tables = np.empty((2, _GRID_POINTS, len(self._factors)))
        for index, factor in enumerate(self._factors):
            tables[:, :, index] = np.quantile(drift * factor + noise, tails, axis=0)
        self._lower, self._upper = tables

    def _trend_factors(self) -> Floats:
        """Give the factors of the trend to tabulate: 1 alone without multiplicative terms."""
        swing = self._multiplicative.bound
        if swing == 0.0:
            return np.ones(1)
        return np.linspace(1.0 - swing, 1.0 + swing, _FACTOR_POINTS)

    def _drift(self, grid: Floats, random: np.random.Generator) -> Floats:
        """Draw how far simulated trends stray from the fitted one, (paths, grid), scaled."""
        model = self.model
        drift = np.zeros((_PATHS, len(grid)))
        if model.growth == "flat" or not len(self._changes):
            return drift
        size = float(np.mean(np.abs(self._deltas))) + 1e-8
        base = (self._trend(grid) - model.floor) / model.y_scale
        for path in drift:
            count = random.poisson(len(self._changes) * HORIZON)
            times = np.sort(1.0 + random.random(count) * HORIZON)
            steps = random.laplace(0.0, size, count)
            if model.growth == "linear":
                late = np.maximum(grid[:, None] - times[None, :], 0.0)
                path[:] = late @ steps
            else:
                changes = np.concatenate((self._changes, times))
                deltas = np.concatenate((self._deltas, steps))
                gammas = _offsets(model, changes, deltas)
                passed = changes[None, :] <= grid[:, None]
                rate = (passed * deltas).sum(axis=1) + model.k
                offset = (passed * gammas).sum(axis=1) + model.m
                path[:] = _logistic(self._cap_scaled(), rate * (grid - offset)) - base
        return drift


class _Fourier:
    """The sum of all seasonalities of one mode, as one product of arrays."""

    def __init__(self, model: ProphetModel, mode: str, scale: float) -> None:
        speeds: list[float] = []
        sines: list[float] = []
        cosines: list[float] = []
        for season in model.seasonalities:
            if season.mode != mode:
                continue
            for harmonic in range(len(season.beta) // 2):
                speeds.append((harmonic + 1) / season.period_days)
                sines.append(season.beta[2 * harmonic] * scale)
                cosines.append(season.beta[2 * harmonic + 1] * scale)
        self._speeds = np.array(speeds)
        self._sines = np.array(sines)
        self._cosines = np.array(cosines)
        # No sum of waves is higher than the sum of their heights.
        self.bound = float(np.hypot(self._sines, self._cosines).sum())

    def at(self, days: Floats) -> Floats:
        """Give the sum at times in days since 1970, (n,)."""
        if not len(self._speeds):
            return np.zeros_like(days)
        angle = (2.0 * np.pi * days)[:, None] * self._speeds
        return np.asarray(np.sin(angle) @ self._sines + np.cos(angle) @ self._cosines)


def _offsets(model: ProphetModel, changes: Floats, deltas: Floats) -> Floats:
    """Give the shifts that keep a logistic trend continuous at its changes of rate."""
    rates = np.concatenate(([model.k], model.k + np.cumsum(deltas)))
    gammas = np.zeros(len(changes))
    total = 0.0
    for index, at in enumerate(changes):
        gamma = (at - model.m - total) * (1 - rates[index] / rates[index + 1])
        gammas[index] = gamma
        total += gamma
    return gammas


def _logistic(cap: float, exponent: Floats) -> Floats:
    # Beyond 700 the exponential overflows, and the value is the asymptote anyway.
    return np.asarray(cap / (1.0 + np.exp(-np.clip(exponent, -700.0, 700.0))))
