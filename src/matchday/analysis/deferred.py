"""An analyser that is made when the first reading for it comes.

Positions are worked on with numpy, 11 MB of memory that a process which never sees a
position does without. Owns nothing but the wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matchday.analysis.analyser import Analyser
from matchday.analysis.windows import NEVER_MS
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading


class Deferred:
    """Stands for an analyser without readings, which has no state; see `Analyser`.

    Args:
        make: Makes the analyser, at the first reading.
    """

    def __init__(self, make: Callable[[], Analyser]) -> None:
        self._make = make
        self._made: Analyser | None = None

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Take a reading."""
        if self._made is None:
            self._made = self._make()
        return self._made.feed(reading, offset=offset, stream_ms=stream_ms)

    def settle(self) -> None:
        """Fill in what is promised."""
        if self._made is not None:
            self._made.settle()

    @property
    def deadline_ms(self) -> int:
        """Give a stream time before which nothing is to do."""
        return NEVER_MS if self._made is None else self._made.deadline_ms

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Close what is silent."""
        return () if self._made is None else self._made.pass_time(stream_ms)

    def finish(self) -> Sequence[Finding]:
        """Close everything."""
        return () if self._made is None else self._made.finish()

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the offset from which the state can be rebuilt."""
        made = self._made
        return next_offset if made is None else made.rewind(next_offset, stream_ms=stream_ms)

    def provisional(self) -> Sequence[Finding]:
        """Give what the open windows say."""
        return () if self._made is None else self._made.provisional()

    def take_late(self) -> dict[str, int]:
        """Give the late readings per source."""
        return {} if self._made is None else self._made.take_late()
