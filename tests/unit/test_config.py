"""Claims about settings: where they come from, what is refused, what is never shown."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from matchday.config import Settings, load, show
from matchday.errors import ConfigError


def test_defaults_are_the_embedded_parts_on_loopback():
    settings = load(environ={}).settings
    assert settings.bind == "127.0.0.1"
    assert settings.mqtt.url.get_secret_value() == "embedded:"
    assert settings.http.port == 8081


def test_command_line_wins_over_environment_and_environment_over_file(tmp_path: Path):
    file = tmp_path / "matchday.toml"
    file.write_text("[mqtt]\nport = 1\n[http]\nport = 2\n[gate]\nahead_s_max = 5\n")
    loaded = load(
        file=file,
        environ={"MATCHDAY_MQTT__PORT": "3", "MATCHDAY_HTTP__PORT": "4"},
        overrides={"mqtt.port": 5, "http.port": None},
    )
    settings = loaded.settings
    assert (settings.mqtt.port, settings.http.port, settings.gate.ahead_s_max) == (5, 4, 5)
    origins = {row.name: row.origin for row in show(loaded)}
    assert origins["mqtt.port"] == "command line"
    assert origins["http.port"] == "environment MATCHDAY_HTTP__PORT"
    assert origins["gate.ahead_s_max"] == f"file {file}"
    assert origins["stream.url"] == "default"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"MATCHDAY_MQTT__PROT": "1"}, "nearest known name is mqtt.port"),
        ({"MATCHDAY_NONSENSE": "1"}, "no setting is called nonsense"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest_known_one(environ, wanted):
    with pytest.raises(ConfigError, match=wanted):
        load(environ=environ)


def test_unknown_key_of_the_file_is_refused_at_every_level(tmp_path: Path):
    file = tmp_path / "matchday.toml"
    for text in ("prot = 1\n", "[mqtt]\nprot = 1\n", "[mqt]\nport = 1\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="no setting is called"):
            load(file=file, environ={})


def test_value_out_of_bounds_is_named_with_its_bound_and_origin():
    with pytest.raises(ConfigError, match=r"mqtt.port = '70000' .*MQTT__PORT.* 65535"):
        load(environ={"MATCHDAY_MQTT__PORT": "70000"})


def test_credentials_are_shown_as_stars_and_never_in_errors(tmp_path: Path):
    url = "mongodb://root:hunter2@db:27017/"
    rows = {row.name: row.value for row in show(load(environ={"MATCHDAY_STORE__URL": url}))}
    assert rows["store.url"] == "mongodb://***@db:27017/"
    assert "hunter2" not in repr(load(environ={"MATCHDAY_STORE__URL": url}))


def test_secret_may_be_given_as_a_file(tmp_path: Path):
    secret = tmp_path / "url"
    secret.write_text("mqtt://u:p@host:1883\n")
    settings = load(environ={"MATCHDAY_MQTT__URL_FILE": str(secret)}).settings
    assert settings.mqtt.url.get_secret_value() == "mqtt://u:p@host:1883"


def test_list_setting_is_split_at_commas_in_the_environment():
    settings = load(environ={"MATCHDAY_INGEST__FILTERS": "a/#, b/+"}).settings
    assert settings.ingest.filters == ("a/#", "b/+")


def test_listening_beyond_loopback_needs_credentials_on_both_doors(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"MATCHDAY_MQTT__USERS_FILE"):
        load(environ={"MATCHDAY_BIND": "0.0.0.0"})
    with pytest.raises(ConfigError, match=r"MATCHDAY_HTTP__TOKEN_FILE"):
        load(environ={"MATCHDAY_BIND": "0.0.0.0", "MATCHDAY_MQTT__USERS_FILE": "users"})
    complete = {
        "MATCHDAY_BIND": "0.0.0.0",
        "MATCHDAY_MQTT__USERS_FILE": "users",
        "MATCHDAY_HTTP__TOKEN_FILE": "token",
    }
    assert load(environ=complete).settings.bind == "0.0.0.0"


def test_missing_file_is_a_configuration_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(file=tmp_path / "none.toml", environ={})


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path):
    file = tmp_path / "matchday.toml"
    file.write_text('[mqtt]\nport = true\n[log]\nlevel = "loud"\n[store]\ndatabase = 5\n')
    with pytest.raises(ConfigError) as refusal:
        load(file=file, environ={"MATCHDAY_GATE__COUNT_MAX": "nan"})
    told = str(refusal.value)
    for part in (
        f"checking mqtt.port = True (file {file}): expected int, got bool",
        f"log.level = 'loud' (file {file}): expected one of debug, info, warning, error",
        "checking store.database = 5",
        "checking gate.count_max = 'nan' (environment MATCHDAY_GATE__COUNT_MAX): expected float >",
    ):
        assert part in told


def test_address_that_is_wrong_is_not_shown(tmp_path: Path):
    file = tmp_path / "matchday.toml"
    file.write_text('[store]\nurl = ["mongodb://root:hunter2@db"]\n')
    with pytest.raises(ConfigError, match=r"store\.url = \(secret\)") as refusal:
        load(file=file, environ={})
    assert "hunter2" not in str(refusal.value)


def test_every_default_is_within_its_own_bounds():
    rows = show(load(environ={}))
    given = {row.name: row.value for row in rows if row.value not in ("None", "()", "('#',)")}
    assert load(environ={}, overrides=given).settings == Settings()


@pytest.mark.parametrize(
    ("text", "is_set"), [("yes", True), ("On", True), ("true", True), ("0", False), ("off", False)]
)
def test_words_for_yes_and_no_are_understood(text: str, is_set: bool):
    environ = {"MATCHDAY_SETUP__BROWSER_WRITES": text}
    assert load(environ=environ).settings.setup.browser_writes is is_set


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError, match="immutable"):
        Settings().mqtt.port = 1  # type: ignore[misc]


def test_secret_is_equal_to_its_equal_and_shows_nothing():
    one, same = (load(environ={"MATCHDAY_STORE__URL": "mongodb://u:p@h"}) for _ in range(2))
    assert one.settings == same.settings
    assert len({one.settings.store.url, same.settings.store.url}) == 1
    assert str(one.settings.store.url) == "**********"


def test_address_without_a_scheme_hides_its_credentials_too():
    loaded = load(environ={"MATCHDAY_STORE__URL": "root:hunter2@db:27017"})
    assert {row.name: row.value for row in show(loaded)}["store.url"] == "***@db:27017"
    loaded = load(environ={"MATCHDAY_STORE__URL": "mongodb://root:hun://ter2@db:27017"})
    assert {row.name: row.value for row in show(loaded)}["store.url"] == "mongodb://***@db:27017"


def test_file_that_is_no_text_is_named_and_nothing_of_it_is_shown(tmp_path: Path):
    file = tmp_path / "matchday.toml"
    file.write_bytes(b"bind = '\xff'")
    with pytest.raises(ConfigError, match=r"reading configuration .*matchday\.toml"):
        load(file=file, environ={})
    file.write_bytes(b"hunter2\xff")
    with pytest.raises(ConfigError, match=r"STORE__URL_FILE: .* is not UTF-8") as caught:
        load(environ={"MATCHDAY_STORE__URL_FILE": str(file)})
    assert caught.value.__cause__ is None


def test_setting_given_both_itself_and_as_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "url"
    file.write_text("mongodb://root:hunter2@b")
    both = {"MATCHDAY_STORE__URL": "mongodb://a", "MATCHDAY_STORE__URL_FILE": str(file)}
    with pytest.raises(ConfigError, match=r"STORE__URL and \w+_FILE both set store.url") as caught:
        load(environ=both)
    assert "hunter2" not in str(caught.value)
    both["MATCHDAY_STORE__URL"] = ""
    assert load(environ=both).settings.store.url.get_secret_value() == "mongodb://root:hunter2@b"


def test_address_in_place_of_a_secret_file_is_refused_without_its_password():
    environ = {"MATCHDAY_MQTT__URL_FILE": "mqtt://user:hunter2@host"}
    with pytest.raises(ConfigError, match="an address and no file") as caught:
        load(environ=environ)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_options_of_an_address_that_can_hold_a_secret_are_masked():
    url = "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=hunter2"
    loaded = load(environ={"MATCHDAY_STORE__URL": url, "MATCHDAY_STREAM__URL": "hunter2"})
    shown = {row.name: row.value for row in show(loaded)}
    assert shown["store.url"] == "mongodb://h/?tls=true&tlsCertificateKeyFilePassword=***"
    assert shown["stream.url"] == "***"
