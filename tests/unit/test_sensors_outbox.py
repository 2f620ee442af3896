"""The outbox: numbers and unacknowledged messages outlive the process; slots exclude."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from matchday.errors import ConfigError, OverloadedError
from matchday.sensors.outbox import Draft, Outbox, claim_slot


def draft(value: int, series: str | None = "s") -> Draft:
    return Draft("topic", {"v": value}, series)


def seqs(outbox: Outbox) -> list[int]:
    found = []
    while parcel := outbox.take():
        found.append(json.loads(parcel.payload)["seq"])
    return found


def test_each_series_is_numbered_on_its_own(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as outbox:
        outbox.add([draft(1, "a"), draft(2, "b"), draft(3, "a"), draft(4, None)])

        payloads = [json.loads(parcel.payload) for parcel in iter(outbox.take, None) if parcel]

    assert payloads == [{"v": 1, "seq": 1}, {"v": 2, "seq": 1}, {"v": 3, "seq": 2}, {"v": 4}]


def test_unacknowledged_messages_come_again_with_their_numbers(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "o.sqlite")
    first.add([draft(index) for index in range(5)], notes={"place": b"5"})
    for _ in range(3):
        parcel = first.take()
        assert parcel is not None
        first.acknowledge(parcel.number)
    first.settle()
    # No close: a second connection sees what a kill would leave.

    with Outbox(tmp_path / "o.sqlite") as second:
        second.add([draft(9)])
        assert second.note("place") == b"5"
        assert seqs(second) == [4, 5, 6]
    first.close()


def test_numbering_goes_on_when_everything_was_acknowledged(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.sqlite") as first:
        first.add([draft(1), draft(2)])
        while parcel := first.take():
            first.acknowledge(parcel.number)

    with Outbox(tmp_path / "o.sqlite") as second:
        assert second.pending_count == 0
        second.add([draft(3)])
        assert seqs(second) == [3]


def test_rewind_offers_exactly_the_unacknowledged_in_order() -> None:
    outbox = Outbox()
    outbox.add([draft(index) for index in range(4)])
    parcels = [outbox.take() for _ in range(3)]
    assert parcels[1] is not None
    outbox.acknowledge(parcels[1].number)

    outbox.rewind()

    assert seqs(outbox) == [1, 3, 4]


def test_full_outbox_refuses_a_batch_whole_and_takes_it_later() -> None:
    outbox = Outbox(messages_max=2)
    outbox.add([draft(1), draft(2)])

    with pytest.raises(OverloadedError, match="2 wait already"):
        outbox.add([draft(3)])
    parcel = outbox.take()
    assert parcel is not None
    outbox.acknowledge(parcel.number)
    outbox.add([draft(3)])

    assert seqs(outbox) == [2, 3]


def test_bytes_are_bounded_too() -> None:
    outbox = Outbox(bytes_max=10)
    outbox.add([Draft("t", b"0123456789", None)])

    assert outbox.is_full


def test_bytes_are_sent_as_they_are() -> None:
    outbox = Outbox()
    outbox.add([Draft("t", b"\xff raw", "s")])

    parcel = outbox.take()

    assert parcel is not None
    assert parcel.payload == b"\xff raw"
    assert outbox.last_seq("s") == 0


def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "o.sqlite") as file:
        file.execute("PRAGMA user_version = 99")
    file.close()

    with pytest.raises(ConfigError, match="format 99 above 1"):
        Outbox(tmp_path / "o.sqlite")


def test_file_that_is_no_outbox_is_refused(tmp_path: Path) -> None:
    (tmp_path / "o.sqlite").write_bytes(b"not a database at all" * 100)

    with pytest.raises(ConfigError, match=r"o\.sqlite"):
        Outbox(tmp_path / "o.sqlite")


def test_lowest_free_slot_is_claimed_and_given_back(tmp_path: Path) -> None:
    first, second = claim_slot(tmp_path, prefix="s-"), claim_slot(tmp_path, prefix="s-")
    first.close()

    with claim_slot(tmp_path, prefix="s-") as third:
        assert [first.source, second.source, third.source] == ["s-0", "s-1", "s-0"]
        assert third.outbox_path == first.outbox_path
    second.close()


def test_killed_process_gives_its_slot_back(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from matchday.sensors.outbox import claim_slot\n"
        "slot = claim_slot(pathlib.Path(sys.argv[1]), prefix='s-')\n"
        "print(slot.source, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "s-0\n"
        with claim_slot(tmp_path, prefix="s-") as other:
            assert other.number == 1
        child.kill()

    with claim_slot(tmp_path, prefix="s-") as again:
        assert again.number == 0


def test_state_folder_that_is_a_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(ConfigError, match="claiming a slot"):
        claim_slot(tmp_path / "state", prefix="s-")
