"""The stage persist: everything the stream carries goes to the store, each record once.

Carries out the protocol of `protocols.confirming`: mark, claim, write, settle, confirm. Owns how
each step is done, the pauses between tries and what is told of it. Does not own what a record
becomes (`batch`, `documents`) nor how the store tells a repeated record (its own promise).

A dead letter is written exactly once, because it moves together with the bookmark. That
holds only if reading starts at the stream's bookmark even where the store is ahead of it;
where the store is behind (its file was lost or restored), reading starts there.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import FencedError, UnavailableError
from matchday.observe.events import (
    DocumentsRefused,
    DocumentsStored,
    LinkLost,
    LinkRestored,
    OwnershipLost,
    RecordsExpired,
    RecordUndecodable,
    emit,
)
from matchday.ports import (
    Bookmark,
    Consumer,
    Partition,
    Producer,
    Record,
    Refusal,
    Store,
    Stream,
)
from matchday.protocols.confirming import Confirming, Do
from matchday.store.batch import Batch
from matchday.store.lag import Lag
from matchday.store.linger import Linger
from matchday.store.policy import PersistPolicy

__all__ = ["GROUP", "TOPICS", "Persist", "PersistPolicy"]

GROUP: Final = "matchday-persist"
TOPICS: Final = (Topic.ANALYTICS, Topic.RESULTS, Topic.DEAD_LETTERS, Topic.LEDGER, Topic.LATE)
POLL_S_MAX: Final = 0.25
POLL_RECORDS: Final = 2000
SERVED_S: Final = 10.0
"""After so long without a failure the next pause is a short one again: two members of one name
throw each other out as soon as they have joined."""

_ASKS_STORE: Final = frozenset({Do.CLAIM, Do.WRITE, Do.SETTLE})
_MOVES_BOOKMARKS: Final = frozenset({Do.SETTLE, Do.CONFIRM})


class Persist:
    """Carries records from stream to store until told to stop; an `Assignee`.

    Holds at most one batch. While the store does not answer the consumer is paused and kept
    in its group, and the same batch is tried again. When the stream takes a partition away
    while a batch is open, the batch is written once more, or dropped for that partition.

    Args:
        stream: Where records come from; prepared.
        store: Where they go; prepared, used by no other thread.
        policy: See `PersistPolicy`.
        clock: Paces writes and pauses.
        rng: Jitters pauses.
    """

    def __init__(
        self,
        stream: Stream,
        store: Store,
        *,
        policy: PersistPolicy,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._stream = stream
        self._store = store
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._batch = Batch()
        self._letters: list[Record] = []
        self._protocol = Confirming()
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._is_paused = self._is_more = False
        self._stop_deadline_s: float | None = None
        self._linger = Linger(policy)
        self._confirmed_s = float("-inf")
        self._lag = Lag(clock)

    # --- for other threads ------------------------------------------------------------------

    def lag(self) -> int | None:
        """Give how many offsets were not stored yet at the last look; None while unknown.

        It looks every 2 s, every 5 s while it is caught up, and when nothing more comes.
        """
        return self._lag.count()

    def is_caught_up(self) -> bool:
        """Tell whether everything in the stream was stored 0.5 s ago; no, where it must look."""
        return self._lag.is_zero()

    # --- the loop ---------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Carry records until `stop` is set, then finish the batch in hand and leave.

        Returns when everything it took is stored and confirmed, or, with the store away,
        after `stop_grace_s`: what is left comes again at the next start.
        """
        self._lag.publish()
        failures, failed_s = 0, 0.0
        try:
            while not stop.is_set():
                try:
                    self._step(stop)
                    if failures and self._clock.monotonic_s() >= failed_s + SERVED_S:
                        failures = 0
                except UnavailableError as error:
                    # Of the stream: its own link tells of it. The same call is made again.
                    if isinstance(error, FencedError):
                        emit(OwnershipLost(stage="persist", detail=str(error)))
                        self._protocol.refused()
                    self._lag.forget()
                    failures += 1
                    self._clock.wait(stop, self._policy.pause_s(failures, self._rng))
                    failed_s = self._clock.monotonic_s()
            self._finish(stop)
        finally:
            self._leave()

    def _step(self, stop: threading.Event) -> None:
        if self._protocol.do(()) is Do.JOIN:
            self._leave()
        consumer = self._joined()
        self._resume(consumer)
        due_in_s = self._linger.due_in_s(self._clock.monotonic_s())
        if due_in_s > 0 and not self._is_more:
            # What comes before the next write is due is taken then, all at once.
            self._clock.wait(stop, min(due_in_s, POLL_S_MAX))
        room = min(max(self._policy.batch_records_max - self._batch.records_count, 1), POLL_RECORDS)
        records = consumer.poll(timeout_s=0.0 if self._batch else POLL_S_MAX, records_max=room)
        self._batch.add_all(records)
        self._is_more = len(records) == room
        is_due = self._linger.is_due(self._clock.monotonic_s(), is_more_at_hand=self._is_more)
        is_full = self._policy.is_full(self._batch.records_count, self._batch.bytes_count)
        if self._batch and (is_due or is_full):
            self._flush(stop)
        elif not records and not self._batch:
            self._flush(stop, is_idle=True)
        self._lag.look(
            consumer,
            self._protocol.positions,
            is_idle=not records,
            is_in_hand=bool(self._batch),
        )

    def _joined(self) -> Consumer:
        if self._consumer is None:
            if self._protocol.is_in_doubt:
                # Only a new producer ends the doubt about the last commit, and with it about
                # the bookmarks that the assignment will show.
                self._producer = self._stream.producer(self._producer_name)
                self._protocol.doubt_ended()
            self._consumer = self._stream.consumer(GROUP, TOPICS, self)
            self._protocol.joined()
        return self._consumer

    def _flush(self, stop: threading.Event, *, is_idle: bool = False) -> None:
        """Write the batch in hand and confirm it, however long the store is away.

        Args:
            stop: Set when there is little time left.
            is_idle: Nothing comes: what is stored is confirmed now, lest it stay uncounted.
        """
        failures = 0
        while (do := self._due()) not in (Do.READ, Do.JOIN):
            if do in _MOVES_BOOKMARKS and not (is_idle or stop.is_set()) and self._is_early():
                break
            try:
                self._go_on(do)
            except UnavailableError as error:
                if isinstance(error, FencedError) or do not in _ASKS_STORE:
                    raise
                failures += 1
                if failures == 1:
                    emit(LinkLost(link="store", detail=str(error)))
                if not self._wait_for_store(self._policy.pause_s(failures, self._rng), stop):
                    return
            else:
                if failures and do in _ASKS_STORE:
                    failures = 0
                    emit(LinkRestored(link="store", detail=self._store.link().detail))
        if self._consumer is not None:
            self._resume(self._consumer)

    def _is_early(self) -> bool:
        """Tell whether bookmarks may wait: late ones cost work after a crash, no rows."""
        next_s = self._confirmed_s + self._policy.confirm_every_s
        return not self._protocol.owes_letters and self._clock.monotonic_s() < next_s

    def _due(self) -> Do:
        return self._protocol.do(self._batch.partitions())

    def _go_on(self, do: Do) -> None:
        """Do one step of the way of the batch in hand.

        Raises:
            UnavailableError: The store or the stream did not answer.
        """
        if do is Do.MARK:
            self._mark_beginnings()
        elif do is Do.CLAIM:
            for partition in self._protocol.positions.unclaimed():
                claim = self._store.claim(partition, self._stream.topic_id(partition.topic))
                self._protocol.claimed(partition, claim)
        elif do is Do.WRITE:
            self._write()
        elif do is Do.SETTLE:
            self._store.settle()
            self._protocol.folded()
        else:
            self._confirm()

    def _mark_beginnings(self) -> None:
        """Commit where the group begins in partitions that it never had."""
        fresh = self._protocol.positions.without_bookmark(self._batch.partitions())
        assert self._consumer is not None
        self._consumer.commit(
            {partition: Bookmark(self._batch.first_offset(partition)) for partition in fresh}
        )
        self._protocol.marked(fresh)

    def _write(self) -> None:
        """Send the batch in hand to the store, and make the dead letters due for it."""
        self._linger.wrote(
            self._clock.monotonic_s(),
            records_count=self._batch.records_count,
            pairs_count=self._batch.pairs_count(),
        )
        refusals = self._store.write(self._batch.writes())
        batch, self._batch = self._batch, Batch()
        self._letters = batch.dead_letters(refusals)
        self._protocol.stored(batch.bookmarks(), owes_letters=bool(self._letters))
        _report(batch, refusals)

    def _confirm(self) -> None:
        """Confirm what the store took: bookmarks, with dead letters in one transaction."""
        consumer, owed = self._consumer, self._protocol.owed
        assert consumer is not None
        try:
            if not self._letters:
                consumer.commit(owed)
            else:
                if self._producer is None:
                    self._producer = self._stream.producer(self._producer_name)
                self._producer.commit(
                    {Topic.DEAD_LETTERS: self._letters}, consumer=consumer, bookmarks=owed
                )
        except FencedError:
            self._protocol.refused()
            raise
        except UnavailableError:
            self._protocol.unanswered()
            raise
        self._protocol.confirmed()
        self._letters = []
        self._confirmed_s = self._clock.monotonic_s()

    def _resume(self, consumer: Consumer) -> None:
        if self._is_paused:
            self._is_paused = False
            consumer.resume()

    def _wait_for_store(self, pause_s: float, stop: threading.Event) -> bool:
        """Pause, keeping the membership alive; tell whether to try the store again."""
        if self._consumer is None:
            return False
        if not self._is_paused:
            self._is_paused = True
            self._consumer.pause()
        never = threading.Event()
        until_s = self._clock.monotonic_s() + pause_s
        while (left_s := until_s - self._clock.monotonic_s()) > 0:
            if stop.is_set():
                now_s = self._clock.monotonic_s()
                if self._stop_deadline_s is None:
                    self._stop_deadline_s = now_s + self._policy.stop_grace_s
                if now_s >= self._stop_deadline_s:
                    return False
            with suppress(UnavailableError):
                self._batch.add_all(self._consumer.poll(timeout_s=0.0, records_max=1))
            self._clock.wait(never, min(left_s, POLL_S_MAX))
        return True

    def _finish(self, stop: threading.Event) -> None:
        """Write and confirm what is in hand; where that cannot be done it comes again."""
        with suppress(UnavailableError):
            self._flush(stop)

    def _leave(self) -> None:
        """Drop what is in hand and give up group and producer; `_step` joins again."""
        self._batch = Batch()
        self._letters = []
        self._is_paused = False
        self._lag.forget()
        self._protocol.left()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    @property
    def _producer_name(self) -> str:
        return f"{GROUP}-{self._policy.member}"

    # --- the assignee -----------------------------------------------------------------------

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        """Claim partitions in the store and tell where to read; see `Assignee.assigned`.

        A store that does not answer is asked again before the first write.
        """
        starts: dict[Partition, int] = {}
        for partition, bookmark in bookmarks.items():
            claim, is_claimed = None, False
            with suppress(UnavailableError):
                claim = self._store.claim(partition, self._stream.topic_id(partition.topic))
                is_claimed = True
            starts[partition] = self._protocol.assigned(
                partition, bookmark, claim=claim, is_claimed=is_claimed
            )
        return starts

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Write and confirm what is in hand, once, then let go; see `Assignee.revoked`."""
        if (self._batch.partitions() | self._protocol.owed.keys()) & set(partitions):
            try:
                while (do := self._due()) not in (Do.READ, Do.JOIN):
                    self._go_on(do)
            except FencedError:
                self._protocol.refused()
            except UnavailableError as error:
                # What the store did not take comes to the next owner, who has our bookmark.
                emit(OwnershipLost(stage="persist", detail=str(error)))
        self.lost(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Drop what is in hand of partitions that are somebody else's; see `Assignee.lost`."""
        self._batch.drop(partitions)
        self._protocol.gone(partitions)

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        """Count what retention deleted before it was stored; see `Assignee.expired`.

        The deleted records cannot tell their sources any more, so the count goes into the
        account by partition, as source `expired:<topic>/<partition>`. It is in offsets: where
        the stream's transactions take offsets of their own it is an upper bound.
        """
        count = self._protocol.positions.lost_between(partition, wanted, first)
        if count == 0:
            return
        self._batch.note_expired(partition, first=first, count=count)
        emit(RecordsExpired(stage="persist", partition=str(partition), count=count))


def _report(batch: Batch, refusals: Sequence[Refusal]) -> None:
    """Tell what the store took, what it refused, and what nobody could read."""
    stored_count = sum(len(write.rows) for write in batch.writes()) - len(refusals)
    emit(DocumentsStored(count=stored_count))
    if refusals:
        emit(DocumentsRefused(count=len(refusals), example=refusals[0].reason))
    if batch.undecodable:
        emit(
            RecordUndecodable(
                stage="persist", error=batch.undecodable[0], count=len(batch.undecodable)
            )
        )
