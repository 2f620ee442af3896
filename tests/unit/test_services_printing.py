"""Claims about printed answers: what comes from outside cannot steer a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from matchday.errors import MatchdayError
from matchday.services.printing import in_one_line, print_table, readable, say


def test_names_from_outside_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]):
    print_table(["source"], [["\x1b[31mred"], ["\u202eright to left"], ["[bold]plain[/]"]])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[31mred" in shown
    assert "[bold]plain[/]" in shown


def test_line_ends_within_a_cell_stay():
    assert readable("one\ntwo\r") == "one\ntwo\\r"
    assert readable("Zürich") == "Zürich"


def test_lines_said_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]):
    say("a\x1b[2J\u202eb\nc")
    say("d\x07", to_result=True)
    assert capsys.readouterr() == ("d\\x07\n", "a\\x1b[2J\\u202eb\nc\n")
    assert in_one_line("a\nreason b\r") == "a\\nreason b\\r"


def test_line_to_a_full_disk_is_an_error_only_where_it_is_the_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Full(io.TextIOWrapper):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device")

    with (tmp_path / "full").open("wb") as file:
        full = Full(file)
        monkeypatch.setattr("sys.stderr", full)
        say("nobody hears this")
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(MatchdayError, match="writing the answer to standard output: No space"):
            say("the result", to_result=True)
