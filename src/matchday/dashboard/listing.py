"""The newest documents of a collection as far as an answer has room for them. Blocking, no state.

Owns the bounds in bytes of lists, for the REST interface and the data browser. A document may be
of many objects, hundreds of kilobytes each; a thousand of them would fill the memory of who
answers and of who asks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from matchday.dashboard.documents import jsonable
from matchday.ports import Listed, Query

FIELD_BYTES_MAX = 16 * 2**10
"""A list tells of longer bytes only how many there are: a thousand dead letters stay 16 MiB."""
LIST_BYTES_MAX = 16 * 2**20
BY_SOURCE = "ledger"
"""The one collection whose list goes by the source's name; see `Query.listed`."""
ASKED_FIRST = 50
ASKED_GROWTH = 4
"""The store counts documents, not bytes: it is asked for few, and for more while there is room."""


class Listing(NamedTuple):
    """What fits of what was asked for.

    Attributes:
        documents: In the order of `Query.listed`, in JSON's own types.
        encoded: The same, each as JSON.
        cut: Why there are fewer than asked for; empty where there are not.
        next: The cursor after which the next ones come; None where there are no more.
    """

    documents: list[dict[str, Any]]
    encoded: list[msgspec.Raw]
    cut: str
    next: str | None


def newest_within(
    query: Query,
    collection: str,
    *,
    limit: int,
    source: str | None,
    bytes_max: int,
    after: str = "",
) -> Listing:
    """Read the first documents of a list, at most `limit` and as many as fit, but always one.

    Args:
        query: Where from.
        collection: One of its collections.
        limit: How many at most.
        source: Only those of this source.
        bytes_max: Of all documents together, as JSON.
        after: Only those after this cursor, which a listing before called `next`.

    Raises:
        RefusedError: No such collection (`no_collection`) or cursor (`bad_cursor`).
        UnavailableError: The store cannot be reached.
    """
    wanted = limit + 1  # whether there is one more
    asked = min(wanted, ASKED_FIRST)
    while True:
        found = query.listed(
            collection, limit=asked, source=source, bytes_max=FIELD_BYTES_MAX, after=after
        )
        listing = _fitting(found[:limit], bytes_max)
        count = len(listing.encoded)
        if count < min(len(found), limit):
            return listing._replace(cut=_cut(count, limit, bytes_max), next=found[count - 1].cursor)
        if len(found) > limit:
            return listing._replace(next=found[limit - 1].cursor)
        if len(found) < asked:
            return listing
        asked = min(wanted, asked * ASKED_GROWTH)


def _fitting(found: list[Listed], bytes_max: int) -> Listing:
    listing = Listing([], [], "", None)
    left_bytes = bytes_max
    for one in found:
        document = jsonable(one.document)
        text = msgspec.json.encode(document)
        left_bytes -= len(text)
        if left_bytes < 0 and listing.encoded:
            break
        listing.documents.append(document)
        listing.encoded.append(msgspec.Raw(text))
    return listing


def _cut(count: int, limit: int, bytes_max: int) -> str:
    return (
        f"{count} of {limit} documents asked for: more are larger than "
        f"{bytes_max / 2**20:.0f} MiB; the next ones come with ?after="
    )
