"""Claims about ingest slots: which rows are right, and when two filters meet."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchday.clock import SystemClock
from matchday.config import Slot, filters_overlap, load
from matchday.domain.topics import matches
from matchday.errors import ConfigError
from matchday.services.links import feed_opener

LEVELS = ("a", "b", "", "$x")
TOPICS = ["/".join(levels) for length in range(1, 5) for levels in product(LEVELS, repeat=length)]


def rows(*slots: str) -> dict[str, str]:
    return {
        "MATCHDAY_MQTT__URL": "mqtt://broker:1883",
        "MATCHDAY_INGEST__SLOTS": ",".join(slots),
    }


def filters() -> st.SearchStrategy[str]:
    level = st.sampled_from((*LEVELS, "+", "+"))
    heads = st.lists(level, min_size=1, max_size=3).map("/".join).filter(bool)
    return st.one_of(heads, heads.map(lambda head: f"{head}/#"), st.just("#"))


@given(filters(), filters())
def test_filters_overlap_exactly_when_some_topic_matches_both(one: str, other: str):
    meets = any(topic and matches(one, topic) and matches(other, topic) for topic in TOPICS)
    assert filters_overlap(one, other) is meets
    assert filters_overlap(other, one) is meets


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        ("a/#", "a", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/b/#", "a/+/c", True),
        ("#", "$SYS/broker", False),
        ("+/x", "$SYS/x", False),
        ("#", "+/+", True),
        ("a/+/c", "a/b/+", True),
        ("matchday/north/#", "matchday/south/#", False),
    ],
)
def test_overlap_of_known_pairs(one: str, other: str, meets: bool):
    assert filters_overlap(one, other) is meets


def test_without_rows_there_is_the_one_default_slot():
    assert load(environ={}).settings.ingest.all_slots() == (Slot("all", ("#",)),)


def test_rows_with_one_name_are_one_slot_and_slots_keep_their_order():
    environ = rows("south=matchday/south/#", "north=matchday/north/#", "south=matchday/east/#")
    assert load(environ=environ).settings.ingest.all_slots() == (
        Slot("south", ("matchday/south/#", "matchday/east/#")),
        Slot("north", ("matchday/north/#",)),
    )


def test_overlapping_slots_are_refused_naming_both():
    with pytest.raises(ConfigError, match=r"north \(matchday/#\) and south \(matchday/south/\+\)"):
        load(environ=rows("north=matchday/#", "south=matchday/south/+"))


@pytest.mark.parametrize(
    "row",
    ["north", "=a", "North=a", "a b=a", f"{'n' * 41}=a", "n=", "n=a#", "n=#/a", "n=a+/b"],
)
def test_row_that_is_none_is_named(row: str):
    with pytest.raises(ConfigError, match=r"ingest\.slots"):
        load(environ=rows(row))


def test_shared_subscription_is_refused():
    with pytest.raises(ConfigError, match="shared"):
        load(environ=rows("n=$share/g/a"))


def test_slots_and_the_one_slot_cannot_both_be_set():
    environ = rows("n=a/#") | {"MATCHDAY_INGEST__FILTERS": "a/#"}
    with pytest.raises(ConfigError, match="set one or the other"):
        load(environ=environ)


def test_own_endpoint_has_one_slot():
    environ = rows("n=a/#", "s=b/#") | {"MATCHDAY_MQTT__URL": "embedded:"}
    settings = load(environ=environ).settings
    with pytest.raises(ConfigError, match=r"2 slots in ingest\.slots, at most 1"):
        feed_opener(
            settings, settings.ingest.all_slots()[0], clock=SystemClock(), rng=random.Random(1)
        )


def test_variable_that_is_set_but_empty_counts_as_not_set(tmp_path: Path):
    secret = tmp_path / "url"
    secret.write_text("kafka://k:9092\n")
    environ = {
        "MATCHDAY_STREAM__URL": "",
        "MATCHDAY_STREAM__URL_FILE": str(secret),
        "MATCHDAY_HTTP__ALLOWED_HOSTS": " ",
        "MATCHDAY_MQTT__USERS_FILE": "",
        "MATCHDAY_STORE__URL_FILE": "",
    }
    loaded = load(environ=environ)
    assert loaded.settings.stream.url.get_secret_value() == "kafka://k:9092"
    assert set(loaded.origins) == {"stream.url"}


def test_log_in_file_is_not_needed_where_a_broker_does_the_log_in(tmp_path: Path):
    environ = {
        "MATCHDAY_BIND": "0.0.0.0",
        "MATCHDAY_MQTT__URL": "mqtt://broker:1883",
        "MATCHDAY_HTTP__TOKEN_FILE": "token",
    }
    assert load(environ=environ).settings.bind == "0.0.0.0"
    del environ["MATCHDAY_HTTP__TOKEN_FILE"]
    with pytest.raises(ConfigError, match="HTTP__TOKEN_FILE"):
        load(environ=environ)


def test_health_beyond_loopback_needs_the_token_file():
    with pytest.raises(ConfigError, match=r"health\.bind 0\.0\.0\.0.*HTTP__TOKEN_FILE"):
        load(environ={"MATCHDAY_HEALTH__BIND": "0.0.0.0"})
