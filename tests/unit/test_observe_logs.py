"""Claims about log lines: their two forms, their levels, and what cannot be smuggled in."""

from __future__ import annotations

import io
import json

import pytest

from matchday.observe import logs
from matchday.observe.events import ReadingsAccepted, emit
from matchday.observe.metrics import PROCESS


class Terminal(io.StringIO):
    """Standard error of a person."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "PROCESS", logs.Log())

    def tell(stream: io.StringIO, level: str, **values: object) -> str:
        monkeypatch.setattr("sys.stderr", stream)
        logs.write(level, "link_lost", values)
        return stream.getvalue()

    return tell


def test_line_is_json_unless_a_person_reads_it(told):
    line = json.loads(told(io.StringIO(), "warning", link="mqtt", count=3))
    assert line.pop("timestamp").endswith("Z")
    assert line == {"link": "mqtt", "count": 3, "event": "link_lost", "level": "warning"}
    assert "link=mqtt count=3" in told(Terminal(), "info", link="mqtt", count=3)


def test_form_can_be_chosen(told):
    logs.configure(as_json=True)
    assert json.loads(told(Terminal(), "info"))["event"] == "link_lost"
    logs.configure(as_json=False)
    assert told(io.StringIO(), "info", link="x").endswith("link_lost                link=x\n")


def test_level_below_the_lowest_is_not_written(told):
    logs.configure(level="warning")
    assert told(io.StringIO(), "info") == ""
    assert told(io.StringIO(), "error") != ""


def test_number_is_told_to_three_places(told):
    assert json.loads(told(io.StringIO(), "info", seconds=0.0097730280031))["seconds"] == 0.01
    assert told(Terminal(), "info", seconds=12.3456).endswith("seconds=12.346\n")


def test_value_that_json_does_not_know_is_shown_as_it_prints(told):
    assert json.loads(told(io.StringIO(), "info", raw=b"x"))["raw"] == "b'x'"


def test_values_from_outside_cannot_steer_a_terminal(told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    line = told(Terminal(), "warning", detail="a\x1b[2J\nb")
    assert "\x1b" not in line
    assert line.count("\n") == 1


def test_warning_has_a_colour_for_a_person_only(told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert told(Terminal(), "warning").startswith("\x1b[33m")
    logs.configure(as_json=False)
    assert "\x1b" not in told(io.StringIO(), "warning")


class Full(io.StringIO):
    """Standard error on a disk that is full."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_line_that_cannot_be_written_is_counted_and_ends_nothing(told):
    told(Full(), "warning", link="x")
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError, match="closed"):  # by the look at what was written
        told(closed, "warning", link="x")
    assert logs.PROCESS.lost_count == 1
    assert "link" in told(io.StringIO(), "warning", link="x")


def test_counter_is_described_by_what_its_event_says() -> None:
    emit(ReadingsAccepted(count=0))
    shown = PROCESS.render().decode()
    name = "matchday_ingest_readings_total"
    assert f"# HELP {name} A tick appended readings to the stream.\n" in shown
