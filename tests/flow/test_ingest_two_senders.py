"""Claims about several runs under one name through ticks, ledger and restarts: the account."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flow.counting import counted
from matchday.clock import ManualClock
from matchday.domain.topics import Topic
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.sweeps import Sweeps
from matchday.ingest.tick import Sorter, Tick
from matchday.ingest.warmup import warm
from matchday.ports import Deliveries
from matchday.protocols.redelivery import Doubt
from matchday.stream.embedded import EmbeddedStream

WINDOW_MS = 2_000
STEP_S = 0.02
SETTLING = 10
TOPIC = "matchday/v/scalar/s"
SESSIONS = {
    "none": (None, None),
    "the same": ("one", "one"),
    "different": ("one", "other"),
}


class Owner:
    """Takes messages and commits them as a bridge does, from what a warm start found."""

    def __init__(self, stream: EmbeddedStream, clock: ManualClock) -> None:
        self._stream, self._clock = stream, clock
        self._producer = stream.producer("matchday-ingest-a")
        self.known = Identities(window_ms=WINDOW_MS, entries_min=1)
        doubt = Doubt(entries_max=10)
        warm(
            stream,
            "a",
            slot_count=1,
            identities=self.known,
            doubt=doubt,
            window_ms=WINDOW_MS,
            entries_min=1,
        )
        self._sorter = Sorter(
            adapters=Adapters(),
            gate=GatePolicy(),
            identities=self.known,
            doubt=doubt,
            payload_bytes_max=2**20,
        )
        self._sweeps = Sweeps(self.known)

    def take(self, payloads: list[bytes]) -> None:
        tick, now_ms = Tick(), self._clock.wall_ms()
        packet_ids = list(range(1, 1 + len(payloads)))
        topics = [TOPIC] * len(payloads)
        self._sorter.take(tick, Deliveries("", 1, now_ms, topics, payloads, packet_ids))
        outputs = tick.outputs(slot="a", tick=f"{now_ms}", ts_ms=now_ms)
        outputs[Topic.LEDGER] += self._sweeps.records(
            slot="a", tick=f"{now_ms}", ts_ms=now_ms, now_s=self._clock.monotonic_s()
        )
        self._producer.commit(outputs)
        self.known.turn(now_ms)

    def end(self) -> None:
        self._producer.close()


@pytest.mark.parametrize("sessions", SESSIONS)
@pytest.mark.parametrize("begins", [(0, 0), (5000, 0), (0, 5000), (0, 20_000)])
@pytest.mark.parametrize("seed", range(2))
def test_account_of_two_senders_is_true_with_restarts_in_between(
    tmp_path: Path, begins: tuple[int, int], sessions: str, seed: int
):
    rng, clock = random.Random(seed), ManualClock()
    stream = EmbeddedStream(tmp_path, clock=clock)
    stream.prepare()
    owner = Owner(stream, clock)
    seqs, lost, said, again = list(begins), 0, 0, 0
    kept: list[bytes] = []
    for step in range(600):
        clock.advance(STEP_S)
        payloads = []
        for which in rng.sample((0, 1), 2) if step >= SETTLING else (0,):
            seq = seqs[which]
            seqs[which] += 1
            since_restart = step % 200
            is_calm = since_restart < 3 * SETTLING or since_restart > 200 - 3 * SETTLING
            if not is_calm and rng.random() < 0.1:
                lost += 1
                continue
            session = SESSIONS[sessions][which]
            named = "" if session is None else f', "session": "{session}"'
            t_ms = clock.wall_ms() - 9 * which
            text = f'{{"quantity": "q", "value": 1, "t": {t_ms}, "seq": {seq}{named}}}'
            payloads.append(text.encode())
            said += 1
        kept = (kept + payloads)[-40:]
        if rng.random() < 0.2 and kept:
            payloads.append(rng.choice(kept))
            again += 1
        owner.take(payloads)
        if step % 200 == 199:
            owner.end()
            owner = Owner(stream, clock)
    owner.end()
    total = counted(stream)
    assert (total.accepted, total.duplicate) == (said, again)
    if begins[0] == begins[1]:
        # A number that one has lost may be taken from the other's hand.
        assert 0 < total.missing <= lost
    else:
        assert total.missing == lost
    assert total.renumbered <= 1
    stream.close()


@pytest.mark.parametrize("seed", range(6))
def test_account_is_true_with_restarts_amid_disorder_and_numbers_begun_anew(
    tmp_path: Path, seed: int
):
    rng, clock = random.Random(seed), ManualClock()
    stream = EmbeddedStream(tmp_path, clock=clock)
    stream.prepare()
    owner = Owner(stream, clock)
    seq, said, restarts = 0, 0, 0
    on_the_way: list[bytes] = []
    for step in range(600):
        clock.advance(STEP_S)
        seq = 0 if rng.random() < 0.02 else seq + 1
        text = f'{{"quantity": "q", "value": 1, "t": {clock.wall_ms()}, "seq": {seq}}}'
        on_the_way.append(text.encode())
        said += 1
        if rng.random() < 0.3 or step == 599:
            rng.shuffle(on_the_way)
            keep = 0 if step == 599 else len(on_the_way) // 2
            owner.take(on_the_way[keep:])
            del on_the_way[keep:]
        if rng.random() < 0.03:
            owner.end()
            owner = Owner(stream, clock)
            restarts += 1
    owner.end()
    total = counted(stream)
    assert restarts > 5
    assert (total.accepted, total.duplicate, total.missing) == (said, 0, 0)
    stream.close()
