"""A store, and a stream, that are ten times slower than what comes in, for a while."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from faults.campaign import ROUNDS, SOURCES, Campaign
from faults.deployment import embedded
from faults.flood import OPEN_MAX, Flood
from faults.network import Network, on_network
from matchday.clock import SystemClock
from servers.process import wait_until
from servers.proxy import Way
from servers.services import ask

pytestmark = pytest.mark.timeout(300 + 120 * ROUNDS)

CLOCK = SystemClock()
RATE_PER_S = 1000.0
SLOW_S = 8.0 * ROUNDS
STORE_BYTES_PER_S = 20_000
"""Some 100 readings per second, at 190 bytes each in an insert."""
STREAM_BYTES_PER_S = 6_000
"""Some 100 readings per second, compressed."""
MIB = 2**20
GROWN_MIB_MAX = 80.0
"""What a process may grow by while its output stands still: the bounds of its queues."""


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / MIB


def stored_count(network: Network) -> int:
    return int(ask(network.deployment.settings, "ledger")["totals"]["stored"])


def flow_for(campaign: Campaign, seconds: float) -> None:
    """Let readings be sent, acknowledged or not, as many as fit in that time."""
    target = campaign.load.sent_count + RATE_PER_S * seconds
    wait_until(
        lambda: campaign.load.sent_count >= target, what="readings were sent", timeout_s=seconds * 5
    )


@pytest.mark.parametrize("slow", ["persist-mongo", "ingest-kafka"])
def test_slow_store_and_slow_stream_fill_no_memory_and_are_caught_up_with(start, tmp_path, slow):
    role, bytes_per_s = {
        "persist-mongo": ("persist", STORE_BYTES_PER_S),
        "ingest-kafka": ("ingest", STREAM_BYTES_PER_S),
    }[slow]
    with (
        on_network(tmp_path, start=start) as network,
        Campaign(network.deployment, rate_per_s=RATE_PER_S) as campaign,
    ):
        campaign.flow(3000)
        campaign.recover("the start")
        pid = network.deployment.processes[role].pid
        before_mib, stored_before = rss_mib(pid), stored_count(network)
        proxy = network.proxies[slow]
        campaign.struck.append(f"throttle {slow}")
        with proxy.trouble(lambda: proxy.throttle(bytes_per_s, ways=[Way.TO_SERVER])):
            flow_for(campaign, SLOW_S)
            behind = campaign.load.sent_count - stored_count(network)
        stored = campaign.load.sent_count - behind - stored_before
        print(
            f"{slow}: {campaign.load.sent_count} sent, {stored} stored while it was slow, "
            f"{behind} behind, {role} grew by {rss_mib(pid) - before_mib:.1f} MiB"
        )
        assert behind > RATE_PER_S * SLOW_S / 2
        assert campaign.watch.peaks_mib[role] - before_mib < GROWN_MIB_MAX
        campaign.recover(f"a slow {slow}")
        campaign.check(campaign.settle())


def test_endpoint_holds_sensors_back_while_the_disk_takes_nothing(tmp_path):
    settings = {"MATCHDAY_DATA__FREE_BYTES_MIN": "0"}

    def reading(number: int) -> tuple[str, bytes]:
        said = b'{"quantity": "q", "value": 1, "seq": %d, "note": "%s"}'
        source = SOURCES[number % len(SOURCES)]
        return f"matchday/test/scalar/{source}", said % (number // len(SOURCES), b"x" * 400)

    with embedded(tmp_path, settings=settings) as deployment:
        pid = deployment.processes["up"].pid
        with Flood(deployment.mqtt_port, reading, rate_per_s=3000) as flood:
            wait_until(lambda: flood.acknowledged_count > 3000, what="readings flow")
            before_mib = rss_mib(pid)
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            size = max(path.stat().st_size for path in (tmp_path / "data").glob("*.db-wal"))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 4096, hard))

            def is_held_back() -> bool:
                sent, acknowledged = flood.sent_count, flood.acknowledged_count
                until_s = CLOCK.monotonic_s() + 2.0
                wait_until(lambda: CLOCK.monotonic_s() > until_s, what="two seconds passed")
                return (flood.sent_count, flood.acknowledged_count) == (sent, acknowledged)

            wait_until(is_held_back, what="the sensor is held back", timeout_s=60)
            unread = flood.open_count
            grown_mib = rss_mib(pid) - before_mib
            print(f"{unread} messages not acknowledged, grown by {grown_mib:.1f} MiB")
            assert unread <= OPEN_MAX
            assert grown_mib < GROWN_MIB_MAX
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            wait_until(lambda: flood.acknowledged_count > 3000 + 2 * unread, what="it flows again")
            flood.stop()
            wait_until(lambda: flood.open_count == 0, what="all is acknowledged", timeout_s=60)
        wait_until(
            lambda: ask(deployment.settings, "ledger")["totals"]["pending"] == 0,
            what="all is stored",
            timeout_s=60,
        )
        account = ask(deployment.settings, "ledger", "--verify")
        assert account["exit"] == 0
        assert account["totals"]["stored"] == flood.sent_count
        assert max(deployment.books.in_store().values()) == 1
