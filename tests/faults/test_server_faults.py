"""Mosquitto, Kafka and MongoDB killed, frozen and restarted, alone and two at once."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from faults.campaign import ROUNDS, SEED, Campaign
from faults.deployment import OUTAGE_S, on_servers
from faults.schedule import kills, outages
from servers.process import wait_until

pytestmark = pytest.mark.timeout(600 + 2400 * (ROUNDS - 1))

ROLES = ("ingest", "persist", "analysis")


def test_outages_of_every_server_in_every_order_lose_nothing_that_they_keep(start, tmp_path):
    with on_servers(tmp_path, ROLES, start=start) as deployment, Campaign(deployment) as campaign:
        for number in range(ROUNDS):
            campaign.run(outages(SEED + number, tuple(deployment.servers), pause_s=OUTAGE_S))
        campaign.check(campaign.settle())


def test_own_endpoint_in_front_of_kafka_loses_nothing_whatever_is_killed(start, tmp_path):
    start = {name: start[name] for name in ("kafka", "mongo")}
    with (
        on_servers(tmp_path, ("server", "analysis"), start=start) as deployment,
        Campaign(deployment) as campaign,
    ):
        campaign.run(kills(SEED, tuple(deployment.parts), count=6 * ROUNDS, calm_every=2))
        campaign.check(campaign.settle())


def test_topics_that_are_missing_at_the_start_are_made_and_nothing_is_lost(start, tmp_path):
    with on_servers(tmp_path, ROLES, start=start) as deployment, Campaign(deployment) as campaign:
        campaign.flow(400)
        for process in deployment.processes.values():
            assert process.stop(), process.log()[-2000:]
        # What these two held has been stored; `analytics` and `ledger` are still needed.
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{deployment.servers['kafka'].port}"})
        gone = ["analytics_results", "ingest_slots"]
        for answer in admin.delete_topics(gone).values():
            answer.result(30)
        wait_until(
            lambda: not set(gone) & set(admin.list_topics(timeout=10).topics), what="they are gone"
        )
        for process in deployment.processes.values():
            process.start()
        campaign.recover("topics were gone")
        campaign.check(campaign.settle())
