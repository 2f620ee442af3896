"""`matchday setup` on real servers that let nobody in, and the services with their own users.

Owns the claims about users and rights: that each service works with its own, and that none
can do more. What the services carry otherwise is the business of their own tests.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from matchday.clock import SystemClock
from matchday.errors import DeniedError, UnavailableError
from matchday.ports import Start
from servers.process import wait_until
from servers.services import MatchdayService, ask, environment

pytest.importorskip("confluent_kafka")
pytest.importorskip("pymongo")

from confluent_kafka import KafkaException, Producer
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from matchday.domain.topics import PLANS, Topic
from matchday.stream.kafka import KafkaStream
from matchday.stream.kafka_url import KafkaAddress
from system.deployments import EXAMPLES
from system.secured_ground import SecuredGround, logged_in, secured_ground

pytestmark = pytest.mark.timeout(300)

READINGS = 40
REFUSED = 0x87
"""MQTT 5, section 2.4: not authorized."""


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory,
    need_server: Callable[[str], None],
    servers_dir: Callable[[str], Path],
) -> Iterator[SecuredGround]:
    """Give secured servers that were set up once."""
    folder = tmp_path_factory.mktemp("secured")
    with secured_ground(folder, need_server=need_server, servers_dir=servers_dir) as made:
        done = made.setup("--json")
        assert done.returncode == 0, done.stderr
        states = {row["what"]: row["state"] for row in json.loads(done.stdout)["done"]}
        assert set(states.values()) == {"made"}, states
        assert not any(secret in done.stdout + done.stderr for secret in made.secrets)
        yield made


# Setup ----------------------------------------------------------------------------------


def test_setup_again_changes_nothing(ground: SecuredGround):
    done = ground.setup("--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {row["state"] for row in report["done"]} == {"unchanged"}
    assert report["warnings"] == []


def test_setup_prints_what_exists_and_no_secret(ground: SecuredGround):
    done = ground.setup()
    for named in ("replica set rs0", "user server", "topic dead_letters", "rights of dashboard"):
        assert named in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in ground.secrets)


def test_password_changed_in_the_accounts_is_changed_in_the_store(ground: SecuredGround):
    before = ground.store_url("mongo_express")
    ground.store_passwords["mongo_express"] = "another-password-of-mongo-express"
    done = ground.setup("--json")
    states = {row["what"]: row["state"] for row in json.loads(done.stdout)["done"]}
    assert states["user mongo_express"] == "changed"
    assert states["user server"] == "unchanged"
    assert names_of(ground.store_url("mongo_express"))
    with pytest.raises(OperationFailure):
        names_of(before)


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("MATCHDAY_SETUP__REPLICA_SET", "other", ("'rs0'", "'other'")),
        ("MATCHDAY_SETUP__MEMBER", "elsewhere:27017", ("127.0.0.1", "elsewhere:27017")),
        ("MATCHDAY_STREAM__PARTITIONS", "6", ("partitions is 4", "6", "stream.partitions = 4")),
        ("MATCHDAY_STREAM__RETENTION_DAYS", "9", ("analytics: retention.ms is", "777600000")),
    ],
)
def test_mismatch_is_an_error_that_names_both_values(
    ground: SecuredGround, setting: str, value: str, named: tuple[str, ...]
):
    done = ground.setup(settings=ground.setup_settings(**{setting: value}))
    assert done.returncode == 3, done.stderr
    assert all(part in done.stderr for part in named), done.stderr


def test_collection_with_other_options_is_an_error_that_names_them(ground: SecuredGround):
    with MongoClient[dict[str, Any]](ground.mongo.root_url) as client:
        series = {"timeField": "collected_at", "metaField": "metadata", "granularity": "hours"}
        client["odd"].create_collection("sensors", timeseries=series)
    settings = ground.setup_settings(MATCHDAY_STORE__DATABASE="odd")
    # Else the users would from now on belong to that database.
    del settings["MATCHDAY_SETUP__ACCOUNTS_FILE"]
    done = ground.setup(settings=settings)
    assert done.returncode == 3
    assert "collection sensors has granularity 'hours', wanted 'seconds'" in done.stderr


def test_wrong_administrator_password_ends_at_once_without_showing_it(ground: SecuredGround):
    wrong = ground.mongo.url_of("root", "not-the-word", options="directConnection=true")
    done = ground.setup(settings=ground.setup_settings(MATCHDAY_STORE__URL=wrong))
    assert done.returncode == 3
    assert "user 'root' is refused" in done.stderr
    assert "not-the-word" not in done.stderr
    wrong = ground.kafka.url_of("admin", "not-the-word")
    done = ground.setup(settings=ground.setup_settings(MATCHDAY_STREAM__URL=wrong))
    assert done.returncode == 3
    assert "user 'admin' is refused" in done.stderr
    assert "not-the-word" not in done.stderr


def test_server_that_never_answers_is_waited_for_and_named(ground: SecuredGround):
    settings = ground.setup_settings(
        MATCHDAY_STORE__URL="mongodb://root:sesame-sesame@127.0.0.1:9/",
        MATCHDAY_SETUP__TIMEOUT_S="4",
    )
    done = ground.setup(settings=settings)
    assert done.returncode == 4
    assert "server_awaited" in done.stderr
    assert "waiting for MongoDB at 127.0.0.1:9" in done.stderr
    assert "4 s are over (setup.timeout_s)" in done.stderr
    assert "sesame" not in done.stderr


# Services -------------------------------------------------------------------------------


def test_services_with_their_own_users_carry_readings_and_the_account_adds_up(
    ground: SecuredGround, tmp_path: Path
):
    with ExitStack() as stack:
        model = str(EXAMPLES / "models" / "yosemite.json")
        for service in ("server", "analysis", "dashboard"):
            settings = ground.settings_of(service, MATCHDAY_ANALYSIS__MODEL_PATH=model)
            stack.enter_context(MatchdayService(tmp_path, (service,), settings))
        simulate(ground.settings_of("sensor", MATCHDAY_SENSOR__STATE_DIR=str(tmp_path / "state")))
        server = ground.settings_of("server")
        wait_until(
            lambda: ask(server, "ledger")["totals"]["stored"] == READINGS,
            what="all readings are stored",
            timeout_s=60,
        )
        account = ask(server, "ledger", "--verify")
        assert account["exit"] == 0
        assert account["adds_up"]
        seen = ground.settings_of("dashboard")
        assert ask(seen, "ledger")["totals"]["stored"] == READINGS
        with MongoClient[dict[str, Any]](ground.store_url("dashboard")) as client:
            forecasts = client["server"]["model_predictions"]
            wait_until(lambda: forecasts.count_documents({}) > 0, what="forecasts", timeout_s=60)


def test_doctor_finds_nothing_wrong_and_says_what_it_may_not_ask(ground: SecuredGround):
    found = {row["link"]: row for row in ask(ground.settings_of("server"), "doctor")}
    assert found["stream"]["problems"] == []
    assert found["store"]["problems"] == []
    assert any("the login may not ask" in line for line in found["store"]["unasked"])
    assert not any("statistics of sensors" in line for line in found["store"]["unasked"])
    assert not any("may not" in line for line in found["store"]["risks"])
    assert any("may not see its settings" in line for line in found["stream"]["unasked"])
    reading = {row["link"]: row for row in ask(ground.settings_of("dashboard"), "doctor")}
    assert reading["stream"]["problems"] == []
    assert reading["store"]["problems"] == []
    assert any("'dashboard'" in line for line in reading["store"]["unasked"])


@pytest.mark.parametrize("service", ["server", "analysis", "dashboard"])
def test_wrong_password_is_said_and_the_service_goes_on_trying(
    ground: SecuredGround, tmp_path: Path, service: str
):
    settings = ground.settings_of(service)
    settings["MATCHDAY_STREAM__URL"] = ground.kafka.url_of(service, "not-the-word")
    if "MATCHDAY_STORE__URL" in settings:
        settings["MATCHDAY_STORE__URL"] = ground.mongo.url_of(service, "not-the-word")
    running = MatchdayService(tmp_path, (service,), settings)
    with running:
        wait_until(lambda: f"user '{service}' is refused" in running.log(), what="the log says it")
        assert running.links()["stream"] is False
        assert running.is_running
        assert "not-the-word" not in running.log()


# Rights ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("dashboard", Topic.ANALYTICS),
        ("dashboard", Topic.LEDGER),
        ("analysis", Topic.ANALYTICS),
        ("analysis", Topic.LEDGER),
        ("server", Topic.RESULTS),
        ("server", Topic.LATE),
    ],
)
def test_user_cannot_append_to_topics_that_are_not_its_own(
    ground: SecuredGround, user: str, topic: Topic
):
    assert "AUTHORIZATION_FAILED" in refusal_of_append(ground, user, topic)


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("analysis", Topic.DEAD_LETTERS),
        ("analysis", Topic.RESULTS),
        ("dashboard", Topic.DEAD_LETTERS),
        ("dashboard", Topic.SLOTS),
    ],
)
def test_user_cannot_read_topics_that_are_not_its_own(
    ground: SecuredGround, user: str, topic: Topic
):
    stream = KafkaStream(ground.kafka.url_of(user), clock=SystemClock())
    try:
        with pytest.raises(UnavailableError, match=f"'{user}' lacks the right"):
            read_some(stream, topic)
    finally:
        stream.close()


def test_sensors_user_publishes_for_its_own_venue_only_and_reads_nothing(ground: SecuredGround):
    with logged_in(ground, "demo") as client:
        assert client.publish_code("matchday/demo/scalar/tag-1") != REFUSED
        assert client.publish_code("matchday/oval/scalar/tag-1") == REFUSED
        assert client.publish_code("somewhere/else") == REFUSED
        client.subscribe("#")
        with logged_in(ground, "oval") as other:
            assert other.publish_code("matchday/oval/scalar/tag-2") != REFUSED
        assert client.publish_code("matchday/demo/scalar/tag-1") != REFUSED
        assert client.received == []


def test_ingests_user_cannot_publish(ground: SecuredGround):
    with logged_in(ground, "ingest") as client:
        assert client.publish_code("matchday/demo/scalar/tag-1") == REFUSED


def test_wrong_broker_password_is_said_and_the_server_goes_on_trying(
    ground: SecuredGround, tmp_path: Path
):
    settings = ground.settings_of("server")
    settings["MATCHDAY_MQTT__URL"] = ground.mosquitto.url_of("ingest", "not-the-word")
    running = MatchdayService(tmp_path, ("server",), settings)
    with running:
        wait_until(lambda: "not authorized" in running.log(), what="the log says it")
        assert running.links()["mqtt"] is False
        assert running.is_running
        assert "not-the-word" not in running.log()


def test_user_cannot_take_over_the_name_of_anothers_producer(ground: SecuredGround):
    stream = KafkaStream(ground.kafka.url_of("analysis"), clock=SystemClock())
    try:
        with pytest.raises(DeniedError, match=r"'analysis' lacks the right.*matchday setup"):
            stream.producer("matchday-ingest-all")
    finally:
        stream.close()


def test_nobody_gets_in_without_a_login(ground: SecuredGround):
    url = ground.kafka.url
    client = Producer(
        {
            "bootstrap.servers": url.removeprefix("kafka://"),
            "log_level": 0,
            "error_cb": lambda _error: None,
        }
    )
    with pytest.raises(KafkaException):
        client.list_topics(timeout=2.0)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("dashboard", {"insert": "alerts", "documents": [{"a": 1}]}),
        ("dashboard", {"delete": "ledger", "deletes": [{"q": {}, "limit": 0}]}),
        ("mongo_express", {"insert": "sensors", "documents": [{"a": 1}]}),
        ("server", {"delete": "dead_letters", "deletes": [{"q": {}, "limit": 0}]}),
        ("server", {"drop": "sensors"}),
        ("server", {"create": "of_my_own"}),
        ("server", {"createUser": "me", "pwd": "x", "roles": []}),
        ("server", {"createIndexes": "sensors", "indexes": [{"key": {"a": 1}, "name": "a"}]}),
    ],
)
def test_user_cannot_change_the_store_beyond_its_work(
    ground: SecuredGround, user: str, command: dict[str, Any]
):
    with MongoClient[dict[str, Any]](ground.store_url(user)) as client:
        with pytest.raises(OperationFailure) as refused:
            client["server"].command(command)
        assert refused.value.code == 13
        with pytest.raises(OperationFailure):
            client["admin"].command("usersInfo")


@pytest.mark.parametrize("user", ["server", "dashboard", "mongo_express"])
def test_user_cannot_look_into_other_databases(ground: SecuredGround, user: str):
    with (
        MongoClient[dict[str, Any]](ground.store_url(user)) as client,
        pytest.raises(OperationFailure),
    ):
        client["other"]["sensors"].find_one()


def test_every_topic_is_planned_in_the_table_of_rights():
    from matchday.services.rights import STREAM_RIGHTS

    assert {topic for one in STREAM_RIGHTS.values() for topic in one.writes} == set(PLANS) - {
        Topic.SLOTS
    }


def simulate(settings: dict[str, str]) -> None:
    """Publish `READINGS` made-up readings, until they are acknowledged."""
    venue = str(EXAMPLES / "venues" / "demo.toml")
    arguments = ("--count=2", "--rate=20", f"--messages={READINGS}", f"--venue={venue}")
    done = subprocess.run(
        environment(settings, ["sensor", "simulate", *arguments]),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def read_some(stream: KafkaStream, topic: Topic) -> None:
    """Read a topic from its beginning for ten seconds; errors as of its reader."""
    clock = SystemClock()
    until_s = clock.monotonic_s() + 10
    reader = stream.reader([topic], Start.beginning())
    try:
        while clock.monotonic_s() < until_s:
            reader.poll(timeout_s=0.5, records_max=10)
    finally:
        reader.close()


def client_settings(ground: SecuredGround, user: str) -> dict[str, Any]:
    """Give the settings of a client that logs in as this user."""
    return {
        **KafkaAddress.parse(ground.kafka.url_of(user)).client_settings(),
        "error_cb": lambda _error: None,
        "log_level": 0,
    }


def refusal_of_append(ground: SecuredGround, user: str, topic: Topic) -> str:
    """Give the name of the error that appending meets; empty where it works."""
    told: list[str] = []
    client = Producer({**client_settings(ground, user), "message.timeout.ms": 5000})
    client.produce(
        topic, b"x", on_delivery=lambda error, _: told.append(error.name() if error else "")
    )
    client.flush(10)
    return told[0]


def names_of(url: str) -> list[str]:
    """Give the names of the collections that a login sees."""
    with MongoClient[dict[str, Any]](url) as client:
        return client["server"].list_collection_names()
