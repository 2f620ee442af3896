"""What was written before is read back and known again, by releases before this one too."""

from __future__ import annotations

from pathlib import Path

from matchday.clock import ManualClock
from matchday.domain.account import LedgerRecord, SweepPiece, encode_ledger
from matchday.domain.topics import Topic
from matchday.ingest.identity import Identities
from matchday.ingest.numbering import Verdict
from matchday.ingest.replay import noted
from matchday.ingest.runs import LATE
from matchday.ingest.warmup import warm
from matchday.ports import Record
from matchday.protocols.redelivery import Doubt
from matchday.stream.embedded import EmbeddedStream

WINDOW_MS = 120_000
T0_MS = 1_700_000_000_000

# Numbers 100, 101, 105, then begun anew at 0, 1, and one more of the run before.
READINGS = [
    b'{"v":1.0,"ts":"2023-11-14T22:13:20.000Z","sensor":"s","quantity":"q","seq":100,"venue":"v"}',
    b'{"v":1.0,"ts":"2023-11-14T22:13:20.001Z","sensor":"s","quantity":"q","seq":101,"venue":"v"}',
    b'{"v":1.0,"ts":"2023-11-14T22:13:20.002Z","sensor":"s","quantity":"q","seq":105,"venue":"v"}',
    b'{"v":1.0,"ts":"2023-11-14T22:13:20.003Z","sensor":"s","quantity":"q","seq":0,"venue":"v"}',
    b'{"v":1.0,"ts":"2023-11-14T22:13:20.004Z","sensor":"s","quantity":"q","seq":1,"venue":"v"}',
    b'{"v":1.0,"ts":"2023-11-14T22:13:20.001Z","sensor":"s","quantity":"q","seq":50,"venue":"v"}',
]
SAID = [(100, 0), (101, 1), (105, 2), (0, 3), (1, 4), (50, 1)]
TICK = (
    b'{"slot":"a","tick":"t1","ts":"2023-11-14T22:13:20.000Z",'
    b'"counts":{"s":[6,0,0,0,0,51,1,0,0]},'
    b'"last_seq":{"s":{"q":[50,1700000000001]},"quiet":{"q":[41,1700000000000]}}}'
)


def warmed(stream: EmbeddedStream) -> Identities:
    known = Identities(window_ms=WINDOW_MS, entries_min=1)
    doubt = Doubt(entries_max=10)
    settings = {"identities": known, "doubt": doubt, "window_ms": WINDOW_MS, "entries_min": 1}
    warm(stream, "a", slot_count=1, **settings)
    return known


def test_readings_and_last_numbers_of_before_are_known_whatever_runs_they_were_taken_for(
    tmp_path: Path,
):
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    stream.prepare()
    producer = stream.producer("matchday-ingest-a")
    producer.commit(
        {
            Topic.ANALYTICS: [Record(b"s", value) for value in READINGS],
            Topic.LEDGER: [Record(b"a", TICK)],
        }
    )
    producer.close()
    known = warmed(stream)
    for seq, t_ms in SAID:
        outcome = known.observe_number("s", "q", seq, T0_MS + t_ms)
        assert outcome[:2] == (Verdict.DUPLICATE, 0), (seq, t_ms)
    assert known.observe_number("s", "q", 104, T0_MS + 2)[:2] == (Verdict.NEW, -1)
    # What was counted for the leap from 1 to 50, which was none, is taken back.
    assert known.observe_number("s", "q", 2, T0_MS + 5)[:2] == (Verdict.NEW, -48)
    assert known.observe_number("quiet", "q", 44, T0_MS + 9)[:2] == (Verdict.NEW, 2)
    stream.close()


def test_late_readings_are_known_where_nothing_else_of_their_source_is_read_back(tmp_path: Path):
    stream = EmbeddedStream(tmp_path, clock=ManualClock())
    stream.prepare()
    producer = stream.producer("matchday-ingest-a")
    sweep = LedgerRecord(
        slot="a",
        tick="t1~0",
        ts="2023-11-14T22:13:20.000Z",
        sweep=SweepPiece(is_whole=True, is_first=True, is_last=True, is_noted=True),
    )
    producer.commit(
        {
            Topic.ANALYTICS: [Record(b"s", READINGS[1], noted(LATE))],
            Topic.LEDGER: [Record(b"a", encode_ledger(sweep))],
        }
    )
    producer.close()
    known = warmed(stream)
    assert known.observe_number("s", "q", 101, T0_MS + 1)[:2] == (Verdict.DUPLICATE, 0)
    stream.close()
