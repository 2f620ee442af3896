"""`matchday setup`: makes servers ready for the services, once per start of a deployment.

Owns the order of the steps, waiting for the servers, the file of accounts and what is
printed. It is the only command that uses the highest login of stream and store; every step
finds out by itself what is done, so it may be repeated and cut off anywhere. Does not own how
a step is done (`store.mongo_users`, `stream.kafka_access`, `prepare` of store and stream).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from matchday.clock import Clock
from matchday.config import Settings
from matchday.domain.topics import PLANS
from matchday.errors import ConfigError, DeniedError, UnavailableError
from matchday.observe.events import ServerAwaited, emit
from matchday.services.links import is_embedded, open_store, open_stream
from matchday.services.printing import print_json, print_table, say
from matchday.services.rights import STREAM_RIGHTS, StreamUser

if TYPE_CHECKING:
    from matchday.store.mongo_users import Change, MongoAdmin
    from matchday.stream.kafka_access import Grant, RuleChanges

StoreUser = Literal["server", "dashboard", "mongo_express"]

PASSWORD_CHARS_MIN = 16
PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 3.0
TOLD_EVERY_S = 10.0

_Answer = TypeVar("_Answer")


class Accounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to exist.

    Attributes:
        mongo: Passwords by user; a user that is not named is left alone.
        kafka: Users that get their rights; their passwords are the broker's own business.
    """

    mongo: dict[StoreUser, str] = msgspec.field(default_factory=dict)
    kafka: tuple[StreamUser, ...] = ()

    def __repr__(self) -> str:
        return f"Accounts(mongo={sorted(self.mongo)}, kafka={self.kafka})"


@dataclass(frozen=True)
class Done:
    """One thing that exists now.

    Attributes:
        where: "store" or "stream".
        what: Such as "user server".
        state: "made", "changed" or "unchanged".
        detail: More about it, for people.
    """

    where: str
    what: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What was done, and what a person should look at although everything works."""

    done: tuple[Done, ...] = ()
    warnings: tuple[str, ...] = ()


def setup(settings: Settings, *, as_json: bool, clock: Clock, rng: random.Random) -> None:
    """Do what lacks and print what exists; see `set_up` for the errors."""
    report = set_up(settings, clock=clock, rng=rng)
    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    print_table(
        ["where", "what", "state", ""],
        [[one.where, one.what, one.state, one.detail] for one in report.done],
    )
    for warning in report.warnings:
        say(f"look at this: {warning}")


def set_up(settings: Settings, *, clock: Clock, rng: random.Random) -> Report:
    """Make stream and store ready: replica set, users and rights, collections and topics.

    Without `setup.accounts_file` users, rights and the replica set are left alone, as for
    servers that others run.

    Raises:
        ConfigError: Something exists and is not as it must be; names it and both values.
        DeniedError: A login is refused or lacks a right.
        UnavailableError: A server did not answer within `setup.timeout_s`.
    """
    accounts = read_accounts(settings.setup.accounts_file)
    has_store = not is_embedded(settings.store.url.get_secret_value())
    has_stream = not is_embedded(settings.stream.url.get_secret_value())
    if not (has_store or has_stream):
        raise ConfigError(
            "setting up: stream.url and store.url are both 'embedded:', which needs no setup"
        )
    patience = Patience(clock=clock, rng=rng, timeout_s=settings.setup.timeout_s)
    reports = []
    if has_store:
        reports.append(_set_up_store(settings, accounts, patience, clock))
    if has_stream:
        reports.append(_set_up_stream(settings, accounts, patience, clock))
    return Report(
        tuple(one for report in reports for one in report.done),
        tuple(one for report in reports for one in report.warnings),
    )


def read_accounts(path: Path | None) -> Accounts:
    """Read the file of accounts; nobody where none is named.

    Raises:
        ConfigError: It cannot be read, names an unknown user, or a password is too short.
    """
    if path is None:
        return Accounts()
    action = f"reading setup.accounts_file {path}"
    try:
        accounts = msgspec.json.decode(path.read_bytes(), type=Accounts)
    except OSError as error:
        raise ConfigError(f"{action}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{action}: {error}") from error
    for user, password in accounts.mongo.items():
        if len(password) < PASSWORD_CHARS_MIN:
            raise ConfigError(
                f"{action}: the password of {user} has {len(password)} characters, below "
                f"{PASSWORD_CHARS_MIN}"
            )
    return accounts


@dataclass
class Patience:
    """Tries steps again while a server does not answer, each for a bounded time.

    Attributes:
        clock: Measures the time.
        rng: Spreads the pauses.
        timeout_s: How long to wait for one step, seconds.
    """

    clock: Clock
    rng: random.Random
    timeout_s: float
    _never: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    def until(self, server: str, step: Callable[[], _Answer]) -> _Answer:
        """Give the answer of a step; says what it waits for, at first and every 10 s.

        Raises:
            DeniedError: At once: waiting mends no password.
            UnavailableError: The time is over; carries what the last attempt met.
        """
        begun_s = self.clock.monotonic_s()
        told_s = float("-inf")
        pause_s = PAUSE_S_MIN
        while True:
            try:
                return step()
            except DeniedError:
                raise
            except UnavailableError as error:
                now_s = self.clock.monotonic_s()
                if now_s - begun_s + pause_s > self.timeout_s:
                    raise UnavailableError(
                        f"waiting for {server}: {self.timeout_s:g} s are over "
                        f"(setup.timeout_s): {error}"
                    ) from error
                if now_s - told_s >= TOLD_EVERY_S:
                    told_s = now_s
                    emit(ServerAwaited(server, str(error)))
            self.clock.wait(self._never, pause_s * self.rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)


def grants_of(users: tuple[StreamUser, ...]) -> Iterator[Grant]:
    """Give the access rules of users, from the table of rights."""
    from matchday.stream.kafka_access import Grant

    for user in users:
        rights = STREAM_RIGHTS[user]
        for topic in PLANS:
            operations = [
                *(["read"] if topic in rights.reads else []),
                *(["write"] if topic in rights.writes else []),
            ]
            if operations:
                yield Grant(user, "topic", topic.value, (*operations, "describe_configs"))
        for group in rights.groups:
            yield Grant(user, "group", group, ("read",))
        if rights.readers_group:
            yield Grant(user, "group", rights.readers_group, ("describe",))
        for prefix in rights.producers:
            yield Grant(user, "transactional_id", prefix, ("write",), is_prefix=True)


def _set_up_store(
    settings: Settings, accounts: Accounts, patience: Patience, clock: Clock
) -> Report:
    done: list[Done] = []
    if accounts.mongo:
        done += _make_store_users(settings, accounts, patience, clock)
    with closing(open_store(settings, clock=clock)) as store:
        server = "the store"
        before = patience.until(server, store.check)
        patience.until(server, store.prepare)
        state = "made" if before else "unchanged"
        detail = f"database {settings.store.database}"
        done.append(Done("store", "collections and indexes", state, detail))
        return Report(tuple(done), tuple(patience.until(server, store.check)))


def _make_store_users(
    settings: Settings, accounts: Accounts, patience: Patience, clock: Clock
) -> list[Done]:
    try:
        from matchday.store.mongo_users import MongoAdmin
    except ImportError as error:
        raise ConfigError(
            "making users of the store: its client is not installed;"
            " in the checkout: pip install '.[mongo]'"
        ) from error
    given = settings.setup
    url = settings.store.url.get_secret_value()
    with closing(MongoAdmin(url, database=settings.store.database, clock=clock)) as admin:
        server = f"MongoDB at {admin.address}"
        change = patience.until(
            server, lambda: admin.ensure_replica_set(given.replica_set, given.member)
        )
        done = [Done("store", f"replica set {given.replica_set}", change, given.member)]
        patience.until(f"a primary of {given.replica_set}", admin.check_primary)
        for user, password in accounts.mongo.items():
            made = patience.until(
                server, _user_step(admin, user, password, may_write=given.browser_writes)
            )
            done.append(Done("store", f"user {user}", made))
    return done


def _set_up_stream(
    settings: Settings, accounts: Accounts, patience: Patience, clock: Clock
) -> Report:
    server = "the stream"
    with closing(open_stream(settings, clock=clock)) as stream:
        before = patience.until(server, stream.check)
        patience.until(server, stream.prepare)
        done = [
            Done(
                "stream",
                f"topic {topic}",
                "made" if f"topic {topic} does not exist" in before else "unchanged",
                plan.carries,
            )
            for topic, plan in PLANS.items()
        ]
        changes = _grant(settings, accounts, patience, clock) if accounts.kafka else {}
        done += [_rules_row(user, change) for user, change in changes.items()]
        return Report(tuple(done), tuple(patience.until(server, stream.check)))


def _grant(
    settings: Settings, accounts: Accounts, patience: Patience, clock: Clock
) -> dict[str, RuleChanges]:
    from matchday.stream.kafka_access import KafkaAccess

    access = KafkaAccess(settings.stream.url.get_secret_value(), clock=clock)
    grants = list(grants_of(accounts.kafka))
    return patience.until("the stream", lambda: access.apply(accounts.kafka, grants))


def _user_step(
    admin: MongoAdmin, user: StoreUser, password: str, *, may_write: bool
) -> Callable[[], Change]:
    return lambda: admin.ensure_user(user, password, may_write=may_write)


def _rules_row(user: str, change: RuleChanges) -> Done:
    state = "unchanged"
    if change.made or change.removed:
        state = "made" if change.made == change.wanted else "changed"
    more = f", {change.removed} others taken away" if change.removed else ""
    return Done("stream", f"rights of {user}", state, f"{change.wanted} rules{more}")
