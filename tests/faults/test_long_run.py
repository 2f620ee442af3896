"""The short form of the long run: minutes of mixed load instead of an hour, same verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from faults.campaign import ROUNDS, SEED
from faults.conftest import Starters

pytestmark = pytest.mark.timeout(600 * ROUNDS)

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "long_run.py"
MINUTES = 2
EVERY_S = 12


def test_short_long_run_ends_well_and_writes_its_report(start: Starters, tmp_path: Path):
    report = tmp_path / "long-run.md"
    options = {
        "--minutes": MINUTES * ROUNDS,
        "--every": EVERY_S,
        "--seed": SEED,
        "--report": report,
    }
    words = [str(word) for pair in options.items() for word in pair]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    text = report.read_text(encoding="utf-8")
    assert "| of them not stored | 0 |" in text
    assert "| stored twice | 0 |" in text
    assert text.count("recovered after") >= 3
    assert report.with_suffix(".svg").read_text(encoding="utf-8").startswith("<svg")
