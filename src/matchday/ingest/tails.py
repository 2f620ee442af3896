"""The end of the ledger as one slot sees it, where other slots write between its own records.

Owns how far back to read, so that a slot finds what it wrote last however much others wrote
since. Does not own what follows from it (`warmup`, `protocols.ticks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from matchday.domain.account import LedgerRecord, decode_ledger
from matchday.domain.topics import Topic
from matchday.ingest.sweeps import SweepsRead
from matchday.ports import Partition, Start, Stream, StreamRecord

LEDGER_TAIL_COUNT = 8000
"""Ledger offsets read back for each slot at first: more than `sweeps.WHOLE_TICKS` ticks with a
record and Kafka's own mark each, so that a whole sweep through few numberings is among them.
Of many it is further back."""

TAIL_COUNT_MAX = 512_000
"""Ledger offsets read back at most for a slot that is not found: one that is new, or was
without an owner for hours while others worked."""

_FURTHER = 8
_POLL_S = 0.5
_RECORDS_MAX = 2000


@dataclass(frozen=True)
class Tail:
    """The newest part of the ledger.

    Attributes:
        own: The slot's records, oldest first.
        all: The records of every slot, oldest first.
        own_at_ms: Stream times of these.
        newest_ms: Stream time of the newest record of all; None where there is none.
        sweeps: What the slot's records say of its sweeps.
        begins: Where reading began.
        ends: Where the ledger ended.
    """

    own: Sequence[LedgerRecord]
    all: Sequence[LedgerRecord]
    own_at_ms: Sequence[int]
    newest_ms: int | None
    sweeps: SweepsRead
    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]


def tail_of(stream: Stream, slot: str, *, slot_count: int) -> Tail:
    """Read back to the slot's newest whole sweep, which holds the last numbers of its sources.

    One slot alone is hardly ever further back than its own ticks reach. Among several it can
    be, and is then looked for further back, up to `TAIL_COUNT_MAX` offsets.

    Raises:
        UnavailableError: The stream stopped answering; begin again.
    """

    def is_enough(tail: Tail) -> bool:
        """Tell whether the last numbers of all sources are in it, or a lone slot has none."""
        return tail.sweeps.is_whole or (slot_count == 1 and not tail.own)

    count = LEDGER_TAIL_COUNT * slot_count
    return _read_back(stream, slot, is_enough, count=count, count_max=TAIL_COUNT_MAX)


def names_since(
    stream: Stream, slot: str, known: Mapping[Partition, int], *, count: int
) -> list[str]:
    """Give the names of the slot's newest records since `known`, oldest first.

    The very newest is among them, if there is any: records of a slot are in the order of its
    ticks, so one of them proves that nothing newer is hidden further back.

    Args:
        stream: Whose ledger.
        slot: Whose ticks.
        known: Where the ledger ended when the slot was taken over.
        count: How many offsets to read first.

    Raises:
        UnavailableError: The stream stopped answering; begin again.
    """

    def is_enough(tail: Tail) -> bool:
        """Tell whether a record of the slot is in it, or everything since `known`."""
        return bool(tail.own) or all(at <= known.get(place, 0) for place, at in tail.begins.items())

    tail = _read_back(stream, slot, is_enough, count=count, count_max=None, since=known)
    return [record.tick for record in tail.own]


def slots_seen(stream: Stream) -> dict[str, int]:
    """Give the slots that wrote near the end of the ledger, each with its newest record's time.

    Raises:
        UnavailableError: The stream does not answer.
    """
    reader = stream.reader([Topic.LEDGER], Start.last(LEDGER_TAIL_COUNT))
    found: dict[str, int] = {}
    try:
        while not reader.is_at_end():
            for record in reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX):
                found[record.key.decode(errors="replace")] = record.time_ms
    finally:
        reader.close()
    return found


def _read_back(
    stream: Stream,
    slot: str,
    is_enough: Callable[[Tail], bool],
    *,
    count: int,
    count_max: int | None,
    since: Mapping[Partition, int] = MappingProxyType({}),
) -> Tail:
    """Read the newest offsets, and ever more of them until it is enough or there are no more."""
    oldest = _beginning(stream)
    while True:
        tail = _read(stream, slot, count, since)
        is_whole = all(at <= oldest[place] for place, at in tail.begins.items())
        if is_whole or is_enough(tail) or (count_max is not None and count >= count_max):
            return tail
        count *= _FURTHER


def _read(stream: Stream, slot: str, count: int, since: Mapping[Partition, int]) -> Tail:
    reader = stream.reader([Topic.LEDGER], Start.last(count))
    records: list[StreamRecord] = []
    try:
        begins = dict(reader.offsets())
        while not reader.is_at_end(is_strict=True):
            records += reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX)
        ends = dict(reader.offsets())
    finally:
        reader.close()
    own: list[tuple[int, LedgerRecord]] = []
    every: list[LedgerRecord] = []
    for record in records:
        if record.offset < since.get(Partition(record.topic, record.partition), 0):
            continue
        try:
            decoded = decode_ledger(record.value)
        except msgspec.MsgspecError:
            continue  # written by another program; persist reports and dead-letters it
        every.append(decoded)
        if decoded.slot == slot:
            own.append((record.time_ms, decoded))
    newest_ms = max((record.time_ms for record in records), default=None)
    return Tail(
        own=[decoded for _, decoded in own],
        all=every,
        own_at_ms=[time_ms for time_ms, _ in own],
        newest_ms=newest_ms,
        sweeps=SweepsRead(own),
        begins=begins,
        ends=ends,
    )


def _beginning(stream: Stream) -> Mapping[Partition, int]:
    reader = stream.reader([Topic.LEDGER], Start.beginning())
    try:
        return dict(reader.offsets())
    finally:
        reader.close()
