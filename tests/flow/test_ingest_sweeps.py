"""Claims about the sweeps through last numbers: what they write, and that a restart finds it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ingest_following import follows
from matchday.clock import ManualClock
from matchday.domain.account import Counts, LedgerRecord, decode_ledger, encode_ledger
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.ingest import sweeps, tails
from matchday.ingest.identity import Identities
from matchday.ingest.sweeps import SWEEP_EVERY_S, Sweeps, SweepsRead
from matchday.ingest.warmup import warm
from matchday.ports import Record
from matchday.protocols.redelivery import Doubt
from matchday.stream.embedded import EmbeddedStream

WINDOW_MS = 5_000
QUANTITY = "q"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that a hundred sources meet all of them."""
    monkeypatch.setattr(sweeps, "PIECE_MAX", 7)
    monkeypatch.setattr(sweeps, "VISITS_MAX", 20)
    monkeypatch.setattr(sweeps, "WHOLE_TICKS", 20)
    monkeypatch.setattr(sweeps, "WHOLE_TICKS_MAX", 60)
    monkeypatch.setattr(tails, "LEDGER_TAIL_COUNT", 40)


def identities() -> Identities:
    return Identities(window_ms=WINDOW_MS, entries_min=1)


def swept(by: Sweeps, now_s: float) -> LedgerRecord | None:
    found = by.records(slot="a", tick="t", ts_ms=0, now_s=now_s)
    return decode_ledger(found[0].value) if found else None


class Owner:
    """Commits readings as a bridge does, from what a warm start found."""

    def __init__(self, stream: EmbeddedStream, clock: ManualClock) -> None:
        self._stream, self._clock = stream, clock
        self._producer = stream.producer("matchday-ingest-a")
        self.known = identities()
        warm(
            stream,
            "a",
            slot_count=1,
            identities=self.known,
            doubt=Doubt(entries_max=10),
            window_ms=WINDOW_MS,
            entries_min=1,
        )
        self._sweeps = Sweeps(self.known)
        self._count = 0

    def tick(self, readings: list[Scalar]) -> None:
        self._count += 1
        for one in readings:
            assert one.seq is not None
            missing = self.known.observe_number(one.source, QUANTITY, one.seq, one.t_ms).missing
            assert missing == 0, f"{one.source} {one.seq}: {missing} taken for missing"
        now_ms, name = self._clock.wall_ms(), f"run-{id(self)}-{self._count}"
        counts = {one.source: Counts(accepted=1) for one in readings}
        ledger = LedgerRecord(slot="a", tick=name, ts=iso_from_ms(now_ms), counts=counts)
        self._producer.commit(
            {
                Topic.ANALYTICS: [Record(b"k", encode_reading(one)) for one in readings],
                Topic.LEDGER: [
                    Record(b"a", encode_ledger(ledger)),
                    *self._sweeps.records(
                        slot="a",
                        tick=name,
                        ts_ms=now_ms,
                        now_s=self._clock.monotonic_s(),
                        tick_bytes=len(encode_ledger(ledger)),
                    ),
                ],
            }
        )
        self.known.turn(now_ms)

    def end(self) -> None:
        self._producer.close()


@pytest.mark.parametrize("seed", range(6))
def test_every_last_number_is_known_after_a_restart_at_any_moment(
    tmp_path: Path, small: None, seed: int
):
    rng, clock = random.Random(seed), ManualClock()
    stream = EmbeddedStream(tmp_path, clock=clock)
    stream.prepare()
    last: dict[str, int] = {}
    owner = Owner(stream, clock)
    for _ in range(400):
        # Now and then a pause as long as several sweeps; many sources, few of them busy.
        clock.advance(rng.choice([0.05, 0.05, 0.05, 1.0, 10.0, 500.0]))
        readings = []
        for _ in range(rng.randint(1, 3)):
            source = f"s{min(int(rng.expovariate(0.05)), 99)}"
            last[source] = last.get(source, 0) + 1
            at_ms = clock.wall_ms() + len(readings)
            readings.append(
                Scalar(source=source, t_ms=at_ms, quantity=QUANTITY, value=1.0, seq=last[source])
            )
        owner.tick(readings)
        if rng.random() < 0.05:
            owner.end()
            owner = Owner(stream, clock)
    owner.end()
    found = Owner(stream, clock).known
    for source, seq in last.items():
        assert found.observe_number(source, QUANTITY, seq + 2, clock.wall_ms() + seq)[1] == 1
    stream.close()


def test_few_sources_are_written_whole_in_one_piece_once_a_minute():
    known = identities()
    for number in range(10):
        known.observe_number(f"s{number}", QUANTITY, 1, 1)
    by = Sweeps(known)
    first = swept(by, 0.0)
    assert first is not None
    assert first.sweep is not None
    assert (first.sweep.is_whole, first.sweep.is_first, first.sweep.is_last) == (True, True, True)
    assert len(first.last_seq) == 10
    assert swept(by, SWEEP_EVERY_S - 1) is None
    again = swept(by, SWEEP_EVERY_S)
    assert again is not None
    assert len(again.last_seq) == 10


def test_of_many_silent_sources_only_those_heard_are_written_again():
    known = identities()
    for number in range(20_000):
        known.observe_number(f"s{number}", QUANTITY, 1, 1)
    by = Sweeps(known)
    whole = [swept(by, 0.0) for _ in range(5)]
    assert [len(one.last_seq) if one else 0 for one in whole] == [5000, 5000, 5000, 5000, 0]
    known.observe_number("s17", QUANTITY, 2, 2)
    assert follows(known, "s18", QUANTITY, 2, 2)
    short = swept(by, SWEEP_EVERY_S)
    assert short is not None
    assert short.last_seq == {"s17": {QUANTITY: (2, 2)}, "s18": {QUANTITY: (2, 2)}}
    assert swept(by, SWEEP_EVERY_S + 1) is None


def test_many_are_written_whole_when_the_ticks_have_added_twice_their_size():
    known = identities()
    for number in range(6000):
        known.observe_number(f"s{number}", QUANTITY, 1, 1)
    by = Sweeps(known)
    first = [swept(by, 0.0) for _ in range(2)]
    size_bytes = sum(len(encode_ledger(one)) for one in first if one is not None)
    kinds = []
    for minute in range(1, 4):
        found = by.records(
            slot="a",
            tick="t",
            ts_ms=0,
            now_s=minute * SWEEP_EVERY_S,
            tick_bytes=size_bytes - 1,
        )
        piece = decode_ledger(found[0].value).sweep
        assert piece is not None
        kinds.append(piece.is_whole)
    assert kinds == [False, False, True]


def test_no_tick_carries_more_than_a_piece_or_looks_at_more_than_its_share(small: None):
    known = identities()
    for number in range(100):
        known.observe_number(f"s{number}", QUANTITY, 1, 1)
    by = Sweeps(known)
    sizes = [len(one.last_seq) for _ in range(30) if (one := swept(by, 0.0)) is not None]
    assert sizes == [7] * 14 + [2]
    assert [swept(by, SWEEP_EVERY_S) is None for _ in range(6)] == [False] * 5 + [True]


def test_a_sweep_that_was_not_ended_proves_nothing():
    known = identities()
    for number in range(12_000):
        known.observe_number(f"s{number}", QUANTITY, 1, 1)
    pieces = [swept(Sweeps(known), 0.0)]
    by = Sweeps(known)
    pieces += [swept(by, 0.0) for _ in range(3)]
    at = [(ms, one) for ms, one in enumerate(pieces) if one is not None]
    assert SweepsRead(at[:3]).since_ms is None
    assert not SweepsRead(at[:3]).is_whole
    assert SweepsRead(at).since_ms == 1
    assert SweepsRead(at).is_whole
    assert not SweepsRead(at[2:]).is_whole


def test_snapshots_of_a_version_before_sweeps_are_taken_for_whole_ones():
    older = LedgerRecord(slot="a", tick="run-1-snapshot-0", ts="", last_seq={"s": {"q": (1, 1)}})
    assert SweepsRead([(7, older)]).is_whole
    assert SweepsRead([(7, older)]).since_ms == 7
