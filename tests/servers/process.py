"""A server as a child process: started, probed, stopped, killed, paused, by its own pid.

Owns the process group, the log file and waiting with a deadline. Does not own what a particular
server needs (arguments, settings, first initialisation): that is in `mosquitto`, `kafka` and
`mongo`; nor which port (`ports`). Linux and macOS; every server is a single process, so the
group holds that process alone.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from matchday.clock import SystemClock
from matchday.errors import UnavailableError
from servers.ports import LOOPBACK

POLL_S: Final = 0.02
LOG_TAIL_LINES: Final = 12

_CLOCK: Final = SystemClock()


class Server(Protocol):
    """A real server on loopback, with the verbs that every one of them shares.

    The port and the data directory stay the same from one `start` to the next, so clients
    find it again. As a context manager it is started on entry and stopped on exit.
    Not safe to share between threads.
    """

    directory: Path
    process: ServerProcess

    @property
    def url(self) -> str:
        """Give the address in the form that matchday's settings take."""
        ...

    def answers(self) -> bool:
        """Tell within about a second whether the server serves a real request now."""
        ...

    @property
    def data_dir(self) -> Path:
        """Give the directory with everything the server keeps."""
        return self.directory / "data"

    @property
    def pid(self) -> int:
        """Give the process id, for measurements; RuntimeError when it is not running."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Tell whether the process exists; a paused one does."""
        return self.process.is_running

    def start(self) -> None:
        """Start and return when the server serves requests.

        Raises:
            UnavailableError: It ended or did not answer in time; it is not running. The
                text carries the end of its log.
            RuntimeError: It is running already.
        """
        self.process.start()

    def stop(self) -> bool:
        """End it cleanly (SIGTERM), by force (SIGKILL) after the deadline; no-op when ended.

        Returns:
            Whether it ended by itself in time. True when it was not running.
        """
        return self.process.stop()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash does; no-op when it is not running."""
        self.process.kill()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self.process.resume()

    def restart(self) -> None:
        """Stop it cleanly and start it again on the same port and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()


@dataclass(kw_only=True, eq=False)
class ServerProcess:
    """One child process in its own process group, ended at the latest with the interpreter.

    The own group keeps a Ctrl-C in the terminal away from the servers, so that a test run
    can end its clients first. An interpreter that is itself killed by a signal runs no exit
    handlers and leaves its servers behind.

    Attributes:
        name: What errors call it, such as "kafka on port 41233".
        argv: The command; the first element is a path.
        log_path: Where standard output and error are appended.
        answers: Whether the server serves a request; bounded in time, never raises.
        ready_s: Time from `start` to the first answer, seconds, at most.
        stop_s: Time from SIGTERM to SIGKILL, seconds.
    """

    name: str
    argv: Sequence[str]
    log_path: Path
    answers: Callable[[], bool]
    ready_s: float = 60.0
    stop_s: float = 20.0
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _owner_pid: int = field(default=0, init=False, repr=False)

    @property
    def pid(self) -> int:
        """Give the process id; RuntimeError when it is not running."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Tell whether the process exists, paused or not."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the process and wait until it answers; see `Server.start`."""
        if self.is_running:
            raise RuntimeError(f"starting {self.name}: it is running as pid {self.pid}")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._owner_pid = os.getpid()
        atexit.register(self._end_with_interpreter)
        try:
            self._wait_ready(self._child)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> bool:
        """End the process by SIGTERM, then SIGKILL; see `Server.stop`."""
        if self._child is None or not self.is_running:
            self._forget()
            return True
        self._signal(signal.SIGTERM)
        # A paused process sees SIGTERM only once it runs again.
        self._signal(signal.SIGCONT)
        try:
            self._child.wait(self.stop_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self._forget()
        return True

    def kill(self) -> None:
        """End the process by SIGKILL and wait until it is gone."""
        if self._child is not None and self.is_running:
            self._signal(signal.SIGKILL)
            self._child.wait()
        self._forget()

    def pause(self) -> None:
        """Freeze the process; returns once it stands still."""
        child = self._running()
        self._signal(signal.SIGSTOP)
        # The signal is taken a moment after it was sent; WNOWAIT leaves reaping to Popen.
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let the process go on; RuntimeError when it is not running."""
        self._running()
        self._signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """Give the last lines of the log, joined by newlines; empty without a log."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, maxlen=LOG_TAIL_LINES)).strip()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or not self.is_running:
            raise RuntimeError(f"signalling {self.name}: it is not running")
        return self._child

    def _signal(self, number: signal.Signals) -> None:
        # Popen has not reaped the child, so the id cannot belong to another process.
        os.killpg(self._running().pid, number)

    def _wait_ready(self, child: subprocess.Popen[bytes]) -> None:
        begun_s = _CLOCK.monotonic_s()
        while not (self.answers() and child.poll() is None):
            try:
                code = child.wait(POLL_S)
            except subprocess.TimeoutExpired:
                code = None
            waited_s = _CLOCK.monotonic_s() - begun_s
            if code is not None:
                what = f"exit code {code} after {waited_s:.1f} s"
            elif waited_s > self.ready_s:
                what = f"no answer after {waited_s:.1f} s, bound {self.ready_s:.1f} s"
            else:
                continue
            raise UnavailableError(
                f"starting {self.name}: {what}; log {self.log_path} ends:\n{self.log_tail()}"
            )

    def _forget(self) -> None:
        atexit.unregister(self._end_with_interpreter)

    def _end_with_interpreter(self) -> None:
        # A forked child of the interpreter inherits the handler, but not the server.
        if os.getpid() == self._owner_pid:
            self.kill()


def accepts(port: int) -> bool:
    """Tell whether something listens on that loopback port; a paused server still does."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0):
            return True
    except OSError:
        return False


def process_exists(pid: int) -> bool:
    """Tell whether a process of that id exists; a zombie does until it is reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], *, what: str, timeout_s: float = 30.0) -> None:
    """Return as soon as `condition` holds, asking every 20 ms.

    Args:
        condition: Asked at least once, in this thread.
        what: Named in the error, such as "member of set matchday is primary".
        timeout_s: Monotonic seconds until giving up.

    Raises:
        UnavailableError: The condition did not hold in time.
    """
    begun_s = _CLOCK.monotonic_s()
    never = threading.Event()
    while not condition():
        if _CLOCK.monotonic_s() - begun_s > timeout_s:
            raise UnavailableError(f"waiting until {what}: not so after {timeout_s:.1f} s")
        _CLOCK.wait(never, POLL_S)
