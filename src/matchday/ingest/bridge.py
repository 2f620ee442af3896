"""The first hop: feed -> stream -> acknowledgement, for one ingest slot.

Carries out the protocol of `protocols.ticks`: it becomes the one producer of its name (which
fences the owner before), reads the tail of what was written last, and only then takes
messages. Every tick is one stream transaction; a message is acknowledged after the
transaction that holds its fate. When the fate of a transaction is unknown, the tick's own
name in the topic `ledger` tells whether it was committed. Owns how each step is done, the
pauses between tries and what is told of it; what the next step is, the protocol says.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import FencedError, UnavailableError
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.pace import Pace
from matchday.ingest.sweeps import Sweeps
from matchday.ingest.tails import names_since
from matchday.ingest.tick import Sorter, Tick
from matchday.ingest.warmup import warm
from matchday.observe import events
from matchday.ports import Deliveries, Feed, Partition, Producer, Record, Stream
from matchday.protocols.redelivery import Doubt
from matchday.protocols.ticks import SEARCH_OFFSETS, Do, Ticks

RECEIVE_TIMEOUT_S = 0.25
FILL_PAUSE_S = 0.005
"""Between two looks at a busy feed. Waiting for each message instead costs the broker a third
more CPU, since it wakes us with every packet. A feed that gave nothing for so long has
nothing more before an acknowledgement."""
FLOOD_REFUSED_PER_S = 200.0
FLOOD_EVENT_EVERY_S = 10.0
BACKOFF_S_MAX = 2.0
SETTLED_MS = 10_000
"""So long after connecting, a broker has delivered again what had not been acknowledged."""

_FINISHED = frozenset({Do.SEND, Do.SEARCH, Do.ACKNOWLEDGE})
"""What is done even when a stop is asked for."""


@dataclass(frozen=True)
class BridgePolicy:
    """How one slot is bridged.

    Attributes:
        slot: Name of the slot.
        slot_count: How many slots write to the ledger, this one included.
        tick_s: Least time between two commits, seconds; a first message goes at once. At high
            rates up to twice that, unless `receive_max` messages are there before.
        duplicate_window_ms: How long a reading is remembered, milliseconds.
        receive_max: Most unacknowledged messages; the least number of identities kept.
        payload_bytes_max: Largest payload taken whole, bytes.
    """

    slot: str = "all"
    slot_count: int = 1
    tick_s: float = 0.025
    duplicate_window_ms: int = 120_000
    receive_max: int = 2000
    payload_bytes_max: int = 12 * 2**20


class Bridge:
    """Moves messages of one slot from its feed into the stream.

    Args:
        open_feed: Opens the feed; called once per ownership, after the tail was read.
        stream: Where readings, dead letters and counts go.
        policy: How.
        adapters: Formats by topic.
        gate: What a believable reading is.
        clock: Monotonic and wall time.
        rng: Spreads the retries.
        hold: Gives a reason to stop taking messages for now, such as a full disk.
    """

    def __init__(
        self,
        open_feed: Callable[[], Feed],
        stream: Stream,
        *,
        policy: BridgePolicy,
        adapters: Adapters,
        gate: GatePolicy,
        clock: Clock,
        rng: random.Random,
        hold: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._open_feed = open_feed
        self._stream = stream
        self._policy = policy
        self._adapters = adapters
        self._gate = gate
        self._clock = clock
        self._rng = rng
        self._hold = hold
        self._ticks = Ticks(uuid.uuid4().hex[:12])
        self._attempt = 0
        self._producer: Producer | None = None
        self._feed: Feed | None = None
        self._sorter, self._identities, self._doubt = self._blank()
        self._tick = Tick()
        self._outputs: dict[Topic, list[Record]] = {}
        self._ledger_ends: Mapping[Partition, int] = {}
        self._ahead: Sequence[Deliveries] = ()
        self._pace = Pace(tick_s=policy.tick_s, window=policy.receive_max)
        self._sweeps = Sweeps(self._identities)
        self._flood = _FloodWatch()
        self._held_for: str | None = None
        self.state = "waiting for the stream"

    def run(self, stop: threading.Event) -> None:
        """Own the slot and bridge until asked to stop; leaves nothing half done.

        Raises:
            FencedError: Another owner took over; nothing here may go on.
        """
        try:
            # A tick in hand is finished, unless the stream does not answer.
            while (do := self._ticks.do) in _FINISHED or not stop.is_set():
                if do is Do.GATHER:
                    self._gather(stop)
                elif do is Do.ACKNOWLEDGE:
                    self._acknowledge()
                else:
                    try:
                        self._ask(do)
                    except UnavailableError as error:
                        if self._ticks.do is Do.DROP:
                            raise
                        self._ticks.unanswered()
                        self._let_go(error, stop)
        finally:
            self.state = "stopped"
            if self._feed is not None:
                self._feed.close()
            if self._producer is not None:
                self._producer.close()

    def _ask(self, do: Do) -> None:
        """Do what needs an answer of the stream.

        Raises:
            UnavailableError: The stream did not answer, or refused the tick as of somebody
                who owns the slot no more; the protocol knows which.
        """
        if do is Do.TAKE_OVER:
            self._producer = self._stream.producer(self._owner)
            self._ticks.took_over()
        elif do is Do.WARM:
            self._ticks.warmed(self._warm())
        elif do is Do.SEARCH:
            names = names_since(
                self._stream, self._policy.slot, self._ledger_ends, count=SEARCH_OFFSETS
            )
            self._ticks.searched(names)
            if self._ticks.do is Do.DROP:
                raise FencedError(
                    f"owning ingest slot {self._policy.slot}: tick {names[-1]} of another"
                    f" owner was committed while {self._ticks.name} was in doubt"
                )
            self.state = "running"
        else:
            self._commit()

    def _warm(self) -> str:
        """Read the tail, to know what was accepted and in doubt; give the newest tick's name."""
        self.state = "warming"
        began_s = self._clock.monotonic_s()
        # What an attempt before this one has read is not all: begin with nothing.
        self._sorter, identities, doubt = self._blank()
        tail = warm(
            self._stream,
            self._policy.slot,
            slot_count=self._policy.slot_count,
            identities=identities,
            doubt=doubt,
            window_ms=self._policy.duplicate_window_ms,
            entries_min=self._policy.receive_max,
        )
        elapsed_s = self._clock.monotonic_s() - began_s
        events.emit(events.IngestWarmed(self._policy.slot, len(identities), elapsed_s))
        self._identities, self._doubt = identities, doubt
        self._sweeps = Sweeps(identities)
        self._ledger_ends = tail.ends
        return tail.own[-1].tick if tail.own else ""

    def _blank(self) -> tuple[Sorter, Identities, Doubt]:
        identities = Identities(
            window_ms=self._policy.duplicate_window_ms, entries_min=self._policy.receive_max
        )
        doubt = Doubt(entries_max=self._policy.receive_max)
        sorter = Sorter(
            adapters=self._adapters,
            gate=self._gate,
            identities=identities,
            doubt=doubt,
            payload_bytes_max=self._policy.payload_bytes_max,
        )
        return sorter, identities, doubt

    @property
    def _owner(self) -> str:
        return f"matchday-ingest-{self._policy.slot}"

    def _gather(self, stop: threading.Event) -> None:
        feed = self._feed
        if feed is None:
            feed = self._feed = self._open_feed()
            self.state = "running"
        if self._is_held(feed, stop):
            return
        tick = self._tick = Tick()
        if self._pace.is_busy:
            self._fill(tick, feed, stop)
        else:
            early_s = self._pace.due_s - self._clock.monotonic_s()
            if early_s > 0:
                self._clock.wait(stop, early_s)
        if not tick.deliveries:
            self._take(tick, self._ahead or feed.receive(timeout_s=RECEIVE_TIMEOUT_S))
        self._pace.filled(_size(tick), self._clock.monotonic_s())
        if tick.deliveries or self._is_sweep_due(feed):
            self._attempt = 0
            self._outputs = self._outputs_of(tick, self._ticks.gathered())

    def _fill(self, tick: Tick, feed: Feed, stop: threading.Event) -> None:
        """Take messages until no more come without an acknowledgement, two ticks at most.

        What may be unacknowledged is bounded, here and by the broker. At full rate that bound
        is reached before the tick is due: to wait on would only leave everybody idle.
        """
        while (rest_s := self._pace.until_s - self._clock.monotonic_s()) > 0:
            self._clock.wait(stop, min(rest_s, FILL_PAUSE_S))
            found = self._ahead or feed.receive(timeout_s=0.0)
            if not found:
                return
            self._take(tick, found)
            if self._ahead or _size(tick) >= self._policy.receive_max:
                return

    def _take(self, tick: Tick, found: Sequence[Deliveries]) -> None:
        """Take what was received into the tick, but of one connection to a broker only.

        On a new one the broker delivers again what it has no acknowledgement for. That is in
        doubt only once it is committed: so the tick that has it is committed first, and what
        came on the new connection waits for the next.
        """
        self._ahead = ()
        for at, deliveries in enumerate(found):
            before = tick.deliveries[-1] if tick.deliveries else deliveries
            if not deliveries.origin and deliveries.connection != before.connection:
                self._ahead = found[at:]
                return
            self._sorter.take(tick, deliveries)

    def _is_sweep_due(self, feed: Feed) -> bool:
        """Tell whether an idle slot has to leave a sign of itself among those of others.

        Only while it is connected, and was for long enough that what the broker had to
        deliver again has come: so nothing from before such a sign is in doubt.
        """
        if self._policy.slot_count == 1 or not self._sweeps.is_due(self._clock.monotonic_s()):
            return False
        link = feed.link()
        return link.is_up and self._clock.wall_ms() - link.since_ms >= SETTLED_MS

    def _is_held(self, feed: Feed, stop: threading.Event) -> bool:
        reason = self._hold()
        if reason != self._held_for:
            self._held_for = reason
            if reason:
                events.emit(events.LinkLost("data", reason))
            else:
                events.emit(events.LinkRestored("data", "messages are taken again"))
        if not reason:
            return False
        self.state = f"holding: {reason}"
        feed.keep_alive()
        self._clock.wait(stop, 1.0)
        self.state = "running"
        return True

    def _outputs_of(self, tick: Tick, name: str) -> dict[Topic, list[Record]]:
        """Give the records of a tick, now and then with last numbers of sources."""
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic_s()
        outputs = tick.outputs(slot=self._policy.slot, tick=name, ts_ms=now_ms)
        outputs[Topic.LEDGER] += self._sweeps.records(
            slot=self._policy.slot,
            tick=name,
            ts_ms=now_ms,
            now_s=now_s,
            tick_bytes=sum(len(record.value) for record in outputs[Topic.LEDGER]),
        )
        return outputs

    def _commit(self) -> None:
        """Ask the stream to make the tick durable.

        The interleaving guarded against: the stream commits, its answer is lost. Sending
        the tick again would store it twice; so the protocol takes over and searches first.
        """
        assert self._producer is not None
        try:
            self._producer.commit(self._outputs)
        except FencedError:
            self._ticks.refused()
            raise
        self._ticks.confirmed()

    def _acknowledge(self) -> None:
        """Let the other side forget a tick that is durable; remember what it may repeat."""
        tick, self._tick, self._outputs = self._tick, Tick(), {}
        assert self._feed is not None
        self._doubt.committed(tick.tail)
        for deliveries in tick.deliveries:
            self._feed.acknowledge(deliveries)
        self._ticks.acknowledged()
        self._identities.turn(self._clock.wall_ms())
        self._report(tick)

    def _let_go(self, error: UnavailableError, stop: threading.Event) -> None:
        """Give up a producer that is spent, and wait before the next is made."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()
        self._attempt += 1
        self._pause(self._attempt, error, stop)

    def _pause(self, attempt: int, error: UnavailableError, stop: threading.Event) -> None:
        """Wait before trying again: exponential, capped, jittered; keeps the feed open."""
        self.state = f"waiting for the stream: {error}"
        delay_s = min(BACKOFF_S_MAX, 0.1 * 2 ** min(attempt, 8)) * self._rng.uniform(0.5, 1.0)
        while delay_s > 0 and not stop.is_set():
            if self._feed is not None:
                self._feed.keep_alive()
            self._clock.wait(stop, min(delay_s, 1.0))
            delay_s -= 1.0

    def _report(self, tick: Tick) -> None:
        accepted, duplicate, missing = len(tick.steady), 0, 0
        for counts in tick.counts.values():
            accepted += counts.accepted
            duplicate += counts.duplicate
            missing += counts.missing
        if accepted:
            events.emit(events.ReadingsAccepted(accepted))
        if duplicate:
            events.emit(events.DuplicatesDropped(duplicate))
        if missing > 0:
            events.emit(events.NumbersMissing(missing))
        for reason, count in tick.reasons.items():
            events.emit(events.MessagesRefused(reason, count))
        flood = self._flood.note(
            self._clock.monotonic_s(), accepted=accepted, refused=sum(tick.reasons.values())
        )
        if flood:
            events.emit(events.RefusalFlood(flood, tick.reasons.most_common(1)[0][0]))


def _size(tick: Tick) -> int:
    return sum(map(len, tick.deliveries))


class _FloodWatch:
    """Notices seconds in which far more bad messages than good ones came."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._accepted = 0
        self._refused = 0
        self._quiet_until_s = 0.0

    def note(self, now_s: float, *, accepted: int, refused: int) -> float | None:
        """Add a tick; gives refused messages per second when that is worth an event."""
        self._accepted += accepted
        self._refused += refused
        elapsed_s = now_s - self._began_s
        if elapsed_s < 1.0:
            return None
        rate = self._refused / elapsed_s
        is_flood = rate > FLOOD_REFUSED_PER_S and self._refused > self._accepted
        self._began_s, self._accepted, self._refused = now_s, 0, 0
        if not is_flood or not refused or now_s < self._quiet_until_s:
            return None
        self._quiet_until_s = now_s + FLOOD_EVENT_EVERY_S
        return rate
