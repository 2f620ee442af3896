"""Free TCP ports on loopback, for what is started a moment later.

A port that the system gives and that is released again may be given to somebody else before
the server has it. So ports are taken in turn from below those that the system gives away, by
all processes of this user together: none comes again for thousands of others.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from matchday.errors import UnavailableError

LOOPBACK: Final = "127.0.0.1"
FIRST: Final = 10_000
END: Final = 27_000
"""Linux gives away 32768 and above; MongoDB's own port and those around it are left out."""


def free_ports(count: int) -> list[int]:
    """Choose that many different free TCP ports on loopback.

    Raises:
        UnavailableError: There are not so many.
    """
    turn_file = Path(tempfile.gettempdir()) / f"matchday-ports-{os.getuid()}"
    found: list[int] = []
    with turn_file.open("a+", encoding="ascii") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        last = FIRST - 1
        with suppress(ValueError):
            last = int(turn.read())
        for _ in range(FIRST, END):
            if len(found) == count:
                break
            last = last + 1 if FIRST <= last + 1 < END else FIRST
            if _is_free(last):
                found.append(last)
        turn.truncate(0)
        turn.write(str(last))
    if len(found) < count:
        raise UnavailableError(
            f"choosing {count} ports of {FIRST} to {END - 1}: {len(found)} are free"
        )
    return found


def free_port() -> int:
    """Choose one free TCP port on loopback; errors as of `free_ports`."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
