"""What `matchday doctor` finds out about real servers with settings that can lose data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("pymongo")

from pymongo import MongoClient

from matchday.clock import SystemClock
from matchday.config import load
from matchday.errors import UnavailableError
from matchday.sensors.broker import parse_broker
from matchday.sensors.queue_probe import SENT_COUNT, kept_count
from matchday.services.doctor import Diagnosis, examine
from matchday.store import mongo_server
from matchday.store.mongo import MongoStore
from matchday.stream.kafka import KafkaStream
from servers.process import wait_until

CLOCK = SystemClock()


@pytest.mark.parametrize(
    ("settings", "is_whole"),
    [({}, True), ({"max_queued_messages": "1000"}, False), ({"max_queued_messages": "100"}, False)],
)
def test_queue_limit_of_a_broker_is_found_out_by_trying(
    fresh_mosquitto: Callable[..., Any], settings: dict[str, str], is_whole: bool
):
    broker = parse_broker(fresh_mosquitto(settings=settings).url)
    found = kept_count(broker, clock=CLOCK)
    assert found is not None
    if is_whole:
        assert found == SENT_COUNT
    else:
        assert found <= int(settings["max_queued_messages"]) + 20
    # Nothing is left behind: a second look finds the same.
    assert kept_count(broker, clock=CLOCK) == found


def examined(**urls: str) -> dict[str, Diagnosis]:
    """Examine servers by their URLs; those not given are left out."""
    overrides = {f"{name}.url": url for name, url in urls.items()}
    settings = load(environ={}, overrides=overrides).settings
    return {one.link: one for one in examine(settings, clock=CLOCK) if one.link in urls}


def test_doctor_names_the_brokers_queue_limit_and_what_to_set(fresh_mosquitto):
    broker = fresh_mosquitto(settings={"max_queued_messages": "500"})
    (found,) = examined(mqtt=broker.url).values()
    (problem,) = found.problems
    assert "keeps 5" in problem
    assert "max_queued_messages 0" in problem


def test_doctor_names_settings_of_kafka_that_can_lose_confirmed_records(fresh_kafka):
    kafka = fresh_kafka(
        settings={
            "unclean.leader.election.enable": "true",
            "log.retention.bytes": "1000000",
            "offset.metadata.max.bytes": "20",
        }
    )
    with closing(KafkaStream(kafka.url, clock=CLOCK)) as stream:
        stream.prepare()
    (found,) = examined(stream=kafka.url).values()
    text = " ".join(found.problems)
    assert "unclean.leader.election.enable is true, expected false" in text
    assert "retention.bytes is 1000000, expected -1" in text
    assert "offset.metadata.max.bytes is 20" in text
    assert "flush.messages=1" in " ".join(found.risks)


def test_doctor_is_content_with_topics_that_are_flushed(fresh_kafka):
    kafka = fresh_kafka(settings={"log.flush.interval.messages": "1"})
    with closing(KafkaStream(kafka.url, clock=CLOCK)) as stream:
        stream.prepare()
    (found,) = examined(stream=kafka.url).values()
    assert found.problems == ()
    assert found.risks == ()


def test_doctor_names_settings_of_mongodb_that_can_lose_confirmed_writes(fresh_mongo):
    mongo = fresh_mongo(parameters={"localLogicalSessionTimeoutMinutes": "5"})
    with MongoClient[dict[str, Any]](mongo.url) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        config["writeConcernMajorityJournalDefault"] = False
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
    with closing(MongoStore(mongo.url, clock=CLOCK, database="server")) as store:
        wait_until(lambda: is_prepared(store), what="the store is prepared")
    (found,) = examined(store=mongo.url).values()
    text = " ".join(found.problems)
    assert "localLogicalSessionTimeoutMinutes is 5" in text
    assert "writeConcernMajorityJournalDefault is false" in text
    assert "three members survive one" in " ".join(found.risks)


def test_doctor_says_when_buckets_grow_dear(fresh_mongo, monkeypatch):
    mongo = fresh_mongo(parameters={"timeseriesBucketMaxCount": "1000"})
    with closing(MongoStore(mongo.url, clock=CLOCK, database="server")) as store:
        store.prepare()
    (found,) = examined(store=mongo.url).values()
    assert "timeseriesBucketMaxCount" not in " ".join(found.risks)
    monkeypatch.setattr(mongo_server, "PAIRS_JUDGED_MIN", 0)
    (found,) = examined(store=mongo.url).values()
    assert "--setParameter timeseriesBucketMaxCount=120" in " ".join(found.risks)


def is_prepared(store: MongoStore) -> bool:
    try:
        store.prepare()
    except UnavailableError:
        return False
    return True


@pytest.mark.parametrize(
    ("judge", "found", "said"),
    [
        (
            mongo_server.options_problems,
            {"parsed": {"storage": {"journal": {"enabled": False}}}, "engine": {}},
            "without a journal",
        ),
        (
            mongo_server.options_problems,
            {"parsed": {}, "engine": {"name": "inMemory", "persistent": False}},
            "inMemory keeps nothing on disk",
        ),
        (
            mongo_server.members_problems,
            {"members": [{"host": "a:1"}, {"host": "b:1", "arbiterOnly": True}]},
            "b:1 votes and stores nothing",
        ),
        (
            mongo_server.shape_risks,
            {"numCommits": 100_000, "numMeasurementsCommitted": 120_000},
            "brings 1.2 readings of a source",
        ),
        (
            mongo_server.bucket_risks,
            {"timeseriesBucketMaxCount": 1000, "numCommits": 100_000},
            "timeseriesBucketMaxCount is 1,000",
        ),
        (
            mongo_server.oplog_problems,
            {"size": 990, "max": 1000, "seconds": 600},
            "reaches back 10 minutes",
        ),
    ],
)
def test_each_dangerous_answer_of_mongodb_is_named(judge, found, said: str):
    (problem,) = judge(found)
    assert said in problem


def test_young_oplog_is_not_judged_by_its_age():
    assert mongo_server.shape_risks({"numCommits": 9, "numMeasurementsCommitted": 9}) == []
    many = {"numCommits": 100_000, "numMeasurementsCommitted": 900_000}
    assert mongo_server.shape_risks(many) == []
    assert mongo_server.shape_risks({}) == []
    assert mongo_server.bucket_risks({"timeseriesBucketMaxCount": 1000, "numCommits": 9}) == []
    small = {"timeseriesBucketMaxCount": 120, "numCommits": 100_000}
    assert mongo_server.bucket_risks(small) == []
    assert mongo_server.oplog_problems({"size": 100, "max": 1000, "seconds": 60}) == []
