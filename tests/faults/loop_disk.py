"""A disk of its own, in a file: it can break under whoever writes on it, or get slow.

Owns the file system (ext4 on a loop device), how it becomes read-only as the kernel makes it
after an error of the disk, its repair, and how few writes a second it grants. Linux and root
only; `loop_refusal` tells why there can be none.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

CGROUP: Final = Path("/sys/fs/cgroup")
TOLD_BY_FSCK_MAX: Final = 1
"""Exit codes of e2fsck above this one mean that the disk could not be repaired."""


class LoopDisk:
    """An ext4 file system at `folder`, from entry to exit.

    Args:
        folder: Where it is mounted; made if it is missing.
        mib: Its size.
    """

    def __init__(self, folder: Path, *, mib: int) -> None:
        self.folder = folder
        self._image = folder.with_name(f"{folder.name}.image")
        self._mib = mib

    def __enter__(self) -> Self:
        """Make the file system and mount it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._mib * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unmount it, whoever still has files open there, and remove it."""
        _run("umount", "--lazy", str(self.folder))
        self._image.unlink()

    def fail(self) -> None:
        """Make it read-only under open files, as the kernel does after an error of the disk.

        `mount -o remount,ro` would be refused: somebody is writing.
        """
        switch = Path("/sys/fs/ext4", Path(self._device).name, "trigger_fs_error")
        switch.write_text("fault suite")

    def repair(self) -> None:
        """Check it and mount it again; nobody may have a file open there."""
        _run("umount", str(self.folder))
        done = subprocess.run(["e2fsck", "-p", str(self._image)], capture_output=True, check=False)
        if done.returncode > TOLD_BY_FSCK_MAX:
            raise RuntimeError(f"repairing {self._image}: {done.stdout!r} {done.stderr!r}")
        self._mount()

    @contextmanager
    def slow(self, pid: int, *, writes_per_s: int) -> Iterator[None]:
        """Grant a process no more writes a second than that, from entry to exit."""
        status = os.stat(self._device)
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        group, rule, before = _group_of(pid)
        group.mkdir()
        try:
            rule_path, form = group / rule, "{} wiops={}" if rule == "io.max" else "{} {}"
            rule_path.write_text(form.format(number, writes_per_s))
            _move(pid, group)
            try:
                yield
            finally:
                _move(pid, before)
        finally:
            group.rmdir()

    @property
    def _device(self) -> str:
        return _run("findmnt", "-no", "SOURCE", str(self.folder)).strip()

    def _mount(self) -> None:
        options = "loop,errors=remount-ro"
        _run("mount", "-t", "ext4", "-o", options, str(self._image), str(self.folder))


@functools.cache
def loop_refusal() -> str:
    """Tell why this user can have no such disk here; empty where it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        with tempfile.TemporaryDirectory() as folder, LoopDisk(Path(folder, "disk"), mib=8):
            return ""
    except (OSError, RuntimeError) as error:
        return str(error)


def slow_refusal() -> str:
    """Tell why writes cannot be counted out to a process here; empty where they can."""
    try:
        _group_of(os.getpid())
    except OSError as error:
        return str(error)
    return ""


def _group_of(pid: int) -> tuple[Path, str, Path]:
    """Give a control group to make, its rule for writes, and the group of a process now."""
    name = f"slow-disk-{pid}"
    mine = dict(
        line.split(":", 2)[1:]
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    )
    if "blkio" in mine:
        root = CGROUP / "blkio"
        return root / name, "blkio.throttle.write_iops_device", root / mine["blkio"].lstrip("/")
    if "io" not in (CGROUP / "cgroup.controllers").read_text(encoding="utf-8").split():
        raise OSError("no control group of this machine counts writes")
    (CGROUP / "cgroup.subtree_control").write_text("+io")
    return CGROUP / name, "io.max", CGROUP / mine[""].lstrip("/")


def _move(pid: int, group: Path) -> None:
    if Path("/proc", str(pid)).exists():
        (group / "cgroup.procs").write_text(str(pid))


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"running {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
