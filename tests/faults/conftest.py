"""What the tests of the fault suite share: servers of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

Starters = Mapping[str, Callable[..., Any]]


@pytest.fixture
def start(
    fresh_mosquitto: Callable[..., Any],
    fresh_kafka: Callable[..., Any],
    fresh_mongo: Callable[..., Any],
) -> Starters:
    """Give the functions that start a broker, a stream and a store of the test's own."""
    return {"mosquitto": fresh_mosquitto, "kafka": fresh_kafka, "mongo": fresh_mongo}
