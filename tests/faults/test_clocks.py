"""Clocks that jump, ours and the sensors', and readings that come twice, late and in disorder."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.campaign import ROUNDS, SEED, Campaign
from faults.deployment import Deployment, embedded
from faults.schedule import Blow, Fault
from matchday.clock import SystemClock
from servers.process import wait_until
from servers.services import ask
from system.deployments import mqtt_client

pytestmark = pytest.mark.timeout(240 * ROUNDS)

CLOCK = SystemClock()
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
HOUR_MS = 3_600_000


@dataclass
class FakeTime:
    """The wall clock of a process, set from outside; its monotonic clock stays true."""

    file: Path

    def settings(self) -> dict[str, str]:
        """Give the environment of the process."""
        return {
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Let the clock be off by so many seconds from now on."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}s\n", encoding="ascii")
        fresh.replace(self.file)


@pytest.fixture
def fake_time(tmp_path: Path) -> FakeTime:
    if not FAKETIME:
        reason = "libfaketime is not installed (Debian: faketime)"
        if os.environ.get("REQUIRE") == "all":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    found = FakeTime(tmp_path / "clock")
    found.jump(0)
    return found


def test_jumps_of_our_clock_lose_nothing_and_write_nothing_twice(fake_time, tmp_path):
    # Further back than gate.ahead_s_max (300 s) the sensors would seem to live in the future.
    jumps_s = [3600, 0, -240, 0, 86_400, -120, 7 * 86_400 - 60, 0]
    rng = random.Random(SEED)
    with (
        embedded(tmp_path, settings=fake_time.settings()) as deployment,
        Campaign(deployment) as campaign,
    ):
        for jump_s in jumps_s * ROUNDS:
            campaign.flow(rng.randrange(200, 400))
            campaign.struck.append(f"clock off by {jump_s} s")
            fake_time.jump(jump_s)
            campaign.flow(rng.randrange(100, 300))
            if rng.random() < 0.5:
                campaign.strike(Fault((Blow("kill", "up"),), 0.0, 0.0))
        fake_time.jump(0)
        campaign.recover("jumps of the clock")
        verdict = campaign.settle()
        print(verdict.figures())
        # A forward jump takes the sources for silent, so it closes the open windows early: what
        # comes of them later is counted as late, as the limits say. Nothing else may be wrong.
        # Judged by the sensors' times alone some windows then lack readings, have no finding, or
        # have one although nothing says that they are over.
        allowed = (
            "of other readings than their window's",
            "windows without a finding",
            "of windows that are not over",
        )
        wrong = [one for one in verdict.complaints() if not any(text in one for text in allowed)]
        assert not wrong, "\n".join([*wrong, campaign.repeat()])


def test_clock_too_far_back_refuses_what_seems_to_come_from_the_future_and_keeps_it(
    fake_time, tmp_path
):
    with (
        embedded(tmp_path, settings=fake_time.settings()) as deployment,
        mqtt_client(deployment.mqtt_port, "sensor") as client,
    ):
        fake_time.jump(-600)
        said = json.dumps({"quantity": "q", "value": 1, "seq": 1, "t": CLOCK.wall_ms()})
        client.publish("matchday/test/scalar/a", said, qos=1).wait_for_publish(30)
        fake_time.jump(0)
        client.publish("matchday/test/scalar/a", said, qos=1).wait_for_publish(30)
        account = settled(deployment, received=2)
        assert account["totals"]["refused"] == 1
        assert account["totals"]["stored"] == 1
        assert deployment.books.refused() == Counter({said.encode(): 1})


@dataclass(frozen=True)
class Said:
    """One reading as a sensor said it."""

    source: str
    seq: int
    t_ms: int

    @property
    def payload(self) -> str:
        value = float(self.seq)
        return json.dumps({"quantity": "q", "value": value, "seq": self.seq, "t": self.t_ms})


def told(rng: random.Random, *, source: str, count: int, restart_at: int) -> Iterator[Said]:
    """Give readings of a sensor whose clock jumps and whose numbers begin anew once."""
    t_ms = CLOCK.wall_ms() - 2 * HOUR_MS
    for number in range(count):
        t_ms += rng.randrange(1, 50)
        if number == count // 3:
            t_ms += HOUR_MS  # its clock was set
        if number == count // 2:
            t_ms -= HOUR_MS  # and set back: a daylight saving time that it should not know
        seq = number if number < restart_at else number - restart_at
        yield Said(source, seq, t_ms if number < restart_at else t_ms + 2 * HOUR_MS)


def disordered(rng: random.Random, said: list[Said]) -> list[Said]:
    """Give readings as a bad network delivers them: a fifth twice, all a little in disorder."""
    placed = [(place + rng.random() * 20, one) for place, one in enumerate(said)]
    placed += [(at + rng.random() * 200, one) for at, one in placed if rng.random() < 0.2]
    return [one for _, one in sorted(placed, key=lambda item: item[0])]


def test_jumping_sensor_clocks_restarts_repetitions_and_disorder_are_all_accounted_for(tmp_path):
    rng = random.Random(SEED)
    count, restart_at = 400, 250
    by_source = {
        f"sensor-{n}": list(told(rng, source=f"sensor-{n}", count=count, restart_at=restart_at))
        for n in range(8)
    }
    sent: list[Said] = []
    for readings in by_source.values():
        # Disorder does not reach over a restart: nobody could tell old numbers from new there.
        sent += disordered(rng, readings[:restart_at]) + disordered(rng, readings[restart_at:])
    with embedded(tmp_path) as deployment, mqtt_client(deployment.mqtt_port, "sensor") as client:
        waiting = [
            client.publish(f"matchday/test/scalar/{one.source}", one.payload, qos=1) for one in sent
        ]
        for one in waiting:
            one.wait_for_publish(60)
        account = settled(deployment, received=len(sent))
        distinct = {one for readings in by_source.values() for one in readings}
        assert account["exit"] == 0
        assert account["totals"]["stored"] == len(distinct)
        assert account["totals"]["duplicate"] == len(sent) - len(distinct)
        assert account["totals"]["missing"] == 0
        stored = deployment.books.in_store()
        assert stored == Counter((one.source, one.seq) for one in distinct)


def test_hour_that_daylight_saving_repeats_is_kept_twice(tmp_path):
    """Text sensors of the original tell local time, and say 02:30 twice in that night."""
    settings = {"MATCHDAY_INGEST__ZONE": "Europe/Berlin"}

    def said(hour: int, minute: int, value: float) -> str:
        at = f"2025-10-26 {hour:02}:{minute:02}:00"
        return json.dumps({"sensorId": "thermometer", "temperature": value, "collectedAt": at})

    night = [said(hour, minute, hour + minute / 60) for hour in (1, 2) for minute in range(60)]
    again = [said(2, minute, 9 + minute / 60) for minute in range(60)]
    morning = [said(3, minute, 3.0) for minute in range(60)]
    with (
        embedded(tmp_path, settings=settings) as deployment,
        mqtt_client(deployment.mqtt_port, "thermometer") as client,
    ):
        for text in [*night, *again, *morning]:
            client.publish("temperature", text, qos=1).wait_for_publish(30)
        account = settled(deployment, received=240)
        assert account["exit"] == 0
        assert account["totals"]["stored"] == 240


def settled(deployment: Deployment, *, received: int) -> dict:
    """Give the account once so many messages were received and none is pending."""

    def is_settled() -> bool:
        totals = ask(deployment.settings, "ledger")["totals"]
        return totals["received"] >= received and totals["pending"] == 0

    wait_until(is_settled, what=f"{received} messages are settled", timeout_s=60)
    return ask(deployment.settings, "ledger", "--verify")
