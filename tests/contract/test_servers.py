"""What tests and benchmarks may rely on from the real servers of tests/servers.

Owns proofs about starting, ending and keeping data. Does not test the child process and the
installer by themselves (test_server_process) nor matchday itself.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from servers import install
from servers.process import process_exists, wait_until

if TYPE_CHECKING:
    from servers.kafka import Kafka
    from servers.mongo import Mongo
    from servers.mosquitto import Mosquitto
    from servers.process import Server

WAIT_S = 20.0


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


# Mosquitto ------------------------------------------------------------------------------


class Listener:
    """A paho client with a persistent session that keeps what it receives."""

    def __init__(self, port: int, client_id: str, topic: str) -> None:
        import paho.mqtt.client as mqtt

        self.received: list[bytes] = []
        self.subscribed = threading.Event()
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False
        )
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = lambda _c, _u, message: self.received.append(message.payload)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Listener:
        self._client.loop_start()
        assert self.subscribed.wait(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def publish(port: int, topic: str, payloads: list[bytes], *, retain: bool = False) -> None:
    """Publish at QoS 1 and return when every message is acknowledged."""
    import paho.mqtt.client as mqtt

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        for sent in [client.publish(topic, one, qos=1, retain=retain) for one in payloads]:
            sent.wait_for_publish(WAIT_S)
            assert sent.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


def test_mosquitto_delivers_what_was_published(mosquitto: Mosquitto) -> None:
    topic = unique("a/topic")
    with Listener(mosquitto.port, unique("listener"), topic) as listener:
        publish(mosquitto.port, topic, [b"first", b"second"])
        wait_until(lambda: len(listener.received) == 2, what="both arrived")
    assert listener.received == [b"first", b"second"]


def test_mosquitto_queues_5000_for_an_absent_client_and_keeps_them_over_a_restart(
    fresh_mosquitto: Callable[..., Mosquitto],
) -> None:
    broker = fresh_mosquitto()
    payloads = [b"%d" % number for number in range(5000)]
    with Listener(broker.port, "keeper", "queued"):
        pass
    publish(broker.port, "queued", payloads)
    broker.restart()
    with Listener(broker.port, "keeper", "queued") as keeper:
        wait_until(lambda: len(keeper.received) >= len(payloads), what="the queue arrived")
    assert keeper.received == payloads


def test_mosquitto_keeps_a_retained_message_over_a_restart(
    fresh_mosquitto: Callable[..., Mosquitto],
) -> None:
    broker = fresh_mosquitto()
    publish(broker.port, "retained", [b"kept"], retain=True)
    broker.restart()
    with Listener(broker.port, "late", "retained") as late:
        wait_until(lambda: late.received == [b"kept"], what="the retained message arrived")


def test_mosquitto_settings_given_replace_the_defaults(
    fresh_mosquitto: Callable[..., Mosquitto],
) -> None:
    broker = fresh_mosquitto(settings={"max_queued_messages": "3", "max_inflight_messages": "1"})
    with Listener(broker.port, "keeper", "queued"):
        pass
    publish(broker.port, "queued", [b"%d" % number for number in range(50)])
    with Listener(broker.port, "keeper", "queued") as keeper:
        publish(broker.port, "queued", [b"last"])
        wait_until(lambda: b"last" in keeper.received, what="the last message arrived")
    assert len(keeper.received) < 10


# Kafka ----------------------------------------------------------------------------------


def create_topic(kafka: Kafka, topic: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    created = admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    created[topic].result(timeout=WAIT_S)


def produce(kafka: Kafka, topic: str, values: list[bytes], **settings: Any) -> None:
    """Produce with acks=all and return when every record is acknowledged."""
    from confluent_kafka import Producer

    errors: list[object] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", **settings})
    if "transactional.id" in settings:
        producer.init_transactions(WAIT_S)
        producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    if "transactional.id" in settings:
        producer.commit_transaction(WAIT_S)
    assert producer.flush(WAIT_S) == 0
    assert errors == [None] * len(values)


def consume(kafka: Kafka, topic: str, count: int) -> list[bytes]:
    """Read that many values as a new group, with offsets committed."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": unique("group"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    values: list[bytes] = []

    def enough() -> bool:
        for message in consumer.consume(count, timeout=0.2):
            assert message.error() is None
            values.append(message.value())
        return len(values) >= count

    try:
        consumer.subscribe([topic])
        wait_until(enough, what=f"{count} records of {topic} were read")
        consumer.commit(asynchronous=False)
        return values
    finally:
        consumer.close()


def test_kafka_returns_what_was_produced(kafka: Kafka) -> None:
    topic = unique("topic")
    create_topic(kafka, topic)
    produce(kafka, topic, [b"first", b"second"])
    assert consume(kafka, topic, 2) == [b"first", b"second"]


def test_kafka_commits_a_transaction(kafka: Kafka) -> None:
    topic = unique("topic")
    create_topic(kafka, topic)
    produce(kafka, topic, [b"whole"], **{"transactional.id": unique("owner")})
    assert consume(kafka, topic, 1) == [b"whole"]


def test_kafka_refuses_to_write_to_a_topic_nobody_created(kafka: Kafka) -> None:
    from confluent_kafka import KafkaError, Producer

    codes: list[int] = []
    settings = {"bootstrap.servers": kafka.bootstrap, "topic.metadata.propagation.max.ms": 100}
    producer = Producer(settings)
    topic = unique("forgotten")
    producer.produce(topic, b"lost", on_delivery=lambda error, _: codes.append(error.code()))
    assert producer.flush(WAIT_S) == 0
    assert codes == [KafkaError.UNKNOWN_TOPIC_OR_PART]


def test_kafka_keeps_acknowledged_records_over_a_kill(fresh_kafka: Callable[..., Kafka]) -> None:
    server = fresh_kafka()
    create_topic(server, "kept")
    values = [b"%d" % number for number in range(1000)]
    produce(server, "kept", values)
    server.kill()
    server.start()
    assert consume(server, "kept", len(values)) == values


def test_kafka_stops_cleanly_and_keeps_records_over_a_restart(
    fresh_kafka: Callable[..., Kafka],
) -> None:
    server = fresh_kafka()
    create_topic(server, "kept")
    produce(server, "kept", [b"one"])
    assert server.stop()
    server.start()
    assert consume(server, "kept", 1) == [b"one"]


# MongoDB --------------------------------------------------------------------------------


@contextmanager
def collection(mongo: Mongo, name: str) -> Iterator[Any]:
    """Give a collection that is written with majority and journal."""
    from pymongo import MongoClient, WriteConcern

    concern = WriteConcern(w="majority", j=True)
    with MongoClient(mongo.url, serverSelectionTimeoutMS=round(WAIT_S * 1000)) as client:
        yield client["servers"].get_collection(name, write_concern=concern)


def test_mongo_finds_what_was_inserted(mongo: Mongo) -> None:
    with collection(mongo, unique("documents")) as documents:
        documents.insert_one({"_id": 1, "speed_mps": 7.5})
        assert documents.find_one({"_id": 1}) == {"_id": 1, "speed_mps": 7.5}


def test_mongo_takes_a_retryable_write_which_only_replica_sets_do(mongo: Mongo) -> None:
    from bson import Int64

    with collection(mongo, unique("documents")) as documents:
        insert = {
            "insert": documents.name,
            "documents": [{"_id": 1}],
            "txnNumber": Int64(1),
            "stmtIds": [0],
        }
        with documents.database.client.start_session() as session:
            for _ in range(2):
                documents.database.command(insert, session=session)
        assert documents.count_documents({}) == 1


def test_mongo_keeps_acknowledged_documents_over_a_kill(fresh_mongo: Callable[..., Mongo]) -> None:
    server = fresh_mongo()
    with collection(server, "kept") as documents:
        documents.insert_many([{"_id": number} for number in range(1000)])
    server.kill()
    server.start()
    with collection(server, "kept") as documents:
        assert [one["_id"] for one in documents.find().sort("_id")] == list(range(1000))


def test_mongo_stops_cleanly_and_keeps_documents_over_a_restart(
    fresh_mongo: Callable[..., Mongo],
) -> None:
    server = fresh_mongo()
    with collection(server, "kept") as documents:
        documents.insert_one({"_id": 1})
    assert server.stop()
    server.start()
    with collection(server, "kept") as documents:
        assert documents.count_documents({}) == 1


# Every server ---------------------------------------------------------------------------


@pytest.fixture(params=install.NAMES)
def fresh_server(request: pytest.FixtureRequest) -> Server:
    """Give a running server of each kind in turn, of the test's own."""
    make: Callable[[], Server] = request.getfixturevalue(f"fresh_{request.param}")
    return make()


def test_paused_server_answers_nothing_until_resumed_and_stop_leaves_no_process(
    fresh_server: Server,
) -> None:
    pid = fresh_server.pid
    assert fresh_server.answers()
    fresh_server.pause()
    assert fresh_server.is_running
    assert not fresh_server.answers()
    fresh_server.resume()
    wait_until(fresh_server.answers, what="the resumed server answers")
    assert fresh_server.pid == pid
    fresh_server.pause()
    assert fresh_server.stop(), "a paused server was not resumed to stop cleanly"
    assert not process_exists(pid)
    assert not fresh_server.is_running
    fresh_server.stop()
    fresh_server.kill()
