"""Claims about the account read at a moment: the stored part, the tail behind it, expiry."""

from __future__ import annotations

from matchday.domain.account import AccountLine, Counts, LedgerRecord, account_of, encode_ledger
from matchday.domain.topics import Topic
from matchday.ports import Folded, Partition, StreamRecord
from matchday.services.accounting import add_ledger_record, attribute_expired, verify
from matchday.store.batch import entries_of

LEDGER = Partition(Topic.LEDGER, 0)


def ledger_record(offset: int, **counts: Counts) -> StreamRecord:
    value = encode_ledger(LedgerRecord(slot="all", tick=f"t{offset}", ts="", counts=counts))
    return StreamRecord(Topic.LEDGER, 0, offset, 0, b"all", value)


def line(**counts: int) -> AccountLine:
    return account_of({"s": Counts(**counts)}).lines[0]


def test_received_is_the_sum_of_all_fates():
    assert line(accepted=10, duplicate=2, refused=3, stored=7, expired=1) == AccountLine(
        "s", received=15, stored=7, pending=2, duplicate=2, refused=3, expired=1, missing=0
    )
    assert line(accepted=10, stored=7).adds_up


def test_more_stored_than_accepted_does_not_add_up():
    assert not line(accepted=1, stored=2).adds_up
    assert not account_of({"a": Counts(), "s": Counts(stored=1)}).adds_up


def test_record_behind_the_stored_part_is_added():
    counts = {"s": Counts(accepted=1)}
    add_ledger_record(
        counts, ledger_record(5, s=Counts(accepted=2), t=Counts(refused=1)), Folded({})
    )
    assert counts["s"].accepted == 3
    assert counts["t"].refused == 1


def test_record_that_is_already_folded_into_a_source_is_added_to_the_others_only():
    counts: dict[str, Counts] = {}
    folded = Folded({}, entry_offsets={("s", LEDGER): 5})
    add_ledger_record(counts, ledger_record(5, s=Counts(accepted=2), t=Counts(accepted=1)), folded)
    assert "s" not in counts
    assert counts["t"].accepted == 1


def test_expired_readings_are_those_neither_stored_nor_waiting():
    counts = {
        "a": Counts(accepted=10, stored=4),
        "b": Counts(accepted=5, stored=5),
        "expired:analytics/0": Counts(expired=4),
    }
    attribute_expired(counts, Folded({}), {"a": 2})
    account = account_of(counts)
    assert [(item.source, item.expired, item.pending) for item in account.lines] == [
        ("a", 4, 2),
        ("b", 0, 0),
    ]
    assert account.adds_up


def test_documents_may_be_ahead_of_the_account_by_what_was_pending_only():
    account = account_of({"a": Counts(accepted=5, stored=3), "b": Counts(accepted=1, stored=1)})
    assert verify(account, {"a": 5, "b": 1}) == []
    assert [item.source for item in verify(account, {"a": 6, "b": 0})] == ["a", "b"]
    assert [item.source for item in verify(account, {"a": 3, "b": 1, "ghost": 1})] == ["ghost"]


def test_documents_that_came_while_they_were_counted_are_no_mismatch():
    account = account_of({"a": Counts(accepted=5, stored=5)})
    later = account_of({"a": Counts(accepted=8, stored=6), "new": Counts(accepted=1, stored=1)})
    assert verify(account, {"a": 8, "new": 1}, later=later) == []
    assert [item.source for item in verify(account, {"a": 4}, later=later)] == ["a"]
    assert [item.source for item in verify(account, {"a": 9}, later=later)] == ["a"]


def test_ledger_record_that_takes_back_a_missing_number_is_folded():
    (entry,) = entries_of(ledger_record(1, s=Counts(accepted=1, missing=-1)))
    assert entry.counts.missing == -1
