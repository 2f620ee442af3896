"""Making and checking the collections, and proving that the server keeps its retry promise.

Owns how `documents.COLLECTIONS` is laid out in MongoDB: options of time-series collections,
indexes, and the probe. Does not own the internal collection (`mongo_streams`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from bson import Int64
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from matchday.clock import Clock
from matchday.errors import ConfigError
from matchday.store.documents import COLLECTIONS, EPOCH, Collection
from matchday.store.mongo_errors import (
    ILLEGAL_OPERATION,
    INDEX_CONFLICTS,
    TRANSACTION_TOO_OLD,
)
from matchday.store.mongo_ledger import LEDGER
from matchday.store.mongo_link import Document, MongoLink, session_of

PROBE: Final = "matchday_probe"
PROBE_KEPT_S: Final = 3600
WIRE_VERSION_MIN: Final = 13
_PLAIN_INDEX: Final = frozenset({"key", "name", "ns", "v"})
BUCKETS: Final = "system.buckets."
_SHAPES: Final = {"timeseries": "timeseries", "collection": "regular"}

STAND_ALONE: Final = (
    "the server is not a replica set and keeps no retry log: rows are looked up instead, and"
    " a writer that is frozen between its last check and its send while another takes over"
    " can store readings twice; make it a replica set, one member is enough"
)


class Layout:
    """Makes and checks what `documents.COLLECTIONS` says.

    Args:
        link: The connection.
        clock: Dates the probe's documents, which delete themselves after an hour.
        collections: What is to be there, by name.
    """

    def __init__(
        self,
        link: MongoLink,
        *,
        clock: Clock,
        collections: Mapping[str, Collection] = COLLECTIONS,
    ) -> None:
        self._link = link
        self._collections = collections
        self._clock = clock

    def prepare(self) -> None:
        """Create missing collections and indexes; change nothing that exists.

        Raises:
            ConfigError: The server is too old, or an index exists with other options.
            UnavailableError: The server does not answer.
        """
        with self._link.translated("preparing collections"):
            self._check_version()
            existing = self._link.found()
            for layout in self._collections.values():
                if layout.name not in existing:
                    self._link.create(layout.name, _options(layout))
                elif _differences(layout, existing[layout.name]):
                    continue
                self._create_indexes(layout)
            if LEDGER not in existing:
                self._link.create(LEDGER, {})

    def check(self) -> list[str]:
        """Give what is missing or has other options, one sentence each.

        Raises:
            UnavailableError: The server does not answer.
        """
        wrong: list[str] = []
        with self._link.translated("checking collections"):
            existing = self._link.found()
            for layout in self._collections.values():
                found = existing.get(layout.name)
                if found is None:
                    wrong.append(f"collection {layout.name} is missing")
                    continue
                wrong += _differences(layout, found)
                present = self._indexed(layout)
                wrong += [
                    f"collection {layout.name} has no index on {', '.join(dict(wanted))}"
                    for wanted in _indexes(layout)
                    if wanted not in present
                ]
            if LEDGER not in existing:
                wrong.append(f"collection {LEDGER} is missing")
        return wrong

    def collection_ids(self) -> dict[str, UUID]:
        """Give the identity of each numbered collection: another one once it is made anew.

        Raises:
            ConfigError: A collection is missing or has another shape: prepare first.
            UnavailableError: The server does not answer.
        """
        with self._link.translated("reading identities of collections"):
            existing = self._link.found()
        ids: dict[str, UUID] = {}
        for layout in self._collections.values():
            if not layout.is_numbered:
                continue
            # A time series is a view; what has the identity is the collection of its buckets.
            prefix = BUCKETS if layout.is_time_series else ""
            found = existing.get(prefix + layout.name)
            if found is None or found["type"] != "collection":
                kind = "time-series" if layout.is_time_series else "regular"
                raise ConfigError(
                    f"claiming at {self._link.address}: there is no {kind} collection"
                    f" {layout.name}; prepare the store first"
                )
            ids[layout.name] = found["info"]["uuid"]
        return ids

    def keeps_retry_log(self) -> bool:
        """Find out by trying whether a repeated statement is skipped and an old one refused.

        Returns:
            Whether the fence works; False is a stand-alone server.

        Raises:
            ConfigError: The server takes statement numbers and does not keep to them.
            UnavailableError: The server does not answer.
        """
        series = {"timeField": "at", "metaField": "probe"}
        with self._link.translated("probing the retry log"):
            if PROBE not in self._link.found():
                self._link.create(PROBE, {"timeseries": series, "expireAfterSeconds": PROBE_KEPT_S})
            probe = uuid4()
            session = session_of(self._link.client, probe)
            try:
                for cell in (1, 1, 2):
                    self._send_probe(session, probe, cell)
            except OperationFailure as error:
                if error.code == ILLEGAL_OPERATION:
                    return False
                raise
            try:
                self._send_probe(session, probe, 1)
                is_refused = False
            except OperationFailure as error:
                if error.code != TRANSACTION_TOO_OLD:
                    raise
                is_refused = True
            count = self._link.database[PROBE].count_documents({"probe": str(probe)})
        if count != 2 or not is_refused:
            raise ConfigError(
                f"probing the retry log at {self._link.address}: two statements, one of them"
                f" sent twice, left {count} documents, and an old one was"
                f" {'refused' if is_refused else 'taken'}; this server cannot store exactly once"
            )
        return True

    def _send_probe(self, session: ClientSession, probe: UUID, cell: int) -> None:
        now = EPOCH + timedelta(milliseconds=self._clock.wall_ms())
        reply = self._link.database.command(
            {
                "insert": PROBE,
                "documents": [{"_id": Int64(cell), "at": now, "probe": str(probe)}],
                "ordered": False,
                "txnNumber": Int64(cell),
                "stmtIds": [0],
                "writeConcern": {"w": "majority"},
            },
            session=session,
        )
        for trouble in reply.get("writeErrors", ()):
            raise OperationFailure(str(trouble.get("errmsg")), trouble.get("code"), trouble)

    def _check_version(self) -> None:
        hello = self._link.client.admin.command("hello")
        if hello["maxWireVersion"] < WIRE_VERSION_MIN:
            version = self._link.client.admin.command("buildInfo")["version"]
            raise ConfigError(
                f"preparing store {self._link.address}: server {version} below 5.0 has no"
                " time-series collections"
            )

    def _indexed(self, layout: Collection, *, plain: bool = False) -> list[list[tuple[str, int]]]:
        """Ask which fields are indexed; `plain` leaves out indexes with options of their own."""
        return [
            list(index["key"].items())
            for index in self._link.database[layout.name].list_indexes()
            if not plain or index.keys() <= _PLAIN_INDEX
        ]

    def _create_indexes(self, layout: Collection) -> None:
        present = self._indexed(layout, plain=True)
        lacking = [fields for fields in _indexes(layout) if fields not in present]
        if not lacking:
            return  # where everything is there no right to make it is needed
        try:
            self._link.database[layout.name].create_indexes(
                [IndexModel(fields) for fields in lacking]
            )
        except OperationFailure as error:
            if error.code not in INDEX_CONFLICTS:
                raise
            raise ConfigError(
                f"preparing collection {layout.name}: an index on the same fields exists with"
                f" other options: {error.details and error.details.get('errmsg')}; drop it"
            ) from error


def _options(layout: Collection) -> dict[str, Any]:
    if not layout.is_time_series:
        return {}
    return {
        "timeseries": {
            "timeField": layout.time_field,
            "metaField": layout.meta_field,
            "granularity": layout.granularity,
        }
    }


def newest_first(layout: Collection) -> list[tuple[str, int]]:
    """Give the index by which the newest documents of a collection are found."""
    return [(layout.time_field, DESCENDING)]


def newest_of_source(layout: Collection) -> list[tuple[str, int]]:
    """Give the index by which the newest documents of one source are found."""
    *front, time = layout.index
    return [*((name, ASCENDING) for name in front), (time, DESCENDING)]


def _indexes(layout: Collection) -> list[list[tuple[str, int]]]:
    """Give the fields of each index.

    Time descends: a time series indexes its buckets by their latest time then, and walking
    back from the newest opens only the buckets that can hold it: 21 of 161 for the newest
    100 of everything, 2 of 30 for those of one source, where ascending opened 161 and 4.
    """
    return [newest_of_source(layout), newest_first(layout)]


def _differences(layout: Collection, found: Document) -> list[str]:
    """Compare the options of an existing collection with the wanted ones."""
    wanted_kind = "timeseries" if layout.is_time_series else "collection"
    if found["type"] != wanted_kind:
        hint = ""
        if layout.holds_readings and found["type"] in _SHAPES:
            hint = (
                f": it was made with store.shape = {_SHAPES[found['type']]!r}; set that, or name"
                " another database in store.database"
            )
        return [
            f"collection {layout.name} has type {found['type']!r}, wanted {wanted_kind!r}{hint}"
        ]
    options = found["options"].get("timeseries", {})
    return [
        f"collection {layout.name} has {name} {options.get(name)!r}, wanted {value!r}"
        for name, value in _options(layout).get("timeseries", {}).items()
        if options.get(name) != value
    ]
