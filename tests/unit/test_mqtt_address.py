"""MQTT addresses as settings write them, and that they never show a password."""

from __future__ import annotations

import pytest

from matchday.errors import ConfigError
from matchday.mqtt.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", Address("broker")),
        ("mqtts://broker", Address("broker", 8883, True)),
        ("mqtt://u:p%40ss@10.0.0.1:1884/", Address("10.0.0.1", 1884, False, "u", "p@ss")),
        ("mqtt://u@broker", Address("broker", username="u")),
        ("mqtt://[::1]:1883", Address("::1")),
    ],
)
def test_address_is_read(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret@broker",
        "mqtt://u:secret@",
        "mqtt://u:secret@broker:port",
        "mqtt://u:secret@broker:99999",
        "mqtt://u:secret@broker/path",
        "mqtt://:secret@broker",
        "mqtt://u:secret@[::1",
        "broker:1883",
        "",
    ],
)
def test_bad_address_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


def test_address_never_shows_the_password() -> None:
    address = parse_address("mqtts://user:secret@broker")
    assert "secret" not in f"{address} {address!r}"
    assert str(address) == "mqtts://broker:8883"


def test_ipv6_address_keeps_its_brackets() -> None:
    assert str(parse_address("mqtt://[::1]")) == "mqtt://[::1]:1883"
