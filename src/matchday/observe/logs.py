"""Where events become text: lines for people on a terminal, JSON elsewhere, on standard error.

Owns both forms, and which lines are written at all. They are made here and not by a library:
the one that was here before brought 4 MB of colours and tracebacks into every process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from matchday.clock import SystemClock

LEVELS: Final = ("debug", "info", "warning", "error")

_COLOURS: Final[Mapping[str, str]] = MappingProxyType({"warning": "\x1b[33m", "error": "\x1b[31m"})
_PLAIN: Final = "\x1b[0m"
_EVENT_WIDTH: Final = 24


class Log:
    """The log of one process; every method may be called from any thread.

    Attributes:
        lost_count: Lines that standard error did not take: its disk is full, or nobody reads it
            any more. That must not end the work that a line is about.
    """

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._as_json: bool | None = None
        self._rank = LEVELS.index("info")
        self.lost_count = 0

    def configure(self, *, as_json: bool | None, level: str) -> None:
        """Choose form and lowest level; see the function of this name."""
        self._as_json = as_json
        self._rank = LEVELS.index(level)

    def write(self, level: str, event: str, values: Mapping[str, Any]) -> None:
        """Write one line, where the level is high enough."""
        if LEVELS.index(level) < self._rank:
            return
        # Asked for at each line, not kept: whoever replaces standard error gets the lines.
        stream = sys.stderr
        is_terminal = stream.isatty()
        as_json = not is_terminal if self._as_json is None else self._as_json
        now_ms = self._clock.wall_ms()
        second = datetime.fromtimestamp(now_ms // 1000, UTC)
        time = f"{second:%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}Z"
        values = {name: _rounded(value) for name, value in values.items()}
        if as_json:
            told = {**values, "event": event, "level": level, "timestamp": time}
            line = json.dumps(told, default=repr)
        else:
            shown = " ".join(f"{name}={_readable(value)}" for name, value in values.items())
            line = f"{time} {level:7} {event:{_EVENT_WIDTH}} {shown}".rstrip()
            colour = _COLOURS.get(level, "")
            if colour and is_terminal and not os.environ.get("NO_COLOR"):
                line = f"{colour}{line}{_PLAIN}"
        with self._lock:
            try:
                # In one piece: what is not a log line is written without this lock.
                stream.write(f"{line}\n")
                stream.flush()
            except (OSError, ValueError):  # a closed file raises the latter
                self.lost_count += 1


PROCESS: Final = Log()


def configure(*, as_json: bool | None = None, level: str = "info") -> None:
    """Choose the form of log lines once, at the start of a process.

    Args:
        as_json: JSON lines; None means JSON unless standard error is a terminal.
        level: The lowest level written.
    """
    PROCESS.configure(as_json=as_json, level=level)


def write(level: str, event: str, values: Mapping[str, Any]) -> None:
    """Write one event; values are shown as they are, so secrets must not be among them."""
    PROCESS.write(level, event, values)


def _rounded(value: object) -> object:
    """Leave a number, seconds mostly, three places: what a person can read."""
    return round(value, 3) if isinstance(value, float) else value


def _readable(value: object) -> str:
    """Show a value in one line: what it holds may come from outside and steer a terminal."""
    text = str(value)
    return text if text.isprintable() else repr(text)
