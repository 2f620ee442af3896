"""The bundled recordings in place of made-up sensors; and that nothing remains of a system."""

from __future__ import annotations

import pytest

from containers.commands import until
from containers.reading import Page
from containers.stack import Stack

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stack(deployments) -> Stack:
    return deployments.use("demo", scale={"sensor": 0}, profiles=("demo",)).stack


def test_the_recorded_match_is_shown_live_and_no_made_up_sensor_is(stack):
    page = Page(stack)
    players: set[str] = set()
    for message in page.live(within_s=40):
        for frame in message.get("frames", ()):
            players |= {row[0] for row in frame["objects"]}
        if len(players) >= 22:
            break
    assert len(players) >= 22
    sources = [row["source"] for row in page.get("/api/v1/sources").json["sources"]]
    assert not [name for name in sources if name.startswith("sim-")]


def test_down_v_leaves_nothing_behind(stack):
    assert all(stack.leftovers().values())
    stack.down(with_volumes=True)
    until(lambda: not any(stack.leftovers().values()), "nothing left", within_s=10)
