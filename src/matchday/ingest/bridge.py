"""The first hop: feed -> stream -> acknowledgement, for one ingest slot.

Owns the protocol by which this hop resolves its own doubt: it becomes the one producer of
its name (which fences the owner before), reads the tail of what was written last, and
only then takes messages. Every tick is one stream transaction; a message is acknowledged
after the transaction that holds its fate. When the fate of a transaction is unknown, the
tick's own name in the topic `ledger` tells whether it was committed.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import FencedError, UnavailableError
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Doubt, Identities
from matchday.ingest.tick import Sorter, Tick, snapshot_outputs
from matchday.ingest.warmup import newest_ticks, warm
from matchday.observe import events
from matchday.ports import Feed, Producer, Stream

RECEIVE_TIMEOUT_S = 0.25
SNAPSHOT_EVERY_S = 60.0
SNAPSHOT_EVERY_TICKS = 3000
"""A tick costs two offsets of `ledger` on Kafka: with this, the newest snapshot lies within
`warmup.LEDGER_TAIL_COUNT` however short the ticks are."""
FLOOD_REFUSED_PER_S = 200.0
FLOOD_EVENT_EVERY_S = 10.0
BACKOFF_S_MAX = 5.0


@dataclass(frozen=True)
class BridgePolicy:
    """How one slot is bridged.

    Attributes:
        slot: Name of the slot.
        tick_s: Least time between two commits, seconds; a first message goes at once.
        duplicate_window_ms: How long a reading is remembered, milliseconds.
        receive_max: Most unacknowledged messages; the least number of identities kept.
        payload_bytes_max: Largest payload taken whole, bytes.
    """

    slot: str = "all"
    tick_s: float = 0.05
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
        self._run_id = uuid.uuid4().hex[:12]
        self._tick_count = 0
        self._feed: Feed | None = None
        self._next_commit_s = 0.0
        self._next_snapshot_s = 0.0
        self._snapshot_age_ticks = 0
        self._flood = _FloodWatch()
        self._held_for: str | None = None
        self.state = "waiting for the stream"

    def run(self, stop: threading.Event) -> None:
        """Own the slot and bridge until asked to stop; leaves nothing half done.

        Raises:
            FencedError: Another owner took over; nothing here may go on.
        """
        owned = self._own(stop)
        if owned is None:
            return
        producer, sorter, identities = owned
        feed = self._feed = self._open_feed()
        self.state = "running"
        try:
            while not stop.is_set():
                tick = self._collect(feed, sorter, stop)
                if not tick.deliveries:
                    continue
                kept = self._commit(producer, tick, identities, stop)
                if kept is None:
                    return
                producer = kept
                for deliveries in tick.deliveries:
                    feed.acknowledge(deliveries)
                identities.turn(self._clock.wall_ms())
                self._report(tick)
        finally:
            self.state = "stopped"
            feed.close()
            producer.close()

    def _own(self, stop: threading.Event) -> tuple[Producer, Sorter, Identities] | None:
        """Fence the owner before and read the tail; None when asked to stop meanwhile."""
        attempt = 0
        while not stop.is_set():
            began_s = self._clock.monotonic_s()
            identities = Identities(
                window_ms=self._policy.duplicate_window_ms, entries_min=self._policy.receive_max
            )
            doubt = Doubt(entries_max=self._policy.receive_max)
            producer = None
            try:
                producer = self._stream.producer(self._owner)
                self.state = "warming"
                warm(
                    self._stream,
                    self._policy.slot,
                    identities=identities,
                    doubt=doubt,
                    window_ms=self._policy.duplicate_window_ms,
                    entries_min=self._policy.receive_max,
                )
            except UnavailableError as error:
                if producer is not None:
                    producer.close()
                attempt += 1
                self._pause(attempt, error, stop)
                continue
            events.emit(
                events.IngestWarmed(
                    self._policy.slot, len(identities), self._clock.monotonic_s() - began_s
                )
            )
            sorter = Sorter(
                adapters=self._adapters,
                gate=self._gate,
                identities=identities,
                doubt=doubt,
                payload_bytes_max=self._policy.payload_bytes_max,
            )
            return producer, sorter, identities
        return None

    @property
    def _owner(self) -> str:
        return f"matchday-ingest-{self._policy.slot}"

    def _collect(self, feed: Feed, sorter: Sorter, stop: threading.Event) -> Tick:
        tick = Tick()
        if self._is_held(feed, stop):
            return tick
        early_s = self._next_commit_s - self._clock.monotonic_s()
        if early_s > 0:
            self._clock.wait(stop, early_s)
        for deliveries in feed.receive(timeout_s=RECEIVE_TIMEOUT_S):
            sorter.take(tick, deliveries)
        self._next_commit_s = self._clock.monotonic_s() + self._policy.tick_s
        return tick

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

    def _commit(
        self, producer: Producer, tick: Tick, identities: Identities, stop: threading.Event
    ) -> Producer | None:
        """Make a tick durable, whatever it takes; gives the producer to go on with.

        The interleaving guarded against: the stream commits, its answer is lost. Sending
        the tick again would store it twice, so first a new producer settles the old
        transaction one way or the other, then the ledger's tail says which way.
        """
        self._tick_count += 1
        name = f"{self._run_id}-{self._tick_count}"
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic_s()
        outputs = tick.outputs(slot=self._policy.slot, tick=name, ts_ms=now_ms)
        self._snapshot_age_ticks += 1
        if now_s >= self._next_snapshot_s or self._snapshot_age_ticks >= SNAPSHOT_EVERY_TICKS:
            self._next_snapshot_s = now_s + SNAPSHOT_EVERY_S
            self._snapshot_age_ticks = 0
            outputs[Topic.LEDGER] += snapshot_outputs(
                identities.last_numbers(), slot=self._policy.slot, tick=name, ts_ms=now_ms
            )
        attempt = 0
        while True:
            try:
                producer.commit(outputs)
                return producer
            except FencedError:
                raise
            except UnavailableError as error:
                attempt += 1
                renewed = self._renew(producer, error, attempt, stop)
                if renewed is None:
                    return None
                producer, newest = renewed
                if name in newest:
                    return producer

    def _renew(
        self, producer: Producer, error: UnavailableError, attempt: int, stop: threading.Event
    ) -> tuple[Producer, set[str]] | None:
        """Settle what the stream's silence left open: new producer, then the newest ticks."""
        producer.close()
        while not stop.is_set():
            self._pause(attempt, error, stop)
            fresh = None
            try:
                fresh = self._stream.producer(self._owner)
                ticks = newest_ticks(self._stream, self._policy.slot, count=200)
            except UnavailableError as again:
                if fresh is not None:
                    fresh.close()
                error = again
                attempt += 1
                continue
            self.state = "running"
            return fresh, {tick.tick for tick in ticks}
        return None

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
        accepted = sum(counts.accepted for counts in tick.counts.values())
        duplicate = sum(counts.duplicate for counts in tick.counts.values())
        missing = sum(counts.missing for counts in tick.counts.values())
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
