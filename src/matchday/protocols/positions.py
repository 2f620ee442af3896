"""A position that moves with its output: what lies behind it is done, what lies at it is new.

The shortest of the protocols, and the one to prefer. Where position and output change in one
atomic step of the receiving system, a crash leaves both or neither, and who comes again with
any batch boundaries sees by the position alone what is left to do. Used wherever that holds:

| position | output | atomic by |
|---|---|---|
| bookmark in the embedded store | rows and account | one SQLite transaction |
| `folded` in a source's document | counts of the source | one update, if `folded` is as read |
| bookmark of analysis | findings and counts | one stream transaction |

Where it cannot be atomic the position moves after the output (`confirming`), and something
else tells repetitions (`lanes`). Does not own where positions are kept.
"""

from __future__ import annotations

from enum import Enum


class New(Enum):
    """How much of a run of offsets is new to a position."""

    NOTHING = "nothing"
    REST = "rest"
    ALL = "all"


def new_part(position: int, *, first: int, last: int) -> New:
    """Tell which part of the offsets from `first` to `last`, inclusive, is not done yet.

    Args:
        position: The first offset that is not done.
        first: Lowest offset of the run.
        last: Highest offset of the run.
    """
    if position <= first:
        return New.ALL
    return New.NOTHING if position > last else New.REST
