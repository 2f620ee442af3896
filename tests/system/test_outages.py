"""Servers that come late, go away and come back: nobody has to step in, and it is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servers.load import Load
from servers.process import wait_until
from servers.services import MatchdayService, ask

pytestmark = pytest.mark.timeout(240)


def test_services_started_before_their_servers_work_once_these_come_and_come_back(
    fresh_mosquitto: Callable[..., Any],
    fresh_kafka: Callable[..., Any],
    fresh_mongo: Callable[..., Any],
    tmp_path: Path,
):
    mosquitto, kafka, mongo = fresh_mosquitto(), fresh_kafka(), fresh_mongo()
    settings = {
        "MATCHDAY_MQTT__URL": mosquitto.url,
        "MATCHDAY_STREAM__URL": kafka.url,
        "MATCHDAY_STORE__URL": mongo.url,
    }
    for one in (mosquitto, kafka, mongo):
        one.stop()
    server = MatchdayService(tmp_path, ("server",), settings)
    analysis = MatchdayService(tmp_path, ("analysis",), settings)
    try:
        server.start()
        analysis.start()
        wait_until(lambda: server.links().get("store") is False, what="the store is shown as down")
        for one in (mongo, mosquitto, kafka):
            one.start()
        wait_until(lambda: server.links().get("mqtt", False), what="it works", timeout_s=60)
        load = Load(mosquitto.port, rate_per_s=200, sources=["x", "y"])
        wait_until(lambda: len(load.acknowledged) > 300, what="load flows")
        kafka.kill()
        mongo.kill()
        wait_until(
            lambda: not server.links().get("stream", True), what="the outage is shown", timeout_s=40
        )
        mongo.start()
        kafka.start()
        target = load.sent_count + 300
        wait_until(lambda: load.sent_count > target, what="load flows on")
        load.stop()
        wait_until(lambda: load.open_count == 0, what="all is acknowledged", timeout_s=60)
        load.close()

        def is_settled() -> bool:
            totals = ask(settings, "ledger")["totals"]
            distinct = totals["received"] - totals["duplicate"]
            return bool(totals["pending"] == 0 and distinct >= len(load.acknowledged))

        wait_until(is_settled, what="all is stored", timeout_s=90)
        account = ask(settings, "ledger", "--verify")
        assert account["adds_up"]
        assert account["totals"]["stored"] == len(load.acknowledged)
        wait_until(analysis.is_ready, what="analysis is back", timeout_s=60)
    finally:
        server.kill()
        analysis.kill()
