"""Which analysers run for which kind of reading: one table, and fresh sets made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from matchday.analysis.analyser import Analyser
from matchday.analysis.deferred import Deferred
from matchday.analysis.forecast.seasonal import SeasonalForecast
from matchday.analysis.models import LoadedModel, ModelForecast
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.rolling import WindowStatistics
from matchday.domain.venue import Venue


@dataclass(frozen=True)
class Plan:
    """What is computed, with everything needed to compute it; shared by all partitions.

    Attributes:
        policy: All numbers.
        venues: Known venues by id.
        model: The artifact applied to the scalars it suits; the seasonal baseline has the rest.
    """

    policy: AnalysisPolicy = field(default_factory=AnalysisPolicy)
    venues: Mapping[str, Venue] = field(default_factory=dict)
    model: LoadedModel | None = None

    def analysers(self) -> list[tuple[frozenset[str], Analyser]]:
        """Make fresh analysers, each with the kinds of reading it takes, in table order."""
        made = []
        for row in TABLE:
            analyser = row.make(self)
            if analyser is not None:
                made.append((frozenset(row.kinds.split()), analyser))
        return made


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        kinds: Kinds of reading it takes, separated by spaces.
        gives: Kind of finding it makes.
        make: Makes one; None where the plan has no use for it.
    """

    kinds: str
    gives: str
    make: Callable[[Plan], Analyser | None]


def _scalar_baseline(plan: Plan) -> Analyser | None:
    model = plan.model
    if model is None:
        return SeasonalForecast(plan.policy)
    return None if model.quantity is None else SeasonalForecast(plan.policy, skips=model.suits)


def _model(plan: Plan) -> Analyser | None:
    return None if plan.model is None else ModelForecast(plan.model)


def _players(plan: Plan) -> Analyser:
    def make() -> Analyser:
        """Import the analysis of players; called with the first position."""
        from matchday.analysis.players.metrics import PlayerMetrics

        return PlayerMetrics(plan.policy, plan.venues)

    return Deferred(make)


def _density(plan: Plan) -> Analyser:
    def make() -> Analyser:
        """Import the analysis of crowds; called with the first reading for it."""
        from matchday.analysis.crowd.density import ZoneDensity

        return ZoneDensity(plan.policy, plan.venues)

    return Deferred(make)


TABLE: tuple[Row, ...] = (
    Row("scalar count", "sensor_metric", lambda plan: WindowStatistics(plan.policy)),
    Row("scalar", "forecast", _scalar_baseline),
    Row("scalar", "forecast", _model),
    Row("count", "forecast", lambda plan: SeasonalForecast(plan.policy)),
    Row("positions", "player_metric", _players),
    Row("positions count", "crowd_metric", _density),
)
