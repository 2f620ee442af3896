"""The account: what became of every message received, per source.

    received = stored + pending + duplicate + refused + expired

Pure arithmetic over counts. Who counts what: ingest writes `Counts` of each tick to the
topic `ledger` in the same transaction as the readings; persist adds what it stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec


class Counts(msgspec.Struct, gc=False, omit_defaults=True, array_like=True):
    """How many messages of one source met which fate; also used for differences.

    Attributes:
        accepted: Readings appended to the stream.
        duplicate: Deliveries of a reading that had been accepted before.
        refused: Messages set aside as dead letters.
        stored: Readings whose write to the store was confirmed.
        expired: Readings that the stream's retention deleted before they were stored.
        missing: Numbers skipped in the source's own numbering.
        renumbered: Times the source started its numbering again.
        unknown_fields: Fields that no contract names, ignored.
        late: Readings behind their window when analysis saw them.
    """

    accepted: int = 0
    duplicate: int = 0
    refused: int = 0
    stored: int = 0
    expired: int = 0
    missing: int = 0
    renumbered: int = 0
    unknown_fields: int = 0
    late: int = 0

    def add(self, other: Counts) -> None:
        """Add another count to this one, in place."""
        self.accepted += other.accepted
        self.duplicate += other.duplicate
        self.refused += other.refused
        self.stored += other.stored
        self.expired += other.expired
        self.missing += other.missing
        self.renumbered += other.renumbered
        self.unknown_fields += other.unknown_fields
        self.late += other.late


class TailEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A delivery without content identity, remembered in case it is delivered again.

    Attributes:
        origin: The connection's client id, empty behind a broker.
        packet_id: The MQTT packet identifier of the delivery.
        digest: Hexadecimal digest of topic and payload.
    """

    origin: str
    packet_id: int
    digest: str


class SweepPiece(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Which part of a sweep through all last numbers a record holds (`ingest.sweeps`).

    Attributes:
        is_whole: The sweep writes all numberings, not only those that changed.
        is_first: It begins with this piece.
        is_last: It ends with this piece.
        is_noted: Its writer notes beside readings how it took them (`ingest.replay`).
    """

    is_whole: bool
    is_first: bool
    is_last: bool
    is_noted: bool = False


class LedgerRecord(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The value of one `ledger` record: the counts of one ingest tick.

    Attributes:
        slot: The ingest slot that wrote it.
        tick: Identity of the tick, by which a writer in doubt finds out whether it was
            committed.
        ts: Arrival time of the tick, ISO 8601.
        counts: What the tick adds, by source.
        tail: Deliveries of the tick without content identity.
        last_seq: Last number and its event time by source and numbering, in a piece only.
        sweep: Which piece of a sweep through all last numbers it is, if any.
        format: Version of this encoding.
    """

    slot: str
    tick: str
    ts: str
    counts: dict[str, Counts] = {}
    tail: tuple[TailEntry, ...] = ()
    last_seq: dict[str, dict[str, tuple[int, int]]] = {}
    sweep: SweepPiece | None = None
    format: int = 1


@dataclass(frozen=True)
class AccountLine:
    """The account of one source, ready to print; all numbers are messages."""

    source: str
    received: int
    stored: int
    pending: int
    duplicate: int
    refused: int
    expired: int
    missing: int

    @property
    def adds_up(self) -> bool:
        """Tell whether received is the sum of the fates and nothing is negative."""
        fates = self.stored + self.pending + self.duplicate + self.refused + self.expired
        return self.received == fates and self.pending >= 0


def line_of(source: str, counts: Counts) -> AccountLine:
    """Work out the account line of one source from its counts."""
    return AccountLine(
        source=source,
        received=counts.accepted + counts.duplicate + counts.refused,
        stored=counts.stored,
        pending=counts.accepted - counts.stored - counts.expired,
        duplicate=counts.duplicate,
        refused=counts.refused,
        expired=counts.expired,
        missing=counts.missing,
    )


@dataclass(frozen=True)
class Account:
    """The account of all sources at one moment."""

    lines: tuple[AccountLine, ...]

    @property
    def totals(self) -> AccountLine:
        """Sum all lines under the source name `total`."""
        return AccountLine(
            "total",
            sum(line.received for line in self.lines),
            sum(line.stored for line in self.lines),
            sum(line.pending for line in self.lines),
            sum(line.duplicate for line in self.lines),
            sum(line.refused for line in self.lines),
            sum(line.expired for line in self.lines),
            sum(line.missing for line in self.lines),
        )

    @property
    def adds_up(self) -> bool:
        """Tell whether every line adds up."""
        return all(line.adds_up for line in self.lines)


def account_of(counts: Mapping[str, Counts]) -> Account:
    """Work out the account from the counts by source, sorted by source."""
    return Account(tuple(line_of(source, counts[source]) for source in sorted(counts)))


_record_encoder = msgspec.json.Encoder()
_record_decoder = msgspec.json.Decoder(LedgerRecord)


def encode_ledger(record: LedgerRecord) -> bytes:
    """Encode the value of a `ledger` record."""
    return _record_encoder.encode(record)


def decode_ledger(value: bytes) -> LedgerRecord:
    """Decode the value of a `ledger` record.

    Raises:
        msgspec.MsgspecError: The bytes were not written by `encode_ledger`.
    """
    try:
        return _record_decoder.decode(value)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
