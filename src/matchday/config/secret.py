"""A setting that nobody should see by accident.

Owns hiding a value where settings are printed. Does not decide which settings are secret
(`sections`) nor what of one may be shown (`loading`).
"""

from __future__ import annotations

from typing import Final

STARS: Final = "**********"


class Secret:
    """Text that shows as stars wherever it is printed, logged or compared in a traceback."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Give the text itself; what becomes of it is the caller's to answer for."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret('{STARS if self._text else ''}')"

    def __str__(self) -> str:
        return STARS if self._text else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))
