"""Schedules are repeatable and complete, and the verdict sees what it is there for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from faults.books import Span, Streamed
from faults.schedule import Blow, kills, mixture, moves, outages
from faults.verdict import RECOVERY_S_MAX, RSS_MIB_MAX, Recovery, Verdict, windows_due

PARTS = ("ingest", "persist", "analysis")
SERVERS = ("mosquitto", "kafka", "mongo")
NUMBERS = {("tag", seq) for seq in range(10)}
TOTALS = {"stored": 10, "pending": 0, "refused": 1, "missing": 0, "duplicate": 0}


@pytest.fixture
def good() -> Verdict:
    """Give a verdict over a campaign in which nothing went wrong."""
    streamed = [Streamed("tag", seq, 1000 * seq) for seq in range(10)]
    return Verdict(
        acknowledged=NUMBERS,
        sent=NUMBERS,
        streamed=streamed,
        in_store=Counter(NUMBERS),
        findings=Counter([Span("sensor_metrics", "tag", 0)]),
        window_counts={("tag", 0): 2, ("tag", 2000): 2, ("tag", 4000): 2},
        windowed=["tag"],
        refused_sent={b"rubbish"},
        refused_kept=Counter([b"rubbish"]),
        account={"totals": TOTALS, "adds_up": True, "exit": 0},
        recoveries=(Recovery("kill kafka", 3.0),),
        peaks_mib={"ingest": 50.0},
    )


def test_same_seed_gives_the_same_faults_and_another_seed_others():
    assert list(kills(7, PARTS, count=30)) == list(kills(7, PARTS, count=30))
    assert list(kills(7, PARTS, count=30)) != list(kills(8, PARTS, count=30))
    drawn = [list(outages(7, SERVERS, pause_s=12.0)) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_kills_hit_every_part_about_equally_alone_and_in_pairs():
    drawn = list(kills(1, PARTS, count=60))
    hit = Counter(blow.part for fault in drawn for blow in fault.blows)
    assert max(hit.values()) - min(hit.values()) <= 2
    assert {len(fault.blows) for fault in drawn} == {1, 2}
    assert all(len({blow.part for blow in fault.blows}) == len(fault.blows) for fault in drawn)
    assert drawn[-1].must_recover


def test_outages_have_every_server_killed_and_frozen_and_every_pair_in_both_orders():
    drawn = list(outages(1, SERVERS, pause_s=12.0))
    alone = {fault.blows[0] for fault in drawn if len(fault.blows) == 1}
    assert alone == {
        *(Blow("kill", one) for one in SERVERS),
        *(Blow("pause", one) for one in SERVERS),
        Blow("step_down", "mongo"),
    }
    pairs = {tuple(blow.part for blow in fault.blows) for fault in drawn if len(fault.blows) == 2}
    assert pairs == {(a, b) for a in SERVERS for b in SERVERS if a != b}


def test_moves_leave_one_of_each_role_at_work():
    working = {"server1", "analysis1"}
    names = [f"{role}{number}" for role in ("server", "analysis") for number in (1, 2, 3)]
    for move in moves(3, names, count=200):
        (working.add if move.verb == "start" else working.remove)(move.process)
        assert {name[:-1] for name in working} == {"server", "analysis"}


def test_mixture_hits_everything_in_a_long_run():
    drawn = islice(mixture(1, PARTS, SERVERS, every_s=30.0, pause_s=12.0), 120)
    blows = {blow for fault in drawn for blow in fault.blows}
    assert blows >= {Blow(verb, one) for verb in ("kill", "pause") for one in (*PARTS, *SERVERS)}


def test_windows_due_leave_out_late_readings_and_windows_that_are_not_over():
    streamed = [Streamed("tag", 0, 500), Streamed("tag", 1, 4500), Streamed("tag", 2, 600)]
    assert windows_due(streamed) == {("tag", 0): 1}


def test_verdict_has_no_complaint_where_all_is_well(good):
    assert good.complaints() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"acknowledged": NUMBERS | {("tag", 10)}}, "acknowledged and not stored"),
        ({"in_store": Counter([*NUMBERS, ("tag", 3)])}, "stored twice"),
        ({"in_store": Counter([*NUMBERS, ("ghost", 3)])}, "stored and never sent"),
        ({"streamed": [Streamed("tag", 3, 0)] * 2}, "twice in the stream"),
        ({"findings": Counter([Span("sensor_metrics", "tag", 0)] * 2)}, "findings stored twice"),
        ({"window_counts": {("tag", 0): 2, ("tag", 2000): 2}}, "windows without a finding"),
        ({"refused_kept": Counter()}, "refused and not kept"),
        ({"recoveries": (Recovery("kill kafka", RECOVERY_S_MAX + 1),)}, "recovery after"),
        ({"peaks_mib": {"ingest2": RSS_MIB_MAX["ingest"] + 1}}, "bound"),
        ({"endings": ("ingest: why",)}, "ended by itself"),
        (
            {"account": {"totals": TOTALS, "adds_up": False, "exit": 5}},
            "the account does not add up",
        ),
        (
            {"account": {"totals": {**TOTALS, "missing": 1}, "adds_up": True, "exit": 0}},
            "missing by the account",
        ),
    ],
)
def test_verdict_names_what_went_wrong(good, change, complaint):
    assert any(complaint in text for text in replace(good, **change).complaints())
