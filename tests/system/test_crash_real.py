"""SIGKILL and SIGSTOP of our processes while numbered readings flow through real servers.

Every claim here is the same: what was acknowledged is stored exactly once and the account
adds up, whatever was done to the processes meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from servers.load import Load
from servers.ports import free_port
from servers.process import wait_until
from servers.services import MatchdayService, ask

SOURCES = [f"tag-{number}" for number in range(20)]
RATE_PER_S = 1000

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def settings(
    fresh_mosquitto: Callable[..., Any],
    fresh_kafka: Callable[..., Any],
    fresh_mongo: Callable[..., Any],
) -> Mapping[str, str]:
    """Give the settings of a deployment on servers of its own."""
    return {
        "MATCHDAY_MQTT__URL": fresh_mosquitto().url,
        "MATCHDAY_STREAM__URL": fresh_kafka().url,
        "MATCHDAY_STORE__URL": fresh_mongo().url,
    }


@pytest.fixture
def services(settings: Mapping[str, str], tmp_path: Path) -> Iterator[dict[str, MatchdayService]]:
    """Give ingest, persist and analysis, running, with ingest connected to the broker."""
    made = {
        "ingest": MatchdayService(tmp_path, ("server", "--role", "ingest"), settings),
        "persist": MatchdayService(tmp_path, ("server", "--role", "persist"), settings),
        "analysis": MatchdayService(tmp_path, ("analysis",), settings),
    }
    try:
        for service in made.values():
            service.start()
        wait_until(
            lambda: made["ingest"].links().get("mqtt", False),
            what="ingest takes messages",
            timeout_s=60,
        )
        yield made
    finally:
        for service in made.values():
            service.kill()


def settle(settings: Mapping[str, str], load: Load) -> dict[str, Any]:
    """Wait until everything sent is acknowledged and stored; give the account."""
    load.stop()
    wait_until(lambda: load.open_count == 0, what="all is acknowledged", timeout_s=60)
    load.close()
    account: dict[str, Any] = {}

    def is_settled() -> bool:
        account.update(ask(settings, "ledger"))
        totals = account["totals"]
        distinct = totals["received"] - totals["duplicate"]
        return totals["pending"] == 0 and distinct >= len(load.acknowledged)

    wait_until(is_settled, what="all is stored", timeout_s=120)
    return account


def stored_numbers(settings: Mapping[str, str]) -> Counter[tuple[str, int]]:
    """Give how often each (source, seq) is stored."""
    with MongoClient[dict[str, Any]](settings["MATCHDAY_STORE__URL"]) as client:
        found = client["server"]["sensors"].find({}, {"seq": 1, "metadata.sensor_id": 1})
        return Counter((item["metadata"]["sensor_id"], item["seq"]) for item in found)


def assert_exactly_once(settings: Mapping[str, str], load: Load, account: dict[str, Any]) -> None:
    stored = stored_numbers(settings)
    lost = load.acknowledged - set(stored)
    twice = {key for key, count in stored.items() if count > 1}
    assert not lost, f"{len(lost)} acknowledged and not stored"
    assert not twice, f"{len(twice)} stored twice"
    assert account["adds_up"]
    assert account["exit"] == 0
    assert account["totals"]["stored"] == len(stored)
    assert account["totals"]["missing"] == 0
    assert ask(settings, "ledger", "--verify")["adds_up"]


def test_killing_each_process_in_turn_loses_nothing_and_stores_nothing_twice(settings, services):
    load = Load(
        int(settings["MATCHDAY_MQTT__URL"].rpartition(":")[2]),
        rate_per_s=RATE_PER_S,
        sources=SOURCES,
    )
    for _ in range(3):
        for service in services.values():
            target = load.sent_count + 1500
            wait_until(lambda target=target: load.sent_count >= target, what="load flows")
            service.kill()
            service.start()
    account = settle(settings, load)
    assert_exactly_once(settings, load, account)
    assert len(load.acknowledged) >= 9 * 1500


def test_paused_server_that_wakes_after_a_take_over_writes_nothing_twice(
    settings, services, tmp_path
):
    standby = MatchdayService(tmp_path, ("server", "--role", "all"), settings)
    load = Load(
        int(settings["MATCHDAY_MQTT__URL"].rpartition(":")[2]), rate_per_s=300, sources=SOURCES
    )
    standby.start()
    try:
        wait_until(lambda: load.sent_count >= 900, what="load flows")
        services["ingest"].pause()
        services["persist"].pause()
        wait_until(
            lambda: standby.links().get("mqtt", False), what="the standby took over", timeout_s=60
        )
        target = load.sent_count + 900
        wait_until(lambda: load.sent_count >= target, what="load flows on")
        services["ingest"].resume()
        services["persist"].resume()
        target = load.sent_count + 900
        wait_until(lambda: load.sent_count >= target, what="load flows on")
        account = settle(settings, load)
        assert_exactly_once(settings, load, account)
    finally:
        standby.kill()


def test_own_endpoint_in_front_of_kafka_acknowledges_only_what_survives_a_kill(
    fresh_kafka, fresh_mongo, tmp_path
):
    port = free_port()
    settings = {
        "MATCHDAY_MQTT__PORT": str(port),
        "MATCHDAY_STREAM__URL": fresh_kafka().url,
        "MATCHDAY_STORE__URL": fresh_mongo().url,
    }
    server = MatchdayService(tmp_path, ("server",), settings)
    server.start()
    try:
        wait_until(lambda: server.links().get("mqtt", False), what="it listens", timeout_s=60)
        load = Load(port, rate_per_s=RATE_PER_S, sources=SOURCES)
        for _ in range(2):
            target = len(load.acknowledged) + 2000
            wait_until(
                lambda target=target: len(load.acknowledged) >= target,
                what="load is acknowledged",
                timeout_s=60,
            )
            server.kill()
            server.start()
        account = settle(settings, load)
        assert_exactly_once(settings, load, account)
    finally:
        server.kill()
