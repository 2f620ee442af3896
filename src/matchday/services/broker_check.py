"""What `matchday doctor` says about the MQTT side: reachable, permitted, lossless?"""

from __future__ import annotations

import socket

from matchday.clock import Clock
from matchday.config import Settings
from matchday.errors import ConfigError, UnavailableError
from matchday.sensors.broker import parse_broker
from matchday.sensors.probe import DROPPED, VERSION, BrokerAnswers, probe
from matchday.sensors.queue_probe import SENT_COUNT, kept_count
from matchday.services.links import is_embedded


def check_broker(settings: Settings, *, clock: Clock) -> tuple[list[str], list[str]]:
    """Give what is wrong with where messages come from, and what cannot be promised there.

    Raises:
        UnavailableError: Nobody answers at the address.
        ConfigError: The broker refuses us.
    """
    url = settings.mqtt.url.get_secret_value()
    if is_embedded(url):
        _check_endpoint(settings)
        return [], []
    broker = parse_broker(url, ca_file=settings.mqtt.ca_file)
    filters = tuple(one for slot in settings.ingest.all_slots() for one in slot.filters)
    answers = probe(broker, filters, clock=clock)
    if answers.refusal:
        raise ConfigError(f"connecting to {broker.shown}: refused: {answers.refusal}")
    kept = kept_count(broker, clock=clock) if answers.is_v5 else None
    payload_bytes_max = settings.ingest.payload_bytes_max
    problems = broker_problems(answers, payload_bytes_max=payload_bytes_max, kept=kept)
    return problems, broker_risks(answers, kept=kept)


def broker_problems(
    answers: BrokerAnswers, *, payload_bytes_max: int, kept: int | None
) -> list[str]:
    """Turn a broker's answers into sentences, each with what to do.

    Args:
        answers: What it said.
        payload_bytes_max: Of the largest payload that ingest takes.
        kept: How many of `SENT_COUNT` messages it kept for a session that was away.
    """
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
    if kept is not None and kept < SENT_COUNT:
        problems.append(
            f"the broker keeps {kept} messages for a subscriber that is away and drops what comes "
            "after, although it has acknowledged it: set max_queued_messages 0 and "
            "max_queued_bytes as the cap"
        )
    return problems


def broker_risks(answers: BrokerAnswers, *, kept: int | None) -> list[str]:
    """Give what a well-set broker can still lose, or does not let us find out."""
    risks = []
    version = answers.counters.get(VERSION, "the broker")
    if kept is None:
        risks.append(
            f"{version} does not let us find out how many messages it queues, and Mosquitto's "
            "default of 1000 loses acknowledged ones: check that it has max_queued_messages 0"
        )
    risks.append(
        f"{version}: whether it saves its queues cannot be asked; with Mosquitto's defaults a "
        "crash loses all of them, with persistence true and autosave_interval 1 up to a second of "
        "what it acknowledged; our own endpoint (mqtt.url embedded:) acknowledges only what the "
        "stream has"
    )
    return risks


def _check_endpoint(settings: Settings) -> None:
    """Find out whether our own endpoint listens, from outside."""
    address = (settings.bind, settings.mqtt.port)
    if not settings.mqtt.port:
        raise UnavailableError(
            "connecting to the endpoint: mqtt.port is 0, a free port at every start; "
            "`matchday up` prints it, choose it with MATCHDAY_MQTT__PORT"
        )
    try:
        socket.create_connection(address, timeout=2.0).close()
    except OSError as error:
        raise UnavailableError(
            f"connecting to the endpoint {address[0]}:{address[1]}: {error.strerror or error}; "
            "it runs in `matchday up` or `matchday server`"
        ) from error
