"""An analyser that waits for its first reading: nothing is made before, nothing lost after."""

from __future__ import annotations

import subprocess
import sys

from matchday.analysis.analyser import Analyser
from matchday.analysis.deferred import Deferred
from matchday.analysis.policy import AnalysisPolicy
from matchday.analysis.rolling import WindowStatistics
from matchday.analysis.windows import NEVER_MS
from matchday.domain.reading import Reading, Scalar

READINGS: list[Reading] = [
    Scalar(source="s", t_ms=1_700_000_000_000 + 700 * n, quantity="q", value=float(n), seq=n)
    for n in range(60)
]


def run(analyser: Analyser) -> list[object]:
    """Give all that an analyser says about the readings."""
    told: list[object] = []
    for offset, reading in enumerate(READINGS):
        stream_ms = reading.t_ms + 50
        if analyser.deadline_ms <= stream_ms:
            told += analyser.pass_time(stream_ms)
        told += analyser.feed(reading, offset=offset, stream_ms=stream_ms)
        analyser.settle()
        told += [analyser.rewind(offset + 1, stream_ms=stream_ms), *analyser.provisional()]
    return [*told, analyser.take_late(), *analyser.finish()]


def test_before_its_first_reading_it_holds_nothing():
    def make() -> Analyser:
        raise AssertionError("nobody has asked for it")

    analyser = Deferred(make)
    analyser.settle()
    assert analyser.deadline_ms == NEVER_MS
    assert [*analyser.pass_time(5), *analyser.finish(), *analyser.provisional()] == []
    assert analyser.rewind(7, stream_ms=5) == 7
    assert analyser.take_late() == {}


def test_from_its_first_reading_on_it_is_the_analyser_itself():
    policy = AnalysisPolicy()
    assert run(Deferred(lambda: WindowStatistics(policy))) == run(WindowStatistics(policy))


def test_process_without_positions_does_not_load_numpy():
    code = "import sys, matchday.services.together; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
