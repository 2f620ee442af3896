"""Commands run to their end, and conditions waited for, each within a deadline."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from matchday.clock import SystemClock

COMMAND_S: Final = 180.0
POLL_S: Final = 0.2

CLOCK: Final = SystemClock()

Found = TypeVar("Found")


def docker(*arguments: str, text: str = "", timeout_s: float = COMMAND_S) -> str:
    """Run `docker ARGUMENTS` with `text` as its input, and give what it printed."""
    return run(["docker", *arguments], text=text, timeout_s=timeout_s).stdout


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    text: str = "",
    timeout_s: float = COMMAND_S,
    is_checked: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with `text` as its standard input.

    Raises:
        AssertionError: It did not exit with 0, unless `is_checked` is False.
    """
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        input=text,
    )
    if is_checked:
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}: {said}"
    return done


def until(
    condition: Callable[[], object],
    what: str,
    *,
    within_s: float,
    explain: Callable[[], str] | None = None,
) -> float:
    """Wait until a condition holds and give the seconds it took.

    Raises:
        AssertionError: It did not hold in time; names it, the last answer and, by
            `explain`, the circumstances.
    """
    began_s = CLOCK.monotonic_s()
    never = threading.Event()
    while True:
        found = condition()
        taken_s = CLOCK.monotonic_s() - began_s
        if found:
            return taken_s
        if taken_s > within_s:
            why = "" if explain is None else explain()
            raise AssertionError(f"waited {taken_s:.0f} s for {what}: {found!r}\n{why}")
        CLOCK.wait(never, POLL_S)


def eventually(ask: Callable[[], Found | None], what: str, *, within_s: float) -> Found:
    """Ask until there is an answer, and give it; as `until`."""
    answers: list[Found] = []

    def is_answered() -> bool:
        found = ask()
        if found is not None:
            answers.append(found)
        return found is not None

    until(is_answered, what, within_s=within_s)
    return answers[0]


def pause(span_s: float) -> None:
    """Let a time pass, where what happens meanwhile is what is tested."""
    CLOCK.wait(threading.Event(), span_s)
