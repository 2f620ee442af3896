"""Connections cut, silent, slow and damaged between real processes and real servers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.campaign import ROUNDS, SEED, Campaign
from faults.network import LINKS, SENSORS, Network, on_network
from matchday.clock import SystemClock
from servers.keys import make_keys, openssl_refusal
from servers.process import wait_until
from servers.proxy import Proxy, Way

pytestmark = pytest.mark.timeout(300 * ROUNDS)

CLOCK = SystemClock()
SHOWN_S = 30.0
"""A link that is down is shown as down within so many seconds: the longest I/O time-out is 10 s."""


@pytest.fixture
def network(start, tmp_path: Path) -> Iterator[Network]:
    """Give the product with a proxy on every connection."""
    with on_network(tmp_path, start=start) as found:
        yield found


def shown(network: Network, connections: list[str], *, is_up: bool) -> None:
    """Wait until every process at these connections shows its link so."""
    for one in connections:
        wait_until(
            lambda one=one: network.is_shown(one, is_up=is_up),
            what=f"{one} is shown as {'up' if is_up else 'down'}",
            timeout_s=SHOWN_S,
        )


def test_connections_slow_and_ending_in_mid_message_lose_nothing_and_write_nothing_twice(network):
    rng = random.Random(SEED)
    with Campaign(network.deployment) as campaign:
        names = [*LINKS, SENSORS]
        for name in rng.sample(names, len(names)) * ROUNDS:
            proxy = network.proxies[name]
            campaign.flow(rng.randrange(100, 300))
            campaign.struck.append(f"cut {name}")
            for _ in range(3):
                proxy.cut()
                campaign.flow(rng.randrange(1, 60))
            campaign.struck.append(f"truncate {name}")
            taken = proxy.accepted_count
            way = rng.choice(list(Way))
            with proxy.trouble(
                lambda p=proxy, w=way: p.truncate(after_bytes=rng.randrange(20_000), ways=[w])
            ):
                wait_until(lambda p=proxy, n=taken: p.accepted_count > n, what="it comes again")
            campaign.recover(f"cut and truncated {name}")
        campaign.struck.append("delay everywhere")
        for proxy in network.proxies.values():
            proxy.delay(0.15)
        campaign.flow(1000)
        shown(network, list(LINKS), is_up=True)
        for proxy in network.proxies.values():
            proxy.heal()
        campaign.recover("delays everywhere")
        campaign.check(campaign.settle())


def test_peers_that_fall_silent_are_shown_as_down_and_nothing_is_lost_or_written_twice(network):
    # Not all at once: while ingest waits for the stream it leaves unread what the broker sent,
    # and unread bytes do not tell whether their sender still lives.
    around = ["ingest-mosquitto", "persist-mongo", "analysis-kafka"]
    kafka = ["ingest-kafka", "persist-kafka"]
    troubles = [
        (Proxy.vanish, around),
        (Proxy.refuse, kafka),
        (Proxy.stop_reading, around),
        (Proxy.vanish, kafka),
    ]
    with Campaign(network.deployment) as campaign:
        for verb, hit in troubles * ROUNDS:
            campaign.flow(100)
            campaign.struck.append(f"{verb.__name__} {', '.join(hit)}")
            for name in hit:
                verb(network.proxies[name])
            shown(network, hit, is_up=False)
            for name in hit:
                network.proxies[name].heal()
            campaign.recover(campaign.struck[-1])
            shown(network, list(LINKS), is_up=True)
        campaign.check(campaign.settle())


def test_records_damaged_on_the_way_from_kafka_are_read_again(network):
    with Campaign(network.deployment, rate_per_s=1000) as campaign:
        for name in ("persist-kafka", "analysis-kafka"):
            campaign.struck.append(f"corrupt {name}")
            # Batches have a checksum, the protocol around them has none: damage this rare
            # hits nearly always a batch.
            proxy = network.proxies[name]
            enough = proxy.forwarded[Way.TO_CLIENT] + 400_000 * ROUNDS
            with proxy.trouble(lambda p=proxy: p.corrupt(each_bytes=30_000, ways=[Way.TO_CLIENT])):
                wait_until(
                    lambda p=proxy, n=enough: p.forwarded[Way.TO_CLIENT] > n,
                    what="enough was damaged",
                    timeout_s=60 * ROUNDS,
                )
            campaign.recover(f"damage at {name}")
        campaign.check(campaign.settle())


@pytest.mark.skipif(bool(openssl_refusal()), reason=openssl_refusal())
def test_damage_and_endings_of_encrypted_connections_are_lost_connections_and_no_more(
    start, tmp_path
):
    keys_folder = tmp_path / "keys"
    keys_folder.mkdir()
    rng = random.Random(SEED)
    with (
        on_network(tmp_path, start=start, keys=make_keys(keys_folder)) as network,
        Campaign(network.deployment) as campaign,
    ):
        # Without TLS one turned bit of these can be another valid reading or acknowledgement.
        names = ["ingest-mosquitto", "ingest-kafka", "persist-kafka", "analysis-kafka"]
        for name in rng.sample(names, len(names)) * ROUNDS:
            proxy = network.proxies[name]
            campaign.flow(rng.randrange(100, 300))
            for verb in (damage, end):
                campaign.struck.append(f"{verb.__name__} {name}")
                taken = proxy.accepted_count
                with proxy.trouble(lambda p=proxy, v=verb: v(p, rng)):
                    wait_until(
                        lambda p=proxy, n=taken: p.accepted_count > n + 2,
                        what="it comes again and again",
                        timeout_s=60,
                    )
                campaign.recover(campaign.struck[-1])
            shown(network, list(LINKS), is_up=True)
        campaign.check(campaign.settle())


def damage(proxy: Proxy, rng: random.Random) -> None:
    proxy.corrupt(each_bytes=rng.randrange(500, 5_000), ways=[rng.choice(list(Way))])


def end(proxy: Proxy, rng: random.Random) -> None:
    proxy.truncate(after_bytes=rng.randrange(5_000), ways=[rng.choice(list(Way))])
