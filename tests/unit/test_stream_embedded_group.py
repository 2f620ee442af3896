"""How the embedded stream shares partitions, and that passing them on repeats nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchday.clock import ManualClock, SystemClock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, FencedError
from matchday.ports import Bookmark, Partition, Record, Start
from matchday.stream.embedded import SESSION_TIMEOUT_S, EmbeddedStream
from matchday.stream.embedded_group import Member, share_out
from servers.process import wait_until

WAIT_S = 60.0
ANALYTICS, RESULTS = Topic.ANALYTICS, Topic.RESULTS
PLACES = [Partition(ANALYTICS, number) for number in range(9)]


# Sharing out ----------------------------------------------------------------------------


def members(count: int, *topics: Topic) -> list[Member]:
    return [Member(frozenset(topics or (ANALYTICS,))) for _ in range(count)]


@given(st.integers(1, 12), st.integers(1, 9), st.integers())
def test_shares_differ_by_one_at_most_whoever_held_what(
    member_count: int, place_count: int, seed: int
) -> None:
    random, able = Random(seed), members(member_count)
    held = {place: random.choice(able) for place in PLACES if random.random() < 0.7}
    plan = share_out(PLACES[:place_count], able, held)
    loads = [list(plan.values()).count(member) for member in able]
    assert set(plan) == set(PLACES[:place_count])
    assert max(loads) - min(loads) <= 1


def test_nobody_moves_while_shares_are_even() -> None:
    one, two = members(2)
    held = {place: (two, one)[number % 2] for number, place in enumerate(PLACES)}
    assert share_out(PLACES, [one, two], held) == held


def test_newcomer_gets_only_its_share() -> None:
    one, two, new = members(3)
    held = {place: (one, two)[number % 2] for number, place in enumerate(PLACES)}
    plan = share_out(PLACES, [one, two, new], held)
    moved = [place for place in PLACES if plan[place] is not held[place]]
    assert len(moved) == 3
    assert {plan[place] for place in moved} == {new}


def test_only_members_that_read_a_topic_get_its_partitions() -> None:
    (reader,), (other,) = members(1, ANALYTICS), members(1, RESULTS)
    places = [*PLACES, Partition(RESULTS, 0), Partition(Topic.LEDGER, 0)]
    plan = share_out(places, [reader, other], {})
    assert plan == dict.fromkeys(PLACES, reader) | {Partition(RESULTS, 0): other}


# Members --------------------------------------------------------------------------------


class Notes:
    """An assignee that begins at the bookmarks, and may be told to raise."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()
        self.told: list[object] = []
        self.offsets: dict[Partition, int] = {}
        self.bookmarks: dict[Partition, Bookmark | None] = {}
        self.failure: Exception | None = None

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        self._fail()
        self.held |= set(bookmarks)
        self.bookmarks = dict(bookmarks)
        begun = {place: mark.offset if mark else 0 for place, mark in bookmarks.items()}
        return begun | self.offsets

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self._fail()
        self.held -= set(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.held -= set(partitions)
        self.told.append("lost")

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        self.told.append((partition, wanted, first))

    def _fail(self) -> None:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stream(tmp_path: Path, clock: ManualClock) -> Iterator[EmbeddedStream]:
    made = EmbeddedStream(tmp_path, clock=clock)
    made.prepare()
    yield made
    made.close()


def test_silent_member_loses_everything_after_the_session_timeout(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    one, two = Notes(), Notes()
    silent = stream.consumer("group", [ANALYTICS], one)
    silent.poll(timeout_s=0, records_max=1)
    heir = stream.consumer("group", [ANALYTICS], two)
    heir.poll(timeout_s=SESSION_TIMEOUT_S - 1, records_max=1)
    assert two.held == set()
    # One poll is enough: waiting ends when the other's time is up, not at the time-out.
    begun_s = clock.monotonic_s()
    heir.poll(timeout_s=1.5, records_max=1)
    assert clock.monotonic_s() - begun_s <= 2
    assert two.held == set(PLACES[:4])
    with pytest.raises(FencedError, match="analytics/0: the partition belongs to another"):
        silent.commit({PLACES[0]: Bookmark(0)})
    silent.poll(timeout_s=0, records_max=1)
    assert one.told == ["lost"]
    silent.close()
    heir.close()


def test_member_alone_keeps_its_partitions_however_long_it_is_silent(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    notes = Notes()
    member = stream.consumer("group", [ANALYTICS], notes)
    member.poll(timeout_s=0, records_max=1)
    clock.advance(SESSION_TIMEOUT_S * 100)
    member.commit({PLACES[0]: Bookmark(0)})
    member.poll(timeout_s=0, records_max=1)
    assert notes.told == []
    member.close()


def test_heir_sees_the_bookmark_that_was_let_in_before_it_took_over(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    """The commit is checked, then its member falls silent, then the transaction ends."""
    heard = Notes()
    silent = stream.consumer("group", [ANALYTICS], Notes())
    silent.poll(timeout_s=0, records_max=1)
    stream.producer("owner").commit({ANALYTICS: [Record(b"%d" % n, b"") for n in range(40)]})
    holdups = [Holdup(), Holdup()]
    with ThreadPoolExecutor(4) as pool:
        pool.submit(stream._file.write, holdups[0])
        holdups[0].entered.wait(WAIT_S)
        # Both wait behind the first, so they share a transaction that stays open.
        committing = pool.submit(silent.commit, {PLACES[0]: Bookmark(1, "let in")})
        queue = stream._file._writer._jobs
        wait_until(lambda: len(queue) == 1, what="the commit is queued")
        pool.submit(stream._file.write, holdups[1])
        wait_until(lambda: len(queue) == 2, what="the hold-up is queued")
        holdups[0].left.set()
        holdups[1].entered.wait(WAIT_S)
        clock.advance(SESSION_TIMEOUT_S + 1)
        heir = stream.consumer("group", [ANALYTICS], heard)
        polling = pool.submit(heir.poll, timeout_s=0, records_max=1)
        wait_until(lambda: len(queue) == 1 or polling.done(), what="the heir asks for bookmarks")
        holdups[1].left.set()
        committing.result(WAIT_S)
        polling.result(WAIT_S)
    assert heard.bookmarks[PLACES[0]] == Bookmark(1, "let in")
    heir.close()
    silent.close()


class Holdup:
    """A job that keeps its transaction open until it is told to leave."""

    def __init__(self) -> None:
        self.entered, self.left = threading.Event(), threading.Event()

    def __call__(self, _: object) -> None:
        self.entered.set()
        assert self.left.wait(WAIT_S)


def test_zombie_that_closes_is_told_what_it_lost(
    stream: EmbeddedStream, clock: ManualClock
) -> None:
    notes = Notes()
    zombie = stream.consumer("group", [ANALYTICS], notes)
    zombie.poll(timeout_s=0, records_max=1)
    heir = stream.consumer("group", [ANALYTICS], Notes())
    heir.poll(timeout_s=SESSION_TIMEOUT_S * 2, records_max=1)
    zombie.close()
    assert notes.told == ["lost"]
    heir.close()


@pytest.mark.parametrize("error", [FencedError("no"), ValueError("no")])
def test_assignment_is_offered_again_when_the_assignee_raised(
    stream: EmbeddedStream, error: Exception
) -> None:
    notes = Notes()
    notes.failure = error
    member = stream.consumer("group", [ANALYTICS], notes)
    with pytest.raises(type(error)):
        member.poll(timeout_s=0, records_max=1)
    with pytest.raises(FencedError):
        member.commit({PLACES[0]: Bookmark(0)})
    member.poll(timeout_s=0, records_max=1)
    assert notes.held == set(PLACES[:4])
    member.close()


def test_partitions_pass_on_only_after_revoked_returned(stream: EmbeddedStream) -> None:
    one, two = Notes(), Notes()
    holder = stream.consumer("group", [ANALYTICS], one)
    holder.poll(timeout_s=0, records_max=1)
    newcomer = stream.consumer("group", [ANALYTICS], two)
    one.failure = ValueError("not yet")
    with pytest.raises(ValueError, match="not yet"):
        holder.poll(timeout_s=0, records_max=1)
    newcomer.poll(timeout_s=0, records_max=1)
    assert two.held == set()
    holder.poll(timeout_s=0, records_max=1)
    newcomer.poll(timeout_s=0, records_max=1)
    assert (len(one.held), len(two.held)) == (2, 2)
    newcomer.close()
    holder.close()


def test_offset_beyond_the_end_is_an_error_not_a_silent_wait(stream: EmbeddedStream) -> None:
    notes = Notes()
    notes.offsets = {PLACES[0]: 17}
    member = stream.consumer("group", [ANALYTICS], notes)
    with pytest.raises(ConfigError, match=r"analytics/0 from offset 17: beyond its end 0"):
        member.poll(timeout_s=0, records_max=1)
    member.close()


def test_metadata_has_a_bound(stream: EmbeddedStream) -> None:
    member = stream.consumer("group", [ANALYTICS], Notes())
    member.poll(timeout_s=0, records_max=1)
    with pytest.raises(ValueError, match="metadata of 4001 bytes above 4000"):
        member.commit({PLACES[0]: Bookmark(0, "m" * 4001)})
    member.close()


def test_closed_things_say_so(stream: EmbeddedStream) -> None:
    member = stream.consumer("group", [ANALYTICS], Notes())
    reader, producer = stream.reader([ANALYTICS], Start.end()), stream.producer("owner")
    for one in (member, reader, producer):
        one.close()
    with pytest.raises(RuntimeError, match="closed"):
        member.poll(timeout_s=0, records_max=1)
    with pytest.raises(RuntimeError, match="closed"):
        reader.poll(timeout_s=0, records_max=1)
    with pytest.raises(RuntimeError, match="closed"):
        producer.commit({})


def test_bookmarks_need_a_consumer_of_the_stream(stream: EmbeddedStream) -> None:
    with pytest.raises(TypeError, match="bookmarks need a consumer"):
        stream.producer("owner").commit({}, bookmarks={PLACES[0]: Bookmark(0)})


# Passing on under load ------------------------------------------------------------------


class Copier:
    """A stage that copies `analytics` to `analytics_results`, moving its bookmarks with it."""

    def __init__(self, stream: EmbeddedStream, *, seed: int, stopped: threading.Event) -> None:
        self.losses = 0
        self.error: BaseException | None = None
        self._stream = stream
        self._random = Random(seed)
        self._stopped = stopped
        self._producer = stream.producer(f"copier-{seed}")

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._work(polls=self._random.randrange(1, 60))
        except BaseException as error:  # noqa: BLE001 - asserted on by the test
            self.error = error

    def _work(self, *, polls: int) -> None:
        """Be a member for some polls; now and then one that falls silent in between."""
        notes = Notes()
        consumer = self._stream.consumer("copiers", [ANALYTICS], notes)
        for _ in range(polls):
            records = consumer.poll(timeout_s=0.01, records_max=self._random.randrange(1, 200))
            if self._random.random() < 0.1:
                self._stopped.wait(0.02)
            if not records:
                continue
            copies = [Record(one.key, one.value) for one in records]
            marks = {Partition(r.topic, r.partition): Bookmark(r.offset + 1) for r in records}
            try:
                self._producer.commit({RESULTS: copies}, consumer=consumer, bookmarks=marks)
            except FencedError:
                self.losses += 1
                break
        consumer.close()


def test_each_record_is_copied_once_while_members_come_go_and_fall_silent(tmp_path: Path) -> None:
    count = 20_000
    # So short that ordinary scheduling makes zombies, besides those made on purpose.
    stream = EmbeddedStream(tmp_path, clock=SystemClock(), session_timeout_s=0.005)
    stream.prepare()
    stopped = threading.Event()
    copiers = [Copier(stream, seed=seed, stopped=stopped) for seed in range(4)]
    threads = [threading.Thread(target=one.run, name="test.copier") for one in copiers]
    for thread in threads:
        thread.start()
    source = stream.producer("source")
    for start in range(0, count, 100):
        numbers = range(start, start + 100)
        source.commit({ANALYTICS: [Record(b"%d" % (n % 13), b"%d" % n) for n in numbers]})
    reader = stream.reader([RESULTS], Start.beginning())
    copied: list[tuple[bytes, int]] = []
    deadline_s = SystemClock().monotonic_s() + WAIT_S
    while len(copied) < count and SystemClock().monotonic_s() < deadline_s:
        records = reader.poll(timeout_s=1, records_max=1_000)
        copied += [(one.key, int(one.value)) for one in records]
    stopped.set()
    for thread in threads:
        thread.join(WAIT_S)
    copied += [(one.key, int(one.value)) for one in reader.poll(timeout_s=0, records_max=1_000)]
    assert [one.error for one in copiers] == [None] * 4
    assert sorted(number for _, number in copied) == list(range(count))
    assert sum(one.losses for one in copiers) > 0, "no zombie was fenced: nothing was shown"
    for key in {key for key, _ in copied}:
        numbers_of_key = [number for found, number in copied if found == key]
        assert numbers_of_key == sorted(numbers_of_key)
    reader.close()
    stream.close()
