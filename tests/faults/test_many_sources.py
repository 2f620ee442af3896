"""A great many sources, and kills among them: what each of them has said is known afterwards.

FAULT_SOURCES says how many; with FAULT_ROUNDS=2 they are a million.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.campaign import ROUNDS
from faults.deployment import Deployment, embedded
from faults.flood import Flood
from faults.verdict import RSS_MIB_MAX
from matchday.clock import SystemClock
from servers.process import wait_until
from servers.services import ask

SOURCES = int(os.environ.get("FAULT_SOURCES", "50000" if ROUNDS == 1 else "1000000"))
RATE_PER_S = 25_000
PATIENCE_S = 60.0 + SOURCES / 2500
KIB_PER_SOURCE_MAX = 6.0
"""As `test_hostile_input.py` has it for a process that does everything, analysis included."""

pytestmark = pytest.mark.timeout(180 + SOURCES // 1000)

CLOCK = SystemClock()
Message = Callable[[int], tuple[str, bytes]]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with embedded(tmp_path) as found:
        yield found


def send(
    deployment: Deployment, message: Message, *, begin: int, end: int, kill_at: int | None = None
) -> int:
    """Send the messages from one number to before another; give how far they are acknowledged.

    Returns once all are, or kills the process once so many are while others are on their way.
    Acknowledgements of one connection come in order.
    """
    enough = end if kill_at is None else kill_at

    def numbered(number: int) -> tuple[str, bytes]:
        return message(begin + number)

    port, count = deployment.mqtt_port, end - begin
    with Flood(port, numbered, rate_per_s=RATE_PER_S, count_max=count) as flood:
        wait_until(
            lambda: begin + flood.acknowledged_count >= enough,
            what=f"messages up to number {enough} are acknowledged",
            timeout_s=PATIENCE_S,
        )
        if kill_at is not None:
            deployment.processes["up"].kill()
            print(f"killed with {flood.open_count} messages on their way")
        return begin + flood.acknowledged_count


def restart(deployment: Deployment) -> float:
    """Start the process after a kill, and give the seconds until it takes messages."""
    began_s = CLOCK.monotonic_s()
    deployment.processes["up"].start()
    wait_until(deployment.takes_messages, what="messages are taken again", timeout_s=PATIENCE_S)
    return CLOCK.monotonic_s() - began_s


def rss_mib(deployment: Deployment) -> float:
    pid = deployment.processes["up"].pid
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def test_each_of_many_sources_is_known_after_kills_to_its_last_number(deployment):
    began_s, first_ms = CLOCK.monotonic_s(), CLOCK.wall_ms()
    again = SOURCES // 10

    def said(number: int, seq: int) -> tuple[str, bytes]:
        t_ms = first_ms + number * 1000 // RATE_PER_S + seq
        value = b'{"quantity": "q", "value": 1, "seq": %d, "t": %d}' % (seq, t_ms)
        return f"matchday/test/scalar/source-{number:07}", value

    def first(number: int) -> tuple[str, bytes]:
        return said(number, 1)

    def later(number: int) -> tuple[str, bytes]:
        # Each skips a number, and then says what it said first once more.
        return said(number // 2 * 10, 1 if number % 2 else 3)

    # Killed in the midst of it; what is not acknowledged is sent again, as a sensor does.
    known = send(deployment, first, begin=0, end=SOURCES, kill_at=SOURCES // 2)
    took_s = [restart(deployment)]
    send(deployment, first, begin=known, end=SOURCES)
    # Killed at rest: nothing is left of a million sources but what stream and store hold.
    deployment.processes["up"].kill()
    took_s.append(restart(deployment))
    send(deployment, later, begin=0, end=2 * again)
    heard_s, peak_mib = CLOCK.monotonic_s() - began_s, rss_mib(deployment)
    totals: dict[str, int] = {}

    def is_stored() -> bool:
        totals.update(ask(deployment.settings, "ledger", timeout_s=PATIENCE_S)["totals"])
        return totals["stored"] >= SOURCES + again and totals["pending"] == 0

    wait_until(is_stored, what="everything is stored", timeout_s=PATIENCE_S)
    account = ask(deployment.settings, "ledger", "--verify", timeout_s=PATIENCE_S)
    peak_mib = max(peak_mib, rss_mib(deployment))
    print(
        f"{SOURCES:,} sources: heard within {heard_s:.0f} s, ready again after "
        f"{took_s[0]:.1f} and {took_s[1]:.1f} s, {peak_mib:.0f} MiB, "
        f"{CLOCK.monotonic_s() - began_s:.0f} s in all; {account['totals']}"
    )
    assert account["exit"] == 0
    assert len(account["sources"]) == SOURCES
    assert account["totals"]["stored"] == SOURCES + again
    assert account["totals"]["missing"] == again
    assert account["totals"]["duplicate"] >= again
    assert account["totals"]["received"] == SOURCES + again + account["totals"]["duplicate"]
    found = deployment.books.in_store()
    assert found.total() == len(found) == SOURCES + again
    assert all((f"source-{number:07}", 1) in found for number in range(SOURCES))
    assert peak_mib < RSS_MIB_MAX["up"] + SOURCES * KIB_PER_SOURCE_MAX / 1024
