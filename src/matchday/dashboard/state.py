"""What the dashboard is given by whoever starts it, as one frozen value.

Owns no connection: the stream, the query and the callables belong to the caller, who
closes them after the dashboard has stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matchday.clock import Clock, SystemClock
from matchday.domain.account import Account
from matchday.domain.venue import Venue
from matchday.ports import LinkState, Query, Stream

DATABASE = "server"
"""Name of the one database, the original system's."""


@dataclass(frozen=True)
class Attribution:
    """Who is to be named for data that is shown.

    Attributes:
        name: The recording or data set.
        text: Authors, licence and what was changed, as its licence asks.
        url: Where it comes from; shown as text and as a link if it is https.
        sources: Shown once one of these sources is in the account; empty means always.
    """

    name: str
    text: str
    url: str = ""
    sources: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DashboardState:
    """Everything the dashboard shows or asks, and the rules of access.

    Attributes:
        query: Reads the store; called from the dashboard's own worker threads.
        stream: Gives the stream for the live view; called again with back-off while it
            raises UnavailableError, then kept. None shows no live data.
        venues: The grounds, the first one shown first.
        links: Gives the state of every link; called about once a second and for probes, from
            the dashboard's own threads.
        account: Gives the account; called about once a second and when asked for, from the
            dashboard's own threads; may raise UnavailableError.
        clock: The clocks.
        title: The page's title.
        endpoint_note: Where MQTT sensors connect to, such as "127.0.0.1:1883".
        attributions: Who is to be named for the data.
        token: Without it anybody who reaches the port may read; with it, a bearer token or
            a log-in is asked for.
        allowed_hosts: Names by which browsers may reach this server besides `localhost`
            and IP addresses; anything else is refused as DNS rebinding.
    """

    query: Query
    account: Callable[[], Account]
    links: Callable[[], Sequence[LinkState]]
    stream: Callable[[], Stream] | None = None
    venues: Sequence[Venue] = ()
    clock: Clock = field(default_factory=SystemClock)
    title: str = "matchday"
    endpoint_note: str = "127.0.0.1:1883"
    attributions: Sequence[Attribution] = ()
    token: str | None = field(default=None, repr=False)
    allowed_hosts: Sequence[str] = ()
