"""How topics and brokers of a Kafka cluster are, and how they have to be.

Owns the comparison with the plan (pure) and the questions to the cluster. Does not create
anything: `kafka` does, from `planned_settings`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]

from matchday.domain.topics import TopicPlan, wrong_partitions
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_errors import RIGHT_LACKING, kafka_error
from matchday.stream.kafka_records import BOOKMARK_BYTES_MAX, OVERHEAD_BYTES

REPLICAS_MAX: Final = 3
FOREVER: Final = -1
UNSET: Final = 2**63 - 1


@dataclass(frozen=True)
class TopicFacts:
    """A topic as the cluster has it.

    Attributes:
        name: Its name in the cluster.
        topic_id: Its identity; another one after deletion and re-creation.
        partitions: How many it has.
        replicas_min: How many replicas its least replicated partition has.
        settings: Every setting in force, by Kafka's names.
    """

    name: str
    topic_id: str
    partitions: int
    replicas_min: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Bounds:
    """What the clients of this stream ask of a broker.

    Attributes:
        session_timeout_ms: Of group members.
        transaction_timeout_ms: Of producers.
        record_bytes_max: Of the largest record of all topics.
    """

    session_timeout_ms: int
    transaction_timeout_ms: int
    record_bytes_max: int


def replicas_wanted(brokers: int) -> int:
    """Give how many replicas a topic has in a cluster of that many brokers."""
    return min(REPLICAS_MAX, brokers)


def planned_settings(plan: TopicPlan, *, brokers: int) -> dict[str, str]:
    """Give the settings that a topic is created with."""
    settings = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(plan.record_bytes_max + OVERHEAD_BYTES),
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(plan.retention_ms),
    }
    if replicas_wanted(brokers) == REPLICAS_MAX:
        # One broker may be gone without a stop, and a confirmed record is on two of them.
        settings["min.insync.replicas"] = "2"
    return settings


def wrong_settings(
    plan: TopicPlan, facts: TopicFacts, *, is_retention_exact: bool = False
) -> list[str]:
    """Give what stops the stages from working as promised, one sentence each.

    Partitions must be as many as planned, see `wrong_partitions`. Larger records harm nobody,
    nor does longer retention, except where the operator has said how long
    (`is_retention_exact`): a setting that changes nothing would be worse than a refusal.
    """
    have = facts.settings
    found: list[str] = []

    def tell(setting: str, actual: object, wanted: object) -> None:
        """Note a setting that is not as wanted, with its value and the wanted one."""
        found.append(f"topic {facts.name}: {setting} is {actual}, expected {wanted}")

    if (count := wrong_partitions(plan, facts.partitions, name=facts.name)) is not None:
        found.append(count)
    for setting, wanted in planned_settings(plan, brokers=1).items():
        actual = have.get(setting, "")
        if setting == "max.message.bytes":
            if int(actual or 0) < int(wanted):
                tell(setting, actual, f"at least {wanted}")
        elif setting == "retention.ms" and not is_retention_exact:
            if FOREVER != int(actual or 0) < int(wanted):
                tell(setting, actual, f"at least {wanted}, or -1")
        elif actual != wanted:
            tell(setting, actual, wanted)
    return found


def topic_dangers(facts: TopicFacts, *, brokers: int) -> list[str]:
    """Give what lets the stages work but can lose confirmed records, one sentence each."""
    have = facts.settings
    found: list[str] = []
    replicas = replicas_wanted(brokers)
    if facts.replicas_min < replicas:
        found.append(
            f"topic {facts.name}: replication.factor is {facts.replicas_min}, expected "
            f"{replicas} with {brokers} brokers: records are lost with a broker's disk"
        )
    if replicas == REPLICAS_MAX and int(have.get("min.insync.replicas", "2")) < 2:
        found.append(
            f"topic {facts.name}: min.insync.replicas is {have['min.insync.replicas']}, expected "
            "2: a record may be confirmed that is on one broker alone"
        )
    if have.get("unclean.leader.election.enable") == "true":
        found.append(
            f"topic {facts.name}: unclean.leader.election.enable is true, expected false: a "
            "broker that missed confirmed records may become leader and drop them"
        )
    if int(have.get("retention.bytes", FOREVER)) != FOREVER:
        found.append(
            f"topic {facts.name}: retention.bytes is {have['retention.bytes']}, expected -1: "
            "records go before their time when much arrives"
        )
    return found


def topic_risks(facts: Collection[TopicFacts], *, brokers: int) -> list[str]:
    """Give what well-set topics can still lose, and what would help, one sentence each.

    Kafka confirms what is in the memory of its in-sync replicas; it writes to the disk later
    unless `flush.messages` says how soon. So a kill of a broker loses nothing, and a power
    failure of all machines that hold a replica does.
    """
    copies = [one.replicas_min for one in facts]
    flushed = all(int(one.settings.get("flush.messages", UNSET)) == 1 for one in facts)
    if flushed or not copies or min(copies) >= REPLICAS_MAX:
        return []
    return [
        f"{brokers} brokers, {min(copies)} copies of each record, not flushed before they are "
        "confirmed: a power failure of these machines loses confirmed records; use three brokers "
        "with separate power, or set flush.messages=1 on the topics (slower)"
    ]


def broker_dangers(
    have: Mapping[str, str], *, broker: str, brokers: int, bounds: Bounds
) -> list[str]:
    """Give which settings of a broker endanger what the stages promise, one sentence each.

    Args:
        have: The broker's settings in force; those it does not tell are not judged.
        broker: Its id.
        brokers: How many there are.
        bounds: What the clients ask of it.
    """
    replicas = replicas_wanted(brokers)
    insync = 2 if replicas == REPLICAS_MAX else 1
    # Setting, least value, what happens below it.
    least: Iterable[tuple[str, int, str]] = (
        ("transaction.state.log.replication.factor", replicas, "open transactions can be lost"),
        ("transaction.state.log.min.isr", insync, "a commit can be lost with one broker"),
        ("offsets.topic.replication.factor", replicas, "bookmarks can be lost"),
        ("offset.metadata.max.bytes", BOOKMARK_BYTES_MAX, "bookmarks are refused"),
        ("group.max.session.timeout.ms", bounds.session_timeout_ms, "no group can be joined"),
        (
            "transaction.max.timeout.ms",
            bounds.transaction_timeout_ms,
            "no producer can take over",
        ),
        (
            "socket.request.max.bytes",
            bounds.record_bytes_max + OVERHEAD_BYTES,
            "large records cannot be sent",
        ),
    )
    found = [
        f"broker {broker}: {setting} is {have[setting]}, expected at least {wanted}: {effect}"
        for setting, wanted, effect in least
        if setting in have and int(have[setting]) < wanted
    ]
    setting = "group.min.session.timeout.ms"
    if int(have.get(setting, 0)) > bounds.session_timeout_ms:
        found.append(
            f"broker {broker}: {setting} is {have[setting]}, expected at most "
            f"{bounds.session_timeout_ms}: no group can be joined"
        )
    return found


def ask_topics(cluster: Cluster, names: Collection[str]) -> tuple[dict[str, TopicFacts], set[str]]:
    """Ask for topics, with their settings.

    Returns:
        What exists by name, and the names that the login may not see whole: the cluster does
        not even tell whether they exist.

    Raises:
        DeniedError: The login is refused.
        UnavailableError: No answer in time.
    """
    described, hidden = ask_descriptions(cluster, names)
    wanted = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in described]
    settings, unseen = _ask_settings(cluster, wanted)
    facts = {
        name: TopicFacts(
            name=name,
            topic_id=str(one.topic_id),
            partitions=len(one.partitions),
            replicas_min=min(len(part.replicas) for part in one.partitions),
            settings=settings[name],
        )
        for name, one in described.items()
        if name in settings
    }
    return facts, hidden | unseen


def ask_descriptions(cluster: Cluster, names: Collection[str]) -> tuple[dict[str, Any], set[str]]:
    """Ask for the descriptions of the topics that exist; as of `ask_topics`."""
    timeout_s = cluster.io_timeout_s
    asked = cluster.admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
    found: dict[str, Any] = {}
    hidden: set[str] = set()
    for name, answer in asked.items():
        try:
            found[name] = answer.result(timeout_s)
        except (KafkaException, TimeoutError) as error:
            if _is_hidden(error):
                hidden.add(name)
            elif not _is_missing(error):
                raise cluster.unavailable(error, action=f"asking for topics {name}") from error
    return found, hidden


def ask_brokers(cluster: Cluster) -> list[str]:
    """Ask for the ids of the brokers that are up, at least one; errors as of `ask_topics`."""
    return cluster.ask(cluster.brokers, action="asking for brokers")


def ask_broker_settings(
    cluster: Cluster, brokers: Collection[str]
) -> tuple[dict[str, dict[str, str]], set[str]]:
    """Ask for the settings of brokers, by id, and which of them the login may not see."""
    wanted = [ConfigResource(ConfigResource.Type.BROKER, broker) for broker in brokers]
    return _ask_settings(cluster, wanted)


def _ask_settings(
    cluster: Cluster, wanted: list[ConfigResource]
) -> tuple[dict[str, dict[str, str]], set[str]]:
    found: dict[str, dict[str, str]] = {}
    hidden: set[str] = set()
    if not wanted:
        return found, hidden
    timeout_s = cluster.io_timeout_s
    asked = cluster.admin.describe_configs(wanted, request_timeout=timeout_s)
    for resource, answer in asked.items():
        try:
            entries = answer.result(timeout_s)
        except (KafkaException, TimeoutError) as error:
            if _is_hidden(error):
                hidden.add(resource.name)
            elif not _is_missing(error):
                action = f"asking for the settings of {resource.name}"
                raise cluster.unavailable(error, action=action) from error
            continue
        found[resource.name] = {
            name: entry.value for name, entry in entries.items() if entry.value is not None
        }
    return found, hidden


def _is_missing(error: BaseException) -> bool:
    known = kafka_error(error)
    return known is not None and known.name() in ("UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID")


def _is_hidden(error: BaseException) -> bool:
    known = kafka_error(error)
    return known is not None and known.code() in RIGHT_LACKING
