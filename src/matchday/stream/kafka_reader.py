"""Reading whole topics of a Kafka cluster outside every group.

Owns the resolution of `Start` into offsets and the knowledge of the end. It commits
nothing and is no member of anything, so it disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError

from matchday.errors import UnavailableError
from matchday.ports import Partition, Start, StreamRecord
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_commits import let_go
from matchday.stream.kafka_errors import said
from matchday.stream.kafka_membership import reading_settings
from matchday.stream.kafka_order import Order
from matchday.stream.kafka_pulse import Pulse
from matchday.stream.kafka_records import convert, fetch, positions, read_from

# How many records `is_at_end` may take from the client to see whether there are any.
LOOK_AHEAD_RECORDS: Final = 1_000


class KafkaReader:
    """A reader of partitions; see `matchday.ports.Reader` for the contract.

    It reads the partitions that exist when it is made. Where retention passes the place to
    read, or a topic is made anew, it goes on at the oldest record kept. So it does from an
    offset beyond the end, which only a topic made anew explains: every opening would have to
    ask for the ends to begin there.
    """

    def __init__(self, cluster: Cluster, partitions: Sequence[Partition], start: Start) -> None:
        self._cluster = cluster
        self._topics = {cluster.name_of(one.topic): one.topic for one in partitions}
        self._trouble: str | None = None
        self._is_closed = False
        self._kept: list[StreamRecord] = []
        self._is_busy = True
        """The client gave something at the last look, or was not asked yet."""
        self._order = Order()
        self._starts = self._resolve(partitions, start)
        self._open()
        cluster.link.is_answering()

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Wait for records; see the port."""
        self._check_open()
        if self._pulse.is_lost():
            self._replace()
        if not self._kept:
            self._take(timeout_s=timeout_s, count_max=records_max)
        given, self._kept = self._kept[:records_max], self._kept[records_max:]
        trouble, self._trouble = self._trouble, None
        if trouble is not None and not given:
            raise UnavailableError(f"reading {', '.join(self._topics)}: {trouble}")
        return given

    def is_at_end(self, *, is_strict: bool = False) -> bool:
        """Tell whether every record committed before this call has been given; see the port.

        Raises:
            UnavailableError: The cluster does not tell where the ends are, or, with
                `is_strict`, a transaction is open before one of them; ask again.
        """
        self._check_open()
        if self._kept:
            return False
        ends = self._cluster.ends(self._starts, is_strict=is_strict)
        was_busy = self._is_busy
        # The markers that end transactions have offsets, too. The client passes them like
        # records that it gives to nobody, so the ones after the last record still lie there.
        self._take(timeout_s=0.0, count_max=LOOK_AHEAD_RECORDS)
        if self._kept:
            return False
        reached = self.offsets()
        behind = [one for one, end in ends.items() if reached[one] < end]
        if not behind or was_busy:
            return not behind
        # Where all that lacks has expired nothing comes any more, and no position shows it.
        # Asked after two looks without a record only: on its way a reader asks for ends enough.
        firsts = self._cluster.firsts(behind)
        return all(firsts[one] >= ends[one] for one in behind)

    def offsets(self) -> Mapping[Partition, int]:
        """Give the offset of the next record to look for, per partition; see the port."""
        self._check_open()
        found = dict(self._order.reached)
        for record in reversed(self._kept):
            found[Partition(record.topic, record.partition)] = record.offset
        return found

    def close(self) -> None:
        """Release the connection; see the port."""
        if self._is_closed:
            return
        self._is_closed = True
        self._client.close()

    def _open(self) -> None:
        self._client = Client(
            {
                **self._cluster.settings(self._heard),
                **reading_settings(),
                # The client wants a name; nothing is ever committed under it.
                "group.id": f"{self._cluster.prefix}matchday-reader",
                "auto.offset.reset": "earliest",
            }
        )
        self._pulse = Pulse(self._cluster, self._client)
        self._order.begin(self._starts)
        self._client.assign([self._cluster.place(*one) for one in self._starts.items()])

    def _replace(self) -> None:
        """Read on with another client, where this one cannot go on."""
        self._starts = dict(self.offsets())
        self._kept = []
        let_go(self._client)
        self._open()

    def _read_again(self) -> None:
        """Read on from what was received last."""
        self._order.begin(self._order.received)
        starts = [self._cluster.place(*one) for one in self._order.received.items()]
        if not read_from(self._client, starts, clock=self._cluster.clock):
            self._replace()

    def _take(self, *, timeout_s: float, count_max: int) -> None:
        messages = fetch(self._client, timeout_s=timeout_s, count_max=count_max)
        self._is_busy = bool(messages)
        runs, reports = convert(messages, self._topics)
        # Of all, as `is_at_end` believes them.
        places = {one: self._cluster.place(one) for one in self._starts}
        taken, again = self._order.check(runs, positions(self._client, places))
        self._kept += taken
        if again:
            self._read_again()
        for error, _ in reports:
            self._trouble = self._cluster.heard(error) or said(error)
        if runs:
            self._cluster.link.is_answering()
            self._pulse.beat()

    def _resolve(self, partitions: Sequence[Partition], start: Start) -> dict[Partition, int]:
        """Give the offset to begin at for each partition."""
        cluster = self._cluster
        if start == Start.end():
            return cluster.ends(partitions)
        firsts = cluster.firsts(partitions)
        if start.offsets is not None:
            return {one: max(start.offsets.get(one, first), first) for one, first in firsts.items()}
        if start.since_ms is not None and start.since_ms <= 0:
            return firsts
        ends = cluster.ends(partitions)
        if start.last_count is not None:
            count = start.last_count
            return {one: max(ends[one] - count, first) for one, first in firsts.items()}
        found = cluster.at_time(partitions, start.since_ms or 0)
        # Below 0: nothing is as young as that, so it begins at the end.
        return {one: found[one] if found[one] >= 0 else end for one, end in ends.items()}

    def _heard(self, error: KafkaError) -> None:
        self._trouble = self._cluster.heard(error) or self._trouble

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"reading {', '.join(self._topics)}: the reader is closed")
