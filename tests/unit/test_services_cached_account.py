"""Claims about the account that the page shows: one reader, one reading for all, no waiting."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matchday.clock import ManualClock, SystemClock
from matchday.domain.account import Counts, LedgerRecord, encode_ledger
from matchday.domain.topics import Topic
from matchday.errors import UnavailableError
from matchday.ports import Folded, Partition, Reader, Record, Start
from matchday.services import cached_account
from matchday.services.accounting import read_account
from matchday.services.cached_account import CachedAccount, LedgerTail
from matchday.stream.embedded import EmbeddedStream

LEDGER = Partition(Topic.LEDGER, 0)
SOURCES = ("a", "b", "c")


class CountingStream(EmbeddedStream):
    """An embedded stream that counts the readers it makes."""

    reader_count = 0

    def reader(self, topics: Sequence[Topic], start: Start) -> Reader:
        self.reader_count += 1
        return super().reader(topics, start)


class FoldedPart:
    """The stored part of the account, as far as a test says; `gate` holds up who asks."""

    def __init__(self) -> None:
        self.folded_part = Folded({})
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked_count = 0

    def folded(self) -> Folded:
        self.asked_count += 1
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return self.folded_part


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[CountingStream]:
    found = CountingStream(tmp_path, clock=SystemClock())
    found.prepare()
    yield found
    found.close()


def write(stream: EmbeddedStream, *ticks: dict[str, Counts]) -> None:
    records = [
        Record(b"all", encode_ledger(LedgerRecord(slot="all", tick="t", ts="", counts=counts)))
        for counts in ticks
    ]
    stream.producer("test").commit({Topic.LEDGER: records})


def test_the_account_over_one_reader_is_the_one_over_a_new_reader_each_time(stream):
    rng = random.Random(5)
    query = FoldedPart()
    tail = LedgerTail(stream, query)
    ticks: list[dict[str, Counts]] = []
    folded_count = 0
    for step in range(60):
        new = [
            {name: Counts(accepted=rng.randrange(3)) for name in rng.sample(SOURCES, 2)}
            for _ in range(rng.randrange(4))
        ]
        if new:
            write(stream, *new)
        ticks += new
        # Persist folds some of it; now and then the store is put back to an older state.
        folded_count = rng.randrange(folded_count if step % 10 else 0, len(ticks) + 1)
        counts: dict[str, Counts] = {}
        for tick in ticks[:folded_count]:
            for name, added in tick.items():
                counts.setdefault(name, Counts()).add(added)
        # One source is further than the others, as a store that folds piecewise has it.
        ahead = {}
        if folded_count < len(ticks):
            ahead = {("a", LEDGER): folded_count}
            if "a" in ticks[folded_count]:
                counts.setdefault("a", Counts()).add(ticks[folded_count]["a"])
        query.folded_part = Folded(counts, {LEDGER: folded_count}, ahead)
        assert tail.read() == read_account(stream, query)
        accepted = sum(one.accepted for tick in ticks for one in tick.values())
        assert tail.read().totals.received == accepted
    tail.close()


def test_the_reader_stays_open_while_somebody_asks_and_is_let_go_of_after(stream, monkeypatch):
    monkeypatch.setattr(cached_account, "KEPT_S", 0.2)
    clock = ManualClock()
    account = CachedAccount(stream, FoldedPart(), clock=clock)
    for count in range(1, 6):
        write(stream, {"a": Counts(accepted=1)})
        clock.advance(1.0)
        assert account().totals.received == count
    assert stream.reader_count == 1
    never, machine = threading.Event(), SystemClock()
    until_s = machine.monotonic_s() + 20
    while account._tail._reader is not None:
        assert machine.monotonic_s() < until_s
        never.wait(0.02)
    clock.advance(1.0)
    assert account().totals.received == 5
    assert stream.reader_count == 2
    account.close()
    assert "dashboard.account" not in {thread.name for thread in threading.enumerate()}
    assert account._tail._reader is None


def test_all_who_ask_while_the_account_is_read_get_that_reading(stream):
    query = FoldedPart()
    query.gate.clear()
    account = CachedAccount(stream, query, clock=ManualClock(), patience_s=20)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(account) for _ in range(20)]
        query.gate.set()
        assert {one.result().adds_up for one in asked} == {True}
    assert query.asked_count == 1
    account.close()


def test_nobody_waits_longer_than_the_patience_and_the_answer_is_for_who_comes_next(stream):
    query, clock = FoldedPart(), ManualClock()
    query.gate.clear()
    account = CachedAccount(stream, query, clock=clock, patience_s=0.1)
    write(stream, {"a": Counts(accepted=1)})
    for _ in range(3):
        with pytest.raises(UnavailableError, match=r"none within 0\.1 s"):
            account()
    assert query.asked_count == 1
    query.gate.set()
    account._patience_s = 20
    assert account().totals.received == 1
    account.close()


def test_an_account_that_cannot_be_read_is_said_and_never_shown_as_an_empty_one(stream):
    query, clock = FoldedPart(), ManualClock()
    query.error = UnavailableError("reading the account: mongo does not answer")
    account = CachedAccount(stream, query, clock=clock)
    with pytest.raises(UnavailableError, match="mongo does not answer"):
        account()
    query.error = None
    clock.advance(1.0)
    assert account().lines == ()
    account.close()
    clock.advance(1.0)
    with pytest.raises(UnavailableError, match="stopping"):
        account()


def test_behind_too_much_that_is_not_folded_the_ledger_is_read_anew_and_not_kept(
    stream, monkeypatch
):
    monkeypatch.setattr(cached_account, "KEPT_BYTES_MAX", 200)
    query = FoldedPart()
    tail = LedgerTail(stream, query)
    write(stream, *[{"a": Counts(accepted=1)} for _ in range(50)])
    assert tail.read().totals.received == 50
    assert not tail._kept
    query.folded_part = Folded({"a": Counts(accepted=50)}, {LEDGER: 50})
    assert tail.read().totals.received == 50
    assert tail._reader is not None
    tail.close()


def test_whose_the_expired_are_is_asked_for_rarely_and_whenever_more_have_expired(stream):
    clock = ManualClock()
    query = FoldedPart()
    tail = LedgerTail(stream, query, clock=clock)

    def fold(*, accepted: int, stored: int, expired: int) -> None:
        counts = {
            "a": Counts(accepted=accepted, stored=stored),
            "expired:analytics/0": Counts(expired=expired),
        }
        query.folded_part = Folded(counts, {LEDGER: 0})

    def seen() -> tuple[int, int, int]:
        (line,) = tail.read().lines
        return line.expired, line.pending, stream.reader_count

    fold(accepted=10, stored=6, expired=4)
    assert [seen(), seen()] == [(4, 0, 2)] * 2  # one reader of the ledger, one of what waits
    fold(accepted=15, stored=8, expired=4)
    assert seen() == (4, 3, 2)
    fold(accepted=15, stored=12, expired=4)
    assert seen() == (3, 0, 2)  # what is stored after all has not expired
    fold(accepted=15, stored=8, expired=7)
    assert seen() == (7, 0, 3)
    clock.advance(cached_account.EXPIRED_EVERY_S)
    assert seen() == (7, 0, 4)
    tail.close()
