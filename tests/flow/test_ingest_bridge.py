"""Claims about the first hop on the embedded stream: what a doubt ends in, and who is told."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flow.counting import counted
from matchday.clock import SystemClock
from matchday.domain.account import Counts
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_reading
from matchday.errors import FencedError, UnavailableError
from matchday.ingest.adapters import Adapters
from matchday.ingest.bridge import Bridge, BridgePolicy
from matchday.ingest.gate import GatePolicy
from matchday.ports import Deliveries, LinkState, Start
from matchday.stream.embedded import EmbeddedStream
from servers.process import wait_until

CLOCK = SystemClock()


class HandFeed:
    """A feed whose messages a test hands over; it remembers what was acknowledged."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._waiting: list[Deliveries] = []
        self.acknowledged: list[bytes] = []
        self.keep_alive_count = 0

    def hand(
        self, *payloads: bytes, topic: str = "matchday/v/scalar/s", connection: int = 1
    ) -> None:
        batch = Deliveries(
            "",
            connection,
            CLOCK.wall_ms(),
            [topic] * len(payloads),
            list(payloads),
            list(range(1, len(payloads) + 1)),
        )
        with self._arrived:
            self._waiting.append(batch)
            self._arrived.notify()

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        with self._arrived:
            self._arrived.wait_for(lambda: bool(self._waiting), timeout_s)
            taken, self._waiting = self._waiting, []
        return taken

    def acknowledge(self, deliveries: Deliveries) -> None:
        self.acknowledged.extend(deliveries.payloads)

    def keep_alive(self) -> None:
        self.keep_alive_count += 1

    def link(self) -> LinkState:
        return LinkState("mqtt", True, 0)

    def close(self) -> None:
        pass


class LossyProducer:
    """The real producer, whose answer to chosen commits is lost before or after they happen."""

    def __init__(self, real: Any, faults: list[str]) -> None:
        self._real = real
        self._faults = faults

    def commit(self, outputs: Any, **rest: Any) -> None:
        fault = self._faults.pop(0) if self._faults else ""
        if fault == "before":
            raise UnavailableError("the request was lost")
        self._real.commit(outputs, **rest)
        if fault == "after":
            raise UnavailableError("the answer was lost")

    def close(self) -> None:
        self._real.close()


class LossyStream(EmbeddedStream):
    """The embedded stream with producers that lose chosen requests and answers."""

    faults: list[str]

    def producer(self, owner: str) -> Any:
        return LossyProducer(super().producer(owner), self.faults)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[LossyStream]:
    made = LossyStream(tmp_path, clock=CLOCK)
    made.faults = []
    made.prepare()
    yield made
    made.close()


class Running:
    """A bridge in its thread."""

    def __init__(
        self, stream: EmbeddedStream, feed: HandFeed, *, policy: BridgePolicy | None = None
    ) -> None:
        self.bridge = Bridge(
            lambda: feed,
            stream,
            policy=policy or BridgePolicy(tick_s=0.005),
            adapters=Adapters(),
            gate=GatePolicy(),
            clock=CLOCK,
            rng=random.Random(1),
        )
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="test.bridge")
        self._thread.start()

    def _work(self) -> None:
        try:
            self.bridge.run(self._stop)
        except FencedError as error:
            self.error = error

    def end(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


def reading(seq: int, t_ms: int | None = None) -> bytes:
    return (
        f'{{"quantity":"q","value":1,"seq":{seq},"t":{1_700_000_000_000 + (t_ms or seq)}}}'.encode()
    )


def seqs(stream: EmbeddedStream) -> list[int | None]:
    reader = stream.reader([Topic.ANALYTICS], Start.beginning())
    found = []
    while not reader.is_at_end():
        found += reader.poll(timeout_s=0.1, records_max=1000)
    reader.close()
    return [decode_reading(record.value).seq for record in found]


@pytest.mark.parametrize("fault", ["before", "after"])
def test_lost_request_or_answer_stores_the_tick_once_and_then_acknowledges(stream, fault):
    stream.faults[:] = ["", fault, fault]
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(reading(1))
    wait_until(lambda: len(feed.acknowledged) == 1, what="the first is acknowledged")
    feed.hand(reading(2), reading(3))
    wait_until(lambda: len(feed.acknowledged) == 3, what="all are acknowledged")
    running.end()
    assert seqs(stream) == [1, 2, 3]
    assert counted(stream) == Counts(accepted=3)


def test_a_busy_feed_that_gives_no_more_is_not_kept_waiting_for_the_tick(stream):
    feed = HandFeed()
    running = Running(stream, feed, policy=BridgePolicy(tick_s=60.0, receive_max=8))
    feed.hand(*(reading(seq) for seq in range(1, 5)))
    wait_until(lambda: len(feed.acknowledged) == 4, what="the first go at once")
    feed.hand(*(reading(seq) for seq in range(5, 13)))
    wait_until(lambda: len(feed.acknowledged) == 12, what="a full window goes at once")
    feed.hand(reading(13), reading(14))
    wait_until(lambda: len(feed.acknowledged) == 14, what="so do the last before a silence")
    running.end()
    assert seqs(stream) == list(range(1, 15))


def test_nothing_is_acknowledged_while_the_stream_does_not_answer(stream):
    stream.faults[:] = ["before"] * 4
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(reading(1))
    wait_until(lambda: feed.keep_alive_count >= 2, what="the feed is kept alive meanwhile")
    assert feed.acknowledged == []
    wait_until(lambda: len(feed.acknowledged) == 1, what="it is acknowledged in the end")
    running.end()
    assert seqs(stream) == [1]


def test_redelivery_after_a_restart_is_a_duplicate_and_gaps_across_it_are_found(stream):
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(reading(1), reading(2))
    wait_until(lambda: len(feed.acknowledged) == 2, what="both are acknowledged")
    running.end()
    again = HandFeed()
    running = Running(stream, again)
    again.hand(reading(2), reading(5))
    wait_until(lambda: len(again.acknowledged) == 2, what="both are acknowledged")
    running.end()
    assert seqs(stream) == [1, 2, 5]
    assert counted(stream) == Counts(accepted=3, duplicate=1, missing=2)


def test_number_that_arrives_late_is_no_longer_missing(stream):
    feed = HandFeed()
    running = Running(stream, feed)
    for index, seq in enumerate((1, 3, 2), 1):
        feed.hand(reading(seq))
        wait_until(lambda index=index: len(feed.acknowledged) == index, what="acknowledged")
    running.end()
    assert counted(stream) == Counts(accepted=3, missing=0)


@pytest.mark.parametrize("connections", [(1, 1), (1, 2)])
def test_number_without_a_time_delivered_again_is_a_duplicate(stream, connections):
    payloads = [b'{"quantity":"q","value":1.5,"seq":%d}' % seq for seq in (1, 2, 3)]
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(*payloads, connection=connections[0])
    wait_until(lambda: len(feed.acknowledged) == 3, what="all are acknowledged")
    if connections[0] == connections[1]:
        running.end()
        feed = HandFeed()
        running = Running(stream, feed)
    else:
        feed.acknowledged.clear()
    feed.hand(*payloads, connection=connections[1])
    wait_until(lambda: len(feed.acknowledged) == 3, what="all are acknowledged again")
    running.end()
    assert seqs(stream) == [1, 2, 3]
    assert counted(stream) == Counts(accepted=3, duplicate=3)


def test_text_without_identity_is_compared_only_with_the_tail_in_doubt(stream):
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(b"Distance: 1", b"Distance: 1", topic="sensor/data")
    wait_until(lambda: len(feed.acknowledged) == 2, what="both are acknowledged")
    running.end()
    again = HandFeed()
    running = Running(stream, again)
    again.hand(b"Distance: 1", topic="sensor/data")  # packet id 1 once more: a redelivery
    again.hand(b"Distance: 2", topic="sensor/data")  # packet id 1, other text: a new reading
    wait_until(lambda: len(again.acknowledged) == 2, what="both are acknowledged")
    running.end()
    assert counted(stream) == Counts(accepted=3, duplicate=1)


def test_zones_of_one_message_without_a_time_delivered_again_are_all_duplicates(stream):
    zones = [{"zone_id": f"z{place}", "person_count": 3 + place} for place in range(3)]
    payload = json.dumps({"zones": zones}).encode()
    for _ in range(2):
        feed = HandFeed()
        running = Running(stream, feed)
        feed.hand(payload, topic="crowd/density/gates")
        wait_until(lambda feed=feed: len(feed.acknowledged) == 1, what="it is acknowledged")
        running.end()
    assert counted(stream) == Counts(accepted=3, duplicate=3)


def test_bridge_that_was_taken_over_writes_nothing_more_and_acknowledges_nothing(stream):
    first, second = HandFeed(), HandFeed()
    old = Running(stream, first)
    first.hand(reading(1))
    wait_until(lambda: len(first.acknowledged) == 1, what="the first owner works")
    new = Running(stream, second)
    wait_until(lambda: new.bridge.state == "running", what="the second owner works")
    first.hand(reading(2))
    wait_until(lambda: old.error is not None, what="the first owner is fenced")
    second.hand(reading(2))
    wait_until(lambda: len(second.acknowledged) == 1, what="the second owner takes it")
    old.end()
    new.end()
    assert isinstance(old.error, FencedError)
    assert first.acknowledged == [reading(1)]
    assert seqs(stream) == [1, 2]


def test_refused_message_is_kept_whole_in_the_same_commit_as_its_count(stream):
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(b"rubbish", reading(1), b"\xff")
    wait_until(lambda: len(feed.acknowledged) == 3, what="all are acknowledged")
    running.end()
    reader = stream.reader([Topic.DEAD_LETTERS], Start.beginning())
    letters = reader.poll(timeout_s=1, records_max=10)
    reader.close()
    assert Counter(record.value for record in letters) == Counter([b"rubbish", b"\xff"])
    assert dict(letters[0].headers)["reason"] == b"not_json"
    assert counted(stream) == Counts(accepted=1, refused=2)


def test_text_delivered_again_on_a_new_connection_is_a_duplicate(stream):
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(b"Distance: 1", topic="sensor/data", connection=1)
    wait_until(lambda: len(feed.acknowledged) == 1, what="it is acknowledged")
    # The acknowledgement was lost with the connection: the broker delivers again.
    feed.hand(b"Distance: 1", topic="sensor/data", connection=2)
    wait_until(lambda: len(feed.acknowledged) == 2, what="it is acknowledged again")
    running.end()
    assert counted(stream) == Counts(accepted=1, duplicate=1)


class StepFeed(HandFeed):
    """A feed that gives one batch at a time, as a broker's does."""

    def receive(self, *, timeout_s: float) -> list[Deliveries]:
        with self._arrived:
            self._arrived.wait_for(lambda: bool(self._waiting), timeout_s)
            return [self._waiting.pop(0)] if self._waiting else []


@pytest.mark.parametrize("kind", [HandFeed, StepFeed])
def test_text_delivered_again_within_one_tick_of_a_busy_feed_is_a_duplicate(stream, kind):
    feed = kind()
    running = Running(stream, feed, policy=BridgePolicy(tick_s=0.3, receive_max=8))
    feed.hand(*(reading(seq) for seq in range(1, 5)))
    wait_until(lambda: len(feed.acknowledged) == 4, what="the feed is busy")
    with feed._arrived:
        feed.hand(b"Distance: 1", topic="sensor/data", connection=1)
        feed.hand(b"Distance: 1", topic="sensor/data", connection=2)
        feed.hand(b"Distance: 2", topic="sensor/data", connection=3)
    wait_until(lambda: len(feed.acknowledged) == 7, what="all three are acknowledged")
    running.end()
    assert counted(stream) == Counts(accepted=6, duplicate=1)


class PausingProducer(LossyProducer):
    """Its owner stands still in the middle of a commit that never arrives."""

    stopped = threading.Event()
    may_go_on = threading.Event()

    def commit(self, outputs: Any, **rest: Any) -> None:
        if self._faults and self._faults[0] == "pause":
            self._faults.pop(0)
            self.stopped.set()
            assert self.may_go_on.wait(30)
            raise UnavailableError("no answer while the process stood still")
        super().commit(outputs, **rest)


def test_owner_that_wakes_in_doubt_after_another_has_worked_sends_nothing_again(
    stream, monkeypatch
):
    monkeypatch.setattr(PausingProducer, "stopped", threading.Event())
    monkeypatch.setattr(PausingProducer, "may_go_on", threading.Event())
    monkeypatch.setattr(
        LossyStream,
        "producer",
        lambda self, owner: PausingProducer(EmbeddedStream.producer(self, owner), self.faults),
    )
    first, second = HandFeed(), HandFeed()
    old = Running(stream, first)
    first.hand(b"Distance: 1", topic="sensor/data")
    wait_until(lambda: len(first.acknowledged) == 1, what="the first owner works")
    stream.faults[:] = ["pause"]
    first.hand(b"Distance: 2", topic="sensor/data")
    assert PausingProducer.stopped.wait(30)
    new = Running(stream, second)
    second.hand(b"Distance: 2", topic="sensor/data")
    wait_until(lambda: len(second.acknowledged) == 1, what="the second owner took it")
    PausingProducer.may_go_on.set()
    wait_until(lambda: old.error is not None, what="the first owner gives up")
    old.end()
    new.end()
    assert first.acknowledged == [b"Distance: 1"]
    assert counted(stream) == Counts(accepted=2)


def test_tick_of_several_ledger_records_whose_answer_was_lost_is_found_and_not_sent_again(stream):
    # All in one delivery, and so in one tick: sources with long names, without times.
    payloads = [
        json.dumps({"sensorId": f"{number:05d}" + "x" * 190, "temperature": 21.5}).encode()
        for number in range(15_000)
    ]
    stream.faults.append("after")
    feed = HandFeed()
    running = Running(stream, feed)
    feed.hand(*payloads, topic="temperature")
    wait_until(lambda: len(feed.acknowledged) == 15_000, what="all are acknowledged")
    running.end()
    assert running.error is None
    assert counted(stream) == Counts(accepted=15_000)
    again = HandFeed()
    running = Running(stream, again, policy=BridgePolicy(receive_max=15_000))
    again.hand(*payloads, topic="temperature")
    wait_until(lambda: len(again.acknowledged) == 15_000, what="all are acknowledged again")
    running.end()
    assert counted(stream) == Counts(accepted=15_000, duplicate=15_000)
