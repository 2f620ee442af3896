"""Committing bookmarks within a bound, with a client whose own commit has none.

The client's synchronous commit waits for as long as the broker stays silent (measured with
a frozen broker: until it went on), and its asynchronous one tells the outcome only from
within a poll, where the group's changes would come up, too. So each commit runs in a thread
of its own, and the caller waits for that as long as it likes. Owns these threads; does not
know groups or partitions.
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

    def commit(self, places: list[TopicPartition], *, timeout_s: float) -> None:
        """Commit offsets and wait for the outcome.

        Raises:
            TimeoutError: No answer in time, or none yet to the commit before this one. It
                may still be carried out; commits never overtake one another.
            KafkaException: The client's own errors, also those of single partitions.
        """
        if self._is_busy(timeout_s):
            raise TimeoutError("the commit before this one is not answered yet")
        errors: list[KafkaException] = []

        def run() -> None:
            try:
                for answer in self._client.commit(offsets=places, asynchronous=False):
                    if answer.error is not None:
                        raise KafkaException(answer.error)
            except KafkaException as error:
                errors.append(error)
            self._close_if_abandoned()

        # It ends with the process where the broker never answers again.
        self._thread = threading.Thread(target=run, name=THREAD, daemon=True)
        self._thread.start()
        if self._is_busy(timeout_s):
            raise TimeoutError(f"no answer within {timeout_s:.1f} s")
        if errors:
            raise errors[0]

    def close(self, *, timeout_s: float) -> bool:
        """Close the client; tell whether that is done.

        A client cannot be closed under a running commit. One that does not end in time
        takes the client over, and closes it when it gets its answer.
        """
        self._is_busy(timeout_s)
        with self._lock:
            if self._is_busy(0.0):
                self._is_abandoned = True
                return False
        self._client.close()
        return True

    def _is_busy(self, timeout_s: float) -> bool:
        if self._thread is None:
            return False
        self._thread.join(timeout_s)
        return self._thread.is_alive()

    def _close_if_abandoned(self) -> None:
        with self._lock:
            is_mine = self._is_abandoned
        if is_mine:
            self._client.close()
