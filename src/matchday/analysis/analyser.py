"""The protocol of an analyser: what the pipeline may rely on, and what it promises back.

**The suffix rule.** A restart reads the stream again from the lowest offset any analyser
asked for, which for every other analyser lies somewhere in the middle of its own past. So
an analyser's state must be a function of the records from its `rewind` offset on, whatever
earlier records it has or has not seen. That excludes endless recursions (exponential
averages, running totals) and allows windows, rings and buffers of known reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from matchday.domain.finding import Finding
from matchday.domain.reading import Reading


class Track(NamedTuple):
    """What shares one watermark: the readings of a source in a session (at a venue)."""

    source: str
    session: str | None = None
    venue: str | None = None


class Analyser(Protocol):
    """Turns readings into findings; pure: no clock, no input or output, no randomness."""

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Take the next reading of the partition and give the findings it completes.

        A list that is given may be filled in as late as by the next `settle`: arithmetic is
        cheaper on many readings at once.

        Args:
            reading: Only of the kinds the plan gives this analyser.
            offset: Its offset; rises from call to call.
            stream_ms: When the stream took it, the stream's clock, milliseconds UTC.
        """

    def settle(self) -> None:
        """Fill in the findings that `feed` has promised; called before anyone looks at them."""

    @property
    def deadline_ms(self) -> int:
        """Give a stream time before which `pass_time` certainly has nothing to do."""

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Close what belongs to tracks that are silent at `stream_ms`.

        Called before `feed` of every record whose stream time has reached `deadline_ms`,
        whichever source it comes from.
        """

    def finish(self) -> Sequence[Finding]:
        """Close everything, at the end of a recording; a live stream never ends."""

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Give the lowest offset from which the present state can be rebuilt.

        Args:
            next_offset: The offset after the last record fed, of whatever kind; the answer
                where no state is held.
            stream_ms: Stream time of the last record.
        """

    def provisional(self) -> Sequence[Finding]:
        """Give what the open windows say so far: for the live view, never to be stored."""

    def take_late(self) -> dict[str, int]:
        """Give, per source, the readings too late for their window since the last call."""
