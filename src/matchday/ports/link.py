"""Whether a dependency answers: the one value that every link reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkState:
    """Whether a dependency can be reached, for `/readyz`, metrics and the page.

    Attributes:
        name: Which link, such as "mqtt", "stream" or "store".
        is_up: It answered the last time it was asked.
        since_ms: Wall clock of the last change of `is_up`, milliseconds UTC.
        detail: The address without secrets, or what is wrong.
    """

    name: str
    is_up: bool
    since_ms: int
    detail: str = ""
