"""Disks that are full, read-only or damaged, under the embedded stream and store."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults.campaign import Campaign
from faults.deployment import Deployment, embedded
from faults.disks import add_garbage, cut_tail, fill, mount_refusal, small_disk, zero_tail
from servers.process import wait_until
from servers.services import environment

pytestmark = pytest.mark.timeout(240)

UNWATCHED = {"MATCHDAY_DATA__FREE_BYTES_MIN": "0"}
"""Without the guard the disk itself says that it is full."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def need_mount() -> None:
    refusal = mount_refusal()
    if refusal:
        pytest.skip(f"a small disk: {refusal}")


def stalls(campaign: Campaign) -> None:
    """Wait until nothing is acknowledged any more, although readings come."""
    load = campaign.load

    def is_stalled() -> bool:
        acknowledged = len(load.acknowledged)
        sent = load.sent_count
        wait_until(lambda: load.sent_count > sent + 300, what="readings are sent")
        return len(load.acknowledged) == acknowledged

    wait_until(is_stalled, what="nothing is acknowledged", timeout_s=60)


@pytest.mark.parametrize("settings", [UNWATCHED, {"MATCHDAY_DATA__FREE_BYTES_MIN": str(2**20)}])
def test_full_disk_stops_acknowledging_and_recovers_alone(stack, tmp_path, settings):
    need_mount()
    disk = stack.enter_context(small_disk(tmp_path / "data", mib=64))
    with embedded(tmp_path, settings=settings) as deployment, Campaign(deployment) as campaign:
        campaign.flow(400)
        ballast = fill(disk)
        stalls(campaign)
        log = deployment.processes["up"].log()
        assert "disk is full" in log or "below data.free_bytes_min" in log
        ballast.unlink()
        campaign.recover("a full disk")
        campaign.check(campaign.settle())


def test_file_that_may_not_grow_stops_acknowledging_and_recovers_alone(tmp_path):
    with embedded(tmp_path, settings=UNWATCHED) as deployment, Campaign(deployment) as campaign:
        campaign.flow(400)
        pid = deployment.processes["up"].pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = max(path.stat().st_size for path in (tmp_path / "data").glob("*.db-wal"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 4096, hard))
        stalls(campaign)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        campaign.recover("files that may not grow")
        campaign.check(campaign.settle())


def test_read_only_disk_is_refused_with_its_name(stack, tmp_path):
    need_mount()
    disk = stack.enter_context(small_disk(tmp_path / "data", mib=8, options="ro"))
    done = started({"MATCHDAY_DATA_DIR": str(disk)})
    assert done.returncode == 3
    assert f"opening data folder {disk}: Read-only file system" in done.stderr


def test_data_that_became_read_only_are_refused_and_can_still_be_read(stack, tmp_path):
    need_mount()
    with embedded(tmp_path) as deployment, Campaign(deployment) as campaign:
        campaign.flow(400)
        verdict = campaign.settle()
        campaign.check(verdict)
    disk = stack.enter_context(small_disk(tmp_path / "kept", mib=64))
    shutil.copytree(tmp_path / "data", disk, dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = started({"MATCHDAY_DATA_DIR": str(disk)})
    assert done.returncode == 3
    assert "Read-only file system" in done.stderr
    done = matchday({"MATCHDAY_DATA_DIR": str(disk)}, "ledger", "--json")
    assert done.returncode == 0, done.stderr


class Killed:
    """A deployment that was killed with everything stored, and what it had acknowledged."""

    def __init__(self, deployment: Deployment, campaign: Campaign) -> None:
        campaign.flow(1500)
        campaign.load.stop()
        wait_until(lambda: campaign.load.open_count == 0, what="all is acknowledged")
        self.acknowledged = set(campaign.load.acknowledged)
        books = deployment.books
        wait_until(
            lambda: set(books.in_store()) == self.acknowledged, what="all is stored", timeout_s=60
        )
        deployment.kill()


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[Deployment, Killed]]:
    with embedded(tmp_path) as deployment, Campaign(deployment, rate_per_s=1000) as campaign:
        yield deployment, Killed(deployment, campaign)


def test_garbage_behind_the_files_changes_nothing(killed, tmp_path):
    deployment, before = killed
    for name in ("stream.db-wal", "store.db-wal"):
        add_garbage(tmp_path / "data" / name, 5000)
    deployment.start()
    assert deployment.processes["up"].stop()
    streamed = [(one.source, one.seq) for one in deployment.books.in_stream()]
    assert set(streamed) == before.acknowledged
    assert len(streamed) == len(before.acknowledged)
    assert set(deployment.books.in_store()) == before.acknowledged
    assert max(deployment.books.in_store().values()) == 1


def test_stream_that_lost_its_newest_records_is_refused_and_named(killed, tmp_path):
    deployment, before = killed
    path = tmp_path / "data" / "stream.db"
    cut_tail(path.with_name("stream.db-wal"), 200_000)
    done = started(deployment.settings)
    assert done.returncode == 3
    assert f"{path} has lost its newest records" in done.stderr
    assert set(deployment.books.in_store()) == before.acknowledged


def test_store_that_lost_its_newest_rows_gets_them_from_the_stream_again(killed, tmp_path):
    deployment, before = killed
    cut_tail(tmp_path / "data" / "store.db-wal", 200_000)
    deployment.start()
    books = deployment.books
    wait_until(lambda: set(books.in_store()) == before.acknowledged, what="all is stored again")
    assert deployment.processes["up"].stop()
    assert max(books.in_store().values()) == 1


@pytest.mark.parametrize("name", ["stream.db", "store.db"])
def test_file_with_zeros_at_its_end_is_named_by_doctor_and_never_read_as_good(
    killed, tmp_path, name
):
    deployment, _ = killed
    deployment.start()  # folds what is in the -wal file into the main one
    assert deployment.processes["up"].stop()
    path = tmp_path / "data" / name
    zero_tail(path, 3 * 4096)
    done = matchday(deployment.settings, "doctor", "--json")
    assert done.returncode != 0
    assert f"{path} is damaged" in done.stdout or f"{path}: database disk image is" in done.stdout


def matchday(settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        environment(settings, arguments), capture_output=True, text=True, timeout=60, check=False
    )


def started(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start `matchday up`, which must end by itself, and give how."""
    argv = environment({**settings, "MATCHDAY_HTTP__PORT": "0"}, ["up"])
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        stdout, stderr = child.communicate(timeout=40)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        stdout, stderr = child.communicate()
    return subprocess.CompletedProcess(argv, child.returncode, stdout, stderr)
