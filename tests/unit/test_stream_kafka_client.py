"""Claims about errors, records and the link of the Kafka stream that need no broker."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("confluent_kafka")

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from matchday.clock import ManualClock, SystemClock
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, FencedError, RefusedError, UnavailableError
from matchday.observe import logs
from matchday.ports import Bookmark, Partition, Record, StreamRecord
from matchday.stream.kafka import KafkaStream
from matchday.stream.kafka_client import ClientLog
from matchday.stream.kafka_errors import FENCED, REFUSED, kafka_error, translate, unavailable
from matchday.stream.kafka_link import KafkaLink
from matchday.stream.kafka_records import bookmark_of, committed_place, convert, size_bytes
from matchday.stream.kafka_topics import ask_brokers
from servers.lone_broker import LoneBroker
from servers.ports import LOOPBACK
from servers.process import wait_until

# Errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(FENCED))
def test_code_of_a_newer_owner_is_a_fence(code: int) -> None:
    raised = translate(KafkaException(KafkaError(code)), action="committing as one")
    assert isinstance(raised, FencedError)
    assert str(raised).startswith("committing as one: ")


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_code_of_a_bad_record_is_a_refusal_except_for_a_question(code: int) -> None:
    error = KafkaException(KafkaError(code))
    refused = translate(error, action="committing")
    assert isinstance(refused, RefusedError)
    assert refused.reason == REFUSED[code]
    assert type(unavailable(error, action="asking")) is UnavailableError


def test_everything_else_may_be_tried_again() -> None:
    timed_out = KafkaException(KafkaError(KafkaError._TIMED_OUT, "too slow"))
    raised = translate(timed_out, action="committing")
    assert type(raised) is UnavailableError
    assert str(raised) == "committing: too slow (_TIMED_OUT)"
    assert type(translate(BufferError("full"), action="committing")) is UnavailableError
    assert str(unavailable(TimeoutError(), action="asking")) == "asking: no answer in time"
    assert kafka_error(BufferError("full")) is None


# Records --------------------------------------------------------------------------------


def test_message_becomes_a_record_and_what_is_reported_stays_apart() -> None:
    report = Message(topic="t.ledger", partition=0, error=KafkaError(KafkaError._PARTITION_EOF))
    plain = Message(
        topic="t.ledger", partition=1, offset=7, key=b"k", value=b"v", timestamp=(2, 1_234)
    )
    bare = Message(topic="t.ledger", partition=1, offset=8, timestamp=(2, 1_235))
    dressed = Message(
        topic="t.ledger", partition=1, offset=9, headers=[("a", b"1"), ("a", None)],
        timestamp=(2, 1_236),
    )  # fmt: skip
    records, reports = convert([plain, report, bare, dressed], {"t.ledger": Topic.LEDGER})
    assert records == {
        Partition(Topic.LEDGER, 1): [
            StreamRecord(Topic.LEDGER, 1, 7, 1_234, b"k", b"v"),
            StreamRecord(Topic.LEDGER, 1, 8, 1_235, b"", b""),
            StreamRecord(Topic.LEDGER, 1, 9, 1_236, b"", b"", (("a", b"1"), ("a", b""))),
        ]
    }
    assert [message for _, message in reports] == [report]


def test_size_of_a_record_is_key_value_and_headers() -> None:
    assert size_bytes(Record(b"ab", b"cde", (("ü", b"fg"),))) == 2 + 3 + 2 + 2


def test_bookmark_goes_there_and_back() -> None:
    mark = Bookmark(7, "rewind=3 ü")
    assert bookmark_of(committed_place(TopicPartition("t", 1), mark)) == mark
    assert bookmark_of(TopicPartition("t", 1, 0)) == Bookmark(0)
    assert bookmark_of(TopicPartition("t", 1)) is None


@pytest.mark.parametrize("text", ["x" * 4_001, "ü" * 2_001, "a\0b"])
def test_metadata_that_would_come_back_cut_is_an_error_of_the_caller(text: str) -> None:
    with pytest.raises(ValueError, match=r"metadata of .* bound 4000"):
        committed_place(TopicPartition("t", 1), Bookmark(7, text))


# Link -----------------------------------------------------------------------------------


def test_link_tells_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(as_json=True, level="debug")
    clock = ManualClock()
    link = KafkaLink(clock=clock, detail="kafka://host:9092")
    assert not link.state().is_up
    link.is_answering()
    up = link.state()
    clock.advance(1)
    link.is_answering()
    assert link.state() == up
    for why in ("gone", "gone", "still gone"):
        clock.advance(1)
        link.is_silent(why)
    down = link.state()
    clock.advance(1)
    link.is_answering()
    told = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert told == ["link_lost", "link_restored"]
    assert (down.is_up, down.detail, down.since_ms) == (False, "still gone", up.since_ms + 2_000)
    assert link.state().since_ms == up.since_ms + 5_000


def test_link_silent_from_the_start_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(as_json=True, level="debug")
    KafkaLink(clock=ManualClock(), detail="kafka://host:9092").is_silent("refused")
    assert "link_lost" in capsys.readouterr().err


def test_broker_that_names_no_broker_yet_ends_nothing_and_is_asked_again() -> None:
    with LoneBroker() as broker:
        url = f"kafka://{LOOPBACK}:{broker.port}"
        stream = KafkaStream(url, clock=SystemClock(), io_timeout_s=1.0)
        wait_until(lambda: stream.link().is_up, what="the broker was asked")
        broker.is_counted = False
        asked_count = broker.asked_count

        def is_asked() -> bool:
            stream.link()
            return broker.asked_count >= asked_count + 3

        wait_until(is_asked, what="it was asked again", timeout_s=60)
        with pytest.raises(UnavailableError, match="names no broker"):
            ask_brokers(stream._cluster)
        assert not stream._cluster.answers()
        broker.is_counted = True
        wait_until(lambda: stream.link().is_up, what="the link is up again")
        assert ask_brokers(stream._cluster) == ["1"]


def test_log_line_of_the_library_is_a_debug_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(as_json=True, level="debug")
    ClientLog().log(40, "%s [%s] %s", "FAIL", "rdkafka#1", "refused")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"]) == ("debug", "client_logged")
    assert line["text"] == "FAIL [rdkafka#1] refused"


# Settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "what"),
    [
        ("kafka://host", {"prefix": "a b"}, "prefix 'a b'"),
        ("kafka://host", {"io_timeout_s": 0.5}, "io_timeout_s 0.5"),
        ("kafka://host", {"session_timeout_ms": 0}, "session_timeout_ms 0"),
        ("kafka://host", {"session_timeout_ms": 60_000}, "session_timeout_ms 60000"),
        ("kafkas://host?ca=/no/such/file.pem", {}, "ssl.ca.location"),
    ],
)
def test_wrong_setting_is_named(url: str, options: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        KafkaStream(url, clock=ManualClock(), **options)
    assert what in str(refusal.value)
