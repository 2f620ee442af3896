"""Claims about several ingest slots on one stream: what each finds again of its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from matchday.clock import ManualClock, SystemClock
from matchday.domain.account import Counts, LedgerRecord, decode_ledger, encode_ledger
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Scalar, numbering_of
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.ingest import tails
from matchday.ingest.adapters import Adapters
from matchday.ingest.bridge import Bridge, BridgePolicy
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.numbering import Verdict
from matchday.ingest.sweeps import Sweeps
from matchday.ingest.tails import names_since, tail_of
from matchday.ingest.warmup import warm
from matchday.ports import Deliveries, LinkState, Record, Start
from matchday.protocols.redelivery import Doubt
from matchday.stream.embedded import EmbeddedStream
from servers.process import wait_until

WINDOW_MS = 120_000
NUMBERING = numbering_of(Scalar(source="s", t_ms=0, quantity="q", value=0.0, seq=0))


class Ground:
    """An embedded stream on a clock moved by hand, and what slots wrote to it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.stream = EmbeddedStream(folder, clock=self.clock)
        self.stream.prepare()
        self._producers = {name: self.stream.producer(name) for name in ("a", "b")}
        self._tick_count = 0

    def tick(
        self, slot: str, source: str, seqs: Sequence[int], *, with_snapshot: bool = False
    ) -> str:
        """Commit readings of a source as a bridge does; gives the tick's name."""
        self._tick_count += 1
        name, now_ms = f"run-{self._tick_count}", self.clock.wall_ms()
        readings = [
            Scalar(source=source, t_ms=1000 * seq, quantity="q", value=1.0, seq=seq) for seq in seqs
        ]
        counts = {source: Counts(accepted=len(readings))} if readings else {}
        ledger = LedgerRecord(slot=slot, tick=name, ts=iso_from_ms(now_ms), counts=counts)
        records = [Record(slot.encode(), encode_ledger(ledger))]
        if with_snapshot:
            known = Identities(window_ms=WINDOW_MS, entries_min=1)
            known.observe_number(source, NUMBERING, seqs[-1], 1000 * seqs[-1])
            records += Sweeps(known).records(slot=slot, tick=name, ts_ms=now_ms, now_s=0.0)
        self._producers[slot].commit(
            {
                Topic.ANALYTICS: [Record(b"k", encode_reading(one)) for one in readings],
                Topic.LEDGER: records,
            }
        )
        return name

    def warmed(self, slot: str) -> Identities:
        identities = Identities(window_ms=WINDOW_MS, entries_min=1)
        warm(
            self.stream,
            slot,
            slot_count=2,
            identities=identities,
            doubt=Doubt(entries_max=10),
            window_ms=WINDOW_MS,
            entries_min=1,
        )
        return identities


def last_numbers(identities: Identities) -> dict[str, dict[str, tuple[int, int]]]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    keys = identities.keys()
    identities.tell(keys, 0, len(keys), into=found, most=len(keys), chars_max=10**9, is_whole=True)
    return found


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setattr(tails, "LEDGER_TAIL_COUNT", 10)
    made = Ground(tmp_path)
    yield made
    made.stream.close()


def test_slot_finds_its_own_tail_however_much_other_slots_wrote_since(ground: Ground):
    ground.tick("a", "s", [1, 2], with_snapshot=True)
    ground.tick("a", "s", [3, 4, 5])
    for seq in range(300):
        ground.clock.advance(60)
        ground.tick("b", "other", [seq], with_snapshot=seq % 50 == 0)
    identities = ground.warmed("a")
    # What the broker had no acknowledgement for comes again, after the last snapshot.
    assert identities.observe_number("s", NUMBERING, 4, 4000)[:2] == (Verdict.DUPLICATE, 0)
    assert identities.observe_number("s", NUMBERING, 5, 5000)[:2] == (Verdict.DUPLICATE, 0)
    assert identities.observe_number("s", NUMBERING, 8, 8000)[:2] == (Verdict.NEW, 2)


def test_source_that_moved_to_another_slot_is_known_there(ground: Ground):
    ground.tick("a", "s", [1, 2, 3], with_snapshot=True)
    ground.tick("b", "other", [1], with_snapshot=True)
    identities = ground.warmed("b")
    assert identities.observe_number("s", NUMBERING, 3, 3000)[:2] == (Verdict.DUPLICATE, 0)
    assert identities.observe_number("s", NUMBERING, 6, 6000)[:2] == (Verdict.NEW, 2)


def test_source_silent_for_longer_than_the_window_is_known_after_a_move(ground: Ground):
    ground.tick("a", "s", [1, 2, 3], with_snapshot=True)
    ground.clock.advance(3600)
    ground.tick("b", "other", [1], with_snapshot=True)
    identities = ground.warmed("b")
    assert identities.observe_number("s", NUMBERING, 6, 6000)[:2] == (Verdict.NEW, 2)


def test_last_numbers_are_those_of_own_sources_and_of_sources_that_came(ground: Ground):
    ground.tick("a", "s", [1, 2, 3], with_snapshot=True)
    ground.tick("b", "other", [1], with_snapshot=True)
    identities = ground.warmed("b")
    assert set(last_numbers(identities)) == {"other"}
    identities.observe_number("s", NUMBERING, 4, 4000)
    assert last_numbers(identities)["s"] == {NUMBERING: (4, 4000)}


def test_sources_of_other_slots_are_forgotten_after_two_windows(ground: Ground):
    ground.tick("a", "s", [1, 2, 3], with_snapshot=True)
    ground.tick("b", "other", [1], with_snapshot=True)
    identities = ground.warmed("b")
    for number in range(4):
        identities.turn(number * (WINDOW_MS + 1))
        identities.observe_number("other", NUMBERING, 2 + number, 2000 + number)
    # It has said much elsewhere meanwhile, which is not missing.
    assert identities.observe_number("s", NUMBERING, 900, 900_000)[:2] == (Verdict.NEW, 0)
    assert identities.observe_number("other", NUMBERING, 5, 2003)[:2] == (Verdict.DUPLICATE, 0)


def test_tick_in_doubt_is_found_behind_what_other_slots_wrote(ground: Ground):
    ground.tick("a", "s", [1], with_snapshot=True)
    known = tail_of(ground.stream, "a", slot_count=2).ends
    assert names_since(ground.stream, "a", known, count=2) == []
    for seq in range(50):
        ground.tick("b", "other", [seq])
    assert names_since(ground.stream, "a", known, count=2) == []
    name = ground.tick("a", "s", [2])
    for seq in range(50):
        ground.tick("b", "other", [seq])
    assert names_since(ground.stream, "a", known, count=2) == [name]


class SilentFeed:
    """A feed that is connected and has nothing to say."""

    def __init__(self, *, is_up: bool) -> None:
        self._is_up = is_up

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        threading.Event().wait(0.005)
        return []

    def acknowledge(self, deliveries: Deliveries) -> None:
        raise AssertionError("nothing was delivered")

    def keep_alive(self) -> None:
        pass

    def link(self) -> LinkState:
        return LinkState("mqtt", self._is_up, 0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("slot_count", "is_up", "is_marked"), [(2, True, True), (2, False, False), (1, True, False)]
)
def test_idle_slot_leaves_a_sign_among_those_of_others_only_while_connected(
    tmp_path: Path, slot_count: int, is_up: bool, is_marked: bool
):
    clock = SystemClock()
    stream = EmbeddedStream(tmp_path, clock=clock)
    stream.prepare()
    bridge = Bridge(
        lambda: SilentFeed(is_up=is_up),
        stream,
        policy=BridgePolicy(slot="a", slot_count=slot_count),
        adapters=Adapters(),
        gate=GatePolicy(),
        clock=clock,
        rng=random.Random(1),
    )
    stop = threading.Event()
    thread = threading.Thread(target=bridge.run, args=(stop,), name="test.bridge")
    thread.start()
    reader = stream.reader([Topic.LEDGER], Start.beginning())
    try:
        wait_until(lambda: bridge.state == "running", what="the slot is bridged")
        found = reader.poll(timeout_s=5.0 if is_marked else 0.5, records_max=10)
    finally:
        stop.set()
        thread.join(10)
        reader.close()
        stream.close()
    assert {decode_ledger(record.value).slot for record in found} == ({"a"} if is_marked else set())
