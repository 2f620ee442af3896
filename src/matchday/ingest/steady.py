"""The short way of the commonest message: a numbered native scalar that follows the last one.

Decides in one loop, without a call or an object per step, what `adapters`, `gate`, `identity`
and `domain.wire` decide together, and gives whatever is anything else to them: it takes a
message only where nothing can be said of it but "accepted". Owns no rule: bounds are the
gate's, names are good because the gate has let them pass before, and what it writes are the
bytes that `encode_reading` would give (`tests/unit/test_ingest_steady.py` compares the ways).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from matchday.domain.account import Counts
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Reading, Scalar
from matchday.domain.topics import NATIVE_ROOT
from matchday.domain.wire import encode_scalar
from matchday.ingest import native
from matchday.ingest.adapters import ROUTE_CHARS_MAX, Adapters
from matchday.ingest.gate import FIRST_MS, SEQ_END, GatePolicy
from matchday.ingest.identity import Identities
from matchday.ports import Deliveries, Record

NAMES_MAX: Final = 4096
"""Quantities, units and sessions known to be good; then they are learned anew."""

PLACES_MAX: Final = 16_384
"""Topics whose parts are remembered, and numberings above which none are: of a great many the
memory would hold few, and to take a topic apart costs less than to look it up in vain."""

VENUES_MAX: Final = 4096
"""Topics without their source of which the venue is remembered; then they are learned anew."""

OtherWay = Callable[[str, bytes, int], None]
"""(topic, payload, packet identifier): takes what is not steady."""

_Place = tuple[str, str, bytes] | tuple[()]
"""Venue, source and stream key of a native scalar's topic; empty for every other topic."""


class Steady:
    """Takes steady messages; holds what it has learned of good names."""

    def __init__(self, *, adapters: Adapters, gate: GatePolicy, identities: Identities) -> None:
        self._adapters = adapters
        self._gate = gate
        self._identities = identities
        self._places: dict[str, _Place] = {}
        self._venues: dict[str, str] = {}
        # None is a good unit and a good session: that they are absent.
        self._good: set[str | None] = {None}

    def learn(self, reading: Reading) -> None:
        """Take note of the names in a reading that the gate let pass."""
        if type(reading) is not Scalar:
            return
        good = self._good
        if len(good) > NAMES_MAX:
            good.clear()
            good.add(None)
        # An empty unit is believed, an empty session is not: it takes the long way.
        good.update(name for name in (reading.quantity, reading.unit, reading.session) if name)

    def take(
        self,
        deliveries: Deliveries,
        counts: dict[str, Counts],
        add: Callable[[Record], None],
        other_way: OtherWay,
    ) -> None:
        """Take the steady messages of a batch and give the others to `other_way`, in order.

        Args:
            deliveries: The batch; none of its payloads above the bound on payloads.
            counts: Counts by source, to which accepted readings are added.
            add: Takes the record of each accepted reading.
            other_way: Takes each other message, at its place among those taken here.
        """
        decode, follows, good = native.decode_scalar, self._identities.follows, self._good
        places, place_of = self._places, self._remembered_place
        if self._identities.numberings_count > PLACES_MAX:
            places, place_of = {}, self._place
        known_place = places.get
        accepted: list[str] = []
        accept = accepted.append
        value_max = self._gate.value_abs_max
        latest_ms = deliveries.arrived_ms + self._gate.ahead_ms_max
        for topic, payload, packet_id in zip(
            deliveries.topics, deliveries.payloads, deliveries.packet_ids, strict=True
        ):
            place = known_place(topic)
            if place is None:
                place = place_of(topic)
            if place:
                try:
                    found = decode(payload)
                except native.DECODE_ERRORS:
                    other_way(topic, payload, packet_id)
                    continue
                t_ms, seq, value = found.t, found.seq, found.value
                quantity, unit, session = found.quantity, found.unit, found.session
                if (
                    type(t_ms) is int
                    and FIRST_MS <= t_ms <= latest_ms
                    and seq is not None
                    and 0 <= seq < SEQ_END
                    and -value_max <= value <= value_max
                    and quantity in good
                    and unit in good
                    and session in good
                    and follows(place[1], quantity, seq, t_ms)
                ):
                    venue, source, key = place
                    ts = iso_from_ms(t_ms)
                    record = encode_scalar(value, ts, source, quantity, unit, seq, venue, session)
                    add(Record(key, record))
                    accept(source)
                    continue
            other_way(topic, payload, packet_id)
        _count(accepted, counts)

    def _place(self, topic: str) -> _Place:
        """Give the parts of a topic whose messages can be steady, nothing for any other."""
        head, _, source = topic.rpartition("/")
        venue = self._venues.get(head)
        if venue is None:
            venue = self._venue(head)
        gate = self._gate
        if (
            venue
            and 0 < len(source) <= gate.name_chars_max
            and source.isprintable()
            and (gate.registered is None or source in gate.registered)
            and self._adapters.is_native(topic)
        ):
            return venue, source, source.encode()
        return ()

    def _remembered_place(self, topic: str) -> _Place:
        """Give the same and remember it."""
        place = self._place(topic)
        if len(topic) <= ROUTE_CHARS_MAX:
            if len(self._places) >= PLACES_MAX:
                self._places.clear()
            self._places[topic] = place
        return place

    def _venue(self, head: str) -> str:
        """Give the venue of a native scalar's topic without its source; empty for any other."""
        parts = head.split("/")
        is_scalar = len(parts) == 3 and parts[0] == NATIVE_ROOT and parts[2] == "scalar"
        venue = parts[1] if is_scalar else ""
        if len(head) <= ROUTE_CHARS_MAX:
            if len(self._venues) >= VENUES_MAX:
                self._venues.clear()
            self._venues[head] = venue
        return venue


def _count(accepted: Sequence[str], counts: dict[str, Counts]) -> None:
    """Add one reading to the counts of a source each time that it is named."""
    for source, count in Counter(accepted).items():
        known = counts.get(source)
        if known is None:
            counts[source] = Counts(count)
        else:
            known.accepted += count
