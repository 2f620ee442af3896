"""The connection to MongoDB that store and query share the code of.

Owns the client's options, the address without secrets, the state of the link with its
events, and the place where the driver's errors are translated. Does not own any
collection. A time-out exists for every wait: finding a server, connecting, and each reply.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias
from uuid import UUID

from bson import Binary
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from matchday.clock import Clock
from matchday.errors import ConfigError, MatchdayError, UnavailableError
from matchday.observe.events import LinkLost, LinkRestored, emit
from matchday.ports import LinkState
from matchday.store.mongo_errors import NAMESPACE_EXISTS, address_of, reason_of, translate

Document: TypeAlias = dict[str, Any]

SELECTION_TIMEOUT_S: Final = 3.0
CONNECT_TIMEOUT_S: Final = 3.0
HEARTBEAT_S: Final = 2.0
NAME: Final = "store"


class MongoLink:
    """A client of one database, and whether its server answers.

    Every method may be called from any thread. Nothing is sent before the first use.

    Args:
        url: `mongodb://` or `mongodb+srv://`; options of ours win over options in it.
        database: Name of the database.
        clock: Dates the state of the link.
        reply_timeout_s: Longest wait for one reply, seconds.

    Raises:
        ConfigError: The connection string cannot be understood.
    """

    def __init__(self, url: str, *, database: str, clock: Clock, reply_timeout_s: float) -> None:
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self.address = address_of(url, database)
        try:
            self.client: MongoClient[Document] = MongoClient(
                url,
                appname="matchday",
                tz_aware=True,
                uuidRepresentation="standard",
                # Retries are ours: the driver's would choose session and number by itself.
                retryWrites=False,
                readPreference="primary",
                w="majority",
                journal=True,
                wTimeoutMS=round(reply_timeout_s * 500),
                socketTimeoutMS=round(reply_timeout_s * 1000),
                connectTimeoutMS=round(CONNECT_TIMEOUT_S * 1000),
                serverSelectionTimeoutMS=round(SELECTION_TIMEOUT_S * 1000),
                heartbeatFrequencyMS=round(HEARTBEAT_S * 1000),
            )
            self.database: Database[Document] = self.client[database]
        except (PyMongoError, ValueError) as error:
            text = reason_of(error, url=url)
            raise ConfigError(
                f"connecting to store: store.url is not understood: {text}"
            ) from error
        self._state = LinkState(NAME, True, clock.wall_ms(), self.address)
        self._is_silent = False

    @contextmanager
    def translated(self, action: str) -> Iterator[None]:
        """Turn the driver's errors into ours and note whether the server answered.

        Raises:
            DeniedError: Login or rights are refused.
            UnavailableError: Anything else; the fate of a write is unknown.
        """
        try:
            yield
        except PyMongoError as error:
            found = self.translate(error, action)
            if isinstance(found, UnavailableError):
                self.note_down(str(found))
            raise found from error
        except UnavailableError as error:
            self.note_down(str(error))
            raise
        self._note(True, self.address)

    def translate(self, error: PyMongoError, action: str) -> MatchdayError:
        """Give our error for one of the driver's."""
        return translate(error, action=action, address=self.address, url=self._url)

    def note_down(self, detail: str) -> None:
        """Note that the server does not answer, or not as it should."""
        self._note(False, detail)

    def state(self) -> LinkState:
        """Tell how the link stands; never blocks.

        Down after a failure until something succeeds, and down while the driver's own
        heartbeats find no primary.
        """
        known = self.client.topology_description
        is_heard = any(one.last_update_time for one in known.server_descriptions().values())
        with self._lock:
            is_up, is_silent = self._state.is_up, self._is_silent
        if is_up and is_heard and not known.has_writable_server():
            self._note(False, f"{self.address}: no primary answers the heartbeat")
            self._is_silent = True
        elif not is_up and is_silent and known.has_writable_server():
            self._note(True, self.address)
        with self._lock:
            return self._state

    def found(self) -> dict[str, Document]:
        """Ask for the collections by name, with type, options and identity."""
        return {one["name"]: dict(one) for one in self.database.list_collections()}

    def create(self, name: str, options: Document) -> None:
        """Create a collection unless it exists; its options are then whatever they are.

        Asking first would not do: another process may be quicker. Where the login may not
        create anything, ask all the same: it is refused before the server looks.
        """
        try:
            self.database.create_collection(name, check_exists=False, **options)
        except OperationFailure as error:
            if error.code != NAMESPACE_EXISTS:
                raise

    def close(self) -> None:
        """Close the client; safe to call twice."""
        self.client.close()

    def _note(self, is_up: bool, detail: str) -> None:
        with self._lock:
            if is_up == self._state.is_up:
                return
            self._state = LinkState(NAME, is_up, self._clock.wall_ms(), detail)
            self._is_silent = False
        emit(LinkRestored(NAME, detail) if is_up else LinkLost(NAME, detail))


def session_of(client: MongoClient[Document], session_id: UUID) -> ClientSession:
    """Give a session whose id the server sees is `session_id`.

    The driver has no public way to choose it. Never end this session: it is marked dirty, so
    that the driver neither hands its id to others nor ends it on the server. The server
    adds the digest of the logged-in user to the id, so all writers must be one user.
    """
    session = client.start_session(causal_consistency=False)
    session._materialize(None)
    server_session: Any = session._server_session
    server_session.session_id = {"id": Binary.from_uuid(session_id)}
    server_session.mark_dirty()
    return session
