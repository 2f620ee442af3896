"""Committing bookmarks within a bound, with a client whose own commit has none.

The client's synchronous commit asks again and again for as long as the broker is silent
(measured with a frozen one: until it went on), and its asynchronous one tells the outcome
only from within a poll, where changes of the group would come up, too. So a commit runs in
a thread of its own. Owns these threads; does not know groups or partitions.

The client lets one thread in at a time: while a commit is stuck, nothing else can be asked
of it, and its owner has to make another one. `abandon` sees to the stuck one.
"""

from __future__ import annotations

import threading
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

THREAD: Final = "stream.commit"


class BoundedCommits:
    """The commits of one client, one at a time; used by the thread that owns the client."""

    def __init__(self, client: Consumer) -> None:
        self._client = client
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_abandoned = False

    @property
    def is_stuck(self) -> bool:
        """Tell whether a commit is still not answered, so that the client cannot be used."""
        return self._thread is not None and self._thread.is_alive()

    def commit(self, places: list[TopicPartition], *, timeout_s: float) -> None:
        """Commit offsets and wait for the outcome.

        Raises:
            TimeoutError: No answer in time; it may still be carried out.
            KafkaException: The client's own errors, also those of single partitions.
        """
        if self.is_stuck:
            raise TimeoutError("the commit before this one is not answered yet")
        errors: list[KafkaException] = []

        def run() -> None:
            try:
                self.commit_here(places)
            except KafkaException as error:
                errors.append(error)
            with self._lock:
                is_abandoned = self._is_abandoned
            if is_abandoned:
                self._client.close()

        # It ends with the process where the broker never answers again.
        self._thread = threading.Thread(target=run, name=THREAD, daemon=True)
        self._thread.start()
        self._thread.join(timeout_s)
        if self.is_stuck:
            raise TimeoutError(f"no answer within {timeout_s:.1f} s")
        if errors:
            raise errors[0]

    def commit_here(self, places: list[TopicPartition]) -> None:
        """Commit in this thread, without a bound; the only way inside a call of the client.

        Raises:
            KafkaException: As of `commit`.
        """
        for answer in self._client.commit(offsets=places, asynchronous=False):
            if answer.error is not None:
                raise KafkaException(answer.error)

    def abandon(self) -> None:
        """Close the client: at once, or by the stuck commit when that gets its answer."""
        with self._lock:
            if self.is_stuck:
                self._is_abandoned = True
                return
        self._client.close()
