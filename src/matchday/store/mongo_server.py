"""What a MongoDB server's own settings mean for what it has confirmed.

Owns the questions about journal, members and the oplog, and their judgement. Does not own
collections (`mongo_layout`) nor the proof that repeated statements are skipped there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pymongo.errors import OperationFailure

from matchday.store.mongo_link import Document, MongoLink

DENIED: Final = frozenset({13, 33})
ABSENT: Final = frozenset({26, 59, 72, 76, 93, 94})
"""The server has no such collection, command, parameter or replica set."""
OPLOG_S_MIN: Final = 3600.0
"""The retry log of a cell is found by way of the oplog: it has to reach back further than any
writer pauses, and than MongoDB's own 30 minutes for sessions."""

PAIR_READINGS_MIN: Final = 3.0
"""Readings of a source in a write below which a time series takes about twice the CPU that a
regular collection takes the server; by `benchmarks/shapes.py`, see decision 0018."""

BUCKET_MEASUREMENTS_MAX: Final = 250
BUCKET_MEASUREMENTS_ADVISED: Final = 120
"""Measurements in a bucket from which on a write takes the server twice as much and more, and
how many it should be told to take; by `benchmarks/buckets.py`, see decision 0018."""

PAIRS_JUDGED_MIN: Final = 50_000
"""Pairs of source and write since the server's start from which on their mean says something."""

OPLOG_FULL_RATIO: Final = 0.9
SESSION_MINUTES_MIN: Final = 30


class ServerSettings:
    """Asks one server; what the login may not ask is left out and told by `unasked`."""

    def __init__(self, link: MongoLink) -> None:
        self._link = link
        self.unasked: list[str] = []

    def problems(self) -> list[str]:
        """Give which settings lose what was confirmed, one sentence each.

        Raises:
            UnavailableError: The server does not answer.
        """
        with self._link.translated("asking for the server's settings"):
            return [
                *self._judged(self._options, options_problems),
                *self._judged(self._members, members_problems),
                *self._judged(self._oplog, oplog_problems),
                *self._judged(self._session_minutes, session_problems),
            ]

    def risks(self) -> list[str]:
        """Give what is lost with a machine, and what costs more than it need.

        One sentence each; errors as of `problems`.
        """
        with self._link.translated("asking for the server's members"):
            return [
                *self._judged(self._members, members_risks),
                *self._judged(self._statistics_of_sensors, shape_risks),
                *self._judged(self._size_of_buckets, bucket_risks),
            ]

    def _judged(
        self, ask: Callable[[], Document], judge: Callable[[Document], list[str]]
    ) -> list[str]:
        try:
            found = ask()
        except OperationFailure as error:
            if error.code in DENIED:
                self.unasked.append(
                    f"{self._link.address}: {ask.__name__.strip('_').replace('_', ' ')} of the"
                    " server: the login may not ask for them"
                )
            elif error.code not in ABSENT:
                raise
            return []
        return judge(found)

    def _options(self) -> Document:
        admin = self._link.client.admin
        engine = admin.command("serverStatus").get("storageEngine", {})
        return {"parsed": admin.command("getCmdLineOpts")["parsed"], "engine": engine}

    def _members(self) -> Document:
        return dict(self._link.client.admin.command("replSetGetConfig")["config"])

    def _oplog(self) -> Document:
        local = self._link.client.get_database("local")
        stats = local.command("collStats", "oplog.rs")
        oplog = local.get_collection("oplog.rs")
        first = oplog.find_one(sort=[("$natural", 1)])
        last = oplog.find_one(sort=[("$natural", -1)])
        if first is None or last is None:
            return {}
        return {
            "size": stats["size"],
            "max": stats.get("maxSize", 0),
            "seconds": last["ts"].time - first["ts"].time,
        }

    def _statistics_of_sensors(self) -> Document:
        return dict(self._link.database.command("collStats", "sensors").get("timeseries", {}))

    def _size_of_buckets(self) -> Document:
        name = "timeseriesBucketMaxCount"
        asked = self._link.client.admin.command({"getParameter": 1, name: 1})
        return {**self._statistics_of_sensors(), name: asked[name]}

    def _session_minutes(self) -> Document:
        name = "localLogicalSessionTimeoutMinutes"
        return dict(self._link.client.admin.command({"getParameter": 1, name: 1}))


def options_problems(found: Mapping[str, Any]) -> list[str]:
    """Judge start options and storage engine."""
    wrong = []
    storage = found["parsed"].get("storage", {})
    if storage.get("journal", {}).get("enabled") is False:
        wrong.append(
            "the server runs without a journal: a crash loses confirmed writes; remove"
            " storage.journal.enabled: false (--nojournal)"
        )
    engine = found["engine"]
    if engine.get("persistent") is False:
        wrong.append(
            f"the storage engine {engine.get('name')} keeps nothing on disk: a restart"
            " loses everything; use wiredTiger"
        )
    return wrong


def members_problems(config: Mapping[str, Any]) -> list[str]:
    """Judge the replica set's configuration."""
    wrong = []
    if config.get("writeConcernMajorityJournalDefault") is False:
        wrong.append(
            "writeConcernMajorityJournalDefault is false: a majority may confirm what is"
            " in memory only; set it to true in the replica set's configuration"
        )
    arbiters = [one["host"] for one in config["members"] if one.get("arbiterOnly")]
    if arbiters:
        wrong.append(
            f"{', '.join(arbiters)} votes and stores nothing: with one other member away"
            " nothing can be confirmed; replace the arbiter by a member with data"
        )
    return wrong


def members_risks(config: Mapping[str, Any]) -> list[str]:
    """Tell what is lost with one machine."""
    storing = [one for one in config["members"] if not one.get("arbiterOnly")]
    if len(storing) >= 3:
        return []
    return [
        f"{len(storing)} member{'s' if len(storing) > 1 else ''} of the set"
        f" {'keep' if len(storing) > 1 else 'keeps'} the data: what was confirmed can be lost with"
        " a disk; three members survive one"
    ]


def shape_risks(found: Mapping[str, Any]) -> list[str]:
    """Judge whether time series suit `sensors`, by what the server has counted there."""
    pairs, readings = found.get("numCommits", 0), found.get("numMeasurementsCommitted", 0)
    if pairs < PAIRS_JUDGED_MIN or readings >= PAIR_READINGS_MIN * pairs:
        return []
    return [
        f"sensors is a time series, and a write brings {readings / pairs:.1f} readings of a source"
        f" ({readings:,} in {pairs:,} since the server's start): below {PAIR_READINGS_MIN:.0f} a"
        " regular collection takes about half of the server's CPU, for more disk; where that is"
        ' what is short, set store.shape = "regular" and name a new database in store.database'
    ]


def bucket_risks(found: Mapping[str, Any]) -> list[str]:
    """Judge how full the buckets of `sensors` grow, where the server has written many."""
    count = found["timeseriesBucketMaxCount"]
    if count <= BUCKET_MEASUREMENTS_MAX or found.get("numCommits", 0) < PAIRS_JUDGED_MIN:
        return []
    return [
        f"timeseriesBucketMaxCount is {count:,}: a write costs the server by how full a source's"
        " bucket is, at this size twice as much and more; start mongod with --setParameter"
        f" timeseriesBucketMaxCount={BUCKET_MEASUREMENTS_ADVISED}"
    ]


def oplog_problems(found: Mapping[str, Any]) -> list[str]:
    """Judge how far back the oplog reaches, once it is nearly full: before it still grows."""
    if not found or found["size"] < OPLOG_FULL_RATIO * found["max"]:
        return []
    if found["seconds"] >= OPLOG_S_MIN:
        return []
    return [
        f"the oplog reaches back {found['seconds'] / 60:.0f} minutes, expected at least"
        f" {OPLOG_S_MIN / 60:.0f}: a writer that paused for longer has to look up what it stored,"
        " and a member that was away has to be filled anew; raise replSetResizeOplog"
    ]


def session_problems(found: Mapping[str, Any]) -> list[str]:
    """Judge how long the server remembers what a paused writer has sent."""
    minutes = found.get("localLogicalSessionTimeoutMinutes", SESSION_MINUTES_MIN)
    if minutes >= SESSION_MINUTES_MIN:
        return []
    return [
        f"localLogicalSessionTimeoutMinutes is {minutes}, expected at least"
        f" {SESSION_MINUTES_MIN}: the server forgets what a paused writer has stored; remove it"
    ]
