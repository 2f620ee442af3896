"""Rebuild what ingest knew from the stream itself: the tail of what was written last.

Called after the old owner is fenced and before the first message is taken, so nothing can
be added behind what is read here.
"""

from __future__ import annotations

import msgspec

from matchday.domain.account import LedgerRecord, TailEntry, decode_ledger
from matchday.domain.reading import numbering_of
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading, encode_reading
from matchday.errors import RefusedError, UnavailableError
from matchday.ingest.identity import Doubt, Identities, Verdict
from matchday.ports import Reader, Start, Stream, StreamRecord

LEDGER_TAIL_COUNT = 8000
"""Ledger offsets read back: more than `bridge.SNAPSHOT_EVERY_TICKS` ticks with a record and
Kafka's own mark each, so that the newest snapshot is among them."""

TAIL_TICKS = 2
"""Ticks of a publisher at our own endpoint that are in doubt after a restart."""

_POLL_S = 0.5
_RECORDS_MAX = 2000


def read_to_end(reader: Reader) -> list[StreamRecord]:
    """Read everything that was committed before now; closes the reader.

    Raises:
        UnavailableError: The stream stopped answering; begin again.
    """
    records: list[StreamRecord] = []
    try:
        while not reader.is_at_end():
            records.extend(reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX))
    finally:
        reader.close()
    return records


def newest_ticks(stream: Stream, slot: str, *, count: int) -> list[LedgerRecord]:
    """Give the newest ledger records of a slot, oldest first."""
    reader = stream.reader([Topic.LEDGER], Start.last(count))
    records = (_ledger_or_none(record.value) for record in read_to_end(reader))
    return [record for record in records if record is not None and record.slot == slot]


def warm(
    stream: Stream,
    slot: str,
    *,
    identities: Identities,
    doubt: Doubt,
    window_ms: int,
    entries_min: int,
) -> None:
    """Fill the duplicate window and the doubt from the end of the stream.

    The window counts back from the newest ledger record, not from now: what a broker
    holds back is as old as the last commit, however long nobody was here.

    Raises:
        UnavailableError: The stream stopped answering; begin again with new state.
    """
    reader = stream.reader([Topic.LEDGER], Start.last(LEDGER_TAIL_COUNT))
    ledger = read_to_end(reader)
    if ledger:
        since_ms = max(record.time_ms for record in ledger) - window_ms
        _warm_window(stream, identities, since_ms=since_ms, entries_min=entries_min)
    decoded = (_ledger_or_none(record.value) for record in ledger)
    ticks = [record for record in decoded if record is not None and record.slot == slot]
    for tick in reversed(ticks):
        for source, numberings in tick.last_seq.items():
            for numbering, last in numberings.items():
                identities.resume(source, numbering, last)
    doubt.remember(_tail(ticks))


def _tail(ticks: list[LedgerRecord]) -> list[TailEntry]:
    """Give deliveries in doubt: all of a broker's, the last ticks' of other origins."""
    last = {tick.tick for tick in ticks if tick.counts}
    newest = {tick.tick for tick in [tick for tick in ticks if tick.counts][-TAIL_TICKS:]}
    return [
        entry
        for tick in ticks
        if tick.tick in last
        for entry in tick.tail
        if not entry.origin or tick.tick in newest
    ]


def _warm_window(
    stream: Stream, identities: Identities, *, since_ms: int, entries_min: int
) -> None:
    by_time = stream.reader([Topic.ANALYTICS], Start.since(since_ms))
    by_count = stream.reader([Topic.ANALYTICS], Start.last(entries_min))
    try:
        counted = by_count.offsets()
        begin = {place: min(at, counted[place]) for place, at in by_time.offsets().items()}
    finally:
        by_time.close()
        by_count.close()
    reader = stream.reader([Topic.ANALYTICS], Start.at(begin))
    try:
        while not reader.is_at_end():
            for record in reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX):
                _observe(identities, record)
    except UnavailableError:
        reader.close()
        raise
    reader.close()


def _observe(identities: Identities, record: StreamRecord) -> None:
    try:
        reading = decode_reading(record.value)
    except RefusedError:
        return  # written by another program; persist reports and dead-letters it
    if reading.seq is not None:
        verdict, _ = identities.observe_number(
            reading.source, numbering_of(reading), reading.seq, reading.t_ms
        )
        if verdict is Verdict.STRAGGLER:
            identities.observe_content(encode_reading(reading))
    elif reading.is_timed:
        identities.observe_content(encode_reading(reading))


def _ledger_or_none(value: bytes) -> LedgerRecord | None:
    try:
        return decode_ledger(value)
    except msgspec.MsgspecError:
        return None
