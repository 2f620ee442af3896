"""Rebuild what ingest knew from the stream itself: the tail of what was written last.

Called after the old owner is fenced and before the first message is taken, so nothing can
be added behind what is read here. Does not own how far back the ledger is read (`tails`).
"""

from __future__ import annotations

from matchday.domain.reading import numbering_of
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading, encode_reading
from matchday.errors import RefusedError
from matchday.ingest.gate import SEQ_END
from matchday.ingest.identity import Identities
from matchday.ingest.replay import Replay, place_of
from matchday.ingest.tails import Tail, tail_of
from matchday.ports import Start, Stream, StreamRecord
from matchday.protocols.redelivery import Doubt, in_doubt

SLACK_MS = 60_000
"""How much later than its tick's record a reading may stand in the stream, by the stream's
clocks: more than a transaction may take, and clocks of brokers differ."""

SWEEP_SLACK_MS = 1000
"""How much later than a reading the beginning of the sweep that told it may stand."""

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
        since_ms = tail.newest_ms - window_ms
        if tail.own_ms is not None:
            own_since_ms = _own_since_ms(tail, tail.own_ms - window_ms)
            own_until_ms = tail.own_ms + SLACK_MS
            if own_until_ms < since_ms:
                _observe_between(stream, read_back, since_ms=own_since_ms, until_ms=own_until_ms)
            else:
                since_ms = min(since_ms, own_since_ms)
        _observe_to_end(stream, read_back, since_ms=since_ms, entries_min=entries_min)
        replay.end()
    for (source, numbering), last in _last_numbers(tail).items():
        identities.resume(source, numbering, last)
    if slot_count > 1:
        identities.disown_all_but(_own_sources(tail))
    doubt.restarted(in_doubt(tail.own))
    return tail


def _own_since_ms(tail: Tail, window_since_ms: int) -> int:
    """Give from when on the slot's readings are read: the window, or what no sweep has told."""
    if tail.sweeps.since_ms is None:
        return window_since_ms
    return min(window_since_ms, tail.sweeps.since_ms - SWEEP_SLACK_MS)


def _last_numbers(tail: Tail) -> dict[tuple[str, str], tuple[int, int]]:
    """Give the last number and its event time of every numbering, by source and numbering.

    The slot's own newest sweeps say it, unless another slot has had the source since.
    """
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for tick in tail.own:
        for source, numberings in tick.last_seq.items():
            for numbering, last in numberings.items():
                found[source, numbering] = last
    for tick in tail.all:
        for source, numberings in tick.last_seq.items():
            for numbering, last in numberings.items():
                known = found.get((source, numbering))
                if known is None or last[1] > known[1]:
                    found[source, numbering] = last
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


def _observe_between(stream: Stream, read_back: _ReadBack, *, since_ms: int, until_ms: int) -> None:
    """Take in what was accepted between two moments of the stream's clock."""
    later = stream.reader([Topic.ANALYTICS], Start.since(until_ms))
    try:
        ends = dict(later.offsets())
    finally:
        later.close()
    reader = stream.reader([Topic.ANALYTICS], Start.since(since_ms))
    try:
        while not reader.is_at_end():
            at = reader.offsets()
            if all(at[place] >= end for place, end in ends.items()):
                return
            for record in reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX):
                read_back.take(record)
    finally:
        reader.close()


def _observe_to_end(
    stream: Stream, read_back: _ReadBack, *, since_ms: int, entries_min: int
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
        while not reader.is_at_end(is_strict=True):
            for record in reader.poll(timeout_s=_POLL_S, records_max=_RECORDS_MAX):
                read_back.take(record)
    finally:
        reader.close()
