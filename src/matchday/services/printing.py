"""How answers are printed: tables for people and JSON for programs, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH_CHARS = 200
"""Of tables that go to no terminal."""


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    sys.stdout.buffer.flush()


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header; cells are text, never markup."""
    table = Table(box=SIMPLE)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    is_terminal = sys.stdout.isatty()
    Console(width=None if is_terminal else WIDTH_CHARS).print(table)


def say(text: str, *, to_result: bool = False) -> None:
    """Print a line for people: to standard error, or to the result itself."""
    print(text, file=sys.stdout if to_result else sys.stderr)
