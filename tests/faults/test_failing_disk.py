"""A disk that breaks or gets slow under the embedded stream and store while readings flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.campaign import ROUNDS, Campaign
from faults.deployment import embedded
from faults.loop_disk import LoopDisk, loop_refusal, slow_refusal
from matchday.clock import SystemClock
from servers.process import wait_until

pytestmark = pytest.mark.timeout(240 * ROUNDS)

CLOCK = SystemClock()
WRITES_PER_S = 4
"""Some two commits a second, of stream and store together; a good disk does hundreds."""
SLOW_S = 10.0 * ROUNDS
BURST_PER_S = 1500.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    """Give the data folder's own disk."""
    refusal = loop_refusal()
    if refusal:
        pytest.skip(f"a disk of its own: {refusal}")
    with LoopDisk(tmp_path / "data", mib=256) as found:
        yield found


def test_disk_that_becomes_read_only_under_writers_loses_nothing_acknowledged(disk, tmp_path):
    with embedded(tmp_path) as deployment, Campaign(deployment) as campaign:
        for number in range(2 * ROUNDS):
            campaign.flow(600)
            campaign.struck.append(f"disk breaks, time {number + 1}")
            disk.fail()
            load = campaign.load

            def is_stalled(load=load) -> bool:
                acknowledged, sent = len(load.acknowledged), load.sent_count
                wait_until(lambda: load.sent_count > sent + 300, what="readings are sent")
                return len(load.acknowledged) == acknowledged

            wait_until(is_stalled, what="nothing is acknowledged any more", timeout_s=60)
            process = deployment.processes["up"]
            print(process.log()[-600:])
            process.kill()
            disk.repair()
            process.start()
            campaign.recover(campaign.struck[-1])
        campaign.check(campaign.settle())


def test_slow_disk_holds_readings_back_and_is_caught_up_with(disk, tmp_path):
    refusal = slow_refusal()
    if refusal:
        pytest.skip(f"a slow disk: {refusal}")
    with embedded(tmp_path) as deployment, Campaign(deployment) as campaign:
        campaign.flow(600)
        pid = deployment.processes["up"].pid
        before = len(campaign.load.acknowledged)
        campaign.struck.append(f"{WRITES_PER_S} writes a second for {SLOW_S:g} s")
        began_s = CLOCK.monotonic_s()
        with disk.slow(pid, writes_per_s=WRITES_PER_S):
            campaign.load.pace(BURST_PER_S)
            campaign.hold(SLOW_S)
            slow_count = len(campaign.load.acknowledged) - before
            campaign.load.pace(400.0)
        took_s = CLOCK.monotonic_s() - began_s
        print(f"{slow_count} acknowledged in {took_s:.1f} s of a slow disk")
        assert slow_count > 0
        campaign.recover(campaign.struck[-1])
        campaign.check(campaign.settle())
