"""Stored values and forecasts of one series, in the shape a chart draws. Blocking, no state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from matchday.domain.instants import ms_from_datetime
from matchday.errors import RefusedError
from matchday.ports import Query


class History(msgspec.Struct, frozen=True):
    """What the store holds of one series, oldest first; instants in milliseconds UTC.

    Attributes:
        values: `(t_ms, value)`.
        forecasts: `(t_ms, yhat, yhat_lower, yhat_upper)`.
    """

    values: list[tuple[int, float]]
    forecasts: list[tuple[int, float, float | None, float | None]]


def series_history(
    query: Query, source: str, *, quantity: str, limit: int, zone: str | None = None
) -> History:
    """Read the newest stored values of a source's quantity, and the forecasts about it.

    Predictions that name their subject are taken only if it is this quantity's; those that
    do not (the original's) are about the source. A counting sensor's values are those of
    `zone`.

    Raises:
        UnavailableError: The store cannot be reached.
    """
    values = []
    for document in _newest(query, "sensors", source=source, limit=limit):
        value, t_ms = document.get(quantity), _instant_ms(document.get("collected_at"))
        if zone is not None and document.get("zone") != zone:
            continue
        if isinstance(value, int | float) and t_ms is not None:
            values.append((t_ms, float(value)))
    forecasts = []
    for document in _newest(query, "model_predictions", source=source, limit=limit):
        subject = document.get("subject")
        t_ms = _instant_ms(document.get("date"))
        yhat = document.get("y_hat")
        if subject not in (None, source) and not str(subject).endswith(f"/{quantity}"):
            continue
        if isinstance(yhat, int | float) and t_ms is not None:
            lower, upper = document.get("y_hat_lower"), document.get("y_hat_upper")
            forecasts.append((t_ms, float(yhat), lower, upper))
    return History(sorted(values), sorted(forecasts, key=lambda row: row[0]))


def _newest(query: Query, collection: str, *, source: str, limit: int) -> list[dict[str, Any]]:
    try:
        return query.newest(collection, limit=limit, source=source)
    except RefusedError:
        # A collection comes into being with its first document.
        return []


def _instant_ms(value: Any) -> int | None:
    return ms_from_datetime(value) if isinstance(value, datetime) else None
