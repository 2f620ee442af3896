"""The dashboard while its servers are frozen: they take connections and answer nothing."""

from __future__ import annotations

import http.client
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from matchday.clock import SystemClock
from servers.process import wait_until
from servers.services import MatchdayService, environment

pytestmark = pytest.mark.timeout(240)

PROBE_S_MAX = 1.0
ROUNDS = 10
PAGE_PATHS = (
    "/api/v1/ledger",
    "/api/v1/about",
    "/api/v1/collections/sensors",
    "/db/server/sensors",
)


@pytest.fixture
def dashboard(
    fresh_kafka: Callable[..., Any], fresh_mongo: Callable[..., Any], tmp_path: Path
) -> Any:
    """Give a dashboard on servers of its own, and these."""
    kafka, mongo = fresh_kafka(), fresh_mongo()
    settings = {"MATCHDAY_STREAM__URL": kafka.url, "MATCHDAY_STORE__URL": mongo.url}
    subprocess.run(environment(settings, ["setup"]), check=True, capture_output=True, timeout=120)
    service = MatchdayService(tmp_path, ("dashboard",), settings)
    with service:
        wait_until(service.is_ready, what="it is up")
        yield service, (kafka, mongo)
        for one in (kafka, mongo):
            one.resume()


def asked(port: int, path: str, *, timeout_s: float) -> tuple[int, float]:
    """Ask once; gives the status (0 without an answer) and how long it took, seconds."""
    clock = SystemClock()
    began_s = clock.monotonic_s()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except OSError:
        status = 0
    finally:
        connection.close()
    return status, clock.monotonic_s() - began_s


def test_probes_answer_within_a_second_while_everything_behind_the_page_hangs(dashboard):
    service, servers = dashboard
    for one in servers:
        one.pause()
    with (
        connect(f"ws://127.0.0.1:{service.port}/api/v1/live?venue=", max_size=2**22),
        ThreadPoolExecutor(50 + 4) as pool,
    ):
        page = [
            pool.submit(asked, service.port, PAGE_PATHS[n % len(PAGE_PATHS)], timeout_s=30)
            for n in range(50)
        ]
        never = threading.Event()
        probes = []
        for _ in range(ROUNDS):
            probes += [
                pool.submit(asked, service.port, path, timeout_s=10)
                for path in ("/readyz", "/livez", "/readyz", "/livez")
            ]
            # Over the time in which the questions of the page wait and give up.
            never.wait(1.5)
        probed, shown = [one.result() for one in probes], [one.result() for one in page]
    assert max(took_s for _, took_s in probed) < PROBE_S_MAX
    assert {status for status, _ in probed[1::2]} == {200}
    assert probed[-2][0] == 503
    assert max(took_s for _, took_s in shown) < 15
    assert {status for status, _ in shown} <= {200, 429, 503}
    assert not service.links()["stream"]
    assert not service.links()["store"]
    for one in servers:
        one.resume()
    wait_until(service.is_ready, what="all links are up again", timeout_s=30)
    wait_until(
        lambda: asked(service.port, "/api/v1/ledger", timeout_s=10)[0] == 200, what="the account"
    )


def test_it_ends_within_its_deadline_while_everything_behind_the_page_hangs(dashboard):
    service, servers = dashboard
    for one in servers:
        one.pause()
    with ThreadPoolExecutor(16) as pool:
        page = [
            pool.submit(asked, service.port, PAGE_PATHS[n % len(PAGE_PATHS)], timeout_s=30)
            for n in range(16)
        ]
        threading.Event().wait(1.0)
        clock = SystemClock()
        began_s = clock.monotonic_s()
        assert service.stop()
        assert clock.monotonic_s() - began_s < 20
        for one in page:
            one.result()
