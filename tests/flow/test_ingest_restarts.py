"""Claims about one owner of a slot after another: what each knows of those before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.counting import counted
from matchday.clock import ManualClock
from matchday.domain.account import Counts, decode_ledger
from matchday.domain.topics import PLANS, Topic
from matchday.ingest.adapters import Adapters
from matchday.ingest.gate import GatePolicy
from matchday.ingest.identity import Identities
from matchday.ingest.sweeps import Sweeps
from matchday.ingest.tick import LEDGER_BYTES_MAX, Sorter, Tick
from matchday.ingest.warmup import _ReadBack, warm
from matchday.ports import Deliveries, Start, StreamRecord
from matchday.protocols.redelivery import Doubt
from matchday.stream.embedded import EmbeddedStream

WINDOW_MS = 120_000
RECEIVE_MAX = 4
"""So few that the newest readings, read back whatever their age, reach back no window."""

Message = tuple[str, bytes]
"""Topic and payload."""


class Ground:
    """An embedded stream on a clock moved by hand, and the owners of its slots."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.stream = EmbeddedStream(folder, clock=self.clock)
        self.stream.prepare()
        self.owners_count = 0

    def owner(
        self, slot: str = "a", *, slot_count: int = 1, receive_max: int = RECEIVE_MAX
    ) -> Owner:
        """Take the slot over, as after a crash of its owner."""
        self.owners_count += 1
        return Owner(self, slot, slot_count, receive_max)


class Owner:
    """Commits ticks as a bridge does; nothing it says about acknowledgements is ever heard."""

    def __init__(self, ground: Ground, slot: str, slot_count: int, receive_max: int) -> None:
        self._clock, self._slot = ground.clock, slot
        self._name, self._tick_count = f"run{ground.owners_count}", 0
        self._producer = ground.stream.producer(f"matchday-ingest-{slot}")
        self.known = Identities(window_ms=WINDOW_MS, entries_min=receive_max)
        self._doubt = Doubt(entries_max=receive_max)
        self.tail = warm(
            ground.stream,
            slot,
            slot_count=slot_count,
            identities=self.known,
            doubt=self._doubt,
            window_ms=WINDOW_MS,
            entries_min=receive_max,
        )
        self._sorter = Sorter(
            adapters=Adapters(),
            gate=GatePolicy(),
            identities=self.known,
            doubt=self._doubt,
            payload_bytes_max=2**20,
        )
        self._sweeps = Sweeps(self.known)

    def tick(
        self,
        *messages: Message,
        origins: tuple[str, ...] = ("",),
        connection: int = 1,
        is_resumed: bool = True,
    ) -> Counts:
        """Commit what comes from each origin, packets numbered from 1; gives what it counts."""
        self._tick_count += 1
        tick, name = Tick(), f"{self._name}-{self._tick_count}"
        now_ms = self._clock.wall_ms()
        for origin in origins:
            topics, payloads = [one[0] for one in messages], [one[1] for one in messages]
            packet_ids = list(range(1, len(messages) + 1))
            self._sorter.take(
                tick,
                Deliveries(origin, connection, now_ms, topics, payloads, packet_ids, is_resumed),
            )
        outputs = tick.outputs(slot=self._slot, tick=name, ts_ms=now_ms)
        outputs[Topic.LEDGER] += self._sweeps.records(
            slot=self._slot, tick=name, ts_ms=now_ms, now_s=self._clock.monotonic_s()
        )
        self._producer.commit(outputs)
        self._doubt.committed(tick.tail)
        self.known.turn(now_ms)
        total = Counts()
        for counts in tick.sums().values():
            total.add(counts)
        return total


def said(source: str, seq: int | None, t_ms: int | None, quantity: str = "q") -> Message:
    fields = {"quantity": quantity, "value": 1, "seq": seq, "t": t_ms}
    given = {name: value for name, value in fields.items() if value is not None}
    return f"matchday/v/scalar/{source}", json.dumps(given).encode()


def gate_count(source: str, seq: int, t_ms: int) -> Message:
    payload = json.dumps({"zone": "z", "in": 3, "seq": seq, "t": t_ms}).encode()
    return f"matchday/v/count/{source}", payload


TEXT = ("sensor/data", b"temp: 21.5")
OTHER_TEXT = ("sensor/data", b"temp: 3")


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    yield made
    made.stream.close()


def pass_time(ground: Ground, owner: Owner, seconds: int) -> None:
    """Let sources in every partition speak once a second."""
    for _ in range(seconds):
        ground.clock.advance(1)
        now_ms = ground.clock.wall_ms()
        owner.tick(*[said(name, now_ms // 1000, now_ms) for name in "abcdefgh"])


def test_equal_text_of_a_broker_that_lost_its_session_is_a_reading_of_its_own(ground: Ground):
    assert ground.owner().tick(TEXT) == Counts(accepted=1)
    owner = ground.owner()
    assert owner.tick(TEXT, is_resumed=False) == Counts(accepted=1)
    assert owner.tick(TEXT, connection=2, is_resumed=False) == Counts(accepted=1)
    assert owner.tick(TEXT, connection=3) == Counts(duplicate=1)


def test_what_came_before_a_session_was_lost_is_in_no_doubt_after_a_restart(ground: Ground):
    ground.owner().tick(OTHER_TEXT, TEXT)
    ground.owner().tick(OTHER_TEXT, is_resumed=False)
    # The second packet of the session that began then, and it had not come before.
    assert ground.owner().tick(OTHER_TEXT, TEXT) == Counts(accepted=1, duplicate=1)


def test_message_that_comes_again_to_each_of_three_owners_is_one_however_long_each_was_away(
    ground: Ground,
):
    t_ms = ground.clock.wall_ms()
    messages = [said("n1", 1, t_ms), said("n1", 2, t_ms), said("n2", None, t_ms)]
    south = ground.owner("south", slot_count=2)
    assert ground.owner("north", slot_count=2).tick(*messages) == Counts(accepted=3)
    for pause_s in (200, 2, 200, 300):
        pass_time(ground, south, pause_s)
        assert ground.owner("north", slot_count=2).tick(*messages) == Counts(duplicate=3)


def test_message_refused_again_hides_none_that_comes_behind_it(ground: Ground):
    t_ms = ground.clock.wall_ms()
    messages = [said("n1", 1, t_ms), said("n2", None, t_ms)]
    bad = ("matchday/v/scalar/n1", b"{bad")
    south = ground.owner("south", slot_count=2)
    ground.owner("north", slot_count=2).tick(bad, *messages)
    for tried in (messages[:0], messages):
        pass_time(ground, south, 200)
        found = ground.owner("north", slot_count=2).tick(bad, *tried)
        assert found == Counts(refused=1, duplicate=len(tried))


def test_message_that_came_to_an_owner_again_and_again_is_known_to_the_next(ground: Ground):
    t_ms = ground.clock.wall_ms()
    messages = [said("n1", 1, t_ms), said("n1", 2, t_ms), said("n2", None, t_ms)]
    south = ground.owner("south", slot_count=2)
    ground.owner("north", slot_count=2).tick(*messages)
    north = ground.owner("north", slot_count=2)
    for connection in range(10):
        pass_time(ground, south, 30)
        assert north.tick(*messages, connection=connection) == Counts(duplicate=3)
    assert ground.owner("north", slot_count=2).tick(*messages) == Counts(duplicate=3)


def test_reading_of_a_publisher_that_missed_an_owner_is_known_to_the_next(ground: Ground):
    t_ms = ground.clock.wall_ms()
    late, other = said("n1", None, t_ms), said("n2", None, t_ms)
    south = ground.owner("south", slot_count=2)
    ground.owner("north", slot_count=2).tick(late, origins=("one",))
    pass_time(ground, south, 200)
    assert ground.owner("north", slot_count=2).tick(other, origins=("two",)) == Counts(accepted=1)
    pass_time(ground, south, 200)
    again = ground.owner("north", slot_count=2).tick(late, other, origins=("one",))
    assert again == Counts(duplicate=2)


def test_text_of_a_publisher_that_comes_a_third_time_after_a_second_crash_is_one(ground: Ground):
    ground.owner().tick(TEXT, origins=("one",))
    second = ground.owner()
    assert second.tick(TEXT, origins=("one",)) == Counts(duplicate=1)
    second.tick(OTHER_TEXT, origins=("two",), connection=2)
    third = ground.owner()
    assert third.tick(TEXT, OTHER_TEXT, origins=("one",)) == Counts(accepted=1, duplicate=1)
    again = ground.owner().tick(TEXT, OTHER_TEXT, origins=("one",))
    assert again == Counts(duplicate=2)


def test_text_of_a_publisher_that_missed_an_owner_is_known_to_the_next(ground: Ground):
    ground.owner().tick(TEXT, origins=("one",))
    second = ground.owner()
    for connection in range(2, 6):
        second.tick(OTHER_TEXT, origins=("two",), connection=connection)
    assert ground.owner().tick(TEXT, origins=("one",)) == Counts(duplicate=1)


def test_tick_too_large_for_one_ledger_record_has_several_and_all_is_found_again(ground: Ground):
    # Longer names than our endpoint takes, so that few messages are enough.
    origins = tuple(f"{number:03d}" + "x" * 65_000 for number in range(60))
    assert ground.owner().tick(TEXT, OTHER_TEXT, origins=origins) == Counts(accepted=120)
    reader = ground.stream.reader([Topic.LEDGER], Start.beginning())
    records = reader.poll(timeout_s=1, records_max=1000)
    reader.close()
    pieces = [one for one in records if decode_ledger(one.value).sweep is None]
    assert len(pieces) > 3
    assert max(len(one.value) for one in pieces) <= LEDGER_BYTES_MAX
    assert {decode_ledger(one.value).tick for one in pieces} == {"run1-1"}
    assert counted(ground.stream) == Counts(accepted=120)
    assert ground.owner().tick(TEXT, OTHER_TEXT, origins=origins) == Counts(duplicate=120)


def test_last_numbers_under_the_longest_names_fit_in_ledger_records(ground: Ground):
    long, t_ms = "\U0001f3df" * 190, ground.clock.wall_ms()
    owner = ground.owner()
    messages = [said(f"{long}{number}", 1, t_ms, quantity=long) for number in range(3000)]
    owner.tick(*messages)
    for _ in range(3):
        ground.clock.advance(1)
        owner.tick(said("s", int(ground.clock.monotonic_s()), ground.clock.wall_ms()))
    reader = ground.stream.reader([Topic.LEDGER], Start.beginning())
    records = reader.poll(timeout_s=1, records_max=1000)
    reader.close()
    assert max(len(one.value) for one in records) < PLANS[Topic.LEDGER].record_bytes_max
    told = [source for one in records for source in decode_ledger(one.value).last_seq]
    assert set(told) >= {f"{long}{number}" for number in range(3000)}


def test_number_of_a_slow_source_leaps_over_none_that_came_before_a_late_one(ground: Ground):
    owner, t_ms = ground.owner(), ground.clock.wall_ms()
    begun = owner.tick(*[said("s", seq, t_ms + seq) for seq in (1, 2, 3, 10)])
    assert begun == Counts(accepted=4, missing=6)
    pass_time(ground, owner, 60)
    assert owner.tick(said("s", 4, t_ms + 4)) == Counts(accepted=1, missing=-1)
    pass_time(ground, owner, 90)
    # Of it the window has the late one only; its last number is told by a sweep.
    owner, now_ms = ground.owner(), ground.clock.wall_ms()
    assert owner.tick(said("s", 10, t_ms + 10), said("s", 4, t_ms + 4)) == Counts(duplicate=2)
    assert owner.tick(said("s", 7, t_ms + 7)) == Counts(accepted=1)
    assert owner.tick(said("s", 12, now_ms)) == Counts(accepted=1, missing=1)


def test_run_that_was_silent_for_a_window_goes_on_after_a_restart_without_a_leap(ground: Ground):
    owner, t_ms = ground.owner(), ground.clock.wall_ms()
    owner.tick(*[said("s", 900 + place, t_ms + place) for place in range(3)])
    pass_time(ground, owner, 100)
    t_ms = ground.clock.wall_ms()
    owner.tick(*[said("s", place, t_ms + place) for place in range(3)])
    pass_time(ground, owner, 61)
    owner = ground.owner()
    assert owner.tick(said("s", 903, ground.clock.wall_ms())) == Counts(accepted=1)
    assert owner.tick(said("s", 3, ground.clock.wall_ms() + 1)) == Counts(accepted=1)


def test_last_number_after_a_clock_was_set_back_is_the_one_told_last(ground: Ground):
    owner, t_ms = ground.owner(), ground.clock.wall_ms()
    owner.tick(said("s", 41, t_ms))
    pass_time(ground, owner, 61)
    owner.tick(said("s", 42, t_ms - 3_600_000))
    pass_time(ground, owner, 200)
    owner = ground.owner()
    assert owner.tick(said("s", 44, ground.clock.wall_ms())) == Counts(accepted=1, missing=1)


def test_quantity_called_like_a_kind_is_numbered_on_its_own_before_and_after_a_restart(
    ground: Ground,
):
    owner, t_ms = ground.owner(), ground.clock.wall_ms()
    counted_at_gate = [gate_count("s", seq, t_ms + seq) for seq in (5, 6)]
    measured = [said("s", seq, t_ms + seq, quantity="count") for seq in (5, 6, 7, 8)]
    assert owner.tick(*counted_at_gate, *measured) == Counts(accepted=6)
    assert owner.tick(*counted_at_gate, *measured) == Counts(duplicate=6)
    pass_time(ground, owner, 200)
    owner, now_ms = ground.owner(), ground.clock.wall_ms()
    assert owner.tick(gate_count("s", 8, now_ms)) == Counts(accepted=1, missing=1)
    again = said("s", 11, now_ms, quantity="count")
    assert owner.tick(again) == Counts(accepted=1, missing=2)


def test_last_number_of_a_kind_is_found_under_the_name_it_always_had(ground: Ground):
    owner, t_ms = ground.owner(), ground.clock.wall_ms()
    owner.tick(gate_count("s", 5, t_ms))
    told = [record.last_seq for record in ground.owner().tail.own if record.last_seq]
    assert told == [{"s": {"count": (5, t_ms)}}]


def test_what_is_read_back_is_taken_in_once_and_in_order(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    t_ms = ground.clock.wall_ms()
    south, north = ground.owner("south", slot_count=2), ground.owner("north", slot_count=2)
    for place in range(4):
        north.tick(said("n", place, t_ms + place))
        ground.clock.advance(300)
        # So few that the newest readings, whatever their age, go back behind some of these.
        for _ in range(8):
            south.tick(said("n", int(ground.clock.monotonic_s()), ground.clock.wall_ms()))
            ground.clock.advance(1)
        north = ground.owner("north", slot_count=2)
        north.tick(said("n", place, t_ms + place))
    taken: list[int] = []
    take = _ReadBack.take

    def noting(read_back: _ReadBack, record: StreamRecord) -> None:
        taken.append(record.offset)
        take(read_back, record)

    monkeypatch.setattr(_ReadBack, "take", noting)
    for entries_min in (1, 5, 10, 20, 50):
        taken.clear()
        ground.owner("north", slot_count=2, receive_max=entries_min)
        assert taken
        assert taken == sorted(set(taken))
