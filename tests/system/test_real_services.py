"""What an administrator does beside the flow, on real servers: look, ask, record, hear refusals."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers.process import wait_until
from servers.services import MatchdayService, ask, environment
from system.deployments import Deployment, mqtt_client, real

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    need_server: Callable[[str], None],
    servers_dir: Callable[[str], Path],
) -> Iterator[Deployment]:
    """Give the product on real servers."""
    folder = tmp_path_factory.mktemp("real")
    with real(folder, {}, need_server=need_server, servers_dir=servers_dir) as running:
        yield running


def publish(deployment: Deployment, topic: str, payload: bytes) -> None:
    with mqtt_client(deployment.mqtt_port, "admin-test") as client:
        client.publish(topic, payload, qos=1).wait_for_publish(30)


def page(service: MatchdayService, path: str) -> str:
    with urllib.request.urlopen(f"{service.url}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_dashboard_shows_collection_and_account_of_the_real_servers(deployment, tmp_path):
    publish(deployment, "temperature", b'{"sensorId":"cafe01","temperature":20.5}')
    deployment.settled_account(1)
    dashboard = MatchdayService(tmp_path, ("dashboard",), deployment.settings)
    with dashboard:
        wait_until(dashboard.is_ready, what="all links are up")
        assert "cafe01" in page(dashboard, "/db/server/sensors")
        found = json.loads(page(dashboard, "/api/v1/ledger"))
        assert "cafe01" in json.dumps(found)
        assert dashboard.stop()


def test_doctor_finds_the_servers_well_and_names_what_they_can_still_lose(deployment):
    answers = {row["link"]: row for row in ask(deployment.settings, "doctor")}
    assert all(row["is_reachable"] for row in answers.values())
    assert [row["problems"] for row in answers.values()] == [[], [], []]
    risks = {link: " ".join(row["risks"]) for link, row in answers.items()}
    assert "autosave_interval 1" in risks["mqtt"]
    assert "flush.messages=1" in risks["stream"]
    assert "three members" in risks["store"]


def test_rubbish_behind_a_broker_is_kept_whole_and_can_be_shown(deployment):
    payload = b"\x00 rubbish \xff" * 1000
    publish(deployment, "nobody/knows", payload)
    wait_until(
        lambda: any(
            row["topic"] == "nobody/knows" for row in ask(deployment.settings, "deadletter", "list")
        ),
        what="the dead letter is there",
    )
    (row,) = [
        row
        for row in ask(deployment.settings, "deadletter", "list")
        if row["topic"] == "nobody/knows"
    ]
    raw = subprocess.run(
        environment(deployment.settings, ["deadletter", "show", row["id"], "--raw"]),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert raw.stdout == payload
    wait_until(
        lambda: any(one["reason"] == "unknown_topic" for one in deployment.read("dead_letters")),
        what="the dead letter is stored",
    )


def test_recorded_traffic_can_be_replayed(deployment, tmp_path):
    file = tmp_path / "live.jsonl"
    recorder = subprocess.Popen(
        environment(deployment.settings, ["sensor", "record", str(file), "--filter", "matchday/#"]),
        stderr=subprocess.PIPE,
    )

    def is_recorded() -> bool:
        payload = b'{"quantity":"q","value":1,"t":"2024-01-01T00:00:00Z"}'
        publish(deployment, "matchday/v/scalar/live", payload)
        return file.exists() and "matchday/v/scalar/live" in file.read_text()

    wait_until(is_recorded, what="a message is recorded", timeout_s=30)
    recorder.terminate()
    _, said = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, said
    deployment.replay(file)
    line = json.loads(file.read_text().splitlines()[0])
    assert line["payload"]["value"] == 1
