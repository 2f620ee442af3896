"""The parts of `matchday setup` that need no server: its file of accounts and its patience."""

import json
import random

import pytest

from matchday.clock import ManualClock
from matchday.config import Settings
from matchday.errors import ConfigError, DeniedError, UnavailableError
from matchday.services.setup import Patience, grants_of, read_accounts, set_up

PASSWORD = "anchor-anchor-17"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"mongo": {"server": "short"}}, "password of server has 5 characters, below 16"),
        ({"mongo": {"stranger": PASSWORD}}, "stranger"),
        ({"kafka": ["stranger"]}, "stranger"),
        ({"redis": []}, "redis"),
    ],
)
def test_account_that_cannot_be_is_named_without_its_password(tmp_path, content, named):
    path = tmp_path / "accounts.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as refusal:
        read_accounts(path)
    assert named in str(refusal.value)
    assert PASSWORD not in str(refusal.value)


def test_passwords_do_not_show_when_accounts_are_printed(tmp_path):
    path = tmp_path / "accounts.json"
    path.write_text(json.dumps({"mongo": {"server": PASSWORD}, "kafka": ["server"]}))
    assert PASSWORD not in repr(read_accounts(path))


def test_nothing_to_set_up_is_said():
    with pytest.raises(ConfigError, match="needs no setup"):
        set_up(Settings(), clock=ManualClock(), rng=random.Random(1))


def test_silent_server_is_asked_until_the_time_is_over():
    clock = ManualClock()
    begun_s, asked = clock.monotonic_s(), []

    def step():
        asked.append(clock.monotonic_s())
        raise UnavailableError("asking: no answer")

    with pytest.raises(UnavailableError, match=r"waiting for x: 60 s are over.*no answer"):
        Patience(clock=clock, rng=random.Random(1), timeout_s=60).until("x", step)
    assert 55 < clock.monotonic_s() - begun_s <= 60
    assert 20 < len(asked) < 60


def test_refused_login_is_not_tried_again():
    asked = []

    def step():
        asked.append(1)
        raise DeniedError("refused")

    with pytest.raises(DeniedError):
        Patience(clock=ManualClock(), rng=random.Random(1), timeout_s=60).until("x", step)
    assert len(asked) == 1


def test_nobody_is_granted_anything_on_the_whole_cluster():
    pytest.importorskip("confluent_kafka")
    grants = list(grants_of(("server", "analysis", "dashboard")))
    assert {grant.kind for grant in grants} == {"topic", "group", "transactional_id"}
    assert all(grant.name not in ("", "*") for grant in grants)
    assert not any("create" in grant.operations for grant in grants)
