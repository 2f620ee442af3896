"""The newest documents of a collection as far as an answer has room for them. Blocking, no state.

Owns the bounds in bytes of lists, for the REST interface and the data browser. A document may be
of many objects, hundreds of kilobytes each; a thousand of them would fill the memory of who
answers and of who asks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from matchday.dashboard.documents import jsonable
from matchday.ports import Query

FIELD_BYTES_MAX = 16 * 2**10
"""A list tells of longer bytes only how many there are: a thousand dead letters stay 16 MiB."""
LIST_BYTES_MAX = 16 * 2**20
ASKED_FIRST = 50
ASKED_GROWTH = 4
"""The store counts documents, not bytes: it is asked for few, and for more while there is room."""


class Listing(NamedTuple):
    """What fits of what was asked for.

    Attributes:
        documents: Newest first, in JSON's own types.
        encoded: The same, each as JSON.
        cut: Why there are no more, and how to see them; empty where nothing was left out.
    """

    documents: list[dict[str, Any]]
    encoded: list[msgspec.Raw]
    cut: str


def newest_within(
    query: Query, collection: str, *, limit: int, source: str | None, bytes_max: int
) -> Listing:
    """Read the newest documents, at most `limit` and as many as fit, but always one.

    Args:
        query: Where from.
        collection: One of its collections.
        limit: How many at most.
        source: Only those of this source.
        bytes_max: Of all documents together, as JSON.

    Raises:
        RefusedError: No such collection (`no_collection`).
        UnavailableError: The store cannot be reached.
    """
    asked = min(limit, ASKED_FIRST)
    while True:
        found = query.newest(collection, limit=asked, source=source, bytes_max=FIELD_BYTES_MAX)
        listing = _fitting(found, bytes_max)
        if len(listing.encoded) < len(found):
            return listing._replace(cut=_cut(listing, limit, source, bytes_max))
        if len(found) < asked or asked == limit:
            return listing
        asked = min(limit, asked * ASKED_GROWTH)


def _fitting(found: list[dict[str, Any]], bytes_max: int) -> Listing:
    listing = Listing([], [], "")
    left_bytes = bytes_max
    for one in found:
        document = jsonable(one)
        text = msgspec.json.encode(document)
        left_bytes -= len(text)
        if left_bytes < 0 and listing.encoded:
            break
        listing.documents.append(document)
        listing.encoded.append(msgspec.Raw(text))
    return listing


def _cut(listing: Listing, limit: int, source: str | None, bytes_max: int) -> str:
    advice = "older ones are in the store itself"
    if source is None:
        advice = f"name a source with ?source= to see more of it; {advice}"
    return (
        f"the newest {len(listing.encoded)} of {limit} documents asked for: more are larger than "
        f"{bytes_max / 2**20:.0f} MiB; {advice}"
    )
