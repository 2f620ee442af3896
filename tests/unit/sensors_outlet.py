"""An outlet for tests: a real outbox whose messages arrive in a list, on a manual clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from matchday.clock import ManualClock
from matchday.sensors.outbox import Draft, Outbox


class ListOutlet:
    """Acknowledges everything at each pump; waiting moves the clock."""

    def __init__(
        self,
        clock: ManualClock,
        outbox: Outbox | None = None,
        *,
        stop: threading.Event | None = None,
        stop_after: int | None = None,
    ) -> None:
        self.clock = clock
        self.outbox = outbox or Outbox()
        self.sent: list[tuple[str, bytes]] = []
        self.sent_ms: list[int] = []
        self._stop = stop
        self._stop_after = stop_after

    @property
    def is_full(self) -> bool:
        return self.outbox.is_full

    @property
    def pending_count(self) -> int:
        return self.outbox.pending_count

    def offer(self, drafts: Sequence[Draft], *, notes: Mapping[str, bytes] | None = None) -> None:
        self.outbox.add(drafts, notes=notes)

    def note(self, name: str) -> bytes:
        return self.outbox.note(name)

    def pump(self, timeout_s: float) -> None:
        while parcel := self.outbox.take():
            self.sent.append((parcel.topic, parcel.payload))
            self.sent_ms.append(self.clock.wall_ms())
            self.outbox.acknowledge(parcel.number)
        if self._stop is not None and len(self.sent) >= (self._stop_after or 0):
            self._stop.set()
        self.clock.advance(timeout_s)

    @property
    def payloads(self) -> list[Any]:
        return [json.loads(payload) for _, payload in self.sent]

    def payloads_of(self, index: int) -> Any:
        """Give one payload decoded."""
        return json.loads(self.sent[index][1])
