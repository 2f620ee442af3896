"""Rebuild what ingest knew from the stream itself: the tail of what was written last.

Called after the old owner is fenced and before the first message is taken, so nothing can
be added behind what is read here. Does not own how far back the ledger is read (`tails`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matchday.domain.reading import numbering_of, numbering_told
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading, encode_reading
from matchday.errors import RefusedError
from matchday.ingest.gate import SEQ_END
from matchday.ingest.identity import Identities
from matchday.ingest.replay import Replay, place_of
from matchday.ingest.tails import Tail, tail_of
from matchday.ports import Partition, Start, Stream, StreamRecord
from matchday.protocols.redelivery import Doubt, in_doubt
from matchday.protocols.ticks import run_of

SLACK_MS = 60_000
"""How much later than its tick's record a reading may stand in the stream, by the stream's
clocks: more than a transaction may take, and clocks of brokers differ."""

SWEEP_SLACK_MS = 1000
"""How much later than a reading the beginning of the sweep that told it may stand."""

OWNERS_MAX = 30
"""Owners that worked for less than a window each, one after the other, behind which nothing is
looked for: some seconds of reading back where each came long after the one before."""

_POLL_S = 0.5
_RECORDS_MAX = 2000


def warm(
    stream: Stream,
    slot: str,
    *,
    slot_count: int,
    identities: Identities,
    doubt: Doubt,
    window_ms: int,
    entries_min: int,
) -> Tail:
    """Fill the duplicate window and the doubt from the end of the stream.

    The window counts back from the slot's own newest record, not from now: what a broker
    holds back is as old as the last commit, however long nobody was here and whatever other
    slots did meanwhile. Theirs is read too, for sources may have moved from slot to slot.

    Returns:
        The end of the ledger, from which all this comes.

    Raises:
        UnavailableError: The stream stopped answering; begin again with new state.
    """
    tail = tail_of(stream, slot, slot_count=slot_count)
    replay = Replay(identities, is_noted=_is_noted(tail))
    read_back = _ReadBack(identities, replay)
    if tail.newest_ms is not None:
        since_ms, apart = tail.newest_ms - window_ms, []
        for own_since_ms, own_until_ms in _own_spans(tail, window_ms):
            if own_until_ms < since_ms:
                apart.append((own_since_ms, own_until_ms))
            else:
                since_ms = min(since_ms, own_since_ms)
        _observe(stream, read_back, apart=apart, since_ms=since_ms, entries_min=entries_min)
    for (source, numbering), last in _last_numbers(tail, slot).items():
        identities.resume(source, numbering, last)
    # After the last numbers: of a numbering with none but late ones these say where it goes on.
    replay.end()
    if slot_count > 1:
        identities.disown_all_but(_own_sources(tail))
    doubt.restarted(in_doubt(tail.own))
    return tail


def _own_spans(tail: Tail, window_ms: int) -> list[tuple[int, int]]:
    """Give from when until when the slot's own readings are read, oldest first, apart."""
    spans: list[tuple[int, int]] = []
    for end_ms in _ends_ms(tail, window_ms):
        since_ms, until_ms = end_ms - window_ms, end_ms + SLACK_MS
        if not spans and tail.sweeps.since_ms is not None:
            # What no sweep has told.
            since_ms = min(since_ms, tail.sweeps.since_ms - SWEEP_SLACK_MS)
        if spans and until_ms >= spans[-1][0]:
            later_since_ms, until_ms = spans.pop()
            since_ms = min(since_ms, later_since_ms)
        spans.append((since_ms, until_ms))
    return spans[::-1]


def _ends_ms(tail: Tail, window_ms: int) -> list[int]:
    """Give when those owners accepted last whose messages may still come again, newest first.

    What comes again was accepted within a window before the last owner's end; or that owner
    had begun less than a window before, so that not all had come again and been acknowledged:
    then before the end of the one before it, and so on. One that accepted nothing adds nothing.
    """
    ends_ms: list[int] = []
    run, end_ms = "", None
    for record, at_ms in zip(reversed(tail.own), reversed(tail.own_at_ms), strict=True):
        if run_of(record.tick) != run:
            run, end_ms = run_of(record.tick), None
        if end_ms is not None:
            if at_ms < end_ms - window_ms:
                break
        elif any(one.accepted for one in record.counts.values()):
            end_ms = at_ms
            ends_ms.append(at_ms)
            if len(ends_ms) == OWNERS_MAX:
                break
    return ends_ms


def _last_numbers(tail: Tail, slot: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Give the last number and its event time of every numbering, by source and numbering.

    The slot's own newest sweeps say it, unless another slot has had the source since: times
    tell that, but not which of one slot's is newer, since clocks are set back.
    """
    told: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for tick in tail.all:
        for source, numberings in tick.last_seq.items():
            for numbering, last in numberings.items():
                told.setdefault(tick.slot, {})[source, numbering_told(numbering)] = last
    found = dict(told.pop(slot, {}))
    for others in told.values():
        for key, last in others.items():
            known = found.get(key)
            if known is None or last[1] > known[1]:
                found[key] = last
    return found


def _own_sources(tail: Tail) -> set[str]:
    own: set[str] = set()
    for tick in tail.own:
        own.update(tick.counts)
        own.update(tick.last_seq)
    return own


def _is_noted(tail: Tail) -> bool:
    """Tell whether all who wrote lately noted beside readings how they took them."""
    pieces = [tick.sweep for tick in tail.all if tick.sweep or tick.last_seq]
    return bool(pieces) and all(piece is not None and piece.is_noted for piece in pieces)


class _ReadBack:
    """Takes in the records of `analytics`."""

    def __init__(self, identities: Identities, replay: Replay) -> None:
        self._identities = identities
        self._replay = replay

    def take(self, record: StreamRecord) -> None:
        """Take in a record."""
        try:
            reading = decode_reading(record.value)
        except RefusedError:
            return  # written by another program; persist reports and dead-letters it
        if reading.seq is not None:
            if not 0 <= reading.seq < SEQ_END:
                return  # the same: the gate lets no such number pass
            self._replay.take(
                reading.source,
                numbering_of(reading),
                reading.seq,
                reading.t_ms,
                place=place_of(record.headers),
                is_timed=reading.is_timed,
            )
        elif reading.is_timed:
            self._identities.observe_content(encode_reading(reading))


def _observe(
    stream: Stream,
    read_back: _ReadBack,
    *,
    apart: Sequence[tuple[int, int]],
    since_ms: int,
    entries_min: int,
) -> None:
    """Take in what was accepted lately, each record once and those of a partition in order.

    Args:
        stream: Whose `analytics`.
        read_back: Takes the records in.
        apart: From when until when besides, oldest first, by the stream's clock.
        since_ms: From when on to the end.
        entries_min: How many of the newest records of each partition at least.
    """
    by_count = _offsets(stream, Start.last(entries_min))
    by_time = _offsets(stream, Start.since(since_ms))
    begins = {place: min(at, by_count[place]) for place, at in by_time.items()}
    stretches: list[tuple[dict[Partition, int], dict[Partition, int]]] = []
    for apart_since_ms, apart_until_ms in reversed(apart):
        firsts = _offsets(stream, Start.since(apart_since_ms))
        ends = _offsets(stream, Start.since(apart_until_ms))
        for place, first in firsts.items():
            if ends[place] >= begins[place]:
                begins[place] = min(begins[place], first)
                ends[place] = first
        stretches.append((firsts, ends))
    for firsts, ends in reversed(stretches):
        _observe_between(stream, read_back, firsts, ends)
    reader = stream.reader([Topic.ANALYTICS], Start.at(begins))
    try:
        while not reader.is_at_end(is_strict=True):
            for record in reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX):
                read_back.take(record)
    finally:
        reader.close()


def _observe_between(
    stream: Stream,
    read_back: _ReadBack,
    firsts: Mapping[Partition, int],
    ends: Mapping[Partition, int],
) -> None:
    reader = stream.reader([Topic.ANALYTICS], Start.at(firsts))
    try:
        while not reader.is_at_end():
            at = reader.offsets()
            if all(at[place] >= end for place, end in ends.items()):
                return
            for record in reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX):
                if record.offset < ends[Partition(record.topic, record.partition)]:
                    read_back.take(record)
    finally:
        reader.close()


def _offsets(stream: Stream, start: Start) -> dict[Partition, int]:
    reader = stream.reader([Topic.ANALYTICS], start)
    try:
        return dict(reader.offsets())
    finally:
        reader.close()
