"""Claims about what one tick writes."""

from __future__ import annotations

import pytest

from matchday.domain.account import Counts, TailEntry, decode_ledger
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading
from matchday.ingest import tick as module
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.tick import Sorter, Tick
from matchday.ports import Deliveries
from matchday.protocols.redelivery import SESSION_LOST, Doubt

NOW_MS = 1_790_000_000_000


def sorter() -> Sorter:
    return Sorter(
        adapters=Adapters(),
        gate=GatePolicy(),
        identities=Identities(window_ms=120_000, entries_min=1),
        doubt=Doubt(entries_max=100),
        payload_bytes_max=4096,
    )


def deliveries(*payloads: bytes, topic: str, is_resumed: bool = True) -> Deliveries:
    packet_ids = list(range(1, len(payloads) + 1))
    topics = [topic] * len(payloads)
    return Deliveries("", 1, NOW_MS, topics, list(payloads), packet_ids, is_resumed)


def test_backlog_of_a_sensor_without_a_clock_that_began_anew_is_accepted_whole():
    tick = Tick()
    payloads = [
        b'{"quantity":"q","value":%d,"seq":%d}' % (100 * run + seq, seq)
        for run in (1, 2)
        for seq in range(1, 6)
    ]
    sorter().take(tick, deliveries(*payloads, topic="matchday/v/scalar/s"))
    assert tick.sums() == {"s": Counts(accepted=10, renumbered=1)}
    values = [getattr(decode_reading(record.value), "value", None) for record in tick.analytics]
    assert values == [100 * run + seq for run in (1, 2) for seq in range(1, 6)]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("count", b'{"zone":"z","in":3,"seq":5,"t":%d}' % NOW_MS),
        ("positions", b'{"objects":[{"id":"a","x":1,"y":1}],"seq":5,"t":%d}' % NOW_MS),
    ],
)
def test_quantity_called_like_a_kind_is_not_numbered_with_it(kind: str, payload: bytes):
    tick, taker = Tick(), sorter()
    scalar = b'{"quantity":"%s","value":120,"seq":5,"t":%d}' % (kind.encode(), NOW_MS)
    taker.take(tick, deliveries(payload, topic=f"matchday/v/{kind}/gate"))
    taker.take(tick, deliveries(scalar, topic="matchday/v/scalar/gate"))
    assert tick.sums() == {"gate": Counts(accepted=2)}


@pytest.mark.parametrize(("counts", "entries"), [(0, 9), (1, 9), (9, 0), (9, 1), (1, 1), (7, 8)])
def test_ledger_record_above_the_bound_is_several_that_say_the_same(
    monkeypatch: pytest.MonkeyPatch, counts: int, entries: int
):
    monkeypatch.setattr(module, "LEDGER_BYTES_MAX", 200)
    tick = Tick(
        counts={f"s{number}": Counts(accepted=number) for number in range(counts)},
        tail=[TailEntry("x" * 50, number, "d") for number in range(entries)],
    )
    outputs = tick.outputs(slot="a", tick="run-1", ts_ms=NOW_MS)
    records = [decode_ledger(record.value) for record in outputs[Topic.LEDGER]]
    assert {(record.slot, record.tick) for record in records} == {("a", "run-1")}
    assert [entry for record in records for entry in record.tail] == tick.tail
    found = [item for record in records for item in record.counts.items()]
    assert found == list(tick.counts.items())
    assert len(records) > 1 or counts + entries == 2
    assert all(record.counts or record.tail for record in records)


def test_lost_session_of_a_broker_is_noted_before_what_came_after_it():
    tick, taker = Tick(), sorter()
    for _ in range(2):
        taker.take(tick, deliveries(b"temp: 21.5", topic="sensor/data", is_resumed=False))
    assert tick.tail[0] == SESSION_LOST
    assert tick.tail[1:] == [TailEntry("", 1, tick.tail[1].digest)] * 2
