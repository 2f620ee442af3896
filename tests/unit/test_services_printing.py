"""Claims about printed answers: what comes from outside cannot steer a terminal."""

from __future__ import annotations

import pytest

from matchday.services.printing import print_table, readable


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
