"""Claims about the health port: what everybody learns, and what only those with the token."""

from __future__ import annotations

import json
import os
import resource
import socket
import socketserver
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from matchday.clock import ManualClock, SystemClock
from matchday.config import load
from matchday.dashboard.attempts import FAILURES_MAX, WINDOW_S
from matchday.ports import LinkState
from matchday.services.health import REQUESTS_MAX, Health, _Prompt, health_of

TOKEN = "token-of-sixteen-and-more"
DOWN = LinkState("stream", False, 0, "kafka:9092 does not answer")
ANSWERS_S_MAX = 4.0
"""It answers after half a second; the rest is for a busy machine."""


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


def test_who_sends_a_wrong_token_is_told_so_and_it_is_not_repeated():
    with running(Health(lambda: [DOWN], host="127.0.0.1", port=0, token=TOKEN)) as url:
        assert b"is not" not in get(f"{url}/metrics")[1]
        assert b"is not" not in get(f"{url}/metrics", {"Authorization": "Basic Zm9v"})[1]
        said = get(f"{url}/metrics", {"Authorization": "Bearer some-other-word"})[1]
        assert said == b"the bearer token sent is not the page's\n"


def test_with_a_token_who_sends_it_sees_everything():
    with running(Health(lambda: [DOWN], host="127.0.0.1", port=0, token=TOKEN)) as url:
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert get(f"{url}/metrics", right)[0] == 200
        assert json.loads(get(f"{url}/readyz", right)[1])["links"][0]["link"] == "stream"


def test_guessing_the_token_is_stopped_after_ten_and_goes_on_after_a_minute():
    clock = ManualClock()
    right = {"Authorization": f"Bearer {TOKEN}"}
    with running(Health(lambda: [DOWN], host="127.0.0.1", port=0, token=TOKEN, clock=clock)) as url:
        codes = [
            get(f"{url}/{path}", {"Authorization": f"Bearer guess {number}"})[0]
            for number in range(FAILURES_MAX // 2)
            for path in ("metrics", "readyz")
        ]
        assert codes == [401, 503] * (FAILURES_MAX // 2), "the same guess counts once"
        codes = [
            get(f"{url}/metrics", {"Authorization": f"Bearer other guess {number}"})[0]
            for number in range(FAILURES_MAX // 2 + 1)
        ]
        assert codes == [401] * (FAILURES_MAX // 2) + [429]
        # Else guessing would pay: nothing that was not right before is looked at.
        assert get(f"{url}/metrics", right)[0] == 429
        assert b"links" not in get(f"{url}/readyz", right)[1]
        assert get(f"{url}/livez")[0] == 200
        clock.advance(WINDOW_S + 1)
        assert get(f"{url}/metrics", right)[0] == 200


def test_who_showed_the_right_token_before_goes_on_while_others_there_guess():
    right = {"Authorization": f"Bearer {TOKEN}"}
    with running(Health(list, host="127.0.0.1", port=0, token=TOKEN)) as url:
        assert get(f"{url}/metrics", right)[0] == 200
        for number in range(FAILURES_MAX + 1):
            get(f"{url}/metrics", {"Authorization": f"Bearer guess {number}"})
        assert get(f"{url}/metrics", {"Authorization": "Bearer another"})[0] == 429
        assert get(f"{url}/metrics", right)[0] == 200


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


def test_it_answers_while_a_link_hangs_and_says_so():
    hang = threading.Event()
    is_hanging = []

    def links() -> list[LinkState]:
        if is_hanging:
            assert hang.wait(60)
        return [LinkState("store", True, 0, "mongo:27017")]

    clock = SystemClock()
    with running(Health(links, host="127.0.0.1", port=0)) as url:
        assert get(f"{url}/readyz")[0] == 200
        is_hanging.append(1)
        for _ in range(3):
            began_s = clock.monotonic_s()
            status, body = get(f"{url}/readyz")
            assert clock.monotonic_s() - began_s < ANSWERS_S_MAX
            assert status == 503
            assert [row["link"] for row in json.loads(body)["links"]] == ["store", "links"]
        hang.set()
        is_hanging.clear()
        while get(f"{url}/readyz")[0] != 200:
            assert clock.monotonic_s() - began_s < 20


def test_more_connections_than_it_answers_at_once_are_refused_and_those_go_on():
    with running(Health(list, host="127.0.0.1", port=0)) as url, ExitStack() as held:
        port = int(url.rpartition(":")[2])
        for _ in range(REQUESTS_MAX):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as over:
            assert over.recv(1) == b""
        held.close()
        clock = SystemClock()
        until_s = clock.monotonic_s() + 20
        while True:
            with suppress(OSError):
                assert get(f"{url}/livez")[0] == 200
                break
            assert clock.monotonic_s() < until_s


def test_lack_of_threads_is_over_when_there_are_some_again(monkeypatch):
    def start(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    with running(Health(list, host="127.0.0.1", port=0)) as url:
        # The thread that answers has to be there before.
        assert get(f"{url}/livez")[0] == 200
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            for _ in range(REQUESTS_MAX + 1):
                with suppress(OSError):
                    get(f"{url}/livez")
        assert get(f"{url}/livez")[0] == 200


def test_links_are_asked_again_when_no_thread_was_to_be_had(monkeypatch):
    prompt = _Prompt(list)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prompt.states()
    assert prompt.states() == []


def test_somebody_who_hangs_up_leaves_no_trace_on_standard_error(capfd):
    with running(Health(list, host="127.0.0.1", port=0)) as url:
        port = int(url.rpartition(":")[2])
        for said in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /readyz HT", b"\xff\0\r\n\r\n"):
            hasty = socket.create_connection(("127.0.0.1", port), timeout=10)
            # Reset, not closed: what is written to it fails.
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            hasty.sendall(said)
            hasty.close()
        assert get(f"{url}/livez")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_without_a_file_left_to_open_it_looks_now_and_then_and_answers_later(monkeypatch):
    accepted: list[int] = []
    accept = socketserver.TCPServer.get_request

    def counted(server: socketserver.TCPServer) -> Any:
        accepted.append(1)
        return accept(server)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = set(threading.enumerate())
    with running(Health(list, host="127.0.0.1", port=0)) as url, ExitStack() as held:
        assert get(f"{url}/livez")[0] == 200
        # It closes its end of the connection a moment after ours.
        while any("process_request" in one.name for one in set(threading.enumerate()) - others):
            threading.Event().wait(0.01)
        patient = held.enter_context(socket.socket())
        filler: list[int] = []
        monkeypatch.setattr(socketserver.TCPServer, "get_request", counted)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            with suppress(OSError):
                while True:
                    filler.append(os.open(os.devnull, os.O_RDONLY))
            patient.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            patient.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            threading.Event().wait(0.5)
            assert 0 < len(accepted) < 20
        finally:
            for one in filler:
                os.close(one)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        patient.settimeout(10)
        assert patient.recv(100).startswith(b"HTTP/1.0 200")
