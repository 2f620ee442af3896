"""`matchday up` and a sensor with an outbox, killed again and again."""

from __future__ import annotations

import pytest

from faults.campaign import ROUNDS, SEED, Campaign
from faults.deployment import embedded
from faults.outbox import empty_outbox, numbered
from faults.schedule import kills

pytestmark = pytest.mark.timeout(600 * ROUNDS)

SENSORS = 10


def test_kills_of_up_and_of_a_sensor_lose_nothing_and_store_nothing_twice(tmp_path):
    state = tmp_path / "state"
    simulate = ("sensor", "simulate", "--count", str(SENSORS), "--rate", "10")
    settings = {"MATCHDAY_SENSOR__STATE_DIR": str(state)}
    with embedded(tmp_path, settings=settings) as deployment, Campaign(deployment) as campaign:
        deployment.add("sensor", simulate).start()
        campaign.run(kills(SEED, ("up", "up", "sensor"), count=20 * ROUNDS))
        empty_outbox(deployment, *simulate, "--messages", str(SENSORS))
        verdict = campaign.settle(also=numbered(state))
        campaign.check(verdict)
        assert len(verdict.sent - campaign.load.acknowledged) > 10 * SENSORS
