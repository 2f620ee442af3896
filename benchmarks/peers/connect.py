"""Kafka Connect with MongoDB's sink: Kafka -> MongoDB time series, in a standalone worker.

Owns its settings and how it is started. They are those of a careful installation: values
as text, parsed once by the sink; unordered inserts of what one poll gave; majority and journal;
committed records only; a fetch that waits for more as long as `persist.batch_linger_s` does in
the same run, since with its defaults it makes many small requests, which cost all servers more.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Final

from peers.install import find_connect_jars
from servers.install import find_java
from servers.ports import free_port
from servers.process import ServerProcess

HEAP_MB: Final = 512
SINK: Final = "sensors-sink"
FETCH_BYTES: Final = 200_000

_WORKER: Final = """
bootstrap.servers={bootstrap}
listeners=http://127.0.0.1:{port}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename={directory}/offsets
offset.flush.interval.ms=10000
plugin.discovery=only_scan
consumer.isolation.level=read_committed
consumer.max.poll.records=2000
consumer.fetch.min.bytes={fetch_bytes}
consumer.fetch.max.wait.ms={fetch_wait_ms}
"""

_SINK: Final = """
name={sink}
connector.class=com.mongodb.kafka.connect.MongoSinkConnector
tasks.max=1
topics={topic}
connection.uri={url}&w=majority&journal=true
database={database}
collection=sensors
bulk.write.ordered=false
"""

_TIME_SERIES: Final = """
timeseries.timefield={time_field}
timeseries.timefield.auto.convert=true
timeseries.timefield.auto.convert.date.format=yyyy-MM-dd'T'HH:mm:ss.SSSX
timeseries.metafield={meta_field}
"""


def kafka_to_mongo(
    directory: Path,
    *,
    bootstrap: str,
    topic: str,
    url: str,
    database: str,
    time_field: str,
    meta_field: str,
    fetch_wait_ms: int,
    is_time_series: bool = True,
) -> ServerProcess:
    """Make a worker with one sink; it is started when the sink's task runs.

    Args:
        directory: Holds its settings and its log.
        bootstrap: Kafka, host:port.
        topic: To read from its beginning.
        url: MongoDB's, with a query part.
        database: To store into, the collection `sensors`.
        time_field: Of the record; ISO 8601 with milliseconds, or epoch milliseconds.
        meta_field: Of the record: what tells series apart.
        fetch_wait_ms: Longest that a fetch waits for more.
        is_time_series: Else into a regular collection, with every record as it is.
    """
    port = free_port()
    worker, sink = directory / "worker.properties", directory / "sink.properties"
    worker.write_text(
        _WORKER.format(
            bootstrap=bootstrap,
            port=port,
            directory=directory,
            fetch_bytes=FETCH_BYTES,
            fetch_wait_ms=fetch_wait_ms,
        ),
        encoding="utf-8",
    )
    form = _SINK + (_TIME_SERIES if is_time_series else "")
    sink.write_text(
        form.format(
            sink=SINK,
            topic=topic,
            url=url,
            database=database,
            time_field=time_field,
            meta_field=meta_field,
        ),
        encoding="utf-8",
    )
    return ServerProcess(
        name="kafka-connect",
        argv=_command(worker, sink),
        log_path=directory / "connect.log",
        answers=lambda: _runs(port),
        ready_s=90.0,
    )


def _command(worker: Path, sink: Path) -> list[str]:
    """Give the command line of a standalone worker with these settings."""
    return [
        *(str(find_java()), f"-Xmx{HEAP_MB}m", "-XX:-UsePerfData"),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *("-cp", f"{find_connect_jars()}/*"),
        *("org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(sink)),
    ]


def _runs(port: int) -> bool:
    """Tell whether the sink has a task and all of its tasks run."""
    try:
        address = f"http://127.0.0.1:{port}/connectors/{SINK}/status"
        with urllib.request.urlopen(address, timeout=1.0) as answer:
            tasks = json.load(answer)["tasks"]
    except OSError:
        return False
    return bool(tasks) and all(task["state"] == "RUNNING" for task in tasks)
