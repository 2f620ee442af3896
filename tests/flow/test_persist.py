"""From stream to store: everything once, whatever breaks on the way.

Real embedded stream and store. Run as a program it is the process that crash tests kill:
it appends, persists, and ends itself without a word at the point it is told.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flow.persisting import DEADLINE_S, FAST, RUBBISH, T0_MS, bookmarks_of, is_all_stored, running
from matchday.clock import ManualClock, SystemClock
from matchday.domain.account import Counts, LedgerRecord, encode_ledger
from matchday.domain.finding import Finding
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Positions, Scalar, TrackedObject
from matchday.domain.topics import DAY_MS, Topic
from matchday.domain.wire import encode_finding, encode_reading
from matchday.errors import UnavailableError
from matchday.ports import Partition, PartitionWrite, Record, Refusal, Start, StreamRecord
from matchday.sqlite import DataFolder
from matchday.store.embedded import FILE_NAME, EmbeddedStore
from matchday.store.embedded_query import EmbeddedQuery
from matchday.store.persist import GROUP, PersistPolicy
from matchday.stream.embedded import EmbeddedStream
from matchday.stream.embedded_group import EmbeddedConsumer
from servers.process import wait_until

TESTS = Path(__file__).parents[1]


class Rig:
    """A data folder with the embedded stream and store."""

    def __init__(self, folder: Path, *, clock: Any = None) -> None:
        self.folder = folder
        self.clock = clock or SystemClock()
        self._stack = ExitStack()
        self._stack.enter_context(DataFolder(folder))
        self.stream = self._stack.enter_context(closing(EmbeddedStream(folder, clock=self.clock)))
        self.stream.prepare()
        self.store = self.open_store()
        self.query = self._stack.enter_context(closing(EmbeddedQuery(folder)))
        self.producer = self._stack.enter_context(closing(self.stream.producer("test-ingest")))
        self._ticks = 0

    def open_store(self) -> EmbeddedStore:
        store = self._stack.enter_context(closing(EmbeddedStore(self.folder, clock=self.clock)))
        store.prepare()
        return store

    def close(self) -> None:
        self._stack.close()

    def append(self, topic: Topic, *values: bytes, key: bytes = b"k") -> None:
        self.producer.commit({topic: [Record(key, value) for value in values]})

    def append_readings(self, seqs: Sequence[int], *, source: str = "s1") -> None:
        """Append numbered readings and their counts as ingest does: in one transaction."""
        self._ticks += 1
        ledger = LedgerRecord(
            slot="all",
            tick=str(self._ticks),
            ts=iso_from_ms(T0_MS),
            counts={source: Counts(accepted=len(seqs))},
        )
        self.producer.commit(
            {
                Topic.ANALYTICS: [
                    Record(source.encode(), encode_reading(reading(seq, source))) for seq in seqs
                ],
                Topic.LEDGER: [Record(b"all", encode_ledger(ledger))],
            }
        )

    def read(self, topic: Topic) -> list[StreamRecord]:
        records: list[StreamRecord] = []
        with closing(self.stream.reader([topic], Start.beginning())) as reader:
            while not reader.is_at_end():
                records += reader.poll(timeout_s=0.1, records_max=10_000)
        return records

    def stored_seqs(self, source: str = "s1") -> list[int]:
        found = self.query.newest("sensors", limit=1_000_000, source=source)
        return sorted(document["seq"] for document in found)


def reading(seq: int, source: str = "s1") -> Scalar:
    return Scalar(source=source, t_ms=T0_MS + seq, quantity="temperature", value=1.5, seq=seq)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with closing(Rig(tmp_path)) as rig:
        yield rig


def persist_all(rig: Rig) -> None:
    """Run persist until nothing is left, dead letters made on the way included.

    At least once: what the store has all of may still owe its dead letters to the stream.
    """
    while True:
        with running(rig.stream, rig.store) as persist:
            wait_until(persist.is_caught_up, what="everything was read again")
            wait_until(lambda: is_all_stored(rig.stream, rig.query), what="everything is stored")
        if is_all_stored(rig.stream, rig.query):
            return


def test_everything_appended_is_stored_in_its_collection(rig: Rig):
    forecast = Finding(
        subject="s1/temperature",
        kind="forecast",
        span_start_ms=T0_MS,
        span_end_ms=T0_MS,
        model="m/1",
        values={"yhat": 1.0},
        sensor="s1",
    )
    positions = Positions(
        source="cam", t_ms=T0_MS, objects=(TrackedObject("p", 1.0, 2.0),), venue="v"
    )
    rig.append_readings(range(10))
    rig.append(Topic.ANALYTICS, encode_reading(positions))
    rig.append(Topic.RESULTS, encode_finding(forecast))
    letter = Record(b"s9", b"\xff", (("reason", b"not_json"), ("source", b"s9")))
    rig.producer.commit({Topic.DEAD_LETTERS: [letter]})
    persist_all(rig)
    assert rig.stored_seqs() == list(range(10))
    counts = {name: len(rig.query.newest(name, limit=99)) for name in rig.query.collections()}
    assert {name: count for name, count in counts.items() if count} == {
        "sensors": 10,
        "positions": 1,
        "model_predictions": 1,
        "dead_letters": 1,
        "ledger": 2,
    }
    folded = rig.query.folded().counts
    assert folded == {"s1": Counts(accepted=10, stored=10), "cam": Counts(stored=1)}


def test_run_after_run_stores_once(rig: Rig):
    for run in range(4):
        rig.append_readings(range(run * 25, run * 25 + 25))
        persist_all(rig)
    assert rig.stored_seqs() == list(range(100))
    assert rig.query.folded().counts == {"s1": Counts(accepted=100, stored=100)}


def test_bookmarks_that_wait_are_confirmed_when_it_stops(rig: Rig):
    policy = replace(FAST, confirm_every_s=3600.0)
    with running(rig.stream, rig.store, policy):
        for first in range(0, 300, 20):
            rig.append_readings(range(first, first + 20))
        wait_until(lambda: len(rig.stored_seqs()) > 0, what="something is stored")
    stored = rig.query.folded().next_offsets
    confirmed = bookmarks_of(rig.stream)
    assert confirmed
    assert confirmed == {one: stored[one] for one in confirmed}


def test_lag_falls_to_zero_and_is_unknown_before_the_start(rig: Rig):
    rig.append_readings(range(10))
    with running(rig.stream, rig.store) as persist:
        wait_until(persist.is_caught_up, what="persist is caught up")
        assert rig.stored_seqs() == list(range(10))
        assert persist.lag() == 0
    assert persist.lag() is None
    assert not persist.is_caught_up()


def test_records_in_no_known_form_become_dead_letters_and_stop_nothing(rig: Rig):
    rubbish = [b"\x00\xff rubbish", b"[" * 100_000, b'{"v": 1}', b"{}", b""]
    for number, value in enumerate(rubbish):
        rig.append_readings([number])
        rig.append(Topic.ANALYTICS, value, key=b"s1")
    rig.append(Topic.RESULTS, b'{"a":' * 50_000, b'"{}"')
    rig.append(Topic.LEDGER, b'{"slot":"x"}', b'{"slot":"x","tick":"","ts":"","counts":{"s":[-1]}}')
    rig.append_readings(range(5, 50))
    persist_all(rig)
    assert rig.stored_seqs() == list(range(50))
    letters = rig.read(Topic.DEAD_LETTERS)
    assert Counter(letter.value for letter in letters) == Counter(
        [*rubbish, b'{"a":' * 50_000, *(record.value for record in rig.read(Topic.LEDGER)[5:7])]
    )
    assert len(rig.query.newest("dead_letters", limit=99)) == len(letters) == 8
    folded = rig.query.folded().counts
    assert folded == {
        "s1": Counts(accepted=50, stored=50),
        "stream:analytics": Counts(refused=5),
        "stream:analytics_results": Counts(refused=1),
        "stream:ledger": Counts(refused=2),
    }


def test_reading_too_large_for_any_store_is_a_dead_letter_kept_whole(rig: Rig):
    objects = (TrackedObject("p", 1.0, 2.0),) * 380_000
    value = encode_reading(Positions(source="cam", t_ms=T0_MS, objects=objects))
    ledger = LedgerRecord(
        slot="all", tick="1", ts=iso_from_ms(T0_MS), counts={"cam": Counts(accepted=1)}
    )
    rig.append(Topic.ANALYTICS, value)
    rig.append(Topic.LEDGER, encode_ledger(ledger))
    rig.append_readings(range(3))
    persist_all(rig)
    (letter,) = rig.query.newest("dead_letters", limit=9)
    assert (letter["raw"], letter["reason"], letter["source"]) == (value, "store_refused", "cam")
    assert rig.query.folded().counts["cam"] == Counts(refused=1)
    assert rig.stored_seqs() == [0, 1, 2]


class SwitchedStore(EmbeddedStore):
    """The embedded store behind a switch, as if its disk came and went."""

    is_down = False
    attempts = 0

    def claim(self, partition: Partition, topic_id: str) -> int | None:
        self._check()
        return super().claim(partition, topic_id)

    def write(self, writes: Sequence[PartitionWrite]) -> list[Refusal]:
        self._check()
        return super().write(writes)

    def _check(self) -> None:
        if self.is_down:
            self.attempts += 1
            raise UnavailableError("writing store.db: switched off")


@pytest.fixture
def switched(rig: Rig) -> Iterator[SwitchedStore]:
    with closing(SwitchedStore(rig.folder, clock=SystemClock())) as store:
        yield store


def test_store_that_comes_back_gets_everything_once(rig: Rig, switched: SwitchedStore):
    with running(rig.stream, switched):
        rig.append_readings(range(100))
        wait_until(
            lambda: is_all_stored(rig.stream, rig.query), what="the first readings are stored"
        )
        switched.is_down = True
        for start in range(100, 200, 10):
            rig.append_readings(range(start, start + 10))
        wait_until(lambda: switched.attempts >= 3, what="the store was tried again")
        assert rig.stored_seqs() == list(range(100))
        switched.is_down = False
        wait_until(lambda: is_all_stored(rig.stream, rig.query), what="the rest is stored")
    assert rig.stored_seqs() == list(range(200))
    assert rig.query.folded().counts == {"s1": Counts(accepted=200, stored=200)}


def test_store_that_is_away_at_the_start_gets_everything_once(rig: Rig, switched: SwitchedStore):
    rig.append_readings(range(50))
    switched.is_down = True
    with running(rig.stream, switched):
        wait_until(lambda: switched.attempts >= 3, what="the store was tried again")
        switched.is_down = False
        wait_until(lambda: is_all_stored(rig.stream, rig.query), what="everything is stored")
    assert rig.stored_seqs() == list(range(50))


def test_stream_that_does_not_answer_just_when_the_store_is_back_stops_nothing(
    rig: Rig, switched: SwitchedStore, monkeypatch: pytest.MonkeyPatch
):
    """The confirmation of the batch that waited is lost, and then everything answers again."""
    rig.append_readings(range(10))
    persist_all(rig)
    lost: list[str] = []
    commit = EmbeddedConsumer.commit

    def lossy(consumer: EmbeddedConsumer, bookmarks: Any) -> None:
        if switched.attempts > before and not switched.is_down and not lost:
            lost.append("answer")
            raise UnavailableError("the stream did not answer")
        commit(consumer, bookmarks)

    monkeypatch.setattr(EmbeddedConsumer, "commit", lossy)
    before = switched.attempts
    switched.is_down = True
    rig.append_readings(range(10, 20))
    with running(rig.stream, switched):
        wait_until(lambda: switched.attempts > before + 3, what="the store was tried again")
        switched.is_down = False
        wait_until(lambda: bool(lost), what="a confirmation was lost")
        rig.append_readings(range(20, 30))
        wait_until(lambda: is_all_stored(rig.stream, rig.query), what="everything is stored")
    assert rig.stored_seqs() == list(range(30))


def test_stop_while_the_store_is_away_ends_and_loses_nothing(rig: Rig, switched: SwitchedStore):
    switched.is_down = True
    rig.append_readings(range(50))
    with running(rig.stream, switched):
        wait_until(lambda: switched.attempts >= 3, what="the store was tried again")
    assert rig.stored_seqs() == []
    persist_all(rig)
    assert rig.stored_seqs() == list(range(50))


def test_store_that_was_emptied_is_filled_again_from_the_stream(rig: Rig):
    """The group's bookmark is ahead of the store: what counts is where the store stands."""
    rig.append_readings(range(50))
    persist_all(rig)
    rig.close()
    for path in rig.folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    with closing(Rig(rig.folder)) as again:
        persist_all(again)
        assert again.stored_seqs() == list(range(50))
        assert again.query.folded().counts == {"s1": Counts(accepted=50, stored=50)}


def test_emptied_store_away_at_the_start_is_filled_again_too(rig: Rig):
    rig.append_readings(range(50))
    persist_all(rig)
    rig.close()
    for path in rig.folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    with closing(Rig(rig.folder)) as again:
        with closing(SwitchedStore(rig.folder, clock=SystemClock())) as switched:
            switched.is_down = True
            again.append_readings(range(50, 60))
            with running(again.stream, switched):
                wait_until(lambda: switched.attempts >= 12, what="the store was tried again")
                switched.is_down = False
                wait_until(
                    lambda: is_all_stored(again.stream, again.query), what="everything is stored"
                )
        assert again.stored_seqs() == list(range(60))


def test_second_member_takes_over_its_share_and_nothing_is_twice(rig: Rig):
    policy = PersistPolicy(member="1", batch_linger_s=0.01, retry_s=0.01)
    with running(rig.stream, rig.store) as first:
        for start in range(0, 300, 10):
            rig.append_readings(range(start, start + 10), source=f"s{start // 10 % 7}")
            if start == 100:
                wait_until(first.is_caught_up, what="the first member has something stored")
                with running(rig.stream, rig.open_store(), policy) as second:
                    for more in range(1000, 1200, 10):
                        rig.append_readings(range(more, more + 10), source=f"s{more // 10 % 7}")
                    wait_until(lambda: second.lag() is not None, what="the second has a share")
        wait_until(lambda: is_all_stored(rig.stream, rig.query), what="everything is stored")
    seqs = [seq for source in range(7) for seq in rig.stored_seqs(f"s{source}")]
    assert sorted(seqs) == [*range(300), *range(1000, 1200)]
    folded = rig.query.folded().counts
    assert all(counts.accepted == counts.stored for counts in folded.values())


def test_records_deleted_before_they_were_stored_are_counted_as_expired(tmp_path: Path):
    clock = ManualClock(wall_ms=T0_MS)
    with closing(Rig(tmp_path, clock=clock)) as rig:
        rig.append_readings(range(10))
        persist_all(rig)
        rig.append_readings(range(10, 25))
        clock.advance(8 * DAY_MS / 1000)
        rig.append_readings(range(25, 30))
        rig.stream.enforce_retention()
        persist_all(rig)
        assert rig.stored_seqs() == [*range(10), *range(25, 30)]
        folded = rig.query.folded().counts
        assert folded.pop("s1") == Counts(accepted=30, stored=15)
        ((source, counts),) = folded.items()
        assert source.startswith("expired:analytics/")
        assert counts == Counts(expired=15)


POINTS = (
    "before_write",
    "after_write",
    "after_settle",
    "before_letters",
    "after_letters",
    "after_commit",
)


@pytest.mark.parametrize("point", POINTS)
def test_crash_at_any_point_leaves_everything_once(tmp_path: Path, point: str):
    """The same point three times over, at different batches, then a run to the end."""
    for nth in (1, 2, 4):
        argv = [sys.executable, __file__, str(tmp_path), point, str(nth)]
        ended = subprocess.run(argv, timeout=DEADLINE_S, check=False, env=environ())
        assert ended.returncode == CRASHED
    check_after_crashes(tmp_path)


def test_killed_at_random_leaves_everything_once(tmp_path: Path):
    rng = random.Random(7)
    for _ in range(4):
        argv = [sys.executable, __file__, str(tmp_path), "never", "0"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environ()) as child:
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 30)):
                assert child.stdout.readline()
            child.kill()
    check_after_crashes(tmp_path)


def environ() -> dict[str, str]:
    """Give the environment in which this file runs as a program."""
    return {**os.environ, "PYTHONPATH": str(TESTS)}


def check_after_crashes(folder: Path) -> None:
    with closing(Rig(folder)) as rig:
        persist_all(rig)
        appended = rig.read(Topic.ANALYTICS)
        wanted = sorted(
            json.loads(record.value)["seq"] for record in appended if record.value != RUBBISH
        )
        assert rig.stored_seqs() == wanted
        assert len(set(wanted)) == len(wanted) > 0
        rubbish_at = sorted(
            f"analytics/{record.partition}/{record.offset}"
            for record in appended
            if record.value == RUBBISH
        )
        letters = rig.read(Topic.DEAD_LETTERS)
        assert sorted(dict(letter.headers)["record"].decode() for letter in letters) == rubbish_at
        stored = rig.query.newest("dead_letters", limit=10_000)
        assert sorted(document["record"] for document in stored) == rubbish_at
        assert rig.query.folded().counts == {
            "s1": Counts(accepted=len(wanted), stored=len(wanted)),
            "stream:analytics": Counts(refused=len(rubbish_at)),
        }
        assert rig.query.document_count_by_source() == {"s1": len(wanted)}


CRASHED = 9


def main(folder: str, point: str, nth: str) -> None:
    """Append and persist until killed, or until `point` is passed for the n-th time."""
    rig = Rig(Path(folder))
    passed = Counter[str]()

    def crash_at(name: str, call: Callable[..., Any], *, before: str, after: str) -> None:
        def wrapped(*args: Any, **options: Any) -> Any:
            pass_by(before)
            result = call(*args, **options)
            pass_by(after)
            return result

        setattr(call.__self__, name, wrapped)  # type: ignore[attr-defined]

    def pass_by(name: str) -> None:
        passed[name] += 1
        if name == point and passed[name] == int(nth):
            os._exit(CRASHED)

    def consumer(*args: Any) -> Any:
        made = type(rig.stream).consumer(rig.stream, *args)
        crash_at("commit", made.commit, before="before_commit", after="after_commit")
        return made

    def producer(owner: str) -> Any:
        made = type(rig.stream).producer(rig.stream, owner)
        if owner.startswith(GROUP):
            crash_at("commit", made.commit, before="before_letters", after="after_letters")
        return made

    crash_at("write", rig.store.write, before="before_write", after="after_write")
    crash_at("settle", rig.store.settle, before="before_settle", after="after_settle")
    rig.stream.consumer = consumer  # type: ignore[method-assign]
    rig.stream.producer = producer  # type: ignore[method-assign]
    done = rig.read(Topic.ANALYTICS)
    seq = max((json.loads(r.value)["seq"] for r in done if r.value != RUBBISH), default=-1) + 1
    # Killed at random it may also owe bookmarks of several writes.
    policy = replace(FAST, confirm_every_s=0.5) if point == "never" else FAST
    with running(rig.stream, rig.store, policy):
        while True:
            rig.append_readings(range(seq, seq + 20))
            seq += 20
            if seq % 200 == 0:
                rig.append(Topic.ANALYTICS, RUBBISH, key=b"s1")
            print(seq, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
