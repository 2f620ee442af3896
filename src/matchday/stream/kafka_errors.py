"""The one place where errors of the Kafka client become errors of matchday.

Owns the table of error codes and the wording. Does not decide what a component does next:
whether a producer is spent or a consumer is rebuilt is in `kafka_producer` and
`kafka_consumer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import MappingProxyType
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from matchday.errors import (
    DeniedError,
    FencedError,
    MatchdayError,
    RefusedError,
    UnavailableError,
)

FENCED: Final[Mapping[int, str]] = MappingProxyType(
    {
        # A newer producer of the same transactional id exists, or the coordinator ended the
        # transaction because it took too long; either way nothing more of it is stored.
        KafkaError._FENCED: "a newer producer of this name exists",
        KafkaError.PRODUCER_FENCED: "a newer producer of this name exists",
        KafkaError.INVALID_PRODUCER_EPOCH: "a newer producer of this name exists",
        # The group has gone on without this member.
        KafkaError.ILLEGAL_GENERATION: "the group has shared its partitions out anew",
        KafkaError.UNKNOWN_MEMBER_ID: "the group has taken this member for dead",
        KafkaError.REBALANCE_IN_PROGRESS: "the group is sharing its partitions out anew",
        KafkaError.STALE_MEMBER_EPOCH: "the group has shared its partitions out anew",
        KafkaError.FENCED_MEMBER_EPOCH: "the group has shared its partitions out anew",
        KafkaError.FENCED_INSTANCE_ID: "another member runs under the same instance name",
        KafkaError._ASSIGNMENT_LOST: "the group has taken the partitions away",
    }
)
"""Somebody else owns the work: code to what it means, for people."""

REFUSED: Final[Mapping[int, str]] = MappingProxyType(
    {
        KafkaError.MSG_SIZE_TOO_LARGE: "too_large",
        KafkaError.INVALID_RECORD: "invalid_record",
    }
)
"""The broker can never take one of the records: code to reason."""

LOGIN_REFUSED: Final = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}
)
"""User or password are wrong."""

RIGHT_LACKING: Final = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""The user is known, and may not do this."""

DOWN: Final = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL})
"""Codes after which nothing of the cluster can be reached; single brokers may come and go."""

PASSING: Final = frozenset(
    {
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError._NOENT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
    }
)
"""Codes of a cluster that is about to be able to answer: ask again in a moment."""


def kafka_error(error: BaseException) -> KafkaError | None:
    """Give the client's own error inside an exception, None where there is none."""
    first = error.args[0] if isinstance(error, KafkaException) and error.args else None
    return first if isinstance(first, KafkaError) else None


def said(error: BaseException | KafkaError) -> str:
    """Give what the client said, with the name of the code, in one line."""
    known = error if isinstance(error, KafkaError) else kafka_error(error)
    if known is not None:
        return f"{known.str()} ({known.name()})"
    if isinstance(error, FutureTimeoutError):
        return "no answer in time"
    return f"{error}" or type(error).__name__


def denial(error: BaseException | KafkaError, *, user: str) -> str:
    """Tell who was refused what, and what to do; for codes of the two tables above."""
    known = error if isinstance(error, KafkaError) else kafka_error(error)
    who = f"user {user!r}" if user else "nobody, for stream.url has no login,"
    if known is not None and known.code() in LOGIN_REFUSED:
        return f"{who} is refused: {said(error)}; check user and password in stream.url"
    return f"{who} lacks the right: {said(error)}; `matchday setup` grants what is needed"


def translate(error: BaseException | KafkaError, *, action: str, user: str = "") -> MatchdayError:
    """Give the error to raise for one of the client's; raise it `from` the original.

    Args:
        error: What the client raised or reported.
        action: What was being done to what, such as "committing 12 records as ingest-0".
        user: Who did it.
    """
    known = error if isinstance(error, KafkaError) else kafka_error(error)
    code = known.code() if known is not None else KafkaError.NO_ERROR
    if code in FENCED:
        return FencedError(f"{action}: {FENCED[code]}: {said(error)}")
    if code in REFUSED:
        return RefusedError(REFUSED[code], f"{action}: refused by the broker: {said(error)}")
    if code in LOGIN_REFUSED | RIGHT_LACKING:
        return DeniedError(f"{action}: {denial(error, user=user)}")
    return UnavailableError(f"{action}: {said(error)}")


def unavailable(
    error: BaseException | KafkaError, *, action: str, user: str = ""
) -> UnavailableError:
    """Translate where nothing can be refused: UnavailableError, DeniedError or FencedError."""
    translated = translate(error, action=action, user=user)
    if isinstance(translated, UnavailableError):
        return translated
    return UnavailableError(f"{action}: {said(error)}")
