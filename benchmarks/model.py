"""A model of what a deployment needs, fitted to measurements: CPU by role, linear in its causes.

Owns the causes (messages, requests by tick and partition, series touched by a batch), the fit
by least squares with no negative coefficient, and what follows for another load. Does not own
the measurements (`scaling`). CPU is in seconds of one core of the machine that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

WINDOW_S: Final = 10.0


@dataclass(frozen=True)
class Load:
    """What comes, and how it is worked on.

    Attributes:
        rate_per_s: Messages, all sources together.
        sources: So many.
        slots: Ingest slots at work, each with its own ticks.
        partitions: Of `analytics`.
        tick_s: `ingest.tick_s`.
        linger_s: `persist.batch_linger_s`.
        writers: Persist processes at work.
    """

    rate_per_s: float
    sources: float = 100
    slots: int = 1
    partitions: int = 4
    tick_s: float = 0.05
    linger_s: float = 0.1
    writers: int = 1

    @property
    def ticks_per_s(self) -> float:
        """Give commits of all slots a second; a slot with less than one message a tick waits."""
        return min(self.slots / self.tick_s, self.rate_per_s)

    @property
    def batches_per_s(self) -> float:
        """Give writes of all writers a second; records come at most with every tick."""
        return min(self.writers / max(self.linger_s, self.tick_s / self.slots), self.rate_per_s)

    @property
    def requests_per_s(self) -> float:
        """Give the partitions that ticks write to, a second: a request each."""
        if not self.ticks_per_s:
            return 0.0
        each = touched(self.rate_per_s / self.ticks_per_s, self.partitions)
        return self.ticks_per_s * each

    @property
    def updates_per_s(self) -> float:
        """Give the series that batches write to, a second: an update of a bucket each."""
        if not self.batches_per_s:
            return 0.0
        each = touched(self.rate_per_s / self.batches_per_s, self.sources / self.writers)
        return self.batches_per_s * each

    @property
    def windows_per_s(self) -> float:
        """Give the windows of analysis that close a second: one of each source heard in it."""
        return touched(self.rate_per_s * WINDOW_S, self.sources) / WINDOW_S


def touched(messages: float, places: float) -> float:
    """Give how many of equally likely places so many messages fall on, expected."""
    if places <= 1:
        return min(1.0, messages)
    return float(places * -np.expm1(messages * np.log1p(-1 / places)))


CAUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "Mosquitto": ("rest", "rate_per_s"),
    "ingest": ("rest", "rate_per_s", "ticks_per_s", "requests_per_s"),
    "Kafka": ("rest", "rate_per_s", "ticks_per_s", "requests_per_s"),
    "persist": ("rest", "rate_per_s", "batches_per_s", "updates_per_s"),
    "MongoDB": ("rest", "rate_per_s", "batches_per_s", "updates_per_s"),
    "analysis": ("rest", "rate_per_s", "ticks_per_s", "windows_per_s"),
}


@dataclass(frozen=True)
class Sizes:
    """What a message and a source take; which defaults were measured is in `sizing.md`.

    Attributes:
        network_b: Over all connections of all processes together, a message.
        stream_b: On the stream's disk, a message, one replica.
        store_b: On the store's disk, a message, one member, indexes included.
        ingest_source_b: Of memory of ingest, a source.
        ingest_reading_b: The same, a reading of the last two duplicate windows.
        analysis_source_b: Of memory of analysis, a source.
    """

    network_b: float = 1000.0
    stream_b: float = 100.0
    store_b: float = 30.0
    ingest_source_b: float = 350.0
    ingest_reading_b: float = 8.0
    analysis_source_b: float = 1600.0


CELL_PER_S: Final = 100_000.0
PROCESS_PER_S: Final = 25_000.0
BUSY_MAX: Final = 0.6
WINDOWS_S: Final = 240.0
DAY_S: Final = 86_400


def planned(rate_per_s: float, sources: float) -> tuple[int, Load]:
    """Give how a load is laid out: so many equal cells, and the load of each.

    A cell is an installation with a Kafka and a MongoDB of its own, for `CELL_PER_S` at most: all
    slots write to all partitions, so requests grow with the product of both. A cell has a slot
    with a broker, a writer, and a partition, for each `PROCESS_PER_S`; at least 4 partitions.
    """
    cells = ceil(rate_per_s / CELL_PER_S) or 1
    each = rate_per_s / cells
    count = ceil(each / PROCESS_PER_S) or 1
    return cells, Load(
        each,
        sources=sources / cells,
        slots=count,
        writers=count,
        partitions=max(4, count),
    )


def needs(
    roles: Mapping[str, Mapping[str, float]], sensors: float, every_s: float, sizes: Sizes
) -> dict[str, float]:
    """Give what so many sensors need that send a reading every `every_s` seconds each.

    Args:
        roles: Coefficients of each role, by its causes alone.
        sensors: So many sources.
        every_s: Between two readings of one sensor.
        sizes: What a message and a source take.
    """
    rate = sensors / every_s
    cells, load = planned(rate, sensors)
    # Python computes on one core a process, and a partition has one worker at a time.
    analysers = ceil(predicted(roles.get("analysis", {}), load) / BUSY_MAX) or 1
    load = replace(load, partitions=max(load.partitions, analysers))
    extra = {
        "ingest": load.slots,
        "Mosquitto": load.slots,
        "persist": load.writers,
        "analysis": analysers,
    }
    cores = {}
    for role, coefficients in roles.items():
        # At rest costs once for each process; `predicted` counts it once for each cell.
        more = (extra.get(role, 1) - 1) * coefficients.get("rest", 0.0)
        cores[f"cores {role}"] = cells * (predicted(coefficients, load) + more)
    remembered = sizes.ingest_source_b + sizes.ingest_reading_b * WINDOWS_S / every_s
    return {
        "messages/s": rate,
        "cells": float(cells),
        "slots a cell": float(load.slots),
        "analysers a cell": float(analysers),
        "partitions a cell": float(load.partitions),
        **cores,
        "cores together": sum(cores.values()),
        "GB ingest": sensors * remembered / 1e9,
        "GB analysis": sensors * sizes.analysis_source_b / 1e9,
        "network MB/s": rate * sizes.network_b / 1e6,
        "stream GB a day": rate * DAY_S * sizes.stream_b / 1e9,
        "store GB a day": rate * DAY_S * sizes.store_b / 1e9,
    }


def values(load: Load, causes: Sequence[str]) -> list[float]:
    """Give the causes of a load as numbers; `rest` is 1."""
    return [1.0 if name == "rest" else float(getattr(load, name)) for name in causes]


def fit(
    loads: Sequence[Load], cpu_s_per_s: Sequence[float], causes: Sequence[str]
) -> dict[str, float]:
    """Give the coefficients, none negative, with the least sum of squared relative errors.

    Args:
        loads: What was measured.
        cpu_s_per_s: CPU seconds a second of each; those below a thousandth count as that.
        causes: Names of attributes of `Load`, or `rest`.

    With so few causes every subset is tried: what is left out has the coefficient 0.
    """
    measured = np.asarray(cpu_s_per_s, dtype=np.float64)
    weights = 1 / np.maximum(measured, 1e-3)
    table = np.asarray([values(load, causes) for load in loads], dtype=np.float64)
    best: tuple[float, dict[str, float]] = (np.inf, dict.fromkeys(causes, 0.0))
    for count in range(1, len(causes) + 1):
        for chosen in combinations(range(len(causes)), count):
            found = _solved(table[:, chosen] * weights[:, None], measured * weights)
            if (found < 0).any():
                continue
            error = float(np.sum(((table[:, chosen] @ found - measured) * weights) ** 2))
            if error < best[0] * (1 - 1e-9):
                coefficients = dict.fromkeys(causes, 0.0)
                coefficients |= {causes[at]: float(found[n]) for n, at in enumerate(chosen)}
                best = (error, coefficients)
    return best[1]


def predicted(coefficients: Mapping[str, float], load: Load) -> float:
    """Give the CPU seconds a second that a fitted role takes of this load."""
    numbers = values(load, list(coefficients))
    return sum(each * one for each, one in zip(coefficients.values(), numbers, strict=True))


def _solved(table: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    # Causes differ by orders of magnitude: scaled, or the solver takes small ones for nothing.
    scale = np.maximum(np.abs(table).max(axis=0), 1e-300)
    found = np.linalg.lstsq(table / scale, wanted, rcond=None)[0]
    return np.asarray(found / scale, dtype=np.float64)
