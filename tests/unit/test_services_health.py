"""Claims about the health port: what everybody learns, and what only those with the token."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from matchday.config import load
from matchday.ports import LinkState
from matchday.services.health import Health, health_of

TOKEN = "token-of-sixteen-and-more"
DOWN = LinkState("stream", False, 0, "kafka:9092 does not answer")


@contextmanager
def running(health: Health) -> Iterator[str]:
    stop = threading.Event()
    thread = threading.Thread(target=health.run, args=(stop,), name="test.health")
    thread.start()
    try:
        yield f"http://127.0.0.1:{health.port}"
    finally:
        stop.set()
        thread.join(10)


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_on_loopback_everybody_sees_everything():
    with running(Health(lambda: [DOWN], host="127.0.0.1", port=0)) as url:
        status, body = get(f"{url}/readyz")
        assert status == 503
        assert json.loads(body)["links"][0]["detail"] == DOWN.detail
        assert get(f"{url}/metrics")[0] == 200


def test_with_a_token_strangers_learn_only_whether_it_lives_and_is_ready():
    with running(Health(lambda: [DOWN], host="127.0.0.1", port=0, token=TOKEN)) as url:
        assert get(f"{url}/livez")[0] == 200
        status, body = get(f"{url}/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False})
        assert get(f"{url}/metrics")[0] == 401
        wrong = {"Authorization": f"Bearer {TOKEN}x"}
        assert get(f"{url}/metrics", wrong)[0] == 401
        assert b"links" not in get(f"{url}/readyz", wrong)[1]


def test_with_a_token_who_sends_it_sees_everything():
    with running(Health(lambda: [DOWN], host="127.0.0.1", port=0, token=TOKEN)) as url:
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert get(f"{url}/metrics", right)[0] == 200
        assert json.loads(get(f"{url}/readyz", right)[1])["links"][0]["link"] == "stream"


def test_health_stays_on_loopback_when_the_page_does_not(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    environ = {
        "MATCHDAY_BIND": "0.0.0.0",
        "MATCHDAY_MQTT__URL": "mqtt://broker",
        "MATCHDAY_HTTP__TOKEN_FILE": str(token),
        "MATCHDAY_HEALTH__PORT": "0",
    }
    with running(health_of(load(environ=environ).settings, "server", list)) as url:
        assert get(f"{url}/metrics")[0] == 200
    environ["MATCHDAY_HEALTH__BIND"] = "0.0.0.0"
    with running(health_of(load(environ=environ).settings, "server", list)) as url:
        assert get(f"{url}/metrics")[0] == 401
