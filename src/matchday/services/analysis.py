"""`matchday analysis`: readings in, findings out, stream to stream."""

from __future__ import annotations

import random

from matchday.analysis.models import load_model
from matchday.analysis.plan import Plan
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.worker import Analysis, WorkerPolicy
from matchday.clock import Clock
from matchday.config import Settings
from matchday.ports import Stream
from matchday.services.health import health_of
from matchday.services.lifecycle import Role, Service
from matchday.services.links import Prepared, claim_folder, is_embedded, open_stream
from matchday.services.stages import read_venues


def plan_of(settings: Settings) -> Plan:
    """Give what is to be computed, with the venues and the model that the settings name.

    Raises:
        ConfigError: A venue or model file is wrong.
    """
    given = settings.analysis
    policy = AnalysisPolicy(
        lateness_s=given.lateness_s,
        idle_s=given.idle_s,
        # A track is forgotten only well after its windows were closed.
        forget_s=max(AnalysisPolicy.forget_s, 10 * given.idle_s),
        window_s=given.window_s,
        baseline_seasons=given.baseline_seasons,
        baseline_points_max=given.baseline_points_max,
    )
    model = None
    if given.model_path is not None:
        model = load_model(given.model_path, quantity=given.model_quantity or None)
    return Plan(
        policy=policy,
        venues={venue.id: venue for venue in read_venues(settings)},
        model=model,
    )


def build_worker(
    settings: Settings, stream: Stream, *, clock: Clock, rng: random.Random
) -> Analysis:
    """Build the analysis stage."""
    return Analysis(
        stream,
        plan=plan_of(settings),
        clock=clock,
        rng=rng,
        policy=WorkerPolicy(tick_s=settings.analysis.tick_s),
    )


def build_analysis(settings: Settings, *, clock: Clock) -> Service:
    """Build the service; on the embedded stream it owns the data folder alone."""
    rng = random.Random()
    embedded = is_embedded(settings.stream.url.get_secret_value())
    folder = claim_folder(settings) if embedded else None
    stream = open_stream(settings, clock=clock)
    worker = build_worker(settings, stream, clock=clock, rng=rng)
    prepared = Prepared(stream.prepare, clock=clock, rng=rng)
    health = health_of(settings, "analysis", lambda: [stream.link()])

    def close() -> None:
        """Close what the service opened, the owned data folder last."""
        stream.close()
        if folder is not None:
            folder.close()

    return Service(
        "analysis",
        [
            Role("analysis.worker", prepared.gate(worker.run)),
            Role("analysis.health", health.run, close=close),
        ],
        clock=clock,
    )
