"""How a test server's process starts and ends, and how missing servers are reported.

Owns proofs about tests/servers/process.py and install.py that need no server, only small
Python programs in their place. Does not prove what a server does (test_servers).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matchday.errors import UnavailableError
from servers import install
from servers.ports import free_port, free_ports
from servers.process import ServerProcess, accepts, process_exists, wait_until

WAIT_S = 20.0
TESTS_DIR = Path(__file__).resolve().parents[1]

# The process itself ---------------------------------------------------------------------


def child(tmp_path: Path, code: str, **options: Any) -> ServerProcess:
    """Give a Python program as a server process, not started."""
    options.setdefault("answers", lambda: True)
    return ServerProcess(
        name="program",
        argv=[sys.executable, "-c", textwrap.dedent(code)],
        log_path=tmp_path / "program.log",
        **options,
    )


DEAF = """
    import pathlib, signal, sys, threading
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path("{mark}").touch()
    threading.Event().wait()
"""


def test_process_that_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    mark = tmp_path / "deaf"
    deaf = child(tmp_path, DEAF.format(mark=mark), answers=mark.exists, stop_s=0.2)
    deaf.start()
    pid = deaf.pid
    assert deaf.stop() is False
    assert not process_exists(pid)


def test_process_that_never_answers_is_ended_and_the_error_shows_its_log(tmp_path: Path) -> None:
    code = "print('thinking', flush=True); import threading; threading.Event().wait()"
    silent = child(tmp_path, code, answers=lambda: False, ready_s=1.0)
    with pytest.raises(UnavailableError, match=r"(?s)no answer after .* bound 1\.0 s.*thinking"):
        silent.start()
    assert not silent.is_running


def test_process_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    broken = child(tmp_path, "raise SystemExit('bad setting')", answers=lambda: False)
    with pytest.raises(UnavailableError, match=r"(?s)exit code 1 .*bad setting"):
        broken.start()


def test_process_ends_with_the_interpreter_that_started_it(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        from servers.process import ServerProcess
        argv = [sys.executable, "-c", "import threading; threading.Event().wait()"]
        server = ServerProcess(name="left alone", argv=argv, log_path=Path({str(tmp_path)!r}, "l"),
                               answers=lambda: True)
        server.start()
        print(server.pid)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(TESTS_DIR)},
        text=True,
        timeout=WAIT_S,
    )
    assert not process_exists(int(done.stdout))


def test_second_start_of_a_running_process_is_a_mistake(tmp_path: Path) -> None:
    running = child(tmp_path, "import threading; threading.Event().wait()")
    running.start()
    try:
        with pytest.raises(RuntimeError, match="running as pid"):
            running.start()
        assert running.is_running
    finally:
        running.kill()


def test_signalling_an_ended_process_is_a_mistake(tmp_path: Path) -> None:
    ended = child(tmp_path, "pass")
    with pytest.raises(RuntimeError, match="not running"):
        ended.pause()
    with pytest.raises(RuntimeError, match="not running"):
        _ = ended.pid


def test_free_ports_differ_also_from_those_before_and_can_be_bound() -> None:
    ports = free_ports(10)
    assert len({*ports, *free_ports(10)}) == 20
    assert not any(accepts(port) for port in ports)
    with socket.socket() as one:
        one.bind(("127.0.0.1", free_port()))


def test_waiting_in_vain_names_the_condition_and_the_bound() -> None:
    with pytest.raises(UnavailableError, match=r"until pigs fly: not so after 0\.1 s"):
        wait_until(lambda: False, what="pigs fly", timeout_s=0.1)


# Getting the servers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("require", "required"),
    [("", False), ("all", True), ("mongo, kafka", True), ("mosquitto,mongo", False)],
)
def test_kafka_is_required_when_require_says_all_or_names_it(require: str, required: bool) -> None:
    assert install.is_required("kafka", require) is required


def test_install_says_where_each_server_is_and_does_nothing_twice(
    need_server: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in install.NAMES:
        need_server(name)
    assert install.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "found:"] for name in install.NAMES]


def test_missing_servers_are_named_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(install, "CACHE_DIR", tmp_path)
    missing = install.missing()
    assert "default-jre-headless" in missing["kafka"]
    assert "tests/servers/install.py" in missing["mongo"]


@pytest.mark.parametrize(
    ("require", "exit_code", "said"),
    [("", 0, "1 skipped"), ("kafka", 1, "REQUIRE wants kafka: no Java")],
)
def test_test_without_its_server_is_skipped_or_fails_where_required(
    require: str, exit_code: int, said: str, tmp_path: Path
) -> None:
    test = f"{TESTS_DIR}/contract/test_servers.py::test_kafka_commits_a_transaction"
    environment = {**os.environ, "PATH": str(tmp_path), "REQUIRE": require}
    environment.pop("JAVA_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        capture_output=True,
        check=False,
        cwd=TESTS_DIR.parent,
        env=environment,
        text=True,
        timeout=60.0,
    )
    assert said in done.stdout
    assert "default-jre-headless" in done.stdout
    assert done.returncode == exit_code
