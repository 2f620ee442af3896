"""Committing bookmarks within a bound, with clients whose own commits have none.

The consumer's synchronous commit asks again and again for as long as the broker is silent
(measured with a frozen one: until it went on), and its asynchronous one tells the outcome
only from within a poll, where changes of the group would come up, too. The producer takes a
time-out for bookmarks and does not keep to it (librdkafka issue 5456): with its connection
to the group's coordinator cut in the wrong moment it waits for ever. So such calls run in
threads of their own. Owns these threads; does not know groups or partitions.

The consumer lets one thread in at a time: while a commit is stuck, nothing else can be asked
of it, and its owner has to make another one. `abandon` sees to the stuck one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

THREAD: Final = "stream.commit"


class _Outcome:
    """What became of a call in another thread.

    It keeps a copy of an error and gives it away once. Frames that hold an error which holds
    them would keep the client, its sockets and threads, until a garbage collection comes by;
    and the client's own error of a time-out is held somewhere for good.
    """

    def __init__(self) -> None:
        self._error: KafkaException | None = None

    def run(self, call: Callable[[], None]) -> None:
        """Make the call and keep what it raises."""
        try:
            call()
        except KafkaException as error:
            self._error = KafkaException(*error.args)
            error.with_traceback(None)

    def settle(self) -> None:
        """Raise what the call raised, if anything."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error


def within(timeout_s: float, call: Callable[[], None]) -> None:
    """Make a call that may never return, and wait for it no longer than that.

    Raises:
        TimeoutError: It has not returned; it may still do its work. What it was asked of
            cannot be used again. It is let go when the call returns, at the latest when the
            broker closes the idle connection, or with the process.
        KafkaException: The call's own.
    """
    outcome = _Outcome()
    thread = threading.Thread(target=outcome.run, args=(call,), name=THREAD, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {timeout_s:.1f} s")
    outcome.settle()


class BoundedCommits:
    """The commits of one client, one at a time; used by the thread that owns the client."""

    def __init__(self, client: Consumer) -> None:
        self._client = client
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._is_over = True
        """The thread has looked whether the client was abandoned; it lives on for a moment."""

    @property
    def is_stuck(self) -> bool:
        """Tell whether a commit is still not answered, so that the client cannot be used."""
        return not self._is_over and self._thread is not None and self._thread.is_alive()

    def commit(self, places: list[TopicPartition], *, timeout_s: float) -> None:
        """Commit offsets and wait for the outcome.

        Raises:
            TimeoutError: No answer in time; it may still be carried out.
            KafkaException: The client's own errors, also those of single partitions.
        """
        if self.is_stuck:
            raise TimeoutError("the commit before this one is not answered yet")
        outcome = _Outcome()

        def run() -> None:
            """Commit, and close the client if it was abandoned meanwhile."""
            outcome.run(lambda: self.commit_here(places))
            with self._lock:
                self._is_over = True
                is_abandoned = self._is_abandoned
            if is_abandoned:
                self._client.close()

        # It ends with the process where the broker never answers again.
        self._is_over = False
        self._thread = threading.Thread(target=run, name=THREAD, daemon=True)
        self._thread.start()
        self._thread.join(timeout_s)
        if self.is_stuck:
            raise TimeoutError(f"no answer within {timeout_s:.1f} s")
        outcome.settle()

    def commit_here(self, places: list[TopicPartition]) -> None:
        """Commit in this thread, without a bound; the only way inside a call of the client.

        Raises:
            KafkaException: As of `commit`.
        """
        for answer in self._client.commit(offsets=places, asynchronous=False):
            if answer.error is not None:
                raise KafkaException(answer.error)

    def abandon(self) -> None:
        """Have the client closed: now, or when the stuck commit gets its answer."""
        with self._lock:
            if self.is_stuck:
                self._is_abandoned = True
                return
        let_go(self._client)


def let_go(client: Consumer) -> None:
    """Close a client that cannot go on, in a thread of its own: that may take for ever, too."""
    threading.Thread(target=client.close, name=THREAD, daemon=True).start()
