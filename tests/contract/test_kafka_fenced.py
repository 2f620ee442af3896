"""What fencing does to the process that is fenced: its client is C, with answers on their way."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("confluent_kafka")

from matchday.clock import SystemClock
from matchday.stream.kafka import KafkaStream

OWNERS, CYCLES = 4, 12
CODE = f"""
import random, sys, threading
from matchday.clock import SystemClock
from matchday.domain.topics import Topic
from matchday.errors import FencedError, UnavailableError
from matchday.ports import Record
from matchday.stream.kafka import KafkaStream

stream = KafkaStream(sys.argv[1], clock=SystemClock(), prefix="fenced-", io_timeout_s=10.0)
records = {{Topic.ANALYTICS: [Record(b"k%d" % n, b"x" * 200) for n in range(500)]}}
never = threading.Event()
fenced = []

def fence(owner, after_s):
    never.wait(after_s)
    stream.producer(owner).close()

def be_fenced(owner):
    rng = random.Random(owner)
    for _ in range({CYCLES}):
        producer = stream.producer(owner)
        thread = threading.Thread(target=fence, args=(owner, rng.uniform(0.0, 0.08)))
        thread.start()
        try:
            while True:
                producer.commit(records)
        except FencedError:
            fenced.append(owner)
        except UnavailableError:
            pass
        producer.close()
        thread.join()

threads = [threading.Thread(target=be_fenced, args=(f"owner-{{n}}",)) for n in range({OWNERS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(fenced))
"""


def test_process_outlives_producers_that_were_fenced_amid_a_commit(kafka):
    stream = KafkaStream(kafka.url, clock=SystemClock(), prefix="fenced-")
    stream.prepare()
    stream.close()
    done = subprocess.run(
        [sys.executable, "-c", CODE, kafka.url],
        capture_output=True,
        check=False,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > OWNERS * CYCLES / 2
