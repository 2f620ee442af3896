"""`matchday up` in this process: what it says about itself while it starts."""

from __future__ import annotations

import re
import threading
import urllib.request
from pathlib import Path

import pytest

from matchday.clock import SystemClock
from matchday.config import load
from matchday.services.demo import build_demo
from matchday.services.together import build_together
from servers.process import free_port, wait_until

pytestmark = pytest.mark.timeout(90)


def test_demo_on_a_free_port_tells_where_it_is_and_warns_of_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    settings = load(
        environ={
            "MATCHDAY_DATA_DIR": str(tmp_path / "data"),
            "MATCHDAY_HTTP__PORT": "0",
            "MATCHDAY_MQTT__PORT": str(free_port()),
        }
    ).settings
    service = build_together(settings, demo=True, clock=SystemClock())
    running = threading.Thread(target=service.run, name="up")
    running.start()
    said = ""

    def page() -> str | None:
        nonlocal said
        said += capfd.readouterr().err
        found = re.search(r"^page +(http://\S+)$", said, re.MULTILINE)
        return None if found is None else found[1]

    def is_fed() -> bool:
        with urllib.request.urlopen(f"{page()}metrics", timeout=10) as answer:
            text = answer.read().decode()
        return bool(re.search(r"^matchday_ingest_readings\w*_total\S* [1-9]", text, re.MULTILINE))

    try:
        wait_until(lambda: page() is not None, what="the page's address is told", timeout_s=30)
        assert not str(page()).endswith(":0/")
        wait_until(is_fed, what="the demo's readings are taken", timeout_s=30)
    finally:
        service.request_stop()
        running.join()
    page()
    assert "warning" not in said, said


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
