"""The short way of the commonest message: a numbered native scalar that follows the last one.

Decides in one loop, without a call or an object per step, what `adapters`, `gate`, `identity`
and `domain.wire` decide together, and gives whatever is anything else to them: it takes a
message only where nothing can be said of it but "accepted". Owns no rule: bounds are the
gate's, names are good because the gate has let them pass before, and what it writes are the
bytes that `encode_reading` would give (`tests/unit/test_ingest_steady.py` compares the ways).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

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
        self._is_open = gate.registered is None and adapters.is_table_alone
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
        accepted: list[str],
        records: list[Record],
        other_way: OtherWay,
    ) -> None:
        """Take the steady messages of a batch and give the others to `other_way`, in order.

        Args:
            deliveries: The batch; none of its payloads above the bound on payloads.
            accepted: Gets the source of each accepted reading.
            records: Gets the record of each accepted reading.
            other_way: Takes each other message, at its place among those taken here.
        """
        decode, good, windows = native.decode_scalar, self._good, self._identities.windows
        accept, add = accepted.append, records.append
        before = len(accepted)
        ts, ts_ms = "", FIRST_MS - 1
        value_min, value_max = -self._gate.value_abs_max, self._gate.value_abs_max
        latest_ms = deliveries.arrived_ms + self._gate.ahead_ms_max
        places = self._places_of(deliveries.topics)
        for place, topic, payload, packet_id in zip(
            places, deliveries.topics, deliveries.payloads, deliveries.packet_ids, strict=True
        ):
            if place:
                try:
                    found = decode(payload)
                except native.DECODE_ERRORS:
                    other_way(topic, payload, packet_id)
                    continue
                venue, source, key = place
                t_ms, seq, value = found.t, found.seq, found.value
                quantity, unit, session = found.quantity, found.unit, found.session
                if (
                    type(t_ms) is int
                    and FIRST_MS <= t_ms <= latest_ms
                    and seq is not None
                    and 0 <= seq < SEQ_END
                    and value_min <= value <= value_max
                    and quantity in good
                    and unit in good
                    and session in good
                    and (known := windows.get(quantity)) is not None
                    and (window := known.get(source)) is not None
                    and window.append_next(seq, t_ms)
                ):
                    if t_ms != ts_ms:
                        ts, ts_ms = iso_from_ms(t_ms), t_ms
                    record = encode_scalar(value, ts, source, quantity, unit, seq, venue, session)
                    add(Record(key, record))
                    accept(source)
                    continue
            other_way(topic, payload, packet_id)
        self._identities.took(len(accepted) - before)

    def _places_of(self, topics: Sequence[str]) -> Iterable[_Place | None]:
        """Give the parts of topics whose messages can be steady, nothing for any other."""
        if self._identities.numberings_count > PLACES_MAX:
            return self._take_apart(topics)
        known = self._places
        places = list(map(known.get, topics))
        if all(places):
            return places
        unknown = [topic for topic, place in zip(topics, places, strict=True) if place is None]
        read = self._take_apart(unknown)
        for topic, place in zip(unknown, read, strict=True):
            if len(topic) <= ROUTE_CHARS_MAX:
                if len(known) >= PLACES_MAX:
                    known.clear()
                known[topic] = place
        each = iter(read)
        return [next(each) if place is None else place for place in places]

    def _take_apart(self, topics: Sequence[str]) -> list[_Place]:
        """Take topics apart, by themselves."""
        venues, chars_max, is_open = self._venues, self._gate.name_chars_max, self._is_open
        places: list[_Place] = []
        for topic in topics:
            head, _, source = topic.rpartition("/")
            venue = venues.get(head)
            if venue is None:
                venue = self._venue(head)
            if (
                venue
                and source
                and len(source) <= chars_max
                and source.isprintable()
                and (is_open or self._is_taken(topic, source))
            ):
                places.append((venue, source, source.encode()))
            else:
                places.append(())
        return places

    def _is_taken(self, topic: str, source: str) -> bool:
        """Tell whether configuration lets a topic of native shape be what it looks like."""
        registered = self._gate.registered
        return (registered is None or source in registered) and self._adapters.is_native(topic)

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
