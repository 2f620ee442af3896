"""Claims about the command line: exit codes, and what goes to which output."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from matchday.cli import run
from matchday.cli_options import load_settings
from matchday.clock import SystemClock
from matchday.config import load
from matchday.domain.venue import read_venue
from matchday.errors import ConfigError
from matchday.services.analysis import plan_of
from matchday.services.links import read_token, read_users
from matchday.services.sensor import speed_of
from matchday.sqlite import DataFolder
from matchday.store.embedded import EmbeddedStore


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATCHDAY_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--nonsense"], ["sensor", "replay"]])
def test_wrong_usage_exits_with_2(arguments: list[str]):
    assert run(arguments) == 2


def test_wrong_configuration_exits_with_3_and_says_why(monkeypatch, capsys):
    monkeypatch.setenv("MATCHDAY_MQTT__PORT", "-1")
    assert run(["config", "check"]) == 3
    assert "mqtt.port" in capsys.readouterr().err


def test_unreachable_dependency_exits_with_4(monkeypatch):
    monkeypatch.setenv("MATCHDAY_MQTT__PORT", "9")
    assert run(["doctor", "--json"]) == 4


def test_ledger_without_data_says_where_it_looked(capsys, tmp_path: Path):
    assert run(["ledger"]) == 3
    assert str(tmp_path / "data") in capsys.readouterr().err


def test_settings_are_listed_as_json_on_standard_output(capsys):
    assert run(["config", "show", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "value", "origin", "bound", "description"} == set(rows[0])


def test_help_names_only_commands_that_exist(capsys):
    run(["--help"])
    shown = capsys.readouterr().out
    for command in ("up", "sensor", "server", "analysis", "dashboard", "ledger", "doctor"):
        assert command in shown
    for command in ("alert", "export", "model"):
        assert f" {command} " not in shown


def test_longest_allowed_idle_time_is_accepted_by_the_analysis():
    settings = load(environ={"MATCHDAY_ANALYSIS__IDLE_S": "86400"}).settings
    assert plan_of(settings).policy.forget_s >= 86400


def test_users_file_lets_in_who_it_names_and_nobody_else(tmp_path: Path):
    file = tmp_path / "users"
    file.write_text("# sensors\ntag:se:cret\n\n")
    users = read_users(file)
    assert users.accepts("tag", "se:cret")
    assert not users.accepts("tag", "wrong")
    assert not users.accepts("other", "se:cret")
    file.write_text("no colon\n")
    with pytest.raises(ConfigError, match="line 1"):
        read_users(file)
    file.write_bytes(b"tag:\xff\n")
    with pytest.raises(ConfigError, match="byte 4 is no UTF-8"):
        read_users(file)


def test_token_that_no_browser_could_send_is_refused(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("sixteen characters and more")
    assert read_token(file) == "sixteen characters and more"
    file.write_text("sixteen ch\u00e4racters")
    with pytest.raises(ConfigError, match="printable ASCII"):
        read_token(file)
    file.write_bytes(b"sixteen characters\xff")
    with pytest.raises(ConfigError, match="byte 18 is no UTF-8"):
        read_token(file)


def test_venue_file_that_is_no_text_is_refused(tmp_path: Path):
    file = tmp_path / "venue.toml"
    file.write_bytes(b"id = '\xff'")
    with pytest.raises(ConfigError, match="reading venue"):
        read_venue(file)


@pytest.mark.parametrize(
    "arguments",
    [
        ["deadletter", "list", "--limit", "0"],
        ["deadletter", "list", "--limit", "99999999999999999999"],
        ["sensor", "simulate", "--messages", "-1"],
    ],
)
def test_counts_out_of_bounds_are_wrong_usage(arguments: list[str]):
    assert run(arguments) == 2


@pytest.mark.parametrize(
    "identity", ["", "0-", "a-b", "0-17-3", "0-" + "9" * 5000, "9" * 20 + "-1"]
)
def test_a_dead_letters_id_that_is_none_is_refused_before_anything_is_opened(identity, capsys):
    assert run(["deadletter", "show", identity]) == 3
    assert "an id looks like 0-17" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan"])
def test_speed_that_is_none_is_refused(text: str):
    with pytest.raises(ConfigError, match="--speed"):
        speed_of(text)


def test_folder_given_on_the_command_line_is_the_data_folder(tmp_path: Path):
    loaded = load_settings(None, data_dir=tmp_path / "here", http__port=None)
    assert loaded.settings.data_dir == tmp_path / "here"


def test_an_errors_text_cannot_steer_a_terminal(capsys):
    assert run(["config", "check", "--config", "\x1b]0;owned\x07.toml"]) == 3
    shown = capsys.readouterr().err
    assert "\\x1b]0;owned\\x07.toml" in shown
    assert "\x1b" not in shown


def test_doctor_says_that_an_embedded_store_is_the_only_copy(capsys, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MATCHDAY_MQTT__PORT", "9")

    def risks() -> dict[str, list[str]]:
        run(["doctor", "--json"])
        return {row["link"]: row["risks"] for row in json.loads(capsys.readouterr().out)}

    assert risks()["store"] == []
    folder = tmp_path / "data"
    with DataFolder(folder), closing(EmbeddedStore(folder, clock=SystemClock())) as store:
        store.prepare()
        # As from beside a running process, which owns the folder.
        beside = risks()["store"]
        assert beside == store.risks()
    assert risks()["store"] == beside
