"""How answers are printed: tables for people and JSON for programs, on standard output.

Raises a MatchdayError where that cannot be written to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matchday.errors import MatchdayError

WIDTH_CHARS = 200
"""Of tables that go to no terminal."""


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def print_bytes(value: bytes) -> None:
    """Write bytes as they are."""
    with _translated():
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header; cells are text, never markup nor commands to a terminal."""
    table = Table(box=SIMPLE)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(readable(str(cell))) for cell in row))
    is_terminal = sys.stdout.isatty()
    with _translated():
        Console(width=None if is_terminal else WIDTH_CHARS).print(table)
        sys.stdout.flush()


def readable(text: str) -> str:
    """Spell out what would steer a terminal: names come from outside, a line end from us."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )


def say(text: str, *, to_result: bool = False) -> None:
    """Print lines for people: to standard error, or to the result itself.

    Args:
        text: May hold what comes from outside: it steers no terminal.
        to_result: To standard output.

    Raises:
        MatchdayError: Standard output cannot be written to.
    """
    if not to_result:
        # Whom should one tell that there is nobody to tell?
        with suppress(OSError):
            print(readable(text), file=sys.stderr)  # noqa: T201
        return
    with _translated():
        print(readable(text), flush=True)  # noqa: T201


def in_one_line(text: str) -> str:
    """Spell out line ends as well, so that a value cannot look like a line of ours."""
    return readable(text).replace("\n", "\\n")


@contextmanager
def _translated() -> Iterator[None]:
    """Tell that an answer could not be written; that nobody reads it any more is no error.

    Raises:
        MatchdayError: Such as of a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is left in the buffer would be tried, and told of, once more at the very end.
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        raise MatchdayError(f"writing the answer to standard output: {error.strerror}") from error
