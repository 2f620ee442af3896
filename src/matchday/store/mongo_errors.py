"""The one table that turns MongoDB's errors into ours, and keeps secrets out of their texts.

Owns which codes mean "try again", "fix the configuration" and "this document never".
Codes: MongoDB's error_codes.yml, stable since 4.2. Does not own what a caller does then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DocumentTooLarge,
    DuplicateKeyError,
    InvalidName,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from matchday.errors import ConfigError, DeniedError, MatchdayError, UnavailableError
from matchday.store.documents import DOCUMENT_BYTES_MAX, bson_bytes

TRANSACTION_TOO_OLD: Final = 225
"""A newer transaction number was used on the session: the cell is finished."""
HISTORY_INCOMPLETE: Final = 217
"""The oplog no longer reaches back to the statements of the cell."""
ILLEGAL_OPERATION: Final = 20
"""What a stand-alone server answers to a transaction number."""
DUPLICATE_KEY: Final = 11000
TOO_LARGE: Final = 10334
BAD_VALUE: Final = 2
NAMESPACE_EXISTS: Final = 48
INDEX_CONFLICTS: Final = frozenset({85, 86})

TRANSIENT_CODES: Final = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        24,  # LockTimeout
        50,  # MaxTimeMSExpired
        64,  # WriteConcernFailed
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        100,  # UnsatisfiableWriteConcern
        112,  # WriteConflict
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        246,  # SnapshotUnavailable
        262,  # ExceededTimeLimit
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11601,  # Interrupted
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        14031,  # OutOfDiskSpace
    }
)
"""The same command may well succeed later; nothing about its documents is wrong."""

AUTHENTICATION_FAILED: Final = 18
UNAUTHORIZED: Final = 13
DENIED_CODES: Final = frozenset(
    {
        UNAUTHORIZED,
        AUTHENTICATION_FAILED,
        334,  # MechanismUnavailable
        8000,  # AtlasError, its form of a wrong password
    }
)
"""A person has to change something, here or in the server."""

_NO_DOCUMENT_CODES: Final = (
    TRANSIENT_CODES | DENIED_CODES | {TRANSACTION_TOO_OLD, HISTORY_INCOMPLETE, ILLEGAL_OPERATION}
)

DOCUMENT_CODES: Final = frozenset(
    {
        TOO_LARGE,  # time-series buckets answer it for the whole command
        17280,  # KeyTooLong
        17420,  # a document too large for an update
    }
)
"""A command failed as a whole for the sake of a document in it.

Kept this short on purpose: TypeMismatch, say, also comes when the server cannot read its own
retry log, and would then refuse good documents one by one.
"""

UNSENDABLE: Final = (BSONError, OverflowError, UnicodeEncodeError, RecursionError)
"""Raised before anything was sent: a document, or all together, cannot be encoded.

`DocumentTooLarge`, for one document and for a whole message, is a `BSONError`.
"""

_HOSTS: Final = re.compile(r"mongodb(?:\+srv)?://(?:[^@/?#]*@)?([^/?#@]+)")
_USER_INFO: Final = re.compile(r"//([^@/?#]*)@")


def is_transient(error: PyMongoError) -> bool:
    """Tell whether sending the same command again may help."""
    if isinstance(error, OperationFailure):
        return error.code in TRANSIENT_CODES or error.has_error_label("RetryableWriteError")
    return isinstance(error, AutoReconnect)


def is_of_no_document(trouble: dict[str, Any]) -> bool:
    """Tell whether an entry of `writeErrors`, or a `writeConcernError`, blames no document."""
    return "index" not in trouble or trouble.get("code") in _NO_DOCUMENT_CODES


def translate(error: PyMongoError, *, action: str, address: str, url: str) -> MatchdayError:
    """Give our error for one of pymongo's, without what is secret in `url`.

    Args:
        error: What the driver raised.
        action: What was done, such as "writing sensors".
        address: The server's address, without secrets.
        url: The connection string, of which no password may show, and the user only where
            the server refuses it.
    """
    text = f"{action} at {address}: {reason_of(error, url=url)}"
    if isinstance(error, ConfigurationError | InvalidName):
        return ConfigError(text)
    if isinstance(error, OperationFailure) and error.code in DENIED_CODES:
        return DeniedError(f"{action} at {address}: {_denial(error, url)}")
    if isinstance(error, DuplicateKeyError):
        return UnavailableError(f"{text}; another process was quicker")
    return UnavailableError(text)


def address_of(url: str, database: str) -> str:
    """Give hosts and database of a connection string, which may be wrong, without secrets."""
    found = _HOSTS.match(url)
    return f"{found[1] if found else '?'}/{database}"


def reason_of(error: Exception, *, url: str = "") -> str:
    """Give one short line that says what is wrong, without secrets."""
    if isinstance(error, OperationFailure):
        detail = error.details.get("errmsg") if error.details else None
        text = f"{detail or error} (code {error.code})"
    else:
        text = str(error) or type(error).__name__
    if isinstance(error, ServerSelectionTimeoutError):
        # Behind it comes the whole topology, hundreds of characters.
        text = text.split(", Timeout:")[0]
    return _without_secrets(" ".join(text.split()), url)[:300]


def refusal_of(document: Mapping[str, Any], error: Exception) -> str:
    """Give the reason why one document can never be stored, with its size if that is why."""
    is_size = isinstance(error, DocumentTooLarge) or (
        isinstance(error, OperationFailure) and error.code == TOO_LARGE
    )
    if not is_size:
        return f"document cannot be stored: {reason_of(error)}"
    size = bson_bytes(document)
    if size > DOCUMENT_BYTES_MAX:
        return f"document of {size} bytes above {DOCUMENT_BYTES_MAX}"
    return (
        f"document of {size} bytes: its bucket, which repeats it as minimum and maximum, above"
        f" {DOCUMENT_BYTES_MAX}"
    )


def _denial(error: OperationFailure, url: str) -> str:
    """Tell who was refused what, and what to do about it."""
    user = user_of(url)
    who = f"user {user!r}" if user else "nobody, for store.url has no login,"
    # Behind it comes the whole command, documents and all.
    said = reason_of(error).split(" to execute command ")[0]
    for secret in _passwords(url):
        said = said.replace(secret, "***")
    if error.code == UNAUTHORIZED:
        return f"{who} lacks the right: {said}; `matchday setup` grants what is needed"
    return f"{who} is refused: {said}; check user and password in store.url"


def _passwords(url: str) -> list[str]:
    """Give the password of a connection string as it stands there and decoded."""
    found = _USER_INFO.search(url)
    password = found[1].partition(":")[2] if found is not None else ""
    return [word for word in (password, unquote(password)) if word]


def user_of(url: str) -> str:
    """Give the user that a connection string names, empty for none."""
    found = _USER_INFO.search(url)
    return unquote(found[1].partition(":")[0]) if found is not None else ""


def _without_secrets(text: str, url: str) -> str:
    text = _USER_INFO.sub("//***@", text)
    found = _USER_INFO.search(url)
    if found is not None:
        for secret in (found[1], *found[1].split(":", 1)):
            if secret:
                text = text.replace(secret, "***")
    return text
