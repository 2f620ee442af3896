"""How a comparison with other programs adds up, and what it says of those that are not there."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("confluent_kafka")
pytest.importorskip("pymongo")

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import peers.lineup
from compare import absent, behind_ms, lineup, settings, whole_figure
from report import Sample


def given(**changed: object) -> Namespace:
    return Namespace(**{"systems": "", "against": None, "alone": False, **changed})


def test_an_absent_peer_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(peers.lineup, "missing", lambda: {"connect": "no Kafka Connect"})
    left = {one.name for one in lineup("whole", given(), round_number=1)}
    assert "Telegraf + Kafka Connect" not in left
    assert "Telegraf + Telegraf" in left
    assert absent(["whole"]) == {
        "Telegraf + Kafka Connect": "no Kafka Connect",
        "Telegraf + Kafka Connect regular": "no Kafka Connect",
    }


def test_odd_rounds_go_the_other_way_round(monkeypatch):
    monkeypatch.setattr(peers.lineup, "missing", dict)
    names = [[one.name for one in lineup("hop2", given(), round_number=n)] for n in (0, 1)]
    assert names[0] == names[1][::-1]


def test_every_pair_of_partitions_and_linger_is_taken_and_odd_rounds_go_the_other_way():
    asked = given(partitions="1,2", linger_s="0.15, 0.2")
    pairs = settings(asked, round_number=0)
    assert pairs == [(1, 0.15), (1, 0.2), (2, 0.15), (2, 0.2)]
    assert settings(asked, round_number=1) == pairs[::-1]


def test_together_is_programs_and_servers_and_the_machine_is_less_the_load():
    first = Sample(0.0, 0, {"ingest": 0.0, "persist": 0.0, "Kafka": 1.0, "machine": 5.0, "here": 0})
    last = Sample(
        10.0, 200_000, {"ingest": 2.0, "persist": 4.0, "Kafka": 3.0, "machine": 17.0, "here": 1.0}
    )
    row = whole_figure("matchday", first, last, load_cpu_s=3.0, notes={}).row()
    assert row["CPU programs"] == pytest.approx(3.0)
    assert row["CPU together"] == pytest.approx(4.0)
    assert row["CPU machine"] == pytest.approx((12.0 - 1.0 - 3.0) / 2)


def test_behind_is_the_age_of_the_oldest_that_is_sent_and_not_stored():
    # Ten messages a second, always five not stored: half a second.
    looks = [Sample(at / 10, max(0, at - 5), {}) for at in range(101)]
    found = behind_ms(looks, began_s=0.0, rate_per_s=10.0, messages=100)
    assert found["behind p50 ms"] == pytest.approx(500.0)
    assert found["behind p99 ms"] == pytest.approx(500.0)
