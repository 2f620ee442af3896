"""Messages that nobody should send: rubbish in floods, monsters, and sources without number."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from faults.campaign import ROUNDS, SEED
from faults.deployment import Deployment, embedded
from faults.flood import Flood, publish
from matchday.clock import SystemClock
from servers.load import Load
from servers.ports import LOOPBACK
from servers.process import wait_until
from servers.services import ask
from system.deployments import mqtt_client

pytestmark = pytest.mark.timeout(240 * ROUNDS)

CLOCK = SystemClock()
FLOOD_PER_S = 5000
ACK_P99_S_MAX = 1.5
"""How long good readings wait for their acknowledgement beside a flood: a quiet machine of two
cores shows 0.2 s; the bound is for one that does much else."""
KIB_PER_SOURCE_MAX = 6.0
"""Memory of `matchday up` per source that it has heard of once, everything included."""
MIB = 2**20


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path) as found:
        yield found


class Timed(Load):
    """Readings of which is known when they were made."""

    def __init__(self, port: int, **options: Any) -> None:
        self.made_s: dict[tuple[str, int], float] = {}
        super().__init__(port, **options)

    def payload(self, source: str, seq: int) -> bytes:
        self.made_s[source, seq] = CLOCK.monotonic_s()
        return super().payload(source, seq)

    def waits_s(self) -> list[float]:
        """Give how long each acknowledged reading waited, sorted."""
        return sorted(at_s - self.made_s[one] for one, at_s in self.acknowledged_s.items())


@pytest.fixture
def good(deployment: Deployment) -> Iterator[Timed]:
    sources = [f"good-{number}" for number in range(10)]
    with closing(Timed(deployment.mqtt_port, rate_per_s=200, sources=sources)) as load:
        wait_until(lambda: len(load.acknowledged) > 100, what="good readings flow")
        yield load


def rss_bytes(deployment: Deployment) -> int:
    pid = deployment.processes["up"].pid
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def settled(deployment: Deployment, *, received: int) -> dict:
    """Give the account once so many messages were received and none is pending."""
    account: dict = {}

    def is_settled() -> bool:
        account.update(ask(deployment.settings, "ledger"))
        totals = account["totals"]
        return totals["received"] >= received and totals["pending"] == 0

    wait_until(is_settled, what=f"{received} messages are settled", timeout_s=120)
    return ask(deployment.settings, "ledger", "--verify")


def test_flood_of_rubbish_delays_good_readings_little_and_every_message_is_kept(deployment, good):
    before = rss_bytes(deployment)
    count = 20_000 * ROUNDS

    def rubbish(number: int) -> tuple[str, bytes]:
        return f"matchday/test/scalar/noise-{number % 50}", b"{rubbish number %d" % number

    with Flood(deployment.mqtt_port, rubbish, rate_per_s=FLOOD_PER_S, count_max=count) as flood:
        wait_until(
            lambda: flood.acknowledged_count >= count,
            what="all rubbish is acknowledged",
            timeout_s=60 * ROUNDS,
        )
    good.stop()
    wait_until(lambda: good.open_count == 0, what="all is acknowledged")
    waits_s = good.waits_s()
    p50_s, p99_s = (waits_s[int(len(waits_s) * share)] for share in (0.5, 0.99))
    grown_mib = (rss_bytes(deployment) - before) / MIB
    print(f"good readings waited p50 {p50_s:.3f}, p99 {p99_s:.3f} s; grown {grown_mib:.0f} MiB")
    account = settled(deployment, received=count + len(good.acknowledged))
    assert account["exit"] == 0
    assert account["totals"]["refused"] == count
    kept = deployment.books.refused()
    assert kept.total() == len(kept) == count
    assert set(deployment.books.in_store()) == good.acknowledged
    assert p99_s < ACK_P99_S_MAX
    assert grown_mib < 100


def test_source_with_half_of_all_traffic_slows_nobody_and_loses_nothing(deployment, good):
    port = deployment.mqtt_port
    with closing(Load(port, rate_per_s=1000, sources=["loud"], client_id="loud")) as loud:
        wait_until(lambda: len(loud.acknowledged) > 5000, what="it is loud", timeout_s=60)
        for load in (loud, good):
            load.stop()
            wait_until(lambda load=load: load.open_count == 0, what="all is acknowledged")
    sent = loud.acknowledged | good.acknowledged
    account = settled(deployment, received=len(sent))
    assert account["exit"] == 0
    found = deployment.books.in_store()
    assert set(found) == sent
    assert found.total() == len(sent)
    waits_s = good.waits_s()
    assert waits_s[int(len(waits_s) * 0.99)] < ACK_P99_S_MAX


def test_sources_without_number_cost_a_bounded_memory_each(deployment):
    count = 20_000 if ROUNDS == 1 else 1_000_000

    def once(number: int) -> tuple[str, bytes]:
        said = b'{"quantity": "q", "value": 1, "seq": 1, "t": %d}' % CLOCK.wall_ms()
        return f"matchday/test/scalar/source-{number:07}", said

    # What everybody needs once is there before: caches, buffers, the first windows.
    with Flood(deployment.mqtt_port, once, rate_per_s=2000, count_max=2000) as flood:
        wait_until(lambda: flood.acknowledged_count >= 2000, what="warm", timeout_s=60)
    settled(deployment, received=2000)
    before = rss_bytes(deployment)
    with Flood(
        deployment.mqtt_port, lambda n: once(n + 2000), rate_per_s=4000, count_max=count
    ) as flood:
        wait_until(
            lambda: flood.acknowledged_count >= count,
            what="every source has spoken",
            timeout_s=200 * ROUNDS,
        )
    account = settled(deployment, received=count + 2000)
    each_kib = (rss_bytes(deployment) - before) / 1024 / count
    print(f"{each_kib:.2f} KiB per source")
    assert account["exit"] == 0
    assert account["totals"]["stored"] == count + 2000
    assert len(account["sources"]) == count + 2000
    assert each_kib < KIB_PER_SOURCE_MAX


def monsters() -> dict[str, tuple[str, bytes, bool]]:
    """Give hostile messages: topic, payload, and whether a reading comes out."""
    native = "matchday/test/scalar/monster"
    said = {"quantity": "q", "value": 1.0, "seq": 1}
    objects = [{"id": f"player-{n}", "x": n % 100, "y": 1.5, "team": "t" * 40} for n in range(3000)]
    return {
        "256 kB of objects": (
            "matchday/test/positions/camera",
            json.dumps({"objects": objects}).encode(),
            True,
        ),
        "256 kB of rubbish": (native, b"x" * 262_144, False),
        "10 MB of rubbish": (native, b"\xff" * 10_000_000, False),
        "10 MB in a string": (native, json.dumps({**said, "note": "x" * 10**7}).encode(), True),
        "more than is taken whole": (native, b"y" * (12 * MIB + 1), False),
        "deep lists": (native, b"[" * 200_000, False),
        "deep and closed": (native, b"[" * 100_000 + b"]" * 100_000, False),
        "deep in a field": (
            native,
            b'{"quantity":"q","value":1,"seq":2,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
            False,
        ),
        "float beyond all floats": (native, b'{"quantity":"q","value":1e400,"seq":3}', False),
        "integer of 5000 digits": (
            native,
            b'{"quantity":"q","value":' + b"9" * 5000 + b',"seq":4}',
            False,
        ),
        "seq beyond 64 bits": (
            native,
            b'{"quantity":"q","value":1,"seq":' + b"9" * 30 + b"}",
            False,
        ),
        "time of 300 digits": (
            native,
            b'{"quantity":"q","value":1,"t":' + b"9" * 300 + b"}",
            False,
        ),
        "not a number": (native, b'{"quantity":"q","value":NaN,"seq":5}', False),
        "invalid UTF-8": (native, b'{"quantity":"q\xff\xfe","value":1,"seq":6}', False),
        "half a surrogate": (native, b'{"quantity":"q\\ud800","value":1,"seq":7}', False),
        "a zero character": (native, b'{"quantity":"q\\u0000","value":1,"seq":8}', False),
        "a key twice": (native, b'{"quantity":"q","value":1,"value":2,"seq":9}', True),
        "nothing": (native, b"", False),
        "true as a number": (native, b'{"quantity":"q","value":true,"seq":10}', False),
        "topic at the limit": ("t" * 65_535, b"{}", False),
        "levels at the limit": ("/" * 65_535, b"{}", False),
        "source at the limit": (
            f"matchday/test/scalar/{'s' * 65_000}",
            json.dumps(said).encode(),
            False,
        ),
    }


def test_each_monster_is_a_dead_letter_or_a_reading_and_never_stops_the_flow(deployment, good):
    expected = monsters()
    with mqtt_client(deployment.mqtt_port, "monsters") as client:
        for name, (topic, payload, _) in expected.items():
            before = len(good.acknowledged)
            client.publish(topic, payload, qos=1).wait_for_publish(30)
            wait_until(lambda b=before: len(good.acknowledged) > b, what=f"flow after {name}")
    good.stop()
    wait_until(lambda: good.open_count == 0, what="all is acknowledged")
    account = settled(deployment, received=len(good.acknowledged) + len(expected))
    assert account["exit"] == 0
    readings = {name for name, (_, _, is_reading) in expected.items() if is_reading}
    kept = deployment.books.refused()
    largest = expected["more than is taken whole"][1]
    for name, (_, payload, _) in expected.items():
        raw = payload[: 64 * 1024] if payload is largest else payload
        assert (kept[raw] == 0) == (name in readings), name
    assert account["totals"]["refused"] == len(expected) - len(readings)
    assert kept.total() == len(expected) - len(readings)


def damaged(rng: random.Random) -> bytes:
    """Give a greeting and some packets of a sensor, with some bits turned over."""
    topic, value = "matchday/test/scalar/damaged", b'{"quantity": "q", "value": 1}'
    greeting = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01d"
    said = bytearray(greeting + b"".join(publish(topic, value, n + 1) for n in range(20)))
    begin = 0 if rng.random() < 0.3 else len(greeting)
    for _ in range(rng.randrange(1, 8)):
        said[rng.randrange(begin, len(said))] ^= 1 << rng.randrange(8)
    return bytes(said[: rng.randrange(1, len(said) + 1)] if rng.random() < 0.3 else said)


def test_damaged_packets_end_their_connection_and_nothing_else(deployment, good):
    rng = random.Random(SEED)
    before = rss_bytes(deployment)
    for _ in range(300 * ROUNDS):
        with socket.create_connection((LOOPBACK, deployment.mqtt_port), timeout=10) as link:
            link.sendall(damaged(rng))
            if rng.random() < 0.3:
                link.shutdown(socket.SHUT_WR)
    flowed = len(good.acknowledged)
    wait_until(lambda: len(good.acknowledged) > flowed + 100, what="good readings flow on")
    good.stop()
    wait_until(lambda: good.open_count == 0, what="all is acknowledged")
    account = settled(deployment, received=len(good.acknowledged))
    assert account["exit"] == 0
    rows = [row for row in account["sources"] if row["source"].startswith("good-")]
    assert sum(row["stored"] for row in rows) == len(good.acknowledged)
    assert sum(row["duplicate"] + row["refused"] for row in rows) == 0
    assert rss_bytes(deployment) - before < 40 * MIB
    assert deployment.processes["up"].stop()
