"""Small disks, and damage to files, for the fault suite.

Owns making a file system of a few MiB and filling it, and the ways in which a file loses or
changes its end. Knows nothing of SQLite.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = b"\0" * 65536


def mount_refusal() -> str:
    """Tell why this user may not mount anything here; empty where it may."""
    if os.geteuid() != 0:
        return "mounting needs root"
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
        text=True,
    )
    return done.stderr.strip() if done.returncode else ""


@contextmanager
def small_disk(folder: Path, *, mib: int, options: str = "") -> Iterator[Path]:
    """Give a folder that is a file system of that size of its own."""
    folder.mkdir(parents=True)
    asked = f"size={mib}m{',' if options else ''}{options}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", asked, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk has no byte left; give the file."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for block in (BLOCK, BLOCK[:512], BLOCK[:1]):
            try:
                while file.write(block):
                    pass
            except OSError:
                continue
    return ballast


def cut_tail(path: Path, count: int) -> None:
    """Take the last bytes of a file away."""
    os.truncate(path, max(0, path.stat().st_size - count))


def add_garbage(path: Path, count: int) -> None:
    """Append bytes that mean nothing."""
    with path.open("ab") as file:
        file.write(bytes(number * 37 % 256 for number in range(count)))


def zero_tail(path: Path, count: int) -> None:
    """Overwrite the last bytes of a file with zeros."""
    with path.open("r+b") as file:
        file.seek(-count, os.SEEK_END)
        file.write(b"\0" * count)


Damage = Callable[[Path], None]
