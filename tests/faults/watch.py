"""What processes hold: resident memory and open files, looked at again and again. Linux only.

Owns the looking and the peaks. Does not judge them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from matchday.clock import SystemClock
from servers.process import Server

LOOK_EVERY_S: Final = 0.25

_CLOCK: Final = SystemClock()


@dataclass(frozen=True)
class Look:
    """One process at one moment.

    Attributes:
        at_s: Monotonic seconds.
        part: Which process.
        pid: Its id; another one after a restart.
        rss_mib: Resident memory, MiB.
        files_count: Open file descriptors.
    """

    at_s: float
    part: str
    pid: int
    rss_mib: float
    files_count: int


class Watch:
    """Looks at processes in a thread of its own, from entry to exit.

    Args:
        parts: Gives them by name; a part that does not run is left out of that look.
        every_s: Between two looks, seconds.
        is_kept: Keep every look, not the peaks alone.

    Attributes:
        looks: All looks that were kept, oldest first.
        peaks_mib: The highest resident memory of each part, as the kernel saw it, MiB.
        files_max: The most open files of each part.
    """

    def __init__(
        self,
        parts: Callable[[], Mapping[str, Server]],
        *,
        every_s: float = LOOK_EVERY_S,
        is_kept: bool = False,
    ) -> None:
        self.looks: list[Look] = []
        self.peaks_mib: dict[str, float] = {}
        self.files_max: dict[str, int] = {}
        self._parts = parts
        self._every_s = every_s
        self._is_kept = is_kept
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults.watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not _CLOCK.wait(self._stop, self._every_s):
            for part, server in self._parts().items():
                # It may end, or be started anew, between any two of these lines.
                with suppress(RuntimeError, OSError, KeyError):
                    self._look(part, server.pid)

    def _look(self, part: str, pid: int) -> None:
        sizes = _status(pid)
        files_count = len(os.listdir(f"/proc/{pid}/fd"))
        # Between fork and exec a child still has its parent's memory.
        if Path(f"/proc/{pid}/exe").resolve() == Path("/usr/bin/env"):
            return
        self.peaks_mib[part] = max(self.peaks_mib.get(part, 0.0), sizes["VmHWM"])
        self.files_max[part] = max(self.files_max.get(part, 0), files_count)
        if self._is_kept:
            self.looks.append(Look(_CLOCK.monotonic_s(), part, pid, sizes["VmRSS"], files_count))


def _status(pid: int) -> dict[str, float]:
    """Give the sizes of a process by the kernel's names, MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(rest.split()[0]) / 1024
    return found
