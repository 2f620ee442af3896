"""Telegraf, set up for either hop: MQTT at QoS 1 -> Kafka, and Kafka -> MongoDB time series.

Owns its settings and how it is started. They are those under which it loses nothing and is
cheapest here: acknowledgement after delivery (a persistent session, and what its tracking of
metrics does for Kafka), an idempotent producer with acks=all, batches, a flush every 50 ms (twice
`ingest.tick_s`, and cheaper for it), a fetch that waits for more as long as
`persist.batch_linger_s` does in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from peers.install import find_telegraf
from servers.process import ServerProcess

CLIENT_ID: Final = "telegraf"
FLUSH_MS: Final = 50
FETCH_BYTES: Final = 200_000

# A batch below the broker's 1,000 in flight, or the broker would wait for each flush.
_MQTT_TO_KAFKA: Final = """
[agent]
  omit_hostname = true
  flush_interval = "{flush_ms}ms"
  metric_batch_size = 500
  metric_buffer_limit = 100000
  quiet = false
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{mqtt_port}"]
  topics = ["matchday/#"]
  topic_tag = ""
  qos = 1
  persistent_session = true
  client_id = "{client_id}"
  max_undelivered_messages = 5000
  name_override = "sensors"
  data_format = "json"
  json_time_key = "t"
  json_time_format = "unix_ms"
  tag_keys = ["session"]
  json_string_fields = ["quantity", "unit"]
  [[inputs.mqtt_consumer.topic_parsing]]
    topic = "matchday/+/+/+"
    tags = "_/venue/_/sensor"
[[outputs.kafka]]
  brokers = ["{bootstrap}"]
  version = "3.6.0"
  topic = "{topic}"
  routing_tag = "sensor"
  required_acks = -1
  idempotent_writes = true
  compression_codec = 3
  data_format = "json"
  json_timestamp_units = "1ms"
"""

_KAFKA_TO_MONGO: Final = """
[agent]
  omit_hostname = true
  flush_interval = "{flush_ms}ms"
  metric_batch_size = 5000
  metric_buffer_limit = 100000
[[inputs.kafka_consumer]]
  brokers = ["{bootstrap}"]
  kafka_version = "3.6.0"
  topics = ["{topic}"]
  consumer_group = "telegraf-{database}"
  offset = "oldest"
  max_undelivered_messages = 20000
  max_processing_time = "10s"
  consumer_fetch_min = "{fetch_bytes}B"
  consumer_fetch_max_wait = "{fetch_wait_ms}ms"
  name_override = "sensors"
  data_format = "json"
{format}
[[outputs.mongodb]]
  dsn = "{url}&w=majority&journal=true"
  database = "{database}"
  write_batch = true
  ttl = "0s"
"""

# Records as our ingest writes them, and as Telegraf's own first hop does.
OF_MATCHDAY: Final = """
  json_time_key = "ts"
  json_time_format = "2006-01-02T15:04:05.999Z07:00"
  tag_keys = ["sensor", "venue", "session"]
  json_string_fields = ["quantity", "unit"]
"""
OF_TELEGRAF: Final = """
  json_time_key = "timestamp"
  json_time_format = "unix_ms"
  tag_keys = ["tags_*"]
  json_string_fields = ["fields_quantity", "fields_unit"]
"""


def mqtt_to_kafka(
    directory: Path, *, mqtt_port: int, bootstrap: str, topic: str, broker_log: Path
) -> ServerProcess:
    """Make the first hop; it is started when the broker has logged its subscription.

    Args:
        directory: Holds its settings and its log.
        mqtt_port: The broker's, on loopback.
        bootstrap: Kafka, host:port.
        topic: To write to, keyed by source.
        broker_log: Mosquitto's log, with `log_type subscribe`.
    """
    text = _MQTT_TO_KAFKA.format(
        flush_ms=FLUSH_MS,
        mqtt_port=mqtt_port,
        client_id=CLIENT_ID,
        bootstrap=bootstrap,
        topic=topic,
    )
    return _process(
        directory,
        "telegraf-mqtt",
        text,
        lambda _log: f"{CLIENT_ID} 1 matchday/#" in broker_log.read_text(encoding="utf-8"),
    )


def kafka_to_mongo(
    directory: Path,
    *,
    bootstrap: str,
    topic: str,
    url: str,
    database: str,
    layout: str,
    fetch_wait_ms: int,
) -> ServerProcess:
    """Make the second hop; it stores into the time series `sensors`, under its own field names.

    Args:
        directory: Holds its settings and its log.
        bootstrap: Kafka, host:port.
        topic: To read from its beginning.
        url: MongoDB's, with a query part.
        database: To store into.
        layout: What the records are like: `OF_MATCHDAY` or `OF_TELEGRAF`.
        fetch_wait_ms: Longest that a fetch waits for more.
    """
    text = _KAFKA_TO_MONGO.format(
        flush_ms=FLUSH_MS,
        fetch_wait_ms=fetch_wait_ms,
        fetch_bytes=FETCH_BYTES,
        bootstrap=bootstrap,
        topic=topic,
        url=url,
        database=database,
        format=layout,
    )
    return _process(directory, "telegraf-kafka", text, lambda log: "Loaded outputs" in log)


def _process(
    directory: Path, name: str, text: str, is_ready: Callable[[str], bool]
) -> ServerProcess:
    settings, log_path = directory / f"{name}.conf", directory / f"{name}.log"
    settings.write_text(text, encoding="utf-8")
    return ServerProcess(
        name=name,
        argv=[str(find_telegraf()), "--config", str(settings)],
        log_path=log_path,
        answers=lambda: log_path.exists() and is_ready(log_path.read_text(encoding="utf-8")),
    )
