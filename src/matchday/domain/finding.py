"""Findings: results of analysis about a subject over a span of event time."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

FindingKind: TypeAlias = Literal[
    "forecast", "anomaly", "player_metric", "crowd_metric", "sensor_metric"
]


class Finding(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One result of analysis.

    Its identity is (subject, kind, span, model): computing it again gives the same one.

    Attributes:
        subject: What it is about: a source and quantity ("gate-3/in"), an entity or a zone.
        kind: Which family of results it belongs to; decides where it is stored.
        span_start_ms: First instant it speaks of, event time, milliseconds UTC, inclusive.
        span_end_ms: End of the span, exclusive; equal to the start for an instant.
        model: Name and version of what computed it, such as "seasonal-baseline/1".
        values: The numbers by name, each with its unit in the name ("distance_m").
        sensor: The source whose readings it was computed from.
        venue: The venue, where there is one.
        session: The session, where there is one.
    """

    subject: str
    kind: FindingKind
    span_start_ms: int
    span_end_ms: int
    model: str
    values: dict[str, float]
    sensor: str
    venue: str | None = None
    session: str | None = None
