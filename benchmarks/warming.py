"""Warm servers: what a broker that has been up for hours costs, not one of a minute ago.

A JVM compiles what has run some ten thousand times. Kafka charges for requests, and at twenty
commits a second it takes minutes to get there: measured at 2,000 messages a second its CPU fell to
half within the first four minutes, whoever was the client. So before anything is counted our
services run with commits every 5 ms, which is the same code ten times as often.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Final

from harness import Publisher, Servers, running, service

from matchday.clock import SystemClock
from matchday.store.mongo import MongoStore
from servers.process import wait_until

RATE_PER_S: Final = 2000
SECONDS: Final = 40.0
HURRY: Final = {
    "MATCHDAY_INGEST__TICK_S": "0.005",
    "MATCHDAY_PERSIST__BATCH_LINGER_S": "0.01",
    "MATCHDAY_STORE__DATABASE": "warming",
}


def warm(servers: Servers, seconds: float = SECONDS) -> None:
    """Let many small commits and writes run through the servers; leaves topics to be reset."""
    servers.reset_topics()
    directory = servers.fresh_directory()
    messages = int(RATE_PER_S * seconds)
    with ExitStack() as stack:
        broker = stack.enter_context(servers.broker())
        settings = {
            **HURRY,
            "MATCHDAY_MQTT__URL": broker.url,
            "MATCHDAY_STREAM__URL": servers.kafka.url,
        }
        if servers.mongo is not None:
            settings["MATCHDAY_STORE__URL"] = servers.mongo.url
            clock, database = SystemClock(), settings["MATCHDAY_STORE__DATABASE"]
            with closing(MongoStore(servers.mongo.url, clock=clock, database=database)) as store:
                store.prepare()
            stack.enter_context(running(service(directory, settings, "server", "--role=persist")))
        ingest = service(directory, settings, "server", "--role=ingest")
        stack.enter_context(running(ingest))
        wait_until(lambda: ingest.links().get("mqtt", False), what="ingest takes messages")
        publisher = Publisher(broker.port, messages=messages, rate=RATE_PER_S)
        stack.callback(publisher.kill)
        publisher.go()
        publisher.result()
