"""Who may write: fence the owner before, read the tail of what was written last, then work.

One table for every hop. What differs is the receiving system that refuses an older owner:

| hop | taken over by | the tail | who refuses |
|---|---|---|---|
| ingest | becoming the one producer of a slot's name | `ledger`, `analytics` | stream, by epoch |
| analysis | becoming the producer of its name, then joining | bookmarks | stream, by membership |
| persist | ending the doubt about letters, then joining | bookmarks, claims | stream and store |

An owner that got no answer to a write that it must not repeat is *outside* again: what it
sent may still arrive until the next take-over, so it may neither write nor believe a tail.
A *refused* owner has lost the work for good. It drops what it holds and never sends it
again, for its heir reads it in the tail or takes it from the source.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Standing(Enum):
    """What somebody is to the work."""

    OUTSIDE = "outside"
    FENCED = "fenced"
    OWNER = "owner"
    REFUSED = "refused"


class Event(Enum):
    """What can happen to an owner.

    TOOK_OVER: the receiving system refuses everybody older, and what they, or this owner's
    own earlier self, left open is ended one way or the other. READ_TAIL: all they wrote is
    known. SHARED: a group gave partitions, with their bookmarks. WROTE: a write was
    confirmed. SILENCE: a write or the reading of the tail got no answer. REFUSAL: somebody
    newer owns the work. LEFT: it was given up.
    """

    TOOK_OVER = "take-over"
    READ_TAIL = "end of the tail"
    SHARED = "share of a group"
    WROTE = "confirmed write"
    SILENCE = "silence"
    REFUSAL = "refusal"
    LEFT = "leaving"


_FOLLOWING: Final = {
    (Standing.OUTSIDE, Event.TOOK_OVER): Standing.FENCED,
    (Standing.OUTSIDE, Event.SILENCE): Standing.OUTSIDE,
    (Standing.OUTSIDE, Event.LEFT): Standing.OUTSIDE,
    # A client hands out shares within the very call in which its owner fell outside.
    (Standing.OUTSIDE, Event.SHARED): Standing.OUTSIDE,
    (Standing.OUTSIDE, Event.REFUSAL): Standing.REFUSED,
    (Standing.FENCED, Event.READ_TAIL): Standing.OWNER,
    (Standing.FENCED, Event.SHARED): Standing.OWNER,
    (Standing.FENCED, Event.SILENCE): Standing.OUTSIDE,
    (Standing.FENCED, Event.REFUSAL): Standing.REFUSED,
    (Standing.FENCED, Event.LEFT): Standing.OUTSIDE,
    (Standing.OWNER, Event.SHARED): Standing.OWNER,
    (Standing.OWNER, Event.WROTE): Standing.OWNER,
    (Standing.OWNER, Event.SILENCE): Standing.OUTSIDE,
    (Standing.OWNER, Event.REFUSAL): Standing.REFUSED,
    (Standing.OWNER, Event.LEFT): Standing.OUTSIDE,
    (Standing.REFUSED, Event.SHARED): Standing.REFUSED,
    (Standing.REFUSED, Event.SILENCE): Standing.REFUSED,
    (Standing.REFUSED, Event.REFUSAL): Standing.REFUSED,
    (Standing.REFUSED, Event.LEFT): Standing.OUTSIDE,
}
"""There is no way from outside to owner past the fence, and none from refused but leaving."""


class Ownership:
    """One owner's standing.

    Attributes:
        standing: What it is now.
    """

    def __init__(self) -> None:
        self.standing = Standing.OUTSIDE

    @property
    def may_write(self) -> bool:
        """Tell whether a write would come from somebody who knows what was written last."""
        return self.standing is Standing.OWNER

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more may come of it without leaving and taking over anew."""
        return self.standing in (Standing.OUTSIDE, Standing.REFUSED)

    def follow(self, event: Event) -> Standing:
        """Go where an event leads, and give that.

        Raises:
            RuntimeError: The standing does not allow the event.
        """
        following = _FOLLOWING.get((self.standing, event))
        if following is None:
            raise illegal("an owner", self.standing, event.value)
        self.standing = following
        return following


def illegal(what: str, state: Enum, event: str) -> RuntimeError:
    """Make the error for an event that a state does not allow."""
    return RuntimeError(f"{what} that is {state.value}: no {event} can follow")
