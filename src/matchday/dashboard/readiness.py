"""Whether the dashboard is ready, told at once whatever hangs behind it.

Owns the thread `dashboard.links`, in which alone links are asked for probes. Does not own the
links, nor the states that open pages get (`live.Watch`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matchday.clock import Clock
from matchday.dashboard.asking import Shared
from matchday.errors import UnavailableError
from matchday.ports import LinkState

ANSWER_S_MAX = 0.5
"""Who probes gives up after a second or two, and takes silence for death."""
LINK_NAME = "links"


class Readiness:
    """Gives the states of all links within `ANSWER_S_MAX`; belongs to the event loop.

    Links answer from what they know, but one that waits for a lock or a disk must not hold up
    the others' states: then the last ones known are given, and beside them that the question
    for them hangs, which is no readiness.
    """

    def __init__(self, links: Callable[[], Sequence[LinkState]], *, clock: Clock) -> None:
        self._clock = clock
        self._shared: Shared[Sequence[LinkState]] = Shared(links, name="dashboard.links")
        self._last: tuple[LinkState, ...] = ()

    async def links(self) -> tuple[LinkState, ...]:
        """Give the state of every link, now or as last known.

        Raises:
            MatchdayError: A link cannot tell its state.
        """
        try:
            self._last = tuple(await self._shared.ask(answer_s_max=ANSWER_S_MAX))
        except UnavailableError as error:
            since_ms = self._clock.wall_ms() - round(self._shared.pending_s * 1000)
            return (*self._last, LinkState(LINK_NAME, False, since_ms, str(error)))
        return self._last

    def close(self) -> None:
        """Ask no more."""
        self._shared.close()
