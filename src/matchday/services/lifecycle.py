"""Start, supervise, drain, stop: the only place where threads are made and ended.

A service is a sequence of roles in the direction the data flows. Each role is one named
thread with its own stop event. Stopping goes in flow order: the first role stops taking,
then each following role is given time to drain what is before it, then is told to stop.
Three quarters of the deadline are graceful. A role that ends by an error ends the service.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType

from matchday.clock import Clock, SystemClock
from matchday.errors import MatchdayError
from matchday.observe import events
from matchday.services.memory import return_room, spare_collector

DEADLINE_S = 20.0
GRACEFUL_SHARE = 0.75
CHECK_S = 0.05
RETURN_ROOM_EVERY_S = 10.0
SAME_STOP_S = 0.5
"""Signals so close are one wish: `timeout`, and a terminal beside a wrapper, send each twice."""


@dataclass
class Role:
    """One thread of a service.

    Attributes:
        name: "<service>.<role>"; the thread carries it.
        run: The loop; returns soon after its event is set.
        is_drained: Tells whether nothing waits before this role; it is asked once the
            roles before it have stopped.
        close: Releases what the role holds, after its thread has ended.
    """

    name: str
    run: Callable[[threading.Event], None]
    is_drained: Callable[[], bool] = lambda: True
    close: Callable[[], None] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    error: BaseException | None = None


class Service:
    """A sequence of roles, run until asked to stop or until one of them fails.

    Args:
        name: The command, such as "server".
        roles: In flow order.
        clock: For deadlines.
        deadline_s: How long stopping may take in all, seconds.
    """

    def __init__(
        self, name: str, roles: Sequence[Role], *, clock: Clock, deadline_s: float = DEADLINE_S
    ) -> None:
        self._name = name
        self._roles = list(roles)
        self._clock = clock
        self._deadline_s = deadline_s
        # No Event: its `set` takes a plain lock, and a second signal inside of the first one's
        # handler would wait for ever for what its own thread holds. `put` may be re-entered.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self.is_stop_requested = False

    def request_stop(self) -> None:
        """Ask the service to drain and stop; safe from any thread and from a signal."""
        self.is_stop_requested = True
        self._wake.put(None)

    def run(self) -> None:
        """Start all roles, wait for a stop or a failure, then stop in flow order.

        Raises:
            BaseException: What ended a role unexpectedly, after all others were stopped.
        """
        for role in self._roles:
            role.thread = threading.Thread(target=self._work, args=(role,), name=role.name)
            role.thread.daemon = True
            role.thread.start()
        events.emit(events.ServiceStarted(self._name))
        try:
            # A signal interrupts the wait by itself.
            while not self._is_woken(RETURN_ROOM_EVERY_S):
                return_room()
        except KeyboardInterrupt:
            self.is_stop_requested = True
        began_s = self._clock.monotonic_s()
        self._drain(began_s)
        events.emit(events.ServiceStopped(self._name, self._clock.monotonic_s() - began_s))
        for role in self._roles:
            if role.error is not None:
                raise role.error

    def _is_woken(self, timeout_s: float) -> bool:
        with suppress(Empty):
            self._wake.get(timeout=timeout_s)
            return True
        return False

    def _work(self, role: Role) -> None:
        try:
            role.run(role.stop)
        except BaseException as error:  # noqa: BLE001 - the one broad catch: ends the service
            role.error = error
            if not isinstance(error, MatchdayError):
                events.emit(events.RoleCrashed(role.name, repr(error)))
        finally:
            if not role.stop.is_set():
                self._wake.put(None)

    def _drain(self, began_s: float) -> None:
        graceful_until_s = began_s + GRACEFUL_SHARE * self._deadline_s
        until_s = began_s + self._deadline_s
        has_failed = any(role.error is not None for role in self._roles)
        for role in self._roles:
            while (
                not has_failed
                and role.thread is not None
                and role.thread.is_alive()
                and self._clock.monotonic_s() < graceful_until_s
                and not role.is_drained()
            ):
                self._clock.wait(role.stop, CHECK_S)
            role.stop.set()
            if role.thread is not None:
                role.thread.join(max(0.1, until_s - self._clock.monotonic_s()))
        for role in self._roles:
            role.close()


def serve(service: Service) -> int:
    """Run a service until a signal stops it; gives the exit code of a clean stop."""
    stop_on_signals(service)
    spare_collector()
    service.run()
    return 0


def stop_on_signals(service: Service) -> None:
    """Make SIGTERM and SIGINT ask the service to stop; a second SIGINT ends it at once."""
    clock = SystemClock()
    asked_s = 0.0

    def on_signal(number: int, _frame: FrameType | None) -> None:
        """Ask for a stop; the second SIGINT raises KeyboardInterrupt in the main thread."""
        nonlocal asked_s
        now_s = clock.monotonic_s()
        if not service.is_stop_requested:
            asked_s = now_s
            service.request_stop()
        elif number == signal.SIGINT and now_s - asked_s >= SAME_STOP_S:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
