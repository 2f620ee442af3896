"""A sensor of the product's own with its outbox on disk, and what that outbox has numbered."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from faults.deployment import Deployment
from servers.services import environment


def empty_outbox(deployment: Deployment, *simulate: str) -> None:
    """End the sensor; another one sends what it kept and a last message each, and ends.

    Args:
        deployment: Has the process `sensor`.
        simulate: What follows `matchday` for that last one; with `--messages`.
    """
    assert deployment.processes.pop("sensor").stop()
    done = subprocess.run(
        environment(deployment.settings, simulate), capture_output=True, timeout=90, check=False
    )
    said = done.stderr.decode()
    assert done.returncode == 0, said[-500:]
    assert " 0 kept" in said, said[-500:]


def numbered(state_dir: Path) -> set[tuple[str, int]]:
    """Give every (source, seq) that the outboxes there have numbered.

    Raises:
        AssertionError: One of them still keeps a message.
    """
    found = set()
    for path in state_dir.glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as outbox:
            assert outbox.execute("SELECT count(*) FROM message").fetchone() == (0,), path
            for series, last in outbox.execute("SELECT name, seq FROM series"):
                topic = series.partition(" ")[0]
                found |= {(topic.rpartition("/")[2], seq) for seq in range(1, last + 1)}
    return found
