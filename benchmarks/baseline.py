"""The loops that most people would write, to measure ours against; careful ones.

`ingest`: paho-mqtt with manual acknowledgement and a persistent session -> confluent-kafka,
idempotent, acks=all; a message is acknowledged in its delivery callback. It passes payloads
on as they are: no validation, no duplicate check, no account, which ours does all. `persist`:
confluent-kafka -> JSON -> pymongo `insert_many` of at most 1,000, majority and journal, then
the offsets. Neither loses anything; after a crash both write some messages twice.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

TOPIC = "analytics"
RECEIVE_MAX = 2000
BATCH = 1000
LINGER_S = 0.05


def ingest(port: int, bootstrap: str, stop: threading.Event) -> None:
    """Bridge MQTT to Kafka until told to stop."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
        }
    )
    client = Client(
        CallbackAPIVersion.VERSION2, client_id="baseline", protocol=MQTTv5, manual_ack=True
    )

    def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
        mid, qos = message.mid, message.qos

        def delivered(error: Any, _message: Message) -> None:
            if error is None:
                client.ack(mid, qos)

        key = message.topic.rpartition("/")[2]
        while True:
            try:
                producer.produce(TOPIC, bytes(message.payload), key, on_delivery=delivered)
                return
            except BufferError:
                producer.poll(0.1)

    def on_connect(_client: Client, *_rest: Any) -> None:
        client.subscribe("#", qos=1)

    def on_subscribe(_client: Client, *_rest: Any) -> None:
        print("ready", flush=True)

    client.on_message = on_message
    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0xFFFF_FFFF
    properties.ReceiveMaximum = RECEIVE_MAX
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.loop_start()
    while not stop.is_set():
        producer.poll(0.1)
    producer.flush(10)
    client.disconnect()
    client.loop_stop()


def persist(bootstrap: str, url: str, database: str, stop: threading.Event) -> None:
    """Carry readings from Kafka to MongoDB until told to stop."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"baseline-{database}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )

    def on_assign(_consumer: Consumer, _places: list[TopicPartition]) -> None:
        print("ready", flush=True)

    consumer.subscribe([TOPIC], on_assign=on_assign)
    with MongoClient[dict[str, Any]](url) as client:
        sensors = client[database].get_collection(
            "sensors", write_concern=WriteConcern("majority", j=True)
        )
        while not stop.is_set():
            messages = consumer.consume(BATCH, LINGER_S)
            documents = [_document(message) for message in messages if message.error() is None]
            if documents:
                sensors.insert_many(documents, ordered=False)
                consumer.commit(asynchronous=False)
    consumer.close()


def _document(message: Message) -> dict[str, Any]:
    reading = json.loads(message.value() or b"")
    quantity = reading.get("quantity", "value")
    # Its own ingest passes the sensors' messages on, ours writes `ts`, `v` and `sensor`.
    if "ts" in reading:
        collected_at = datetime.fromisoformat(reading["ts"])
        value, sensor = reading["v"], reading["sensor"]
    else:
        collected_at = datetime.fromtimestamp(reading["t"] / 1000, UTC)
        value, sensor = reading["value"], (message.key() or b"").decode()
    return {
        "collected_at": collected_at,
        quantity: value,
        "unit": reading.get("unit"),
        "seq": reading.get("seq"),
        "metadata": {
            "sensor_id": sensor,
            "venue": reading.get("venue"),
            "session": reading.get("session"),
        },
    }


def main() -> None:
    """Run one of the loops until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("ingest", "persist"))
    parser.add_argument("--mqtt-port", type=int, default=1883)
    parser.add_argument("--kafka", default="127.0.0.1:9092", help="host:port")
    parser.add_argument("--mongo", default="mongodb://127.0.0.1:27017/")
    parser.add_argument("--database", default="baseline")
    given = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if given.role == "ingest":
        ingest(given.mqtt_port, given.kafka, stop)
    else:
        persist(given.kafka, given.mongo, given.database, stop)


if __name__ == "__main__":
    main()
