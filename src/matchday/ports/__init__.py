"""The promises that stages need from the outside, as protocols with complete contracts.

`Feed` takes messages in, `Stream` keeps them in order, `Store` keeps them for good,
`Query` reads them back. Each has an embedded and a real implementation, and one contract
suite runs on both. All calls are synchronous; unless a method says otherwise, one object
is used by one thread, and a call that waits on the world returns within its time-out.
"""

from matchday.ports.feed import Deliveries, Feed
from matchday.ports.link import LinkState
from matchday.ports.store import (
    Entry,
    Folded,
    Listed,
    PartitionWrite,
    Query,
    Refusal,
    Row,
    Store,
)
from matchday.ports.stream import (
    Assignee,
    Bookmark,
    Consumer,
    Partition,
    Producer,
    Reader,
    Record,
    Start,
    Stream,
    StreamRecord,
)

__all__ = [
    "Assignee",
    "Bookmark",
    "Consumer",
    "Deliveries",
    "Entry",
    "Feed",
    "Folded",
    "LinkState",
    "Listed",
    "Partition",
    "PartitionWrite",
    "Producer",
    "Query",
    "Reader",
    "Record",
    "Refusal",
    "Row",
    "Start",
    "Store",
    "Stream",
    "StreamRecord",
]
