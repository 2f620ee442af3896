"""Claims about the reading commands: what they print, and in which order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matchday.clock import SystemClock
from matchday.config import Settings, load
from matchday.domain.topics import Topic
from matchday.errors import RefusedError
from matchday.ports import Record
from matchday.services.answers import list_dead_letters, show_dead_letter
from matchday.stream.embedded import EmbeddedStream

LETTER_COUNT = 35


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    clock = SystemClock()
    stream = EmbeddedStream(tmp_path, clock=clock)
    stream.prepare()
    records = [
        Record(b"roof", f"letter {n}".encode(), (("reason", b"not_json"),))
        for n in range(LETTER_COUNT)
    ]
    stream.producer("test").commit({Topic.DEAD_LETTERS: records})
    yield load(environ={"MATCHDAY_DATA_DIR": str(tmp_path)}).settings
    stream.close()


@pytest.mark.parametrize("limit", [1, 10, 35, 100])
def test_the_newest_dead_letters_come_first_and_no_more_than_asked_for(settings, limit, capsys):
    list_dead_letters(settings, limit=limit, as_json=True, clock=SystemClock())
    rows = json.loads(capsys.readouterr().out)
    newest_first = [f"letter {n}" for n in reversed(range(LETTER_COUNT))]
    assert [row["text"] for row in rows] == newest_first[:limit]


def test_one_dead_letter_is_shown_byte_for_byte_wherever_it_lies(settings, capsysbinary):
    for offset in (0, 17, LETTER_COUNT - 1):
        identity = f"0-{offset}"
        show_dead_letter(settings, identity, is_raw=True, as_json=False, clock=SystemClock())
        assert capsysbinary.readouterr().out == f"letter {offset}".encode()


@pytest.mark.parametrize("identity", [f"0-{LETTER_COUNT}", "7-0", "999999999-" + "9" * 18])
def test_a_dead_letter_that_is_not_there_is_said_to_be_none(settings, identity):
    with pytest.raises(RefusedError, match="there is none"):
        show_dead_letter(settings, identity, is_raw=True, as_json=False, clock=SystemClock())


@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "show", "--json"]], ids=str)
def test_an_answer_that_cannot_be_written_is_told_in_one_line(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "matchday", *arguments], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "matchday: writing the answer to standard output: No space left on device\n"
    )


def test_a_dead_letter_cannot_steer_a_terminal_nor_forge_a_line(tmp_path: Path, capsys):
    stream = EmbeddedStream(tmp_path, clock=SystemClock())
    stream.prepare()
    hostile = b"\x1b]0;owned\x07\x1b[2J\xc2\x9b2J and\nmore"
    headers = (("topic", hostile + b"\nreason   none"), ("reason", b"not_json"))
    stream.producer("test").commit({Topic.DEAD_LETTERS: [Record(hostile, hostile, headers)]})
    stream.close()
    given = load(environ={"MATCHDAY_DATA_DIR": str(tmp_path)}).settings
    show_dead_letter(given, "0-0", is_raw=False, as_json=False, clock=SystemClock())
    list_dead_letters(given, limit=1, as_json=False, clock=SystemClock())
    shown = capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in shown)
    assert "\\x1b]0;owned\\x07" in shown
    assert "\n".join(line for line in shown.splitlines() if line.startswith("reason")) == (
        "reason   not_json"
    )
    assert shown.partition("\n\n")[2].startswith("\\x1b]0;owned\\x07\\x1b[2J\\x9b2J and\nmore\n")
