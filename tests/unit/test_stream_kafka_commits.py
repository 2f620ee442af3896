"""What becomes of a Kafka client whose commit is not answered, without a broker."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import Consumer, TopicPartition

from matchday.stream.kafka_commits import THREAD, BoundedCommits

PLACES = [TopicPartition("ledger", 0, 7)]
DEADLINE_S = 30.0


class Client:
    """A client whose commits wait for an answer."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.closed = threading.Event()

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        assert not asynchronous
        assert self.answer.wait(DEADLINE_S)
        return offsets

    def close(self) -> None:
        self.closed.set()


class Turnstile:
    """A lock that holds the thread of a commit up just after it let go."""

    def __init__(self) -> None:
        self.passed = threading.Event()
        self.may_go_on = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if threading.current_thread().name == THREAD:
            self.passed.set()
            assert self.may_go_on.wait(DEADLINE_S)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def commits(client: Client) -> BoundedCommits:
    """Give commits of which one is stuck."""
    made = BoundedCommits(cast(Consumer, client))
    with pytest.raises(TimeoutError, match="no answer within"):
        made.commit(PLACES, timeout_s=0)
    return made


def test_commit_is_stuck_until_it_is_answered(client: Client, commits: BoundedCommits) -> None:
    assert commits.is_stuck
    with pytest.raises(TimeoutError, match="the commit before this one"):
        commits.commit(PLACES, timeout_s=0)
    turnstile = replace_lock(commits)
    client.answer.set()
    assert turnstile.passed.wait(DEADLINE_S)
    turnstile.may_go_on.set()
    assert not commits.is_stuck
    commits.commit(PLACES, timeout_s=DEADLINE_S)
    assert not client.closed.is_set()


def test_client_abandoned_in_a_stuck_commit_is_closed_with_the_answer(
    client: Client, commits: BoundedCommits
) -> None:
    commits.abandon()
    assert not client.closed.is_set()
    client.answer.set()
    assert client.closed.wait(DEADLINE_S)


def test_client_abandoned_while_the_thread_of_its_commit_ends_is_closed(
    client: Client, commits: BoundedCommits
) -> None:
    turnstile = replace_lock(commits)
    client.answer.set()
    # The thread has seen that nobody abandoned the client, and has not ended yet.
    assert turnstile.passed.wait(DEADLINE_S)
    commits.abandon()
    turnstile.may_go_on.set()
    assert client.closed.wait(DEADLINE_S)


def test_client_is_closed_although_no_thread_could_be_started_for_its_commit(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    commits = BoundedCommits(cast(Consumer, client))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            commits.commit(PLACES, timeout_s=DEADLINE_S)
    assert not commits.is_stuck
    commits.abandon()
    assert client.closed.wait(DEADLINE_S)


def replace_lock(commits: BoundedCommits) -> Turnstile:
    turnstile = Turnstile()
    cast(Any, commits)._lock = turnstile
    return turnstile
