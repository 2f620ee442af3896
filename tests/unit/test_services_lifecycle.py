"""Stopping a service by signals, in whatever moment they come."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

from matchday.clock import SystemClock
from matchday.services.lifecycle import Role, Service


def test_second_signal_inside_of_the_first_ones_handler_hangs_nothing() -> None:
    service = Service("test", [Role("test.role", lambda stop: None)], clock=SystemClock())

    def again(frame: FrameType, event: str, _: Any) -> None:
        """Ask once more wherever the first asking enters a function, as a signal would."""
        if event == "call" and frame.f_code is not Service.request_stop.__code__:
            service.request_stop()

    def ask() -> None:
        sys.setprofile(again)
        service.request_stop()
        sys.setprofile(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
