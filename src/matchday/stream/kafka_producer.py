"""The one owner of a name in a Kafka cluster: whole batches in transactions.

Owns the transactional client, the order of its calls, and what each of its errors means
for the batch. Does not own retrying: a producer that met an error is spent, and the caller
makes a new one. One transaction per commit, so Kafka's own atomicity is the contract's.

Why a doubt always ends: a commit is bounded by `io_timeout_s`, and when it gives up, the
batch is open, committed or aborted, nobody here knows which. Making the next producer of
the name asks the cluster to end whatever is open: an unfinished transaction is aborted, one
whose commit has begun is completed, and only then is the new producer told that it may
write. So after `Stream.producer(owner)` has returned, a reader's tail tells what happened.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Client

from matchday.domain.topics import PLANS, Topic
from matchday.errors import (
    DeniedError,
    FencedError,
    MatchdayError,
    RefusedError,
    UnavailableError,
)
from matchday.ports import Bookmark, Consumer, Partition, Record
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_commits import within
from matchday.stream.kafka_consumer import KafkaConsumer
from matchday.stream.kafka_errors import kafka_error, translate
from matchday.stream.kafka_records import OVERHEAD_BYTES, committed_place, size_bytes

# The client sends what a batch has gathered when the commit flushes it; until then it waits,
# so that one commit costs one request per partition. Longer than enqueuing ever takes.
LINGER_MS: Final = 100
# A transaction that follows at once finds the one before it not quite ended, and is asked to
# come again: with the client's own pause each commit of bookmarks took 90 ms, so it takes 14.
RETRY_MS: Final = 10
# A batch is in memory before it comes here, so the queue's own bound must only never bite.
QUEUE_RECORDS: Final = 10_000_000
QUEUE_KB: Final = 2_097_151
# Beyond the commit's own bound, so that the broker does not abort under a slow commit.
TRANSACTION_GRACE_MS: Final = 5_000
ABORT_TIMEOUT_S: Final = 2.0
# Its own time-out comes first, where it keeps to it.
CLIENT_LATE_S: Final = 1.0
# A client let go right after it was fenced ends the process with "double free or corruption" once
# in some tens of times; half a second later it did not in 243. One whose take-over failed has sent
# no records: let go at once it did not in 10,887, beside one of the others that did.
REST_S: Final = 1.0
RESTING: Final = "kafka.resting"


class KafkaProducer:
    """A transactional producer; see `matchday.ports.Producer` for the contract.

    `FencedError` is raised where the cluster says that the name has a newer producer, or
    the group another member. One case is beyond anybody's knowledge: the commit arrived,
    its answer was lost, and a newer producer came before the question was repeated. Then
    the batch is stored. Whoever is fenced must therefore not send it again, and need not:
    the newer owner reads it in the tail.

    Fenced by its group alone, the name is still this owner's; the producer is spent all the
    same, and making the next one is quick.
    """

    def __init__(self, cluster: Cluster, owner: str) -> None:
        self._cluster = cluster
        self._owner = owner
        self._spent: MatchdayError | None = None
        self._is_closed = False
        action = f"taking over the name {owner}"
        # One that is told of no broker would be told of none ever again: see `kafka_pulse`.
        cluster.ask(cluster.brokers, action=action)
        self._client = Client(self._settings())
        try:
            # Asked again while the coordinator, just started, still reads what it has to know.
            cluster.ask(self._client.init_transactions, action=action)
        except UnavailableError:
            self.close()
            raise

    def commit(
        self,
        outputs: Mapping[Topic, Sequence[Record]],
        *,
        consumer: Consumer | None = None,
        bookmarks: Mapping[Partition, Bookmark] | None = None,
    ) -> None:
        """Append all records and move the bookmarks in one transaction; see the port.

        Takes at most about `io_timeout_s`, and `ABORT_TIMEOUT_S` more after an error. A
        record counts with key, value and headers against `record_bytes_max` of its topic.

        Raises:
            ValueError: Bookmarks without the consumer that they belong to.
        """
        if self._is_closed:
            raise RuntimeError(f"committing as {self._owner}: the producer is closed")
        if self._spent is not None:
            raise type(self._spent)(str(self._spent))
        for topic, records in outputs.items():
            _check_sizes(topic, records)
        places, group = self._group_part(consumer, bookmarks)
        count = sum(map(len, outputs.values()))
        if not count and not places:
            return
        clock = self._cluster.clock
        deadline_s = clock.monotonic_s() + self._cluster.io_timeout_s
        is_ending = False
        try:
            self._client.begin_transaction()
            for topic, records in outputs.items():
                self._enqueue(self._cluster.name_of(topic), records)
            if places:
                self._move_bookmarks(places, group, max(deadline_s - clock.monotonic_s(), 0.1))
            is_ending = True
            self._client.commit_transaction(max(deadline_s - clock.monotonic_s(), 0.1))
        except (KafkaException, BufferError, TimeoutError) as error:
            raise self._give_up(error, count, is_ending=is_ending) from error
        self._cluster.link.is_answering()

    def close(self) -> None:
        """Release the connection without waiting; what is open is aborted by the next owner."""
        if self._is_closed:
            return
        self._is_closed = True
        # The client's own `close` aborts and flushes first, for as long as that takes, and
        # warns where it cannot. Letting go of the last reference just ends it.
        client = self._client
        del self._client
        if self._spent is not None:
            threading.Thread(target=_rest, args=(client,), name=RESTING, daemon=True).start()

    def _settings(self) -> dict[str, Any]:
        largest = max(plan.record_bytes_max for plan in PLANS.values())
        timeout_ms = self._cluster.io_timeout_ms
        return {
            **self._cluster.settings(self._cluster.heard),
            "transactional.id": self._cluster.prefix + self._owner,
            "transaction.timeout.ms": timeout_ms + TRANSACTION_GRACE_MS,
            "message.timeout.ms": timeout_ms,
            "enable.idempotence": True,
            "acks": "all",
            # The Java clients' choice, so that everybody's records of a key meet.
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": LINGER_MS,
            "retry.backoff.ms": RETRY_MS,
            # Else it forgets all brokers as soon as none answers, and the commit of bookmarks
            # that waits for one of them waits for ever (librdkafka issue 5511), with the
            # threads and sockets of the forgotten. A producer that an outage has spent is
            # replaced by one that asks the addresses of the URL again; nothing is missed.
            "metadata.recovery.strategy": "none",
            "message.max.bytes": largest + OVERHEAD_BYTES,
            "queue.buffering.max.messages": QUEUE_RECORDS,
            "queue.buffering.max.kbytes": QUEUE_KB,
        }

    def _group_part(
        self, consumer: Consumer | None, bookmarks: Mapping[Partition, Bookmark] | None
    ) -> tuple[list[Any], Any]:
        """Give the bookmarks and the membership that they are committed under."""
        if not bookmarks:
            return [], None
        if not isinstance(consumer, KafkaConsumer):
            raise ValueError(f"committing bookmarks as {self._owner}: no Kafka consumer is given")
        # The membership as it was when these partitions were assigned. The client's present
        # one would not do: after it was thrown out of the group it names no member at all,
        # and the broker takes offsets of a transaction from nobody without asking.
        group = consumer.membership(bookmarks)
        place = self._cluster.place
        return [committed_place(place(one), mark) for one, mark in bookmarks.items()], group

    def _move_bookmarks(self, places: list[Any], group: Any, timeout_s: float) -> None:
        """Add the bookmarks to the transaction, in a thread of its own: see `kafka_commits`."""
        # Not a variable for the client: the library keeps errors of time-outs for good, and the
        # frames that they went through with them. So `close` alone decides when it goes.
        within(
            timeout_s + CLIENT_LATE_S,
            lambda: self._client.send_offsets_to_transaction(places, group, timeout_s),
        )

    def _enqueue(self, name: str, records: Sequence[Record]) -> None:
        """Hand records to the client in order, runs without headers as one batch."""
        run: list[dict[str, Any]] = []
        for record in records:
            if not record.headers:
                run.append({"key": record.key, "value": record.value})
                continue
            self._enqueue_run(name, run)
            run = []
            self._client.produce(
                name, value=record.value, key=record.key, headers=list(record.headers)
            )
        self._enqueue_run(name, run)

    def _enqueue_run(self, name: str, run: list[dict[str, Any]]) -> None:
        if not run:
            return
        # It neither raises on a refused message nor stops there: it goes on behind the hole.
        taken = self._client.produce_batch(name, run)
        if taken == len(run):
            return
        refusals = [found for one in run if (found := one.get("_error")) is not None]
        raise KafkaException(
            refusals[0]
            if refusals
            else KafkaError(KafkaError._FAIL, f"{taken} of {len(run)} taken")
        )

    def _give_up(self, error: BaseException, count: int, *, is_ending: bool) -> MatchdayError:
        """Abort where the client still can, and give the error that tells the caller."""
        action = f"committing {count} records as {self._owner}"
        raised = translate(error, action=action, user=self._cluster.address.user)
        # Once the commit was asked for, only the client knows whether it can be taken back.
        known = kafka_error(error)
        is_stuck = isinstance(error, TimeoutError)
        may_abort = not is_stuck and (
            not is_ending or (known is not None and known.txn_requires_abort())
        )
        was_aborted = may_abort and self._abort()
        if isinstance(raised, RefusedError):
            if was_aborted:
                return raised
            raised = UnavailableError(str(raised))
        # Not the error itself: its traceback would hold this object and its client in a circle,
        # and with them sockets and threads, until a garbage collection comes by.
        self._spent = type(raised)(f"{raised}; this producer is spent")
        if isinstance(raised, FencedError):
            self._cluster.link.is_answering()
        elif isinstance(raised, DeniedError):
            self._cluster.link.is_denied(str(raised))
        else:
            self._cluster.link.is_silent(str(raised))
        return raised

    def _abort(self) -> bool:
        """Try to abort, so that readers need not wait for the next owner to do it."""
        try:
            self._client.abort_transaction(ABORT_TIMEOUT_S)
        except KafkaException:
            # The outcome is as open as before: the next owner's take-over ends it.
            return False
        return True


def _rest(_client: Client) -> None:
    """Hold a client that met an error until nothing of it is under way any more."""
    threading.Event().wait(REST_S)


def _check_sizes(topic: Topic, records: Sequence[Record]) -> None:
    bound = PLANS[topic].record_bytes_max
    for record in records:
        if len(record.value) + len(record.key) > bound or (
            record.headers and size_bytes(record) > bound
        ):
            raise RefusedError(
                "too_large",
                f"appending to {topic} record with key {record.key[:64]!r}: "
                f"{size_bytes(record)} bytes above {bound}",
            )
