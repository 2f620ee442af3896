"""Claims about the address of a Kafka cluster."""

from __future__ import annotations

import traceback

import pytest

from matchday.errors import ConfigError
from matchday.stream.kafka_url import KafkaAddress


def test_hosts_without_a_port_get_the_usual_one() -> None:
    address = KafkaAddress.parse("kafka://one,two:9093,[::1],[::2]:9094")
    assert address.servers == "one:9092,two:9093,[::1]:9092,[::2]:9094"
    assert address.client_settings() == {
        "bootstrap.servers": address.servers,
        "security.protocol": "PLAINTEXT",
    }


def test_login_and_encryption_choose_the_protocol() -> None:
    url = "kafkas://us%40er:p%3Aw%2F@host?mechanism=SCRAM-SHA-512&ca=/etc/ca.pem"
    assert KafkaAddress.parse(url).client_settings() == {
        "bootstrap.servers": "host:9092",
        "security.protocol": "SASL_SSL",
        "sasl.username": "us@er",
        "sasl.password": "p:w/",
        "sasl.mechanism": "SCRAM-SHA-512",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_login_without_encryption_uses_the_plain_mechanism() -> None:
    settings = KafkaAddress.parse("kafka://user:secret@host").client_settings()
    assert (settings["security.protocol"], settings["sasl.mechanism"]) == (
        "SASL_PLAINTEXT",
        "PLAIN",
    )


def test_password_is_in_no_text() -> None:
    address = KafkaAddress.parse("kafka://user:secret@host")
    assert "secret" not in f"{address} {address!r}"
    with pytest.raises(ConfigError) as refusal:
        KafkaAddress.parse("kafka://user:secret@host:port")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("password", ["sec/ret", "sec#ret", "sec?ret"])
def test_password_that_is_not_encoded_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as refusal:
        KafkaAddress.parse(f"kafka://user:{password}@host:9092")
    assert "sec" not in str(refusal.value)


@pytest.mark.parametrize("password", ["sec\N{ACCOUNT OF}ret", "[secret", "sec]ret"])
def test_password_that_makes_the_url_unreadable_is_not_shown(password: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refusal:
        KafkaAddress.parse(f"kafka://user:{password}@host:9092")
    assert "sec" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://host", "scheme 'http'"),
        ("kafka://", "'' is no host"),
        ("kafka://host:0", "'host:0'"),
        ("kafka://host:65536", "'host:65536'"),
        ("kafka://host,", "'' is no host"),
        ("kafka://host/topic", "'/topic'"),
        ("kafka://user@host", "both user and password"),
        ("kafka://host?colour=red", "parameter 'colour'"),
        ("kafka://host?mechanism=PLAIN", "needs a login"),
        ("kafka://u:p@host?mechanism=GSSAPI", "mechanism 'GSSAPI'"),
        ("kafka://host?ca=/etc/ca.pem", "needs 'kafkas'"),
    ],
)
def test_other_forms_are_refused_by_name(url: str, what: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        KafkaAddress.parse(url)
    assert what in str(refusal.value)
