"""What a process does so that its memory stays small: collector, arenas, free room given back.

Does not own what the parts keep, nor the bounds of that (`docs/explanation/limits.md`). All of
it is a matter of cost only: where the C library is another one, nothing changes but that.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

COLLECT_EVERY_OBJECTS: Final = 100_000
M_ARENA_MAX: Final = -8
"""The GNU C library's name of the setting, from its malloc.h."""


def spare_collector() -> None:
    """Make the garbage collector look rarely, and never again at what is there now.

    It only finds cycles, and no message leaves one: at Python's default it walked through
    the batch in hand every 700 objects, an eighth of persist's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY_OBJECTS, 20, 20)


def spare_arenas() -> bool:
    """Let all threads share one arena of the C library's memory; tell whether that works here.

    Each thread has one of its own otherwise, with free room that the others cannot use: 5 MB of
    `matchday up` at 20,000 messages a second. Threads of Python hardly ever allocate at the same
    time, unlike those of Kafka's client. Call it before threads are started.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1))
    except (AttributeError, OSError):
        return False  # another C library, which has no such arenas


def return_room() -> bool:
    """Give free memory back to the system; tell whether the C library knows how.

    It keeps what is freed in the middle of an arena for later. Each Kafka client has threads, and
    so arenas, of its own, and each outage makes clients anew: without this ingest grew by some
    20 MB with each, to 290 MB in an hour of them, nearly all of it free. It takes some
    milliseconds, without Python's lock.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return False  # another C library, with rules of its own
    return True
