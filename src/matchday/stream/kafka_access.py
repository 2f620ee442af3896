"""Who may do what in a Kafka cluster: makes the access rules exactly as they are wanted.

Owns the comparison of wanted and existing rules of our own users, and the calls. Does not
own what a user needs (`services.rights`), nor users and passwords: with SASL/PLAIN those are
in the broker's own JAAS file. What is allowed to nobody is forbidden, provided the cluster
runs with `allow.everyone.if.no.acl.found=false`, the authorizer's default.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from matchday.clock import Clock
from matchday.errors import ConfigError, MatchdayError
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_errors import kafka_error
from matchday.stream.kafka_link import KafkaLink
from matchday.stream.kafka_url import KafkaAddress

ResourceKind = Literal["topic", "group", "transactional_id"]

_KINDS: Final[Mapping[ResourceKind, ResourceType]] = MappingProxyType(
    {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional_id": ResourceType.TRANSACTIONAL_ID,
    }
)
_ANYWHERE: Final = "*"


@dataclass(frozen=True)
class Grant:
    """What one user may do with one thing.

    Attributes:
        user: Without `User:`.
        kind: Of the thing.
        name: Its name, or how its name begins.
        operations: By Kafka's names in lower case, such as "read" or "describe_configs".
        is_prefix: The name is a beginning.
    """

    user: str
    kind: ResourceKind
    name: str
    operations: tuple[str, ...]
    is_prefix: bool = False


@dataclass(frozen=True)
class RuleChanges:
    """What was done to the rules of one user.

    Attributes:
        wanted: How many rules the user has now.
        made: How many of them are new.
        removed: How many others were taken away.
    """

    wanted: int
    made: int
    removed: int


class KafkaAccess:
    """The access rules of a cluster, seen by a user who may change them.

    Args:
        url: As of `KafkaStream`, with the administrator's login.
        clock: For deadlines.
        io_timeout_s: How long one call may wait for the cluster, seconds.

    Raises:
        ConfigError: The URL is wrong.
    """

    def __init__(self, url: str, *, clock: Clock, io_timeout_s: float = 10.0) -> None:
        address = KafkaAddress.parse(url)
        self._timeout_s = io_timeout_s
        self._cluster = Cluster(
            address=address,
            prefix="",
            clock=clock,
            link=KafkaLink(clock=clock, detail=str(address), user=address.user),
            io_timeout_s=io_timeout_s,
        )

    def apply(self, users: Collection[str], grants: Iterable[Grant]) -> dict[str, RuleChanges]:
        """Give these users exactly these rights: what lacks is made, what is more is removed.

        Rules of other users are not touched. Safe to repeat and to cut off anywhere: rules
        are made before others are removed.

        Raises:
            ConfigError: The cluster has no authorizer, so that everybody may do everything.
            DeniedError: This login may not change rules.
            UnavailableError: The cluster does not answer; apply again.
        """
        wanted: dict[str, set[AclBinding]] = {user: set() for user in users}
        for grant in grants:
            if grant.user in wanted:
                wanted[grant.user] |= set(_bindings(grant))
        found = {user: self._rules_of(user) for user in wanted}
        made = [rule for user in wanted for rule in wanted[user] - found[user]]
        if made:
            making = self._cluster.admin.create_acls(made, request_timeout=self._timeout_s)
            self._hear(making.values(), "making access rules")
        removed = [_exactly(rule) for user in wanted for rule in found[user] - wanted[user]]
        if removed:
            removing = self._cluster.admin.delete_acls(removed, request_timeout=self._timeout_s)
            self._hear(removing.values(), "removing access rules")
        return {
            user: RuleChanges(
                wanted=len(wanted[user]),
                made=len(wanted[user] - found[user]),
                removed=len(found[user] - wanted[user]),
            )
            for user in wanted
        }

    def _rules_of(self, user: str) -> set[AclBinding]:
        asked = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type]
            ResourcePatternType.ANY,
            f"User:{user}",
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        answer = self._cluster.admin.describe_acls(asked, request_timeout=self._timeout_s)
        (found,) = self._hear([answer], f"asking for the access rules of user {user}")
        return set(found)

    def _hear(self, answers: Iterable[Any], action: str) -> list[Any]:
        try:
            return [answer.result(self._timeout_s) for answer in answers]
        except (KafkaException, TimeoutError) as error:
            raise self._translated(error, action) from error

    def _translated(self, error: BaseException, action: str) -> MatchdayError:
        known = kafka_error(error)
        if known is not None and known.code() == KafkaError.SECURITY_DISABLED:
            return ConfigError(
                f"{action} at {self._cluster.address}: the cluster has no authorizer, so that "
                "everybody may do everything; set authorizer.class.name, or name no Kafka users "
                "in setup.accounts_file"
            )
        return self._cluster.unavailable(error, action=f"{action} at {self._cluster.address}")


def _bindings(grant: Grant) -> list[AclBinding]:
    pattern = ResourcePatternType.PREFIXED if grant.is_prefix else ResourcePatternType.LITERAL
    return [
        AclBinding(
            _KINDS[grant.kind],
            # The client reads garbage out of anything but a plain string, an Enum's member too.
            str(grant.name),
            pattern,
            f"User:{grant.user}",
            _ANYWHERE,
            AclOperation[operation.upper()],
            AclPermissionType.ALLOW,
        )
        for operation in grant.operations
    ]


def _exactly(rule: AclBinding) -> AclBindingFilter:
    """Give the filter that this one rule matches and no other."""
    return AclBindingFilter(
        rule.restype,
        rule.name,
        rule.resource_pattern_type,
        rule.principal,
        rule.host,
        rule.operation,
        rule.permission_type,
    )
