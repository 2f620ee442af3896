"""Claims about the secrets of a deployment: made once, whole, for each service alone."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from matchday.cli import run
from matchday.errors import ConfigError
from matchday.services import secrets
from matchday.services.secret_files import (
    KEY,
    OWNERS,
    PASSWORDS,
    Addresses,
    Made,
    MqttLogin,
    kafka_jaas,
    mosquitto_acl,
    mosquitto_hash,
    render,
    store_url,
    with_database,
)

FILES = 22  # of all services, without the passwords themselves


@pytest.fixture
def made() -> Made:
    passwords = {name: f"{name}-".ljust(40, "x") for name in PASSWORDS} | {KEY: "k" * 256}
    logins = {user: MqttLogin(user.ljust(40, "y"), "A" * 16) for user in ("ingest", "demo", "oval")}
    return Made(passwords, logins)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stamps(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {path: (at.st_ino, at.st_mtime_ns, at.st_ctime_ns) for path, at in found.items()}


def values(folder: Path) -> list[str]:
    kept = json.loads((folder / "made/passwords.json").read_text())
    return [*kept["passwords"].values(), *(login["password"] for login in kept["mqtt"].values())]


# What the files say ---------------------------------------------------------------------


def test_same_passwords_give_the_same_files(made: Made):
    assert render(made, Addresses()) == render(made, Addresses())


def test_every_service_gets_a_file_and_every_file_has_an_owner(made: Made):
    files = render(made, Addresses())
    assert len(files) == FILES
    assert {file.folder for file in files} == set(OWNERS)


def test_hash_is_that_of_mosquitto_passwd():
    # Made by mosquitto_passwd 2.0.11 from the password "secret".
    expected = (
        "$7$101$k+Dr2tFBaPr0p028$7IKdQi4sd5HO/dg/wRtB4CXvCdx85T9dApY/4i7gktoBUR6UAZF467NBEb8fBS1R"
        "EuS73zfbIaXy0JNzK9mqGQ=="
    )
    assert mosquitto_hash("secret", "k+Dr2tFBaPr0p028") == expected


def test_sensors_may_write_their_venue_and_ingest_may_only_read(made: Made):
    assert mosquitto_acl(made).split("\n\n") == [
        "user demo\ntopic write matchday/demo/#\ntopic write temperature\ntopic write image\n"
        "topic write Image",
        "user ingest\ntopic read #\ntopic read $SYS/#",
        "user oval\ntopic write matchday/oval/#\n",
    ]


def test_kafka_knows_its_four_users_and_its_own_login_to_zookeeper(made: Made):
    text = kafka_jaas(made)
    for user in ("admin", "server", "analysis", "dashboard"):
        assert f'user_{user}="{made.passwords[f"kafka-{user}"]}"' in text
    assert f'username="kafka"\n    password="{made.passwords["zookeeper-kafka"]}";' in text
    assert text.count("{") == text.count("};") == 2


def test_addresses_carry_their_login_percent_encoded(made: Made):
    strange = Made({**made.passwords, "mongo-server": "p@ss/w:rd?#%"}, made.mqtt)
    parts = urlsplit(store_url(strange, Addresses(), "server"))
    assert parts.hostname == "mongo"
    assert unquote(parts.password or "") == "p@ss/w:rd?#%"


def test_servers_of_ones_own_replace_the_containers_in_every_address(made: Made):
    own = Addresses(stream_url="kafka://a:b@elsewhere", store_url="mongodb://c:d@far/x")
    files = {(file.folder, file.name): file.text for file in render(made, own)}
    for (_, name), text in files.items():
        assert name != "stream_url" or text == "kafka://a:b@elsewhere"
        assert name != "store_url" or text == "mongodb://c:d@far/x"
    assert json.loads(files["setup", "accounts.json"]) == {"mongo": {}, "kafka": []}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mongodb://far:1/other", "mongodb://far:1/other"),
        ("mongodb://far:1", "mongodb://far:1/server"),
        ("mongodb://u:p@a,b/?w=1", "mongodb://u:p@a,b/server?w=1&authSource=admin"),
        ("mongodb://u:p@a/?authsource=x", "mongodb://u:p@a/server?authsource=x"),
    ],
)
def test_database_is_named_and_the_login_is_still_looked_up_where_it_was(url, expected):
    assert with_database(url) == expected


def test_no_password_is_in_the_text_of_any_value(made: Made):
    addresses = Addresses(stream_url="kafka://u:hidden@h", store_url="mongodb://u:hidden@h")
    shown = repr(made) + repr(addresses) + repr(render(made, addresses))
    assert "hidden" not in shown
    assert not any(password in shown for password in made.passwords.values())


# On disk --------------------------------------------------------------------------------


def test_first_run_makes_everything_and_the_second_touches_nothing(folder: Path):
    first = secrets.create(folder, Addresses())
    before = stamps(folder)
    second = secrets.create(folder, Addresses())
    assert (first.written_count, first.unchanged_count) == (FILES + 1, 0)
    assert (second.written_count, second.unchanged_count) == (0, FILES + 1)
    assert stamps(folder) == before


def test_every_password_is_long_random_and_different(folder: Path, tmp_path: Path):
    secrets.create(folder, Addresses())
    secrets.create(tmp_path / "other", Addresses())
    found = values(folder) + values(tmp_path / "other")
    assert len(set(found)) == len(found)
    assert min(len(value) for value in found) >= 32
    assert not any(value.startswith("-") for value in found)


def test_nobody_but_its_service_may_read_a_file(folder: Path):
    secrets.create(folder, Addresses())
    is_root = os.geteuid() == 0
    for path in folder.rglob("*"):
        at = path.stat()
        service = path.relative_to(folder).parts[0]
        assert at.st_uid == (OWNERS.get(service, 0) if is_root else os.geteuid())
        assert not is_root or at.st_gid == at.st_uid
        wanted = 0o700 if path.is_dir() else 0o600 if service == "mosquitto" else 0o400
        assert stat.S_IMODE(at.st_mode) == wanted


def test_wrong_mode_and_lost_file_are_put_right(folder: Path):
    secrets.create(folder, Addresses())
    before = contents(folder)
    (folder / "dashboard/page_token").chmod(0o644)
    (folder / "server/mqtt_url").unlink()
    (folder / "mongo/key_file").chmod(0o600)
    (folder / "mongo/key_file").write_bytes(b"")
    assert secrets.create(folder, Addresses()).written_count == 2
    assert contents(folder) == before
    assert stat.S_IMODE((folder / "dashboard/page_token").stat().st_mode) == 0o400


def test_another_kafka_host_changes_only_the_addresses_with_it(folder: Path):
    secrets.create(folder, Addresses())
    before = contents(folder)
    secrets.create(folder, Addresses(kafka_host="kafka-zookeeper"))
    after = contents(folder)
    changed = {name for name, content in after.items() if content != before[name]}
    assert changed == {
        f"{service}/stream_url" for service in ("setup", "server", "model_analysis", "dashboard")
    }
    assert all(b"@kafka-zookeeper:9092" in after[name] for name in changed)


def test_password_that_a_newer_version_needs_is_added_to_those_kept(folder: Path):
    secrets.create(folder, Addresses())
    path = folder / "made/passwords.json"
    kept = json.loads(path.read_text())
    del kept["passwords"]["page-token"]
    path.chmod(0o600)
    path.write_text(json.dumps(kept))
    secrets.create(folder, Addresses())
    after = json.loads(path.read_text())
    assert after["passwords"].pop("page-token") == (folder / "dashboard/page_token").read_text()
    assert after == kept


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"passwords": 1}', b'{"passwords": {"mongo-root": "short"}}', b"\xff"]
)
def test_damaged_passwords_are_refused_and_not_replaced(folder: Path, damage: bytes):
    secrets.create(folder, Addresses())
    path = folder / "made/passwords.json"
    path.chmod(0o600)
    path.write_bytes(damage)
    before = contents(folder)
    with pytest.raises(ConfigError, match=r"passwords\.json"):
        secrets.create(folder, Addresses())
    assert contents(folder) == before


def test_lost_passwords_are_not_made_anew_while_servers_know_the_old(folder: Path):
    secrets.create(folder, Addresses())
    (folder / "made/passwords.json").unlink()
    with pytest.raises(ConfigError, match=r"is gone.*put back a copy"):
        secrets.create(folder, Addresses())


KILLED_AT_RENAME = """
import os, pathlib, signal, sys
from matchday.services import secrets
from matchday.services.secret_files import Addresses

rename, left = pathlib.Path.replace, int(sys.argv[2])
def replace(path, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(path, target)
pathlib.Path.replace = replace
secrets.create(pathlib.Path(sys.argv[1]), Addresses())
"""


@pytest.mark.parametrize("done", [0, 1, 2, 11, FILES])
def test_run_killed_between_files_is_finished_with_the_same_passwords(folder: Path, done: int):
    command = [sys.executable, "-c", KILLED_AT_RENAME, str(folder), str(done)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    before = {name: text for name, text in contents(folder).items() if not name.endswith(".new")}
    assert len(before) == done
    assert all(before.values())
    assert secrets.create(folder, Addresses()).written_count == FILES + 1 - done
    after = contents(folder)
    assert len(after) == FILES + 1
    assert before.items() <= after.items()


def test_runs_at_the_same_time_agree_on_one_set(folder: Path):
    command = [sys.executable, "-m", "matchday", "secrets", "create", f"--dir={folder}"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    told = [json.loads(each.communicate()[1].splitlines()[-1]) for each in runs]
    assert sorted(line["written_count"] for line in told) == [0, 0, 0, FILES + 1]
    assert secrets.create(folder, Addresses()).written_count == 0


AS_ANOTHER_USER = """
import os, pathlib, sys
from matchday.services import secrets
from matchday.services.secret_files import Addresses

os.chown(sys.argv[1], 1234, 1234)
os.setgid(1234)
os.setuid(1234)
secrets.create(pathlib.Path(sys.argv[1]), Addresses())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_root_the_files_stay_ones_own_and_that_is_said():
    # Not in pytest's folder: that is closed to other users.
    with tempfile.TemporaryDirectory() as made_here:
        command = [sys.executable, "-c", AS_ANOTHER_USER, made_here]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        assert {path.stat().st_uid for path in Path(made_here).rglob("*")} == {1234}
    assert "secrets_owner_kept" in child.stderr


# On the command line --------------------------------------------------------------------


def test_no_secret_is_in_what_create_prints(folder: Path, capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["--kafka-host=other", "--store-url-file="]):
        assert run(["secrets", "create", f"--dir={folder}", *arguments]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "secrets_ready" in told.err
    assert not any(value in told.err for value in values(folder))


def test_new_sensor_s_password_is_printed_alone_and_shown_again(folder: Path, capsys):
    run(["secrets", "create", f"--dir={folder}"])
    capsys.readouterr()
    assert run(["secrets", "add-sensor", "north-arena", f"--dir={folder}"]) == 0
    told = capsys.readouterr()
    password = told.out.removesuffix("\n")
    assert len(password) >= 32
    assert password not in told.err
    assert (
        "user north-arena\ntopic write matchday/north-arena/#\n"
        in (folder / "mosquitto/acl").read_text()
    )
    assert run(["secrets", "show", "mqtt-north-arena", f"--dir={folder}"]) == 0
    assert capsys.readouterr().out == told.out
    run(["secrets", "create", f"--dir={folder}"])
    assert "north-arena:$7$" in (folder / "mosquitto/users").read_text()


@pytest.mark.parametrize("venue", ["", "a/b", "a b", "+", "#", "a\nb", "x:y", "ingest", "demo"])
def test_name_that_is_taken_or_no_topic_level_is_refused(folder: Path, venue: str):
    secrets.create(folder, Addresses())
    before = stamps(folder)
    with pytest.raises(ConfigError):
        secrets.add_sensor(folder, venue)
    assert stamps(folder) == before


@pytest.mark.parametrize(
    ("name", "told_to"),
    [
        ("page-token", {"dashboard/page_token"}),
        ("mongo-dashboard", {"dashboard/store_url", "setup/accounts.json"}),
        ("kafka-analysis", {"kafka/kafka_server_jaas.conf", "model_analysis/stream_url"}),
        ("mqtt-demo", {"mosquitto/users", "sensor/mqtt_url"}),
    ],
)
def test_password_that_is_replaced_reaches_all_who_use_it_and_nobody_else(
    folder: Path, name: str, told_to: set[str], capsys
):
    secrets.create(folder, Addresses())
    old, before = secrets.reveal(folder, name), contents(folder)
    assert run(["secrets", "rotate", name, f"--dir={folder}"]) == 0
    new = secrets.reveal(folder, name)
    assert new != old
    assert new not in capsys.readouterr().err
    secrets.create(folder, Addresses())
    after = contents(folder)
    changed = {file for file in after if after[file] != before[file]}
    assert changed == told_to | {"made/passwords.json"}
    assert old not in b"".join(after.values()).decode()


@pytest.mark.parametrize("name", ["mongo-root", "mongo-key", "nothing", "mqtt-", "mqtt-x", "demo"])
def test_secret_that_cannot_be_replaced_stays(folder: Path, name: str):
    secrets.create(folder, Addresses())
    before = stamps(folder)
    with pytest.raises(ConfigError, match="rotating secret"):
        secrets.rotate(folder, name)
    assert stamps(folder) == before


def test_show_without_a_name_lists_names_and_no_password(folder: Path, capsys):
    run(["secrets", "create", f"--dir={folder}"])
    capsys.readouterr()
    assert run(["secrets", "show", f"--dir={folder}"]) == 0
    told = capsys.readouterr().out
    assert {"page-token", "mqtt-demo", "mongo-root"} <= set(told.split())
    assert not any(value in told for value in values(folder))


@pytest.mark.parametrize(
    "arguments",
    [["show", "page-token"], ["show"], ["add-sensor", "oval"], ["rotate", "page-token"]],
    ids=str,
)
def test_commands_that_need_secrets_say_that_there_are_none(folder: Path, arguments, capsys):
    assert run(["secrets", *arguments, f"--dir={folder}"]) == 3
    assert "matchday secrets create" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--stream-url-file", "kafka://u:hid/den@host"),
        ("--stream-url-file", "mongodb://u:hidden@host"),
        ("--store-url-file", "postgres://u:hidden@host"),
        ("--store-url-file", "mongodb://u:hidden@host mongodb://other"),
    ],
)
def test_wrong_address_is_refused_without_being_shown(
    folder: Path, tmp_path: Path, option: str, text: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "url").write_text(text)
    assert run(["secrets", "create", f"--dir={folder}", f"{option}={tmp_path / 'url'}"]) == 3
    told = capsys.readouterr().err
    assert option in told
    assert "hid" not in told
    assert not folder.exists()


def test_address_from_a_file_reaches_the_services(folder: Path, tmp_path: Path):
    (tmp_path / "url").write_text("mongodb://u:p@far/?replicaSet=x\n")
    (tmp_path / "empty").touch()
    options = [f"--store-url-file={tmp_path / 'url'}", f"--stream-url-file={tmp_path / 'empty'}"]
    assert run(["secrets", "create", f"--dir={folder}", *options]) == 0
    assert (folder / "server/store_url").read_text() == "mongodb://u:p@far/?replicaSet=x"
    assert (folder / "server/stream_url").read_text().endswith("@kafka:9092")


def test_missing_address_file_is_an_error_and_not_the_container(folder: Path, tmp_path: Path):
    wrong = f"--stream-url-file={tmp_path / 'nothing'}"
    assert run(["secrets", "create", f"--dir={folder}", wrong]) == 3


@pytest.mark.parametrize("host", ["a b", "x@y", "-h", "kafka:9092"])
def test_kafka_host_that_is_none_is_refused(folder: Path, host: str):
    assert run(["secrets", "create", f"--dir={folder}", f"--kafka-host={host}"]) == 3


@pytest.mark.parametrize("as_link", [False, True])
def test_folder_that_somebody_else_uses_is_left_as_it_is(folder: Path, tmp_path: Path, as_link):
    other = tmp_path / "other" if as_link else folder / "server"
    other.mkdir(parents=True)
    (other / "main.py").write_text("something else\n")
    other.chmod(0o755)
    if as_link:
        folder.mkdir()
        (folder / "server").symlink_to(other)
    with pytest.raises(ConfigError, match="server is there and was not made here"):
        secrets.create(folder, Addresses())
    assert stat.S_IMODE(other.stat().st_mode) == 0o755
    assert not (folder / "made").exists()
