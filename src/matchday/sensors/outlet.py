"""Where replay and simulator put their messages, and how they wait for their time.

Owns the protocol that the publisher fulfils and the two loops around it: waiting for an
instant and waiting for room. Both keep the network going and both end when told to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from matchday.clock import Clock
from matchday.sensors.outbox import Draft

BATCH_MAX: Final = 256
WAIT_S: Final = 0.1


class Outlet(Protocol):
    """Where replay and simulator put their messages; the publisher, or a test's list."""

    @property
    def is_full(self) -> bool:
        """Tell whether `offer` would refuse; pump until it does not."""

    @property
    def pending_count(self) -> int:
        """Give how many messages were offered and are not acknowledged yet."""

    def offer(self, drafts: Sequence[Draft], *, notes: Mapping[str, bytes] | None = None) -> None:
        """Take messages over for good, as `Outbox.add`; does not wait for the network."""

    def note(self, name: str) -> bytes:
        """Give a note kept with an earlier offer, also of an earlier process."""

    def pump(self, timeout_s: float) -> None:
        """Do what the network has to do; wait at most about `timeout_s` for it."""


def wait_until(due_s: float, outlet: Outlet, clock: Clock, stop: threading.Event) -> bool:
    """Pump until the monotonic clock shows `due_s`; tell whether to go on, False on `stop`."""
    while (left_s := due_s - clock.monotonic_s()) > 0:
        if stop.is_set():
            return False
        outlet.pump(min(left_s, WAIT_S))
    return not stop.is_set()


def hand_over(
    drafts: Sequence[Draft],
    outlet: Outlet,
    stop: threading.Event,
    *,
    notes: Mapping[str, bytes] | None = None,
) -> bool:
    """Offer the drafts as soon as there is room; tell whether that was before `stop`.

    A full outlet slows its producer down here; nothing is left out.

    Raises:
        UnavailableError: The disk of the outbox is full; nothing was kept.
    """
    while outlet.is_full:
        if stop.is_set():
            return False
        outlet.pump(WAIT_S)
    outlet.offer(drafts, notes=notes)
    outlet.pump(0.0)
    return True
