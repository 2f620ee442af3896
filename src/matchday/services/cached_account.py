"""The account as the page shows it: read by one thread, over one reader, for all who ask.

Owns the thread `dashboard.account` and the reader of the `ledger` topic that it keeps open as
long as somebody asks. Does not own the arithmetic (`accounting`).
"""

from __future__ import annotations

import threading
from collections import deque

import msgspec

from matchday.clock import Clock, SystemClock
from matchday.domain.account import Account, Counts
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, MatchdayError, UnavailableError
from matchday.ports import Folded, Partition, Query, Reader, Start, Stream, StreamRecord
from matchday.services.accounting import (
    EXPIRED,
    account_at,
    expired_of,
    read_account,
    to_the_end,
)

SETTLE_ATTEMPTS = 10
SETTLE_PAUSE_S = 0.3
EVERY_S = 1.0
PATIENCE_S = 5.0
KEPT_S = 3.0
"""The reader is let go of when nobody has asked for so long: an open one costs some CPU."""
KEPT_BYTES_MAX = 8 * 2**20
"""Of ledger records that persist has not folded yet; behind more, they are read anew."""
JOIN_S = 2.0
EXPIRED_EVERY_S = 10.0
"""How long it holds whose the expired are, unless persist has found more of them."""


class CachedAccount:
    """Keeps the account for the page; may be called from any thread.

    The account is read at most once per `every_s`, and only when somebody asks. Nobody waits
    longer than `patience_s`, however long stream or store let the reading wait: all who ask
    meanwhile get its answer.

    Args:
        stream: Where the tail of the account is.
        query: Where its folded part is.
        clock: Tells how old the account is.
        every_s: How old an account may be that is given, seconds.
        patience_s: How long a call waits at most, seconds of real time.
    """

    def __init__(
        self,
        stream: Stream,
        query: Query,
        *,
        clock: Clock,
        every_s: float = EVERY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._tail = LedgerTail(stream, query, clock=clock)
        self._clock = clock
        self._every_s = every_s
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_wanted = False
        self._is_reading = False
        self._read_count = 0
        self._read_s = float("-inf")
        self._answer: Account | _Failure = _Failure(False, "reading the account: not read yet")

    def __call__(self) -> Account:
        """Give the account, at most `every_s` old.

        Raises:
            UnavailableError: Stream or store does not answer, or not within `patience_s`.
            ConfigError: The store is damaged.
        """
        with self._changed:
            if self._clock.monotonic_s() - self._read_s >= self._every_s:
                self._await_reading()
            answer = self._answer
        if isinstance(answer, Account):
            return answer
        raise answer.error()

    def close(self) -> None:
        """Let go of the reader; a reading that hangs does so when it ends."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(JOIN_S)

    def _await_reading(self) -> None:
        if self._closing.is_set():
            raise UnavailableError("reading the account: the dashboard is stopping")
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._work, name="dashboard.account", daemon=True
            )
            self._thread.start()
        seen = self._read_count
        self._is_wanted = not self._is_reading
        self._changed.notify_all()
        is_over = self._changed.wait_for(
            lambda: self._read_count > seen or self._thread is None, self._patience_s
        )
        if not is_over or self._read_count == seen:
            raise UnavailableError(
                f"reading the account: stream and store gave none within {self._patience_s:.1f} s"
            )

    def _work(self) -> None:
        try:
            while self._is_asked():
                answer = self._read()
                with self._changed:
                    self._answer = answer
                    self._is_reading = False
                    self._read_s = self._clock.monotonic_s()
                    self._read_count += 1
                    self._changed.notify_all()
        finally:
            self._tail.close()
            with self._changed:
                self._thread, self._is_reading = None, False
                self._changed.notify_all()

    def _is_asked(self) -> bool:
        """Wait until somebody asks; False at the end."""
        with self._changed:
            is_over = self._changed.wait_for(self._has_news, KEPT_S)
        if not is_over:
            self._tail.close()
            with self._changed:
                self._changed.wait_for(self._has_news)
        with self._changed:
            self._is_wanted, self._is_reading = False, True
            return not self._closing.is_set()

    def _has_news(self) -> bool:
        return self._is_wanted or self._closing.is_set()

    def _read(self) -> Account | _Failure:
        try:
            account = self._tail.read()
            for _ in range(SETTLE_ATTEMPTS):
                if account.adds_up or self._clock.wait(self._closing, SETTLE_PAUSE_S):
                    break
                account = self._tail.read()
            return account
        except MatchdayError as error:
            # As text: an error that is kept would keep its traceback, and that the clients.
            return _Failure(isinstance(error, ConfigError), str(error))


class _Failure:
    """Why there is no account."""

    def __init__(self, is_config: bool, text: str) -> None:
        self._is_config = is_config
        self._text = text

    def error(self) -> MatchdayError:
        """Make the error for one who asks: each has its own, with its own traceback."""
        return ConfigError(self._text) if self._is_config else UnavailableError(self._text)


class LedgerTail:
    """Reads the account again and again over one reader of the `ledger` topic.

    Making a reader is what reading an account costs most: a client with threads, connections
    and log-in of its own. So it stays open, and the records that the store has not folded yet
    are kept. Used by one thread.

    Args:
        stream: Where the ledger is.
        query: Where its folded part is.
        clock: Tells how old it is whose the expired are.
    """

    def __init__(self, stream: Stream, query: Query, *, clock: Clock | None = None) -> None:
        self._stream = stream
        self._query = query
        self._expired = RareExpired(stream, clock=clock or SystemClock())
        self._reader: Reader | None = None
        self._kept: deque[StreamRecord] = deque()
        self._begins: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}

    def read(self) -> Account:
        """Read the account of all sources, true at the moment of the call.

        Raises:
            UnavailableError: Store or stream does not answer; the reader is made anew.
        """
        try:
            # First what is folded and then the tail: see `accounting.read_account`.
            folded = self._query.folded()
            if self._is_behind(folded):
                self._open(folded)
            if not self._take(folded):
                self.close()
                return read_account(self._stream, self._query)
            return account_at(folded, self._kept, expired=self._expired.attribute)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the reader and of what it gave; `read` makes another."""
        reader, self._reader = self._reader, None
        self._kept.clear()
        self._begins, self._ends = {}, {}
        if reader is not None:
            reader.close()

    def _is_behind(self, folded: Folded) -> bool:
        """Tell whether the store now lacks records that were let go of, as after a restore."""
        starts = folded.next_offsets
        return self._reader is None or any(
            starts.get(place, 0) < begin for place, begin in self._begins.items()
        )

    def _open(self, folded: Folded) -> None:
        self.close()
        self._begins = {
            place: offset
            for place, offset in folded.next_offsets.items()
            if place.topic is Topic.LEDGER
        }
        self._reader = self._stream.reader([Topic.LEDGER], Start.at(dict(self._begins)))

    def _take(self, folded: Folded) -> bool:
        """Take what is new and let go of what is folded; tell whether all of it is here."""
        assert self._reader is not None
        for record in to_the_end(self._reader):
            place = Partition(record.topic, record.partition)
            if record.offset < self._ends.get(place, 0):
                return False  # the topic was made anew
            self._ends[place] = record.offset + 1
            self._kept.append(record)
        starts = folded.next_offsets
        for place, offset in starts.items():
            if place.topic is Topic.LEDGER:
                self._begins[place] = max(offset, self._begins.get(place, 0))
        self._kept = deque(
            record
            for record in self._kept
            if record.offset >= starts.get(Partition(record.topic, record.partition), 0)
        )
        return sum(len(record.value) for record in self._kept) <= KEPT_BYTES_MAX


class RareExpired:
    """Knows whose the readings are that retention deleted unread, and asks rarely for it.

    To find out takes a reader of `analytics` and all that waits there. How many have expired
    changes only when persist finds more, which the account tells; so what was found out holds until
    then, and is looked up anew now and then, since a look can meet a transaction that
    becomes visible piece by piece. Used by one thread.
    """

    def __init__(self, stream: Stream, *, clock: Clock) -> None:
        self._ask = expired_of(stream)
        self._clock = clock
        self._asked_s = float("-inf")
        self._found_by_persist: dict[str, Counts] = {}
        self._expired: dict[str, int] = {}

    def attribute(self, counts: dict[str, Counts], folded: Folded) -> None:
        """Give the expired to their sources; see `accounting.attribute_expired`.

        Raises:
            UnavailableError: The stream does not answer.
        """
        lines = {name: found for name, found in counts.items() if name.startswith(EXPIRED)}
        now_s = self._clock.monotonic_s()
        if lines != self._found_by_persist or now_s - self._asked_s >= EXPIRED_EVERY_S:
            kept = {name: msgspec.structs.replace(found) for name, found in lines.items()}
            self._ask(counts, folded)
            self._found_by_persist, self._asked_s = kept, now_s
            self._expired = {name: found.expired for name, found in counts.items()}
            return
        for name in lines:
            del counts[name]
        for name, found in counts.items():
            # What is stored after all has not expired.
            found.expired = max(0, min(self._expired.get(name, 0), found.accepted - found.stored))
