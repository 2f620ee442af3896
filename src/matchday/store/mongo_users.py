"""The replica set and the users of a MongoDB server, made by its root user.

Owns initiating a set of one member, the roles with the least rights that store and query can
work with, and the users' passwords. Does not own collections (`mongo_layout`), nor waiting:
whoever calls tries again on UnavailableError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from matchday.clock import Clock
from matchday.errors import ConfigError, UnavailableError
from matchday.store.documents import COLLECTIONS
from matchday.store.mongo_errors import AUTHENTICATION_FAILED
from matchday.store.mongo_layout import PROBE
from matchday.store.mongo_ledger import LEDGER
from matchday.store.mongo_link import Document, MongoLink
from matchday.store.mongo_streams import INTERNAL

Change = Literal["made", "changed", "unchanged"]
StoreUser = Literal["server", "dashboard", "mongo_express"]

USERS_DATABASE: Final = "admin"
REPLY_TIMEOUT_S: Final = 10.0

NOT_INITIALIZED: Final = 94
ALREADY_INITIALIZED: Final = 23

_APPENDED: Final = ("find", "insert", "listIndexes")
_CHANGED: Final = ("find", "insert", "listIndexes", "update")
_BUILT_IN: Final[Mapping[bool, str]] = MappingProxyType({False: "read", True: "readWrite"})


@dataclass(frozen=True)
class Role:
    """A role of our own.

    Attributes:
        name: In the database of users.
        privileges: What it may do, in the server's own form.
    """

    name: str
    privileges: tuple[Document, ...]


def server_role(database: str) -> Role:
    """Give what persist needs, and `ledger` and `doctor` besides: no making, no deleting.

    Time series only grow. Whoever makes collections and indexes is `matchday setup`.
    """
    series = {name: one.is_time_series for name, one in COLLECTIONS.items()}
    series |= {PROBE: True, INTERNAL: False, LEDGER: False}
    privileges = [
        _privilege(database, name, _APPENDED if is_series else _CHANGED)
        for name, is_series in sorted(series.items())
        if name != "sensors"
    ]
    # Of the readings `doctor` also asks whether their shape suits them.
    privileges.append(_privilege(database, "sensors", (*_APPENDED, "collStats")))
    return Role(
        f"matchday_{database}_server",
        (_privilege(database, "", ("listCollections",)), *privileges),
    )


def dashboard_role(database: str) -> Role:
    """Give what the page and its data browser need: looking into our own collections."""
    names = sorted((*COLLECTIONS, LEDGER, INTERNAL))
    return Role(
        f"matchday_{database}_dashboard",
        tuple(_privilege(database, name, ("find",)) for name in names),
    )


class MongoAdmin:
    """One MongoDB server as its root user sees it; used by one thread.

    Args:
        url: `mongodb://` with the root user's login. Before there is a replica set only the
            server itself can be asked: a URL of one host that names no set is taken so.
        database: The product's.
        clock: Dates the state of the link.

    Raises:
        ConfigError: The URL cannot be understood.
    """

    def __init__(self, url: str, *, database: str, clock: Clock) -> None:
        self._url = _direct(url)
        self._database = database
        self._link = MongoLink(
            self._url, database=database, clock=clock, reply_timeout_s=REPLY_TIMEOUT_S
        )
        self.address = self._link.address

    def ensure_replica_set(self, name: str, member: str) -> Change:
        """Initiate a replica set of this one member, unless it belongs to one.

        Args:
            name: Of the set, which mongod was started with.
            member: host:port by which members and clients reach it; empty for the URL's.

        Raises:
            ConfigError: It belongs to another set, was started for another or none, or the
                set does not know the member; names both.
            DeniedError: The login is refused or may not do this.
            UnavailableError: It does not answer (yet).
        """
        with self._link.translated("initiating the replica set"):
            if self._admin("hello").get("msg") == "isdbgrid":
                return "unchanged"  # a router of a sharded cluster: the shards are sets
            started = self._admin("getCmdLineOpts")["parsed"].get("replication", {})
            wanted = started.get("replSet", started.get("replSetName", ""))
            # "name/seed,seed" is an old form that is still understood.
            if (found := str(wanted).partition("/")[0]) != name:
                raise ConfigError(
                    f"initiating the replica set at {self.address}: mongod was started with "
                    f"replSet {found!r}, wanted {name!r} (setup.replica_set)"
                )
            try:
                config = self._admin("replSetGetConfig")["config"]
            except OperationFailure as error:
                if error.code != NOT_INITIALIZED:
                    raise
                return self._initiate(name, member or _host_of(self._url))
        hosts = [one["host"] for one in config["members"]]
        if config["_id"] != name or (member and member not in hosts):
            raise ConfigError(
                f"checking the replica set at {self.address}: it is {config['_id']!r} of "
                f"{', '.join(hosts)}, wanted {name!r} with {member or 'any'} "
                "(setup.replica_set, setup.member)"
            )
        return "unchanged"

    def check_primary(self) -> None:
        """Make sure that this server takes writes.

        Raises:
            ConfigError: Another member is the primary; names it.
            UnavailableError: There is no primary yet.
        """
        with self._link.translated("looking for the primary"):
            hello = self._admin("hello")
        if hello.get("isWritablePrimary"):
            return
        # Just elected, a member calls itself primary a moment before it takes writes.
        if hello.get("primary") not in (None, hello.get("me")):
            raise ConfigError(
                f"looking for the primary at {self.address}: it is {hello['primary']}; name that "
                "one in store.url"
            )
        raise UnavailableError(f"looking for the primary at {self.address}: there is none yet")

    def ensure_user(self, user: StoreUser, password: str, *, may_write: bool = False) -> Change:
        """Make a user with exactly its role, or give it this password and this role.

        Args:
            user: Which one.
            password: It must log in with from now on; open connections stay open.
            may_write: Of the database browser alone: it may also change documents.

        Raises:
            DeniedError: The login may not do this.
            UnavailableError: The server does not answer; try again.
        """
        with self._link.translated(f"making user {user}"):
            role, role_change = self._ensure_role(user, may_write=may_write)
            found = self._admin("usersInfo", {"user": user, "db": USERS_DATABASE})["users"]
            wanted = {"pwd": password, "roles": [role], "mechanisms": ["SCRAM-SHA-256"]}
            if not found:
                self._admin("createUser", user, **wanted)
                return "made"
            has_role = found[0]["roles"] == [role]
            if has_role and self._logs_in(user, password):
                return role_change if role_change == "unchanged" else "changed"
            self._admin("updateUser", user, **wanted)
            return "changed"

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._link.close()

    def _initiate(self, name: str, member: str) -> Change:
        config = {"_id": name, "members": [{"_id": 0, "host": member}]}
        try:
            self._admin("replSetInitiate", config)
        except OperationFailure as error:
            if error.code != ALREADY_INITIALIZED:  # another `setup` was quicker
                raise
            return "unchanged"
        return "made"

    def _ensure_role(self, user: StoreUser, *, may_write: bool) -> tuple[Document, Change]:
        """Give the one role of a user, made as it is wanted."""
        if user == "mongo_express":
            return {"role": _BUILT_IN[may_write], "db": self._database}, "unchanged"
        role = (server_role if user == "server" else dashboard_role)(self._database)
        named = {"role": role.name, "db": USERS_DATABASE}
        found = self._admin("rolesInfo", named, showPrivileges=True)["roles"]
        wanted: dict[str, Any] = {"privileges": list(role.privileges), "roles": []}
        if not found:
            self._admin("createRole", role.name, **wanted)
            return named, "made"
        if found[0]["roles"] or _comparable(found[0]["privileges"]) != _comparable(role.privileges):
            self._admin("updateRole", role.name, **wanted)
            return named, "changed"
        return named, "unchanged"

    def _logs_in(self, user: str, password: str) -> bool:
        """Tell whether the user has this password: the server gives no other way to compare."""
        client: MongoClient[Document] = MongoClient(
            self._url,
            username=user,
            password=password,
            authSource=USERS_DATABASE,
            serverSelectionTimeoutMS=round(REPLY_TIMEOUT_S * 1000),
            socketTimeoutMS=round(REPLY_TIMEOUT_S * 1000),
        )
        try:
            with client:
                client[USERS_DATABASE].command("ping")
        except OperationFailure as error:
            if error.code != AUTHENTICATION_FAILED:
                raise
            return False
        return True

    def _admin(self, command: str, value: object = 1, **options: Any) -> Document:
        return self._link.client[USERS_DATABASE].command(command, value, **options)


def _privilege(database: str, collection: str, actions: Sequence[str]) -> Document:
    return {"resource": {"db": database, "collection": collection}, "actions": list(actions)}


def _comparable(privileges: Sequence[Document]) -> list[tuple[str, str, tuple[str, ...]]]:
    return sorted(
        (
            str(one["resource"].get("db")),
            str(one["resource"].get("collection")),
            tuple(sorted(one["actions"])),
        )
        for one in privileges
    )


def _direct(url: str) -> str:
    """Have the one named server asked, and not the set that it may not belong to yet."""
    given = url.lower()
    if "," in _hosts(url) or url.startswith("mongodb+srv:") or "replicaset=" in given:
        return url
    if "directconnection=" in given:
        return url
    if "?" in url:
        return f"{url}&directConnection=true"
    return f"{url}{'' if urlsplit(url).path else '/'}?directConnection=true"


def _hosts(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _host_of(url: str) -> str:
    host = _hosts(url).split(",")[0]
    return host if ":" in host else f"{host}:27017"
