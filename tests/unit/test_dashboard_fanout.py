"""The fan-out: bounded queues, slow clients, catching up."""

import asyncio
from dataclasses import dataclass, field

import msgspec
from starlette.websockets import WebSocket

from matchday.clock import ManualClock
from matchday.dashboard import fanout
from matchday.dashboard.board import Board
from matchday.dashboard.fanout import QUEUE_MAX, Hub, Mailbox
from matchday.dashboard.live import Tail, Watch
from matchday.dashboard.state import DashboardState
from matchday.domain.account import Account
from matchday.domain.reading import Positions, Scalar, TrackedObject
from matchday.domain.venue import Pitch, Venue
from matchday.observe import metrics

GROUND = Venue(id="demo", name="Demo", pitch=Pitch(shape="rectangle", length_m=100, width_m=60))
DEADLINE_S = 5


@dataclass(eq=False)
class Tab:
    """A browser tab at the other end of an ASGI WebSocket; `takes` lets it read."""

    venue: str = "demo"
    received: list[dict] = field(default_factory=list)
    takes: asyncio.Event = field(default_factory=asyncio.Event)
    leaves: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def socket(self) -> WebSocket:
        scope = {
            "type": "websocket",
            "query_string": f"venue={self.venue}".encode(),
            "headers": [],
            "path": "/api/v1/live",
        }
        return WebSocket(scope, self._receive, self._send)

    async def _receive(self):
        if not self.received and not hasattr(self, "connected"):
            self.connected = True
            return {"type": "websocket.connect"}
        await self.leaves.wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def _send(self, message):
        if message["type"] != "websocket.send":
            return
        await self.takes.wait()
        async with self.arrived:
            self.received.append(msgspec.json.decode(message["text"]))
            self.arrived.notify_all()

    async def wait_for(self, accepts) -> None:
        async with self.arrived:
            await asyncio.wait_for(
                self.arrived.wait_for(lambda: any(accepts(m) for m in self.received)), DEADLINE_S
            )


class World:
    """A hub with a board, and positions that advance when told."""

    def __init__(self) -> None:
        clock = ManualClock()
        state = DashboardState(
            query=None,  # type: ignore[arg-type] - not asked here
            account=lambda: Account(()),
            links=list,
            clock=clock,
            venues=[GROUND],
        )
        stop = None
        self.board = Board([GROUND], clock=clock)
        tail = Tail(state, self.board, stop=stop)  # type: ignore[arg-type] - never run here
        self.hub = Hub(self.board, Watch(state, tail, stop=stop))  # type: ignore[arg-type]
        self.t_ms = 1_700_000_000_000

    def tick(self) -> int:
        """Move the one object and send it; gives the event time."""
        self.t_ms += 40
        self.board.take_readings(
            [
                Positions(
                    source="tag",
                    t_ms=self.t_ms,
                    objects=(TrackedObject("a", self.t_ms % 97, 0),),
                    venue="demo",
                )
            ]
        )
        self.hub.send_positions()
        return self.t_ms


def shows(t_ms: int):
    return lambda m: m["kind"] == "positions" and any(f["t_ms"] == t_ms for f in m["frames"])


def test_a_full_queue_drops_the_oldest_and_counts_it():
    async def scenario():
        mailbox = Mailbox(size_max=3)
        lost = [mailbox.put(text) for text in "abcde"]
        taken = [await mailbox.get() for _ in range(3)]
        return lost, taken, mailbox.dropped, mailbox.has_gap

    assert asyncio.run(scenario()) == ([0, 0, 0, 1, 1], ["c", "d", "e"], 2, True)


def test_a_slow_client_does_not_slow_others_and_catches_up_when_it_takes_again():
    async def scenario():
        world, quick, slow = World(), Tab(), Tab()
        quick.takes.set()
        serving = [asyncio.create_task(world.hub.serve(tab.socket())) for tab in (quick, slow)]
        await quick.wait_for(lambda m: m["kind"] == "state")
        before = metrics.PROCESS.value("matchday_dashboard_dropped_total")
        count = QUEUE_MAX * 3
        for _ in range(count):
            last = world.tick()
            await quick.wait_for(shows(last))
        assert slow.received == []
        # One message is in the slow client's hand, QUEUE_MAX wait: the rest is dropped.
        assert world.hub.dropped == count - QUEUE_MAX
        added = metrics.PROCESS.value("matchday_dashboard_dropped_total") - before
        assert added == world.hub.dropped
        slow.takes.set()
        await slow.wait_for(shows(last))
        for tab in (quick, slow):
            tab.leaves.set()
        await asyncio.wait_for(asyncio.gather(*serving), DEADLINE_S)
        return slow.received, world.hub.client_count

    received, client_count = asyncio.run(scenario())
    states = [m for m in received if m["kind"] == "state"]
    assert len(received) <= QUEUE_MAX + 4
    assert len(states) >= 1
    assert client_count == 0


def test_a_client_that_lost_messages_gets_everything_once_it_has_caught_up():
    async def scenario():
        world, slow = World(), Tab()
        serving = asyncio.create_task(world.hub.serve(slow.socket()))
        while world.hub.client_count == 0:
            await asyncio.sleep(0)
        for _ in range(QUEUE_MAX + 10):
            world.tick()
            await asyncio.sleep(0)
        slow.takes.set()
        async with slow.arrived:
            await asyncio.wait_for(
                slow.arrived.wait_for(
                    lambda: sum(m["kind"] == "state" for m in slow.received) >= 2
                ),
                DEADLINE_S,
            )
        slow.leaves.set()
        await asyncio.wait_for(serving, DEADLINE_S)

    asyncio.run(scenario())


def test_positions_go_only_to_those_who_watch_the_venue():
    async def scenario():
        world, here, elsewhere = World(), Tab(), Tab(venue="oval")
        for tab in (here, elsewhere):
            tab.takes.set()
        serving = [asyncio.create_task(world.hub.serve(t.socket())) for t in (here, elsewhere)]
        for tab in (here, elsewhere):
            await tab.wait_for(lambda m: m["kind"] == "state")
        await here.wait_for(shows(world.tick()))
        world.hub.send_state()
        async with elsewhere.arrived:
            await asyncio.wait_for(
                elsewhere.arrived.wait_for(
                    lambda: sum(m["kind"] == "state" for m in elsewhere.received) >= 2
                ),
                DEADLINE_S,
            )
        for tab in (here, elsewhere):
            tab.leaves.set()
        await asyncio.gather(*serving)
        return [f for m in elsewhere.received if m["kind"] == "positions" for f in m["frames"]]

    assert asyncio.run(scenario()) == []


def test_leaving_in_the_middle_of_a_message_leaves_nothing_behind():
    async def scenario():
        world, tab = World(), Tab()
        serving = asyncio.create_task(world.hub.serve(tab.socket()))
        while world.hub.client_count == 0:
            await asyncio.sleep(0)
        world.tick()
        tab.leaves.set()
        await asyncio.wait_for(serving, DEADLINE_S)
        others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        return world.hub.client_count, others

    assert asyncio.run(scenario()) == (0, [])


def test_a_change_after_a_quiet_moment_is_sent_without_waiting_for_a_tick(monkeypatch):
    for name in ("POSITIONS_EVERY_S", "VALUES_EVERY_S", "QUIET_STATE_EVERY_S"):
        monkeypatch.setattr(fanout, name, 60.0)

    async def scenario():
        world, tab = World(), Tab()
        tab.takes.set()
        serving = asyncio.create_task(world.hub.serve(tab.socket()))
        ticks = [
            asyncio.create_task(one()) for one in (world.hub.run_positions, world.hub.run_state)
        ]
        await tab.wait_for(lambda m: m["kind"] == "positions")
        where = TrackedObject("a", 1.0, 2.0)
        readings = [
            Positions(source="tag", t_ms=5, objects=(where,), venue="demo"),
            Scalar(source="s", t_ms=5, quantity="heart", value=7.0),
        ]
        await asyncio.to_thread(world.board.take_readings, readings)
        await tab.wait_for(shows(5))
        await tab.wait_for(lambda m: any(one["value"] == 7.0 for one in m.get("series", ())))
        for one in ticks:
            one.cancel()
        tab.leaves.set()
        await asyncio.wait_for(serving, DEADLINE_S)
        await asyncio.gather(*ticks, return_exceptions=True)

    asyncio.run(scenario())


def test_while_nothing_changes_only_the_state_is_sent_now_and_then(monkeypatch):
    monkeypatch.setattr(fanout, "QUIET_STATE_EVERY_S", 0.01)

    async def scenario():
        world, tab = World(), Tab()
        tab.takes.set()
        serving = asyncio.create_task(world.hub.serve(tab.socket()))
        ticks = [
            asyncio.create_task(one()) for one in (world.hub.run_positions, world.hub.run_state)
        ]
        async with tab.arrived:
            await asyncio.wait_for(tab.arrived.wait_for(lambda: len(tab.received) >= 5), DEADLINE_S)
        for one in ticks:
            one.cancel()
        tab.leaves.set()
        await asyncio.wait_for(serving, DEADLINE_S)
        await asyncio.gather(*ticks, return_exceptions=True)
        return [m["kind"] for m in tab.received]

    # State and positions as a page gets them that has just come, then the state alone.
    assert asyncio.run(scenario())[:5] == ["state", "positions", "state", "state", "state"]
