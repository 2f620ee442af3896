"""Claims about how a Kafka cluster is compared with the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("confluent_kafka")

from matchday.domain.topics import PLANS, Topic
from matchday.stream.kafka_topics import (
    Bounds,
    TopicFacts,
    broker_dangers,
    planned_settings,
    topic_dangers,
    wrong_settings,
)

PLAN = PLANS[Topic.ANALYTICS]
GOOD = TopicFacts(
    name="analytics",
    topic_id="id",
    partitions=PLAN.partitions,
    replicas_min=3,
    settings={**planned_settings(PLAN, brokers=3), "retention.bytes": "-1"},
)
BOUNDS = Bounds(
    session_timeout_ms=10_000, transaction_timeout_ms=15_000, record_bytes_max=13 * 2**20
)


def with_setting(name: str, value: str) -> TopicFacts:
    return replace(GOOD, settings={**GOOD.settings, name: value})


def wrong(facts: TopicFacts) -> list[str]:
    return wrong_settings(PLAN, facts)


def test_topic_as_planned_is_right_and_safe() -> None:
    assert wrong(GOOD) == []
    assert topic_dangers(GOOD, brokers=3) == []


def test_two_brokers_of_three_must_confirm_and_one_alone_where_there_is_one() -> None:
    assert planned_settings(PLAN, brokers=3)["min.insync.replicas"] == "2"
    assert "min.insync.replicas" not in planned_settings(PLAN, brokers=1)


def test_topic_takes_its_largest_record_with_what_the_broker_adds() -> None:
    assert int(planned_settings(PLAN, brokers=1)["max.message.bytes"]) > PLAN.record_bytes_max


@pytest.mark.parametrize("count", [PLAN.partitions - 1, PLAN.partitions + 1])
def test_other_number_of_partitions_is_wrong(count: int) -> None:
    assert wrong(replace(GOOD, partitions=count)) == [
        f"topic analytics: partitions is {count}, expected {PLAN.partitions}: a topic keeps what "
        f"it was made with, so set stream.partitions = {count}"
    ]


def test_number_of_partitions_that_is_no_setting_is_wrong_without_advice() -> None:
    plan = PLANS[Topic.LEDGER]
    facts = replace(GOOD, name="ledger", partitions=3)
    (sentence, *_) = wrong_settings(plan, facts)
    assert sentence == "topic ledger: partitions is 3, expected 1"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "1048588"),
        ("retention.ms", "60000"),
    ],
)
def test_setting_that_breaks_a_promise_is_named_with_both_values(setting: str, value: str) -> None:
    (sentence,) = wrong(with_setting(setting, value))
    planned = planned_settings(PLAN, brokers=1)[setting]
    assert f"{setting} is {value}" in sentence
    assert planned in sentence


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "-1"),
        ("retention.ms", str(2 * PLAN.retention_ms)),
        ("max.message.bytes", "100000000"),
    ],
)
def test_more_than_planned_harms_nobody(setting: str, value: str) -> None:
    assert wrong(with_setting(setting, value)) == []


@pytest.mark.parametrize("value", ["-1", str(2 * PLAN.retention_ms), "60000"])
def test_other_retention_than_the_operator_says_is_wrong(value: str) -> None:
    (sentence,) = wrong_settings(PLAN, with_setting("retention.ms", value), is_retention_exact=True)
    assert sentence == (f"topic analytics: retention.ms is {value}, expected {PLAN.retention_ms}")


def test_topic_of_slots_may_have_more_partitions_than_slots_and_not_less() -> None:
    plan = replace(PLANS[Topic.SLOTS], partitions=2)
    facts = replace(GOOD, name="ingest_slots")
    assert wrong_settings(plan, replace(facts, partitions=3)) == []
    (sentence,) = wrong_settings(plan, replace(facts, partitions=1))
    assert sentence == "topic ingest_slots: partitions is 1, expected at least 2"


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (replace(GOOD, replicas_min=1), "replication.factor is 1, expected 3"),
        (with_setting("min.insync.replicas", "1"), "min.insync.replicas is 1"),
        (with_setting("unclean.leader.election.enable", "true"), "unclean.leader.election"),
        (with_setting("retention.bytes", "1000"), "retention.bytes is 1000"),
    ],
)
def test_what_can_lose_confirmed_records_is_told(facts: TopicFacts, what: str) -> None:
    (sentence,) = topic_dangers(facts, brokers=3)
    assert what in sentence


def test_single_broker_is_not_asked_for_more_than_it_has() -> None:
    alone = {
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "offsets.topic.replication.factor": "1",
    }
    assert topic_dangers(replace(GOOD, replicas_min=1), brokers=1) == []
    assert broker_dangers(alone, broker="1", brokers=1, bounds=BOUNDS) == []
    assert len(broker_dangers(alone, broker="1", brokers=3, bounds=BOUNDS)) == 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("offset.metadata.max.bytes", "100"),
        ("group.max.session.timeout.ms", "9999"),
        ("group.min.session.timeout.ms", "10001"),
        ("transaction.max.timeout.ms", "14999"),
        ("socket.request.max.bytes", "1000000"),
    ],
)
def test_broker_that_would_refuse_clients_is_named(setting: str, value: str) -> None:
    (sentence,) = broker_dangers({setting: value}, broker="7", brokers=1, bounds=BOUNDS)
    assert sentence.startswith(f"broker 7: {setting} is {value}, expected at ")


def test_settings_that_may_not_be_read_are_not_judged() -> None:
    assert broker_dangers({}, broker="1", brokers=3, bounds=BOUNDS) == []
