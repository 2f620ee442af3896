"""What `matchday doctor` says about the MQTT side: reachable, permitted, lossless?"""

from __future__ import annotations

import socket

from matchday.clock import Clock
from matchday.config import Settings
from matchday.errors import ConfigError, UnavailableError
from matchday.sensors.broker import parse_broker
from matchday.sensors.probe import DROPPED, VERSION, BrokerAnswers, probe
from matchday.services.links import is_embedded


def check_broker(settings: Settings, *, clock: Clock) -> list[str]:
    """Give what is wrong or cannot be promised about where messages come from.

    Raises:
        UnavailableError: Nobody answers at the address.
        ConfigError: The broker refuses us.
    """
    url = settings.mqtt.url.get_secret_value()
    if is_embedded(url):
        _check_endpoint(settings)
        return []
    broker = parse_broker(url, ca_file=settings.mqtt.ca_file)
    answers = probe(broker, settings.ingest.filters, clock=clock)
    if answers.refusal:
        raise ConfigError(f"connecting to {broker.shown}: refused: {answers.refusal}")
    return broker_problems(answers, payload_bytes_max=settings.ingest.payload_bytes_max)


def broker_problems(answers: BrokerAnswers, *, payload_bytes_max: int) -> list[str]:
    """Turn a broker's answers into sentences, each with what to do."""
    problems = [
        f"subscribing {topic_filter} is refused ({reason}); allow it in the broker's ACL"
        for topic_filter, reason in answers.refused_filters.items()
    ]
    if not answers.is_v5:
        problems.append(
            "the broker speaks MQTT 3.1.1 only: it cannot be held back by a receive maximum, "
            "and refusals of single messages go unseen; use a broker with MQTT 5"
        )
    if answers.limits.get("MaximumQoS", 2) < 1:
        problems.append("the broker allows QoS 0 only: messages may be lost; allow QoS 1")
    packet_bytes = answers.limits.get("MaximumPacketSize")
    if packet_bytes is not None and packet_bytes < payload_bytes_max:
        problems.append(
            f"the broker takes packets up to {packet_bytes} bytes, below ingest.payload_bytes_max "
            f"{payload_bytes_max}; raise its packet size or lower the setting"
        )
    dropped = answers.counters.get(DROPPED, "0")
    if dropped.isdecimal() and int(dropped) > 0:
        problems.append(
            f"the broker has dropped {dropped} messages at a queue limit; set "
            "max_queued_messages 0, max_inflight_messages 1000 and max_queued_bytes as the cap"
        )
    if "mosquitto" in answers.counters.get(VERSION, ""):
        problems.append(
            f"{answers.counters[VERSION]}: its queue limit cannot be read from outside, and the "
            "default of 1000 loses acknowledged messages: check that its configuration has "
            "max_queued_messages 0, persistence true and autosave_interval 1"
        )
    return problems


def _check_endpoint(settings: Settings) -> None:
    """Find out whether our own endpoint listens, from outside."""
    address = (settings.bind, settings.mqtt.port)
    try:
        socket.create_connection(address, timeout=2.0).close()
    except OSError as error:
        raise UnavailableError(
            f"connecting to the endpoint {address[0]}:{address[1]}: {error.strerror or error}; "
            "it runs in `matchday up` or `matchday server`"
        ) from error
