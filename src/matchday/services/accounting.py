"""The account at this moment: what is folded into the store plus the stream's tail behind it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from matchday.clock import Clock
from matchday.domain.account import Account, Counts, account_of, decode_ledger
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading
from matchday.errors import RefusedError, UnavailableError
from matchday.ports import Folded, Partition, Query, Reader, Start, Stream, StreamRecord

EXPIRED = "expired:"
"""Begins the names under which persist counts what retention deleted, by partition."""

SETTLE_ATTEMPTS = 10
SETTLE_PAUSE_S = 0.3

_POLL_S = 0.2
_RECORDS_MAX = 5000
_EMPTY_POLLS_MAX = 50


def read_account(stream: Stream, query: Query) -> Account:
    """Read the account of all sources, true at the moment of the call.

    The stored counts come first and the stream's tail second: what is folded in between
    is recognised by its offset and not counted twice.

    Raises:
        UnavailableError: Store or stream does not answer.
    """
    folded = query.folded()
    starts = {
        place: offset
        for place, offset in folded.next_offsets.items()
        if place.topic is Topic.LEDGER
    }
    reader = stream.reader([Topic.LEDGER], Start.at(starts))
    try:
        return account_at(folded, to_the_end(reader), expired=expired_of(stream))
    finally:
        reader.close()


Attribute: TypeAlias = Callable[[dict[str, Counts], Folded], None]
"""Gives the readings that retention deleted unread to their sources: `attribute_expired`."""


def account_at(folded: Folded, tail: Iterable[StreamRecord], *, expired: Attribute) -> Account:
    """Work out the account from its stored part and the ledger's records behind that.

    Args:
        folded: The stored part.
        tail: Every record from the stored part's offsets to the end, read after it.
        expired: Called where retention deleted readings before they were stored.

    Raises:
        UnavailableError: The stream does not answer.
    """
    counts = {source: msgspec.structs.replace(found) for source, found in folded.counts.items()}
    for record in tail:
        add_ledger_record(counts, record, folded)
    if any(source.startswith(EXPIRED) for source in counts):
        expired(counts, folded)
    return account_of(counts)


def settled_account(stream: Stream, query: Query, *, clock: Clock) -> Account:
    """Read the account, again for up to three seconds while it does not add up.

    A transaction of Kafka becomes visible partition by partition: for some milliseconds a
    reading can be stored whose count in `ledger` cannot be read yet. What is really wrong
    stays wrong.

    Raises:
        UnavailableError: Store or stream does not answer.
    """
    never = threading.Event()
    account = read_account(stream, query)
    for _ in range(SETTLE_ATTEMPTS):
        if account.adds_up:
            break
        clock.wait(never, SETTLE_PAUSE_S)
        account = read_account(stream, query)
    return account


def add_ledger_record(counts: dict[str, Counts], record: StreamRecord, folded: Folded) -> None:
    """Add one ledger record to the counts by source, leaving out what is folded already."""
    try:
        ledger = decode_ledger(record.value)
    except msgspec.MsgspecError:
        return
    place = Partition(record.topic, record.partition)
    for source, added in ledger.counts.items():
        if folded.entry_offsets.get((source, place), -1) >= record.offset:
            continue
        counts.setdefault(source, Counts()).add(added)


def attribute_expired(
    counts: dict[str, Counts], folded: Folded, waiting: Mapping[str, int]
) -> None:
    """Give the readings that retention deleted unread to their sources.

    Persist can only tell how many records of a partition were deleted before it read them,
    and keeps that under a name of its own. Whose they were follows from the account: what a
    source has accepted, and is neither stored nor waiting in the stream, has expired.

    Args:
        counts: By source, changed in place; persist's own lines are taken out.
        folded: The stored part of the account.
        waiting: Readings in the stream behind the stored part, by source.
    """
    for name in [source for source in counts if source.startswith(EXPIRED)]:
        del counts[name]
    for source, found in counts.items():
        found.expired = max(0, found.accepted - found.stored - waiting.get(source, 0))


def expired_of(stream: Stream) -> Attribute:
    """Give what finds out whose the expired are, by asking the stream for what waits."""

    def attribute(counts: dict[str, Counts], folded: Folded) -> None:
        """Change the counts in place, by what the stream still holds behind the stored part."""
        attribute_expired(counts, folded, _waiting(stream, folded))

    return attribute


def _waiting(stream: Stream, folded: Folded) -> Counter[str]:
    """Count the readings in the stream that are not stored yet, by source."""
    starts = {
        place: offset
        for place, offset in folded.next_offsets.items()
        if place.topic is Topic.ANALYTICS
    }
    waiting: Counter[str] = Counter()
    reader = stream.reader([Topic.ANALYTICS], Start.at(starts))
    try:
        for record in to_the_end(reader):
            place = Partition(record.topic, record.partition)
            with suppress(RefusedError):
                source = decode_reading(record.value).source
                if folded.entry_offsets.get((source, place), -1) < record.offset:
                    waiting[source] += 1
    finally:
        reader.close()
    return waiting


def to_the_end(reader: Reader, *, records_max: int = _RECORDS_MAX) -> Iterator[StreamRecord]:
    """Give the records up to the stream's end.

    Args:
        reader: Read as far as that.
        records_max: How many are taken, and held in memory, at once.

    Raises:
        UnavailableError: The stream answers, but for 10 s gave nothing of what it has: a
            question without an answer would otherwise hold up whoever asked for ever.
    """
    empty_count = 0
    while not reader.is_at_end():
        records = reader.poll(timeout_s=_POLL_S, records_max=records_max)
        yield from records
        empty_count = 0 if records else empty_count + 1
        if empty_count > _EMPTY_POLLS_MAX:
            raise UnavailableError(
                f"reading to the stream's end: it gave nothing for {_EMPTY_POLLS_MAX * _POLL_S:.0f}"
                " s although its end is not reached"
            )


@dataclass(frozen=True)
class Mismatch:
    """A source whose documents do not agree with its account."""

    source: str
    stored: int
    pending: int
    documents: int


def verify(
    account: Account, documents: dict[str, int], *, later: Account | None = None
) -> list[Mismatch]:
    """Compare the account with documents counted one by one, taken after it.

    Args:
        account: Taken before the count: there must be as many documents as it has stored.
        documents: By source.
        later: Taken after the count, where data flows meanwhile: there may be as many
            documents as it has stored and pending; None: as many as `account` has.
    """
    wrong = []
    lines = {line.source: line for line in account.lines}
    most = {line.source: line.stored + line.pending for line in (later or account).lines}
    for source in sorted(set(lines) | set(documents)):
        line = lines.get(source)
        stored, pending = (line.stored, line.pending) if line else (0, 0)
        found = documents.get(source, 0)
        if not stored <= found <= most.get(source, 0):
            wrong.append(Mismatch(source, stored, pending, found))
    return wrong
