"""Claims about when a server says that it takes readings in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from matchday.clock import ManualClock
from matchday.ingest.bridge import Bridge
from matchday.ingest.slots import JOINING, STANDING_BY, Slots
from matchday.services.stages import IngestParts
from matchday.stream.embedded import EmbeddedStream


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Slots]:
    def no_bridge(name: str) -> Bridge:
        raise AssertionError(f"no slot is owned here, {name} neither")

    clock = ManualClock()
    stream = EmbeddedStream(tmp_path / "data", clock=clock)
    yield Slots(stream, ["all"], no_bridge, clock=clock)
    stream.close()


def test_server_that_was_not_told_its_slots_yet_is_not_ready(slots: Slots):
    link = IngestParts(slots, {"all": _NeverOpened()}, since_ms=7).link()
    assert slots.states() == {"all": JOINING}
    assert link is not None
    assert (link.is_up, link.since_ms) == (False, 7)
    assert JOINING in link.detail


def test_server_that_stands_by_is_ready(slots: Slots):
    slots.assigned({})
    assert slots.states() == {"all": STANDING_BY}
    assert IngestParts(slots, {"all": _NeverOpened()}, since_ms=7).link() is None


class _NeverOpened:
    """A feed that nobody has opened."""

    def link(self) -> None:
        return None
