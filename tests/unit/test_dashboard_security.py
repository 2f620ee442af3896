"""Hosts, the cookie, and text from outside."""

from datetime import UTC, datetime

import pytest

from matchday.dashboard.connecting import publish_line
from matchday.dashboard.documents import TEXT_CHARS_MAX, flatten, jsonable
from matchday.dashboard.security import cookie_value, is_allowed_host, is_session
from matchday.dashboard.state import DashboardState
from matchday.domain.account import Account
from matchday.domain.venue import Pitch, Venue


@pytest.mark.parametrize(
    "host",
    ["localhost:8081", "localhost", "127.0.0.1:8081", "192.168.1.7", "[::1]:8081", "LocalHost.",
     "ground.example:8081"],
)  # fmt: skip
def test_own_names_and_addresses_are_served(host):
    assert is_allowed_host(host, frozenset({"localhost", "ground.example"}))


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "localhost.attacker.example",
        "",
        "127.0.0.1.nip.example:8081",
        "::1x",
        "[::1].attacker.example",
        "[::1",
    ],
)
def test_a_name_that_somebody_else_may_resolve_is_refused(host):
    assert not is_allowed_host(host, frozenset({"localhost"}))


def test_the_cookie_is_not_the_token_and_differs_by_token():
    assert "secret" not in cookie_value("secret", until_ms=1)
    assert cookie_value("secret", until_ms=1) != cookie_value("secret2", until_ms=1)


def test_a_session_ends_by_itself_and_nobody_without_the_token_can_make_it_longer():
    cookie = cookie_value("secret", until_ms=1_000)
    assert is_session(cookie, "secret", now_ms=999)
    assert not is_session(cookie, "secret", now_ms=1_000)
    assert not is_session(cookie.replace("1000.", "9000."), "secret", now_ms=999)
    assert not is_session(cookie, "other", now_ms=999)


@pytest.mark.parametrize("cookie", ["", ".", "x.y", "9" * 5000, "-1.a", "²." + "0" * 64])
def test_a_cookie_of_rubbish_is_no_session(cookie):
    assert not is_session(cookie, "secret", now_ms=0)


def test_the_token_never_shows_in_the_states_text():
    state = DashboardState(
        query=None,  # type: ignore[arg-type]
        account=lambda: Account(()),
        links=list,
        token="s3cret",
    )
    assert "s3cret" not in repr(state)


def test_documents_become_json_whatever_a_store_puts_in_them():
    document = {
        "at": datetime(2026, 11, 22, 5, 45, 3, 120_000, tzinfo=UTC),
        "raw": b"\xffnot text",
        "long": "x" * (TEXT_CHARS_MAX + 1),
        "metadata": {"sensor_id": "a", "venue": None},
        "objects": [{"id": "p1"}],
    }
    flat = flatten(jsonable(document))
    assert flat["at"] == "2026-11-22T05:45:03.120Z"
    assert flat["raw"] == "\ufffdnot text"
    assert flat["long"].endswith(f"({TEXT_CHARS_MAX + 1} characters)")
    assert (flat["metadata.sensor_id"], flat["metadata.venue"]) == ("a", None)
    assert flat["objects"] == [{"id": "p1"}]


@pytest.mark.parametrize(
    ("note", "start"),
    [
        ("127.0.0.1:1884", "mosquitto_pub -h 127.0.0.1 -p 1884 -q 1 -t matchday/oval/scalar/"),
        ("mqtt://broker.example:8883 (TLS)", "mosquitto_pub -h broker.example -p 8883 "),
        ("ask the operator", "mosquitto_pub -h 127.0.0.1 -p 1883 "),
    ],
)
def test_the_line_that_connects_a_sensor_names_the_real_endpoint(note, start):
    oval = Venue(id="oval", name="Oval", pitch=Pitch(shape="oval", length_m=160, width_m=141))
    assert publish_line(note, [oval]).startswith(start)
