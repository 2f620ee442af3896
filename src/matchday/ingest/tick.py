"""One ingest tick: deliveries in, outputs for one stream transaction out. No I/O.

A tick collects what arrived since the last commit, decides the fate of every message and
holds the records that make those fates durable: accepted readings for `analytics`,
refused messages for `dead_letters`, and one record of counts for `ledger`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

from msgspec.structs import replace

from matchday.domain.account import Counts, LedgerRecord, TailEntry, encode_ledger
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Reading, numbering_of, partition_key
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.errors import RefusedError
from matchday.ingest.adapters import Adapters, RefusedSources
from matchday.ingest.gate import GatePolicy, check
from matchday.ingest.identity import Identities, digest_of
from matchday.ingest.numbering import Verdict
from matchday.ingest.replay import noted
from matchday.ingest.steady import Steady
from matchday.ports import Deliveries, Record
from matchday.protocols.redelivery import SESSION_LOST, Doubt

LEDGER_BYTES_MAX = 2 * 2**20
"""Above it, half of what the topic takes, a tick has several records of counts."""

TRUNCATED_BYTES = 64 * 1024
"""How much of a message above `payload_bytes_max` a dead letter keeps."""


@dataclass
class Tick:
    """What one commit will make durable.

    Attributes:
        analytics: Records of accepted readings.
        dead_letters: Records of refused messages, raw bytes with the reason in headers.
        steady: The source of each reading accepted in the short way, which `counts` leaves out.
        counts: What else the tick adds to the account, by source.
        tail: Deliveries without content identity.
        deliveries: What to acknowledge once it is committed, in order.
        reasons: Refused messages by reason.
    """

    analytics: list[Record] = field(default_factory=list)
    dead_letters: list[Record] = field(default_factory=list)
    steady: list[str] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)
    tail: list[TailEntry] = field(default_factory=list)
    deliveries: list[Deliveries] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def outputs(self, *, slot: str, tick: str, ts_ms: int) -> dict[Topic, list[Record]]:
        """Give the records by topic, the account's record last."""
        ledger = LedgerRecord(
            slot=slot,
            tick=tick,
            ts=iso_from_ms(ts_ms),
            counts=self.sums(),
            tail=tuple(self.tail),
        )
        return {
            Topic.ANALYTICS: self.analytics,
            Topic.DEAD_LETTERS: self.dead_letters,
            Topic.LEDGER: [Record(slot.encode(), value) for value in _in_pieces(ledger)],
        }

    def sums(self) -> dict[str, Counts]:
        """Give all that the tick adds to the account, by source; not to be changed."""
        # Where sources are many each speaks once in a tick, and one object does for all.
        sums = dict.fromkeys(self.steady, Counts(1))
        if len(sums) < len(self.steady):
            sums = {source: Counts(count) for source, count in Counter(self.steady).items()}
        for source, counts in self.counts.items():
            total = sums[source] = Counts(sums[source].accepted if source in sums else 0)
            total.add(counts)
        return sums


def _in_pieces(record: LedgerRecord) -> list[bytes]:
    """Encode a ledger record, as several of the same tick where it is too large for one.

    Each source and each delivery stands in one of them, in the same order, so whoever adds
    them up or reads one after the other finds the same.
    """
    value = encode_ledger(record)
    if len(value) <= LEDGER_BYTES_MAX or len(record.counts) + len(record.tail) < 2:
        return [value]
    counts, tail = list(record.counts.items()), record.tail
    at, tail_at = (len(counts) + 1) // 2, len(tail) // 2
    return [
        *_in_pieces(replace(record, counts=dict(counts[:at]), tail=tail[:tail_at])),
        *_in_pieces(replace(record, counts=dict(counts[at:]), tail=tail[tail_at:])),
    ]


class Sorter:
    """Decides the fate of messages; holds the state that identities need."""

    def __init__(
        self,
        *,
        adapters: Adapters,
        gate: GatePolicy,
        identities: Identities,
        doubt: Doubt,
        payload_bytes_max: int,
    ) -> None:
        self._adapters = adapters
        self._gate = gate
        self._identities = identities
        self._doubt = doubt
        self._payload_bytes_max = payload_bytes_max
        self._refused_sources = RefusedSources()
        self._steady = Steady(adapters=adapters, gate=gate, identities=identities)

    def take(self, tick: Tick, deliveries: Deliveries) -> None:
        """Decide the fate of every message of a batch and note it in the tick."""
        arrived_ms, origin = deliveries.arrived_ms, deliveries.origin
        if self._doubt.connected(origin, deliveries.connection, is_resumed=deliveries.is_resumed):
            tick.tail.append(SESSION_LOST)

        def other_way(topic: str, payload: bytes, packet_id: int) -> None:
            """Take a message that the shorter way of steady sources leaves."""
            self._take_one(tick, (origin, packet_id, topic, payload), arrived_ms)

        if max(map(len, deliveries.payloads), default=0) <= self._payload_bytes_max:
            self._steady.take(deliveries, tick.steady, tick.analytics, other_way)
        else:
            for topic, payload, packet_id in zip(
                deliveries.topics, deliveries.payloads, deliveries.packet_ids, strict=True
            ):
                other_way(topic, payload, packet_id)
        tick.deliveries.append(deliveries)

    def _take_one(self, tick: Tick, delivery: tuple[str, int, str, bytes], arrived_ms: int) -> None:
        """Decide the fate of one message, whatever it is."""
        _, _, topic, payload = delivery
        bytes_max = self._payload_bytes_max
        try:
            if len(payload) > bytes_max:
                raise RefusedError("too_large", f"{len(payload)} bytes above {bytes_max}")
            readings, unknown_fields = self._adapters.decode(topic, payload, arrived_ms)
            for reading in readings:
                check(reading, arrived_ms=arrived_ms, policy=self._gate)
        except RefusedError as error:
            self._refuse(tick, topic, payload, error, arrived_ms)
            return
        is_vague = not all(reading.is_timed for reading in readings)
        is_repeated = is_vague and self._is_repeated(tick, delivery)
        for reading in readings:
            counts = tick.counts.get(reading.source)
            if counts is None:
                counts = tick.counts[reading.source] = Counts()
            if unknown_fields:
                counts.unknown_fields += unknown_fields
                unknown_fields = 0
            self._accept(tick, reading, counts, is_repeated=is_repeated)
            self._steady.learn(reading)

    def _accept(
        self,
        tick: Tick,
        reading: Reading,
        counts: Counts,
        *,
        is_repeated: bool,
    ) -> None:
        value = encode_reading(reading)
        is_new, place = True, 0
        seq = reading.seq
        if is_repeated and not reading.is_timed:
            # Its time is that of an arrival, and another one now: its number proves nothing.
            is_new = False
        elif seq is not None:
            verdict, missing, place, _ = self._identities.observe_number(
                reading.source,
                numbering_of(reading),
                seq,
                reading.t_ms,
                is_timed=reading.is_timed,
            )
            if missing:
                counts.missing += missing
            if verdict is Verdict.RENUMBERED:
                counts.renumbered += 1
            is_new = verdict is not Verdict.DUPLICATE
        elif reading.is_timed:
            is_new = self._identities.observe_content(value)
        if is_new:
            counts.accepted += 1
            headers = noted(place) if place else ()
            tick.analytics.append(Record(partition_key(reading).encode(), value, headers))
        else:
            counts.duplicate += 1

    def _is_repeated(self, tick: Tick, delivery: tuple[str, int, str, bytes]) -> bool:
        """Tell whether a message without a time of its own was committed before, and note it.

        A publisher's is noted again where it is repeated: this acknowledgement may be lost as
        well. A broker's is remembered from the first time, as long as it may come again.
        """
        origin, packet_id, topic, payload = delivery
        if packet_id == 0:
            return False
        digest = digest_of(topic, payload)
        is_repeated = self._doubt.is_repeated(origin, packet_id, digest)
        if origin or not is_repeated:
            tick.tail.append(TailEntry(origin, packet_id, digest))
        return is_repeated

    def _refuse(
        self, tick: Tick, topic: str, payload: bytes, error: RefusedError, arrived_ms: int
    ) -> None:
        source = self._refused_sources.name(topic)
        counts = tick.counts.get(source)
        if counts is None:
            counts = tick.counts[source] = Counts()
        counts.refused += 1
        tick.reasons[error.reason] += 1
        tick.dead_letters.append(
            dead_letter(source, topic, payload, error, arrived_ms, self._payload_bytes_max)
        )


def dead_letter(
    source: str,
    topic: str,
    payload: bytes,
    error: RefusedError,
    arrived_ms: int,
    payload_bytes_max: int,
) -> Record:
    """Make the dead letter of a refused message: its raw bytes, why, and where it came from.

    A payload above the bound keeps its first 64 KiB, with its length and SHA-256 in headers.
    """
    headers: dict[str, bytes] = {
        "reason": error.reason.encode(),
        "detail": str(error)[:500].encode(),
        "topic": topic.encode(),
        "source": source.encode(),
        "time": iso_from_ms(arrived_ms).encode(),
    }
    if len(payload) > payload_bytes_max:
        headers["length"] = str(len(payload)).encode()
        headers["sha256"] = sha256(payload).hexdigest().encode()
        payload = payload[:TRUNCATED_BYTES]
    return Record(source.encode(), payload, tuple(headers.items()))
