"""Where events become text: lines for people on a terminal, JSON elsewhere, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog


def configure(*, as_json: bool | None = None, level: str = "info") -> None:
    """Choose the form of log lines once, at the start of a process.

    Args:
        as_json: JSON lines; None means JSON unless standard error is a terminal.
        level: The lowest level written.
    """
    if as_json is None:
        as_json = not sys.stderr.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        # Asked for at each line, not kept: whoever replaces standard error gets the lines.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def write(level: str, event: str, values: Mapping[str, Any]) -> None:
    """Write one event; values are shown as they are, so secrets must not be among them."""
    if not structlog.is_configured():
        configure()
    getattr(structlog.get_logger("matchday"), level)(event, **values)
