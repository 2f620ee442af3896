"""Our processes killed at random moments and frozen past every time-out, on real servers."""

from __future__ import annotations

import pytest

from faults.campaign import CLOCK, ROUNDS, SEED, Campaign
from faults.deployment import OUTAGE_S, Deployment, on_servers
from faults.schedule import Blow, kills
from servers.process import wait_until

pytestmark = pytest.mark.timeout(600 * ROUNDS)

ROLES = ("ingest", "persist", "analysis")


def test_kills_of_every_process_alone_and_in_pairs_lose_nothing_and_write_nothing_twice(
    start, tmp_path
):
    with on_servers(tmp_path, ROLES, start=start) as deployment, Campaign(deployment) as campaign:
        campaign.run(kills(SEED, ROLES, count=20 * ROUNDS))
        campaign.check(campaign.settle())


def test_frozen_processes_that_wake_after_others_took_over_write_nothing_twice(start, tmp_path):
    both = [f"{role}{number}" for role in ROLES for number in (1, 2)]
    with on_servers(tmp_path, both, start=start) as deployment, Campaign(deployment) as campaign:
        for turn in range(2 * ROUNDS):
            number = turn % 2 + 1
            campaign.flow(800)
            names = (owner(deployment), f"persist{number}", f"analysis{number}")
            freeze(campaign, [Blow("pause", name) for name in names])
        campaign.flow(400)
        campaign.check(campaign.settle())


def owner(deployment: Deployment) -> str:
    """Give the ingest process that owns the slot, once exactly one does."""
    found: list[str] = []

    def is_one() -> bool:
        found[:] = [
            name
            for name, process in deployment.processes.items()
            if name.startswith("ingest") and process.links().get("mqtt", False)
        ]
        return len(found) == 1

    wait_until(is_one, what="one process owns the slot", timeout_s=60)
    return found[0]


def freeze(campaign: Campaign, frozen: list[Blow]) -> None:
    """Freeze processes until others have taken over and every session is over, then wake them."""
    began_s = CLOCK.monotonic_s()
    for blow in frozen:
        campaign.hit(blow)
    names = " + ".join(map(str, frozen))
    campaign.struck.append(names)
    campaign.recover(f"{names}, by those that took over")
    campaign.hold(OUTAGE_S - (CLOCK.monotonic_s() - began_s))
    for blow in frozen:
        campaign.undo(blow)
    campaign.recover(f"{names}, awake again")
