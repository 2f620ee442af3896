"""How benchmarks turn numbers into tables, pictures and a model of a deployment."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from all import SHORT, Answer, scripts, section, tables
from model import CELL_PER_S, Load, Sizes, fit, needs, planned, predicted, touched, values
from plots import Bars, Curves, draw, medians, picture


def test_cpu_columns_become_stacked_bars_of_medians_without_the_sums():
    rows = [
        {"system": "matchday", "messages": 9, "CPU programs": cpu, "CPU Kafka": 2.0,
         "CPU together": 9.0, "CPU machine": 9.0}
        for cpu in (1.0, 5.0, 3.0)
    ]  # fmt: skip
    [bars] = picture("hop 1", rows)
    assert isinstance(bars, Bars)
    assert bars.rows == {"matchday": {"programs": 3.0, "Kafka": 2.0}}


def test_a_sum_of_programs_is_left_out_where_all_of_them_are_named():
    row = {"system": "both", "CPU programs": 3.0, "CPU ingest": 1.0, "CPU persist": 2.0}
    [bars] = picture("whole", [row])
    assert isinstance(bars, Bars)
    assert bars.rows["both"] == {"ingest": 1.0, "persist": 2.0}


def test_a_rate_raised_step_by_step_becomes_curves_over_the_rate():
    rows = [
        {"system": f"matchday {rate}/s", "messages/s": rate, "CPU ingest": 1.0 + rate / 1000}
        for rate in (5000, 10000)
    ]
    [curves] = picture("ramp", rows)
    assert isinstance(curves, Curves)
    assert curves.lines == {"ingest": [(5000.0, 6.0), (10000.0, 11.0)]}


def test_percentiles_become_curves_over_their_names():
    [curves] = picture("latency", [{"system": "store", "p50 ms": 10.0, "p99 ms": 30.0}])
    assert isinstance(curves, Curves)
    assert curves.lines == {"store": [(0.0, 10.0), (1.0, 30.0)]}
    assert list(curves.ticks.values()) == ["p50", "p99"]


def test_every_picture_is_well_formed_whatever_labels_say():
    plots = [
        Bars("<CPU>", {"a & b": {"<x>": 1.0, "y": 0.0}}),
        Curves("empty", {}, {}),
        Curves("one point", {"<l>": [(1.0, 2.0)]}, {1.0: "<1>"}),
    ]
    assert ElementTree.fromstring(draw(plots)).tag.endswith("svg")


def test_medians_keep_the_order_of_labels_and_skip_text():
    rows = [
        {"system": "b", "ms": 3.0, "last link": "store"},
        {"system": "a", "ms": 1.0},
        {"system": "b", "ms": 1.0},
    ]
    assert list(medians(rows).items()) == [("b", {"ms": 2.0}), ("a", {"ms": 1.0})]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"figures": {"part": [{"system": "s", "x": 1}]}}, {"part": [{"system": "s", "x": 1}]}),
        ({"rows": [{"part": "p", "service": "s", "x": 1}]}, {"p": [{"system": "s", "x": 1}]}),
        ({"a step": 1.5}, {"": [{"system": "a step", "microseconds": 1.5}]}),
        (None, {}),
    ],
)
def test_all_forms_of_an_answer_become_tables(figures, expected):
    assert tables(figures) == expected


def test_a_script_that_failed_is_named_with_its_error():
    answer = Answer("hop1", ["--rounds=1"], "2026-11-22T00:00:00+00:00", 0.5, 3.0, "stuck", None)
    text = "\n".join(section(answer, None))
    assert "benchmarks/hop1.py --rounds=1" in text
    assert "stuck" in text
    assert "load 0.5 before it" in text


def test_every_short_form_belongs_to_a_script_that_yields_figures():
    assert set(SHORT) <= set(scripts())
    assert json.loads(json.dumps(vars(Answer("a", [], "", 0.0, 0.0, "", None))))["name"] == "a"


def test_a_fit_finds_the_coefficients_that_made_the_numbers():
    loads = [Load(500), Load(2000), Load(8000), Load(2000, tick_s=0.2), Load(2000, partitions=1)]
    truth = {"rest": 0.01, "rate_per_s": 2e-5, "requests_per_s": 1e-3}
    used = [predicted(truth, load) for load in loads]
    found = fit(loads, used, ("rest", "rate_per_s", "ticks_per_s", "requests_per_s"))
    for name, one in truth.items():
        assert found[name] == pytest.approx(one, rel=1e-6)
    assert found["ticks_per_s"] == pytest.approx(0.0, abs=1e-9)


def test_no_coefficient_is_negative():
    loads = [Load(1000), Load(2000), Load(4000)]
    found = fit(loads, [3.0, 2.0, 1.0], ("rest", "rate_per_s"))
    assert min(found.values()) >= 0


def test_a_tick_writes_to_no_more_partitions_than_it_has_messages():
    assert touched(1, 16) == pytest.approx(1.0)
    assert touched(10_000, 16) == pytest.approx(16.0)
    assert touched(0, 16) == 0.0


def test_a_rate_below_the_tick_commits_once_a_message():
    assert Load(2.0).requests_per_s == pytest.approx(2.0)
    assert values(Load(2.0), ("rest", "ticks_per_s")) == [1.0, 2.0]


def test_a_large_load_is_laid_out_in_equal_cells_that_are_each_within_the_bound():
    cells, load = planned(1_000_000, 10_000_000)
    assert cells == 10
    assert load.rate_per_s == pytest.approx(CELL_PER_S)
    assert load.sources == pytest.approx(1_000_000)
    assert load.slots == load.writers == load.partitions == 4


def test_needs_of_a_small_load_are_those_of_one_cell_with_a_process_a_role():
    roles = {"ingest": {"rest": 0.01, "rate_per_s": 1e-5}}
    found = needs(roles, 10_000, 10, Sizes(stream_b=100.0))
    assert found["messages/s"] == 1000.0
    assert found["cores ingest"] == pytest.approx(0.02)
    assert found["stream GB a day"] == pytest.approx(1000 * 86_400 * 100 / 1e9)


def test_every_process_of_a_role_counts_at_rest():
    roles = {"ingest": {"rest": 0.01, "rate_per_s": 0.0}}
    found = needs(roles, 2_000_000, 1, Sizes())
    assert found["cores ingest"] == pytest.approx(20 * 4 * 0.01)
