"""Persist before a store that settles its account apart from the rows: bookmarks wait for it.

Embedded stream, real MongoDB; the store can be switched off just before it settles.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flow.persisting import FAST, RUBBISH, T0_MS, bookmarks_of, is_all_stored, running
from matchday.clock import SystemClock
from matchday.domain.account import Counts, LedgerRecord, encode_ledger
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Scalar
from matchday.domain.topics import Topic
from matchday.domain.wire import encode_reading
from matchday.errors import UnavailableError
from matchday.ports import Record, Start
from matchday.services.accounting import read_account, verify
from matchday.sqlite import DataFolder
from matchday.store.mongo import MongoQuery, MongoStore
from matchday.stream.embedded import EmbeddedStream
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mongo import Mongo


class SwitchedStore(MongoStore):
    """The store in MongoDB, which can be gone whenever it is to settle."""

    is_down = False
    attempts = 0

    def settle(self) -> None:
        if self.is_down:
            self.attempts += 1
            raise UnavailableError("folding the account: switched off")
        super().settle()


class Rig:
    """An embedded stream, and a database on the shared server."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        self._database = f"persist_{uuid.uuid4().hex[:12]}"
        self._stack = ExitStack()
        self._stack.enter_context(DataFolder(folder))
        self.stream = self._stack.enter_context(
            closing(EmbeddedStream(folder, clock=SystemClock()))
        )
        self.stream.prepare()
        self.query = self._stack.enter_context(closing(MongoQuery(url, database=self._database)))
        self._producer = self._stack.enter_context(closing(self.stream.producer("test-ingest")))
        self._tick = 0

    def store(self) -> SwitchedStore:
        store = self._stack.enter_context(
            closing(SwitchedStore(self._url, clock=SystemClock(), database=self._database))
        )
        store.prepare()
        return store

    def close(self) -> None:
        self._stack.close()

    def append(self, seqs: Sequence[int], *, rubbish: bool = False) -> None:
        """Append numbered readings and their counts as ingest does, and perhaps rubbish."""
        self._tick += 1
        values = [
            Scalar(source=f"s{seq % 3}", t_ms=T0_MS + seq, quantity="q", value=1.5, seq=seq)
            for seq in seqs
        ]
        counts: dict[str, Counts] = {}
        for value in values:
            counts.setdefault(value.source, Counts()).accepted += 1
        ledger = LedgerRecord(
            slot="all", tick=str(self._tick), ts=iso_from_ms(T0_MS), counts=counts
        )
        records = [Record(one.source.encode(), encode_reading(one)) for one in values]
        if rubbish:
            records.append(Record(b"s1", RUBBISH))
        self._producer.commit(
            {Topic.ANALYTICS: records, Topic.LEDGER: [Record(b"all", encode_ledger(ledger))]}
        )

    def seqs(self) -> list[int]:
        return sorted(one["seq"] for one in self.query.newest("sensors", limit=100_000))

    def counts(self) -> dict[str, Counts]:
        return self.query.folded().counts

    def is_settled(self, count: int) -> bool:
        counts = self.counts().values()
        return sum(one.stored for one in counts) == sum(one.accepted for one in counts) == count

    def letter_count(self) -> int:
        with closing(self.stream.reader([Topic.DEAD_LETTERS], Start.beginning())) as reader:
            letters = []
            while not reader.is_at_end():
                letters += reader.poll(timeout_s=0.1, records_max=10_000)
        assert all(letter.value == RUBBISH for letter in letters)
        return len(letters)


@pytest.fixture
def rig(tmp_path: Path, mongo: Mongo) -> Iterator[Rig]:
    with closing(Rig(tmp_path, mongo.url)) as rig:
        yield rig


def test_reading_after_which_nothing_comes_is_counted_however_rarely_bookmarks_move(rig: Rig):
    with running(rig.stream, rig.store(), replace(FAST, confirm_every_s=3600.0)):
        for count in range(1, 4):
            rig.append([count])
            wait_until(lambda count=count: rig.is_settled(count), what="the reading is counted")


def test_bookmarks_never_pass_what_is_not_counted(rig: Rig):
    """Persist ends while the account cannot be settled; all of it comes to the next one."""
    store = rig.store()
    with running(rig.stream, store):
        rig.append(range(20), rubbish=True)
        wait_until(lambda: rig.is_settled(20) and rig.letter_count() == 1, what="the first count")
        # The letter is a record to be settled as well: it alone would hold up what comes next.
        wait_until(lambda: is_all_stored(rig.stream, rig.query), what="the letter is stored")
        store.is_down = True
        for first in range(20, 100, 20):
            rig.append(range(first, first + 20), rubbish=True)
        wait_until(lambda: store.attempts >= 3, what="settling was tried again")
    next_offsets = rig.query.folded().next_offsets
    assert len(rig.seqs()) > 20
    assert rig.is_settled(20)
    assert rig.letter_count() == 1
    assert all(offset <= next_offsets[one] for one, offset in bookmarks_of(rig.stream).items())
    with running(rig.stream, rig.store()):
        wait_until(lambda: rig.is_settled(100) and rig.letter_count() == 5, what="all are counted")
    assert rig.seqs() == list(range(100))
    assert rig.counts()["stream:analytics"] == Counts(refused=5)
    assert sorted(bookmarks_of(rig.stream).items()) == sorted(
        (one, offset) for one, offset in rig.query.folded().next_offsets.items() if offset
    )


def test_store_that_comes_back_before_the_account_is_settled_gets_everything_once(rig: Rig):
    store = rig.store()
    store.is_down = True
    with running(rig.stream, store):
        for first in range(0, 100, 10):
            rig.append(range(first, first + 10), rubbish=True)
        wait_until(lambda: store.attempts >= 3, what="settling was tried again")
        assert rig.counts() == {}
        store.is_down = False
        wait_until(lambda: rig.is_settled(100) and rig.letter_count() == 10, what="all are counted")
    assert rig.seqs() == list(range(100))
    assert rig.counts()["stream:analytics"] == Counts(refused=10)


def test_letters_of_an_account_that_is_not_settled_are_written_by_who_takes_over(rig: Rig):
    """The first member waits to settle with letters in hand when its partitions go."""
    first, second = rig.store(), rig.store()
    policy = replace(FAST, member="1")
    first.is_down = True
    with running(rig.stream, first):
        for begin in range(0, 60, 10):
            rig.append(range(begin, begin + 10), rubbish=True)
        wait_until(lambda: first.attempts >= 3, what="settling was tried again")
        with running(rig.stream, second, policy) as other:
            wait_until(lambda: other.lag() is not None, what="the second has a share")
            for begin in range(60, 120, 10):
                rig.append(range(begin, begin + 10), rubbish=True)
            attempts = first.attempts
            # While the first came back with a smaller share, the second may have had all of them.
            wait_until(
                lambda: first.attempts > attempts + 3 or rig.is_settled(120),
                what="settling was tried again, or is not the first's any more",
            )
            first.is_down = False
            wait_until(
                lambda: rig.is_settled(120) and rig.letter_count() == 12, what="all is counted"
            )
    assert rig.seqs() == list(range(120))
    assert rig.letter_count() == 12
    assert rig.counts()["stream:analytics"] == Counts(refused=12)


def test_account_shows_what_is_stored_and_not_counted_as_pending(rig: Rig):
    """`matchday ledger --verify` on a live system finds no difference."""
    store = rig.store()
    with running(rig.stream, store):
        rig.append(range(30))
        wait_until(lambda: rig.is_settled(30), what="the first are counted")
        store.is_down = True
        rig.append(range(30, 90))
        wait_until(lambda: store.attempts >= 1, what="the rest is stored and not counted")
        account = read_account(rig.stream, rig.query)
        assert (account.totals.stored, account.totals.pending) == (30, 60)
        assert account.adds_up
        documents = rig.query.document_count_by_source()
        assert sum(documents.values()) == 90
        assert verify(account, documents, later=read_account(rig.stream, rig.query)) == []
        store.is_down = False
        wait_until(lambda: rig.is_settled(90), what="the rest is counted")
    later = read_account(rig.stream, rig.query)
    assert (later.totals.stored, later.totals.pending) == (90, 0)
    assert verify(later, documents) == []
