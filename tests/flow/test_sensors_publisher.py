"""Publisher, outbox and replay against a real broker: refusals, restarts and kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flow.sensors_clients import OldBroker, Subscriber, first_seen
from matchday.clock import SystemClock
from matchday.errors import ConfigError
from matchday.sensors.broker import parse_broker
from matchday.sensors.outbox import Draft, Outbox
from matchday.sensors.publisher import Publisher
from servers.process import wait_until

if TYPE_CHECKING:
    from servers.mosquitto import Mosquitto

CLOCK = SystemClock()
CHILD = Path(__file__).with_name("sensors_child.py")


def drafts(topic: str, count: int) -> list[Draft]:
    return [Draft(topic, {"v": index}, topic) for index in range(count)]


@pytest.fixture
def publisher_of() -> Iterator[Callable[..., Publisher]]:
    """Give a function that makes a publisher, closed at the end."""
    made: list[Publisher] = []

    def make(url: str, outbox: Outbox | None = None, **options: int) -> Publisher:
        publisher = Publisher(
            parse_broker(url), outbox or Outbox(), CLOCK, client_id=f"p{len(made)}", **options
        )
        made.append(publisher)
        return publisher

    yield make
    for publisher in made:
        publisher.close()


def test_everything_offered_is_acknowledged_and_arrives_in_order(
    mosquitto: Mosquitto, publisher_of: Callable[..., Publisher]
) -> None:
    publisher = publisher_of(mosquitto.url)
    with Subscriber(mosquitto.port, "pub/order/#", "order-sub") as subscriber:
        publisher.offer(drafts("pub/order/a", 2_000))

        assert publisher.flush(timeout_s=30)
        subscriber.wait_for(2_000)

    assert subscriber.seqs() == {"pub/order/a": list(range(1, 2_001))}
    assert publisher.published().acknowledged == 2_000
    assert publisher.link().is_up


def test_message_nobody_subscribed_to_is_kept_until_somebody_does(
    mosquitto: Mosquitto, publisher_of: Callable[..., Publisher]
) -> None:
    publisher = publisher_of(mosquitto.url)
    publisher.offer(drafts("pub/nobody/a", 50))
    wait_until(
        lambda: publisher.pump(0.05) is None and publisher.published().refused >= 2,
        what="the broker said twice that nobody listens",
    )
    assert publisher.published().acknowledged == 0

    with Subscriber(mosquitto.port, "pub/nobody/#", "nobody-sub") as subscriber:
        assert publisher.flush(timeout_s=30)
        subscriber.wait_for(50)

    # Nothing overtook: the first message had been sent alone.
    assert subscriber.seqs() == {"pub/nobody/a": list(range(1, 51))}


def test_refused_topic_does_not_hold_up_the_others(
    fresh_mosquitto: Callable[..., Mosquitto],
    publisher_of: Callable[..., Publisher],
    tmp_path: Path,
) -> None:
    (tmp_path / "acl").write_text("topic readwrite good/#\ntopic read bad/#\n")
    broker = fresh_mosquitto(settings={"acl_file": str(tmp_path / "acl")})
    publisher = publisher_of(broker.url)
    with Subscriber(broker.port, "good/#", "good-sub") as subscriber:
        mixed = zip(drafts("bad/a", 300), drafts("good/a", 300), strict=True)
        publisher.offer([draft for pair in mixed for draft in pair])

        wait_until(
            lambda: publisher.pump(0.05) is None and publisher.published().acknowledged == 300,
            what="the good topic got through",
        )
        subscriber.wait_for(300)

    assert subscriber.seqs() == {"good/a": list(range(1, 301))}
    assert publisher.pending_count == 300


def test_broker_restart_in_the_middle_loses_nothing(
    fresh_mosquitto: Callable[..., Mosquitto], publisher_of: Callable[..., Publisher]
) -> None:
    broker = fresh_mosquitto()
    publisher = publisher_of(broker.url, inflight_max=50)
    with Subscriber(broker.port, "pub/#", "restart-sub") as subscriber:
        publisher.offer(drafts("pub/a", 20_000))
        wait_until(
            lambda: publisher.pump(0.01) is None and publisher.published().acknowledged > 2_000,
            what="some were acknowledged",
        )
        assert publisher.pending_count > 0

        broker.stop()
        wait_until(
            lambda: publisher.pump(0.05) is None and not publisher.link().is_up,
            what="the link is down",
        )
        broker.start()
        assert publisher.flush(timeout_s=60)
        wait_until(lambda: len(set(subscriber.seqs()["pub/a"])) == 20_000, what="every number came")

    assert first_seen(subscriber.seqs()["pub/a"]) == list(range(1, 20_001))


def test_broker_that_knows_only_3_1_1_is_served(publisher_of: Callable[..., Publisher]) -> None:
    broker = OldBroker()
    broker.start()
    publisher = publisher_of(f"mqtt://127.0.0.1:{broker.port}")
    publisher.offer(drafts("a", 10))

    assert publisher.flush(timeout_s=10)

    assert broker.versions == [5, 4]
    assert broker.published == 10
    assert publisher.link().detail.endswith("MQTT 3.1.1")
    publisher.close()
    broker.close()


def test_packet_above_the_brokers_limit_is_told_not_lost(
    fresh_mosquitto: Callable[..., Mosquitto], publisher_of: Callable[..., Publisher]
) -> None:
    broker = fresh_mosquitto(settings={"max_packet_size": "2000"})
    publisher = publisher_of(broker.url)
    publisher.offer([Draft("big", b"x" * 5_000, None)])

    with pytest.raises(ConfigError, match="above the largest packet"):
        publisher.flush(timeout_s=10)
    assert publisher.pending_count == 1


def test_nobody_there_is_a_state_and_not_an_error(publisher_of: Callable[..., Publisher]) -> None:
    publisher = publisher_of("mqtt://user:secret@127.0.0.1:9")
    publisher.offer(drafts("a", 1))

    assert not publisher.flush(timeout_s=0.5)

    assert not publisher.link().is_up
    assert "secret" not in publisher.link().detail


@pytest.mark.parametrize("url", ["http://h:1", "mqtt://", "mqtt://h:99999", "mqtt://h:1/path"])
def test_address_that_is_none_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="reading mqtt url"):
        parse_broker(url)


def test_password_is_in_no_text_of_a_broker() -> None:
    broker = parse_broker("mqtts://me:s%40crt@host")

    assert (broker.password, broker.port, broker.is_tls) == ("s@crt", 8883, True)
    assert "s@crt" not in f"{broker!r} {broker.shown}"


def test_replay_killed_several_times_leaves_no_gap_and_renumbers_nothing(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    readings = 8_000
    recording = tmp_path / "run.jsonl"
    recording.write_text(
        "".join(
            f'{{"topic":"matchday/kill/scalar/s{i % 3}",'
            f'"payload":{{"t":{1_600_000_000_000 + i},"quantity":"q","value":{i}}}}}\n'
            for i in range(readings)
        )
    )
    argv = [sys.executable, str(CHILD), mosquitto.url, str(recording), str(tmp_path / "state")]
    with Subscriber(mosquitto.port, "matchday/kill/#", "kill-sub") as subscriber:
        for kill in range(1, 5):
            with subprocess.Popen(argv) as child:
                subscriber.wait_for(kill * 1_200)
                child.send_signal(signal.SIGKILL)
        assert subprocess.run(argv, timeout=60, check=False).returncode == 0
        wait_until(
            lambda: sum(len(set(seqs)) for seqs in subscriber.seqs().values()) == readings,
            what="every number of every source came",
        )

    by_topic = subscriber.seqs()
    assert sorted(by_topic) == [f"matchday/kill/scalar/s{i}-0" for i in range(3)]
    for seqs in by_topic.values():
        assert first_seen(seqs) == list(range(1, len(set(seqs)) + 1))
    # Repeated deliveries are identical, so a receiver knows them by their number.
    assert len(set(subscriber.messages)) == readings


def test_publisher_sends_more_than_5000_messages_a_second_durably(
    mosquitto: Mosquitto, publisher_of: Callable[..., Publisher], tmp_path: Path
) -> None:
    publisher = publisher_of(mosquitto.url, Outbox(tmp_path / "o.sqlite"))
    text = "x" * 150
    begun_s = CLOCK.monotonic_s()
    with Subscriber(mosquitto.port, "pub/fast/#", "fast-sub"):
        for _ in range(40):
            publisher.offer([Draft("pub/fast/a", {"v": text}, "s")] * 250)
            publisher.pump(0.0)
        assert publisher.flush(timeout_s=30, stop=threading.Event())
    seconds = CLOCK.monotonic_s() - begun_s

    # The aim is 5,000 a second on a machine of one's own; half of it on a busy one.
    assert 10_000 / seconds > 2_500
