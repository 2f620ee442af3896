"""Who bridges which slot: replicas claim slots as members of one consumer group.

The topic `ingest_slots` holds nothing; its partitions are the slots. A replica that is
assigned a partition starts the slot's bridge in a thread of its own, the others stand by.
The group only says who should work; that a paused owner cannot write is enforced by the
stream (its producer is fenced), not by the group.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from matchday.clock import Clock
from matchday.domain.topics import Topic
from matchday.errors import FencedError, MatchdayError, UnavailableError
from matchday.ingest.bridge import Bridge
from matchday.observe import events
from matchday.ports import Bookmark, Partition, Stream

GROUP = "matchday-ingest"
STANDING_BY = "standing by"
JOINING = "waiting to be told which slots are ours"
POLL_S = 0.5
STOP_S = 20.0
TAKEOVERS_MAX = 5
"""How often in a row a slot that the group calls ours may be taken away before we say so."""


class Slots:
    """The ingest stage of one process: claims slots and bridges those it is given.

    Args:
        stream: Whose group decides.
        names: Slot names by partition number.
        make_bridge: Makes the bridge of a slot.
        clock: For pauses.
    """

    def __init__(
        self,
        stream: Stream,
        names: Sequence[str],
        make_bridge: Callable[[str], Bridge],
        *,
        clock: Clock,
    ) -> None:
        self._stream = stream
        self._names = names
        self._make_bridge = make_bridge
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._is_member = False

    def run(self, stop: threading.Event) -> None:
        """Take part in the group until asked to stop.

        Raises:
            MatchdayError: A bridge ended by an error that waiting cannot mend.
        """
        consumer = self._stream.consumer(GROUP, [Topic.SLOTS], self)
        try:
            while not stop.is_set():
                try:
                    consumer.poll(timeout_s=POLL_S, records_max=1)
                except UnavailableError as error:
                    self._clock.wait(stop, min(error.retry_after_s, POLL_S))
                for running in self._running.values():
                    running.check()
        finally:
            for running in list(self._running.values()):
                running.stop_and_join()
            consumer.close()

    def states(self) -> dict[str, str]:
        """Say what each slot does here; slots of other replicas are standing by.

        Until the group has spoken for the first time, any slot may become ours.
        """
        if not self._is_member:
            return dict.fromkeys(self._names, JOINING)
        running = dict(self._running)
        return {
            name: running[number].state if number in running else STANDING_BY
            for number, name in enumerate(self._names)
        }

    def assigned(self, bookmarks: Mapping[Partition, Bookmark | None]) -> Mapping[Partition, int]:
        """Start the bridges of the slots given to us, which may be none."""
        for partition in bookmarks:
            if partition.number < len(self._names) and partition.number not in self._running:
                name = self._names[partition.number]
                self._running[partition.number] = _Running(name, self._make_bridge, self._clock)
        self._is_member = True
        return dict.fromkeys(bookmarks, 0)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Stop the bridges of slots that go to another replica, each at the end of its tick."""
        for partition in partitions:
            running = self._running.pop(partition.number, None)
            if running is not None:
                running.stop_and_join()

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Stop bridges whose slot is already somebody else's; the stream refuses their writes."""
        self.revoked(partitions)

    def expired(self, partition: Partition, wanted: int, first: int) -> None:
        """Ignore: the slots' topic holds no records."""


class _Running:
    """A slot's bridge in its thread, made anew when another owner's fence hit it by mistake."""

    def __init__(self, name: str, make_bridge: Callable[[str], Bridge], clock: Clock) -> None:
        self._name = name
        self._make_bridge = make_bridge
        self._clock = clock
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._bridge: Bridge | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"server.ingest.{name}", daemon=True
        )
        self._thread.start()

    @property
    def state(self) -> str:
        """Say in a few words what the bridge is doing."""
        bridge = self._bridge
        return "starting" if bridge is None else bridge.state

    def check(self) -> None:
        """Raise here what ended the thread."""
        if self._error is not None:
            raise self._error

    def stop_and_join(self) -> None:
        """Ask the bridge to stop, and wait `STOP_S` seconds at most for its thread."""
        self._stop.set()
        self._thread.join(STOP_S)

    def _work(self) -> None:
        takeovers = 0
        while not self._stop.is_set():
            self._bridge = self._make_bridge(self._name)
            began_s = self._clock.monotonic_s()
            try:
                self._bridge.run(self._stop)
            except FencedError as error:
                # The group says the slot is ours, somebody else took it all the same: a
                # replica that had not heard of the change yet, or a stranger with our name.
                events.emit(events.OwnershipLost("ingest", str(error)))
                if self._clock.monotonic_s() - began_s > 60:
                    takeovers = 0
                takeovers += 1
                if takeovers >= TAKEOVERS_MAX:
                    self._error = MatchdayError(
                        f"owning ingest slot {self._name}: taken over {takeovers} times within "
                        f"a minute each by a program outside our group: {error}"
                    )
                    return
                self._clock.wait(self._stop, 2.0 * takeovers)
            except BaseException as error:  # noqa: BLE001 - handed to the stage's own thread
                self._error = error
                return
