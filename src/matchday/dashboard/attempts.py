"""How often somebody may be wrong about the token, by address and in all.

Owns the counts of wrong tokens, from the log-in page and from requests, to the page and to a
service's health port. Does not know what is right. Addresses are cheap for who has a network of
them or writes a proxy's header; so there is a bound over all addresses as well.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque

from matchday.clock import Clock
from matchday.dashboard.bounded import put
from matchday.observe.events import LoginRefused, emit

FAILURES_MAX = 10
ALL_FAILURES_MAX = 300
WINDOW_S = 60.0
CLIENTS_MAX = 1_000
ACCEPTED_MAX = 1_000
"""Tokens and sessions that go on while others from the same address guess."""


class Attempts:
    """Wrong tokens of the last minute; belongs to one thread.

    Args:
        clock: Tells when a minute has passed.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        # By address: else anybody who guesses would soon keep everybody out.
        self._of_client: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()
        self._of_all: deque[float] = deque(maxlen=ALL_FAILURES_MAX)
        # By address as well: else everybody could go on guessing what somebody else has used.
        self._accepted: dict[tuple[str, bytes], None] = {}

    def is_looked_at(self, client: str, offered: str) -> bool:
        """Tell whether an offer is judged; of who guesses only what was right from there before."""
        return not self.are_too_many(client) or (client, digest_of(offered)) in self._accepted

    def judged(self, client: str, offered: str, *, is_right: bool) -> bool:
        """Take note of how an offer was judged, tell of a wrong one, and give `is_right`."""
        digest = digest_of(offered)
        if is_right:
            put(self._accepted, (client, digest), None, ACCEPTED_MAX)
        elif self.note(client, digest):
            emit(LoginRefused(client=client))
        return is_right

    def are_too_many(self, client: str) -> bool:
        """Tell whether a client has to wait until it may offer another token."""
        since_s = self._clock.monotonic_s() - WINDOW_S
        if len(self._of_all) == ALL_FAILURES_MAX and self._of_all[0] >= since_s:
            return True
        own = self._of_client.get(client)
        return own is not None and len(own) == FAILURES_MAX and own[0][0] >= since_s

    def note(self, client: str, digest: bytes = b"") -> bool:
        """Count a wrong token; False where `digest` tells that it was counted already.

        A program that says the same wrong thing again and again does not guess.
        """
        own = self._of_client.setdefault(client, deque(maxlen=FAILURES_MAX))
        if digest and any(digest == seen for _, seen in own):
            return False
        now_s = self._clock.monotonic_s()
        own.append((now_s, digest))
        self._of_all.append(now_s)
        self._of_client.move_to_end(client)
        if len(self._of_client) > CLIENTS_MAX:
            self._of_client.popitem(last=False)
        return True


def bearer_of(authorization: str) -> str | None:
    """Give the token in an `Authorization` header, maybe empty; None if it carries none."""
    scheme, _, offered = authorization.partition(" ")
    return offered.strip() if scheme.lower() == "bearer" else None


def digest_of(text: str) -> bytes:
    """Give a digest by which secrets are compared: it has one length, so theirs does not show."""
    return hashlib.sha256(text.encode()).digest()
