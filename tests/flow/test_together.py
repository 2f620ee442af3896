"""`matchday up` in this process: what it says about itself while it starts."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from matchday.clock import SystemClock
from matchday.config import load
from matchday.errors import UnavailableError
from matchday.services.broker_check import check_broker
from matchday.services.demo import build_demo
from matchday.services.together import build_together
from servers.ports import free_port
from servers.process import wait_until

pytestmark = pytest.mark.timeout(90)


def test_demo_on_free_ports_tells_where_it_is_and_warns_of_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    settings = load(
        environ={
            "MATCHDAY_DATA_DIR": str(tmp_path / "data"),
            "MATCHDAY_HTTP__PORT": "0",
            "MATCHDAY_MQTT__PORT": "0",
        }
    ).settings
    service = build_together(settings, demo=True, clock=SystemClock())
    running = threading.Thread(target=service.run, name="up")
    running.start()
    said = ""

    def told(what: str) -> str | None:
        nonlocal said
        said += capfd.readouterr().err
        found = re.search(rf"^{what} +(\S+)$", said, re.MULTILINE)
        return None if found is None else found[1]

    def answer(path: str) -> str:
        with urllib.request.urlopen(f"{told('page')}{path}", timeout=10) as found:
            return str(found.read().decode())

    def is_fed() -> bool:
        text = answer("metrics")
        return bool(re.search(r"^matchday_ingest_readings\w*_total\S* [1-9]", text, re.MULTILINE))

    try:
        wait_until(lambda: told("page") is not None, what="the page is told of", timeout_s=30)
        assert not str(told("page")).endswith(":0/")
        wait_until(is_fed, what="the demo's readings are taken", timeout_s=30)
        host, _, port = str(told("sensors")).removeprefix("mqtt://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
        about = json.loads(answer("api/v1/about"))
        assert about["endpoint"] == f"{host}:{port}"
        assert f"-p {port} " in about["publish_line"]
    finally:
        service.request_stop()
        running.join()
    told("page")
    assert "warning" not in said, said


def test_doctor_says_that_a_free_port_is_not_to_be_guessed():
    settings = load(environ={"MATCHDAY_MQTT__PORT": "0"}).settings
    with pytest.raises(UnavailableError, match=r"mqtt.port is 0.*`matchday up` prints it"):
        check_broker(settings, clock=SystemClock())


def test_recordings_do_not_try_to_connect_before_messages_are_taken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    settings = load(
        environ={
            "MATCHDAY_DATA_DIR": str(tmp_path / "data"),
            "MATCHDAY_MQTT__PORT": str(free_port()),
        }
    ).settings
    stop = threading.Event()
    asked = []

    def is_taken() -> bool:
        asked.append(1)
        if len(asked) == 3:
            stop.set()
        return False

    build_demo(settings, clock=SystemClock(), is_taken=is_taken)[0].run(stop)
    assert len(asked) == 3
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "data").exists()
