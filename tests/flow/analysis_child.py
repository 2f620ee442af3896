"""A process that analyses an embedded stream until the end marker's finding is there.

Run as `analysis_child.py FOLDER`. Prints the number of findings committed so far, a line
each time it grows, so that a test can kill it at a chosen point.
"""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

from analysis_scenario import PLAN
from matchday.analysis.worker import Analysis, WorkerPolicy
from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_findings
from matchday.observe import logs
from matchday.ports import Start
from matchday.stream.embedded import EmbeddedStream

END = "end-marker"


def main(folder: Path) -> None:
    """Analyse, report, stop at the end marker."""
    logs.configure(level="error")
    clock = SystemClock()
    stream = EmbeddedStream(folder, clock=clock)
    stream.prepare()
    stop = threading.Event()
    analysis = Analysis(
        stream,
        plan=PLAN,
        clock=clock,
        rng=random.Random(1),
        policy=WorkerPolicy(tick_s=0.0, records_max=40, poll_s=0.05),
        owner="analysis",
    )
    worker = threading.Thread(target=analysis.run, args=(stop,), name="analysis.worker")
    worker.start()
    reader = stream.reader([Topic.RESULTS], Start.beginning())
    count = 0
    while worker.is_alive():
        records = reader.poll(timeout_s=0.05, records_max=100)
        if records:
            count += len(records)
            print(count, flush=True)
        if any(
            one.sensor.startswith(END)
            for record in records
            for one in decode_findings(record.value)
        ):
            stop.set()
            break
    worker.join(30)
    reader.close()
    stream.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
