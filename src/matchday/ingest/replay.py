"""What is noted beside a reading in the stream, and how it is taken in again after a restart.

What is read back begins in the middle: by numbers alone a gap, a late reading and a reading of
a run begun anew may look alike there. So where a reading did not simply go on, a header of its
record says how ingest took it, and a restart takes it in the same way. Of what may still come
nothing is older than a window, and so all gaps that it may fill are found as they were.

Owns that header. Does not own what is read back (`warmup`), nor what a place is (`runs`).
"""

from __future__ import annotations

from typing import Final

from matchday.ingest.identity import Identities
from matchday.ingest.runs import APART, BEGINS, LATE

HEADER: Final = "run"

_WORDS: Final = {LATE: b"late", BEGINS: b"begins", APART: b"apart"}
_PLACES: Final = {word: place for place, word in _WORDS.items()}
_DIGITS_MAX: Final = 19

Headers = tuple[tuple[str, bytes], ...]


def noted(place: int) -> Headers:
    """Give the headers that say how a reading was taken; none where it simply goes on."""
    if not place:
        return ()
    return ((HEADER, _WORDS.get(place) or b"%d" % place),)


def place_of(headers: Headers) -> int:
    """Read how a reading was taken; as one that simply goes on where nothing known is said."""
    for name, value in headers:
        if name == HEADER:
            if value.isdigit() and len(value) <= _DIGITS_MAX:
                return int(value)
            return _PLACES.get(value, 0)
    return 0


class Replay:
    """Takes in numbered readings that were accepted before, in their order.

    Args:
        identities: What gets to know them.
        is_noted: Whether places were noted when they were written. If not, they are made out
            by numbers and times.
    """

    def __init__(self, identities: Identities, *, is_noted: bool) -> None:
        self._identities = identities
        self._is_noted = is_noted
        self._early: list[tuple[str, str, int, int, bool]] = []

    def take(
        self, source: str, numbering: str, seq: int, t_ms: int, *, place: int, is_timed: bool
    ) -> None:
        """Take in a reading that stands at this place."""
        known = self._identities
        if not self._is_noted:
            known.observe_number(source, numbering, seq, t_ms, is_timed=is_timed)
        elif not known.replay_number(source, numbering, seq, t_ms, place=place, is_timed=is_timed):
            self._early.append((source, numbering, seq, t_ms, is_timed))

    def end(self) -> None:
        """Take in the late ones of numberings of which nothing else had been read by then.

        Their gaps were older. One that lacks their number now is another's.
        """
        for source, numbering, seq, t_ms, is_timed in self._early:
            if not self._identities.replay_number(
                source, numbering, seq, t_ms, place=APART, is_timed=is_timed
            ):
                self._identities.observe_number(source, numbering, seq, t_ms, is_timed=is_timed)
        self._early = []
