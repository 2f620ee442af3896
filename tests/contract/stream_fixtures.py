"""The fixtures of the stream's contract suite; test modules name this one as a plugin.

Owns which implementations the suite runs on. Does not own what it does with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.stream_suite import Stage
from contract.stream_worlds import EmbeddedWorld, KafkaWorld, World


@pytest.fixture(params=["embedded", "kafka"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Give a world of each kind in turn; its topics do not exist yet.

    A module that also runs on Kafka 3.9 with ZooKeeper parametrizes this by "zookeeper".
    """
    made: World
    if request.param == "embedded":
        made = EmbeddedWorld(tmp_path)
    else:
        made = KafkaWorld(request.getfixturevalue(request.param))
    yield made
    made.close()


@pytest.fixture
def stage(world: World) -> Iterator[Stage]:
    """Give a prepared stream and what opens things on it."""
    world.stream.prepare()
    made = Stage(world)
    yield made
    made.close()
