"""The whole error tree: every error the package raises on purpose, drawn first.

    MatchdayError
    ├── ConfigError        fix the configuration and start again
    ├── UnavailableError   a dependency does not answer; try again after a while
    │   ├── FencedError    somebody else owns the work now; claim it again or stop
    │   └── DeniedError    our login or a right is refused; a person acts, we try again
    ├── RefusedError       this one message can never be used; set it aside, go on
    └── OverloadedError    slow down; nothing is broken

The kind tells the caller what to do, the text tells a person what happened: the
action, the subject, the value and the bound. A broken invariant is none of these:
it raises a built-in exception and ends the process.
"""

from __future__ import annotations


class MatchdayError(Exception):
    """Be the root of every error that the package raises on purpose."""


class ConfigError(MatchdayError):
    """A setting, file or existing resource is not what it must be: fix it and restart."""


class UnavailableError(MatchdayError):
    """A dependency did not do what was asked: the fate of the request is unknown.

    Attributes:
        retry_after_s: How long to wait before asking again, in seconds.
    """

    def __init__(self, text: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class FencedError(UnavailableError):
    """The receiving system refused the write: another owner has taken over.

    Nothing of the refused write was stored. Drop all state that belongs to the
    ownership, then claim it again or stand by; never send the same write again.
    """


class DeniedError(UnavailableError):
    """A dependency answers and refuses our login, or a right that we need.

    Only a person can mend it, on either side, and passwords and rights change while services
    run: so a service goes on trying and says so, and a command that gives one answer ends as
    with a wrong setting. The text names the user and the action, never the password.
    """


class RefusedError(MatchdayError):
    """One message can never be accepted: dead-letter it and go on with the next.

    Attributes:
        reason: A short code of a bounded vocabulary, such as "not_json".
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class OverloadedError(MatchdayError):
    """A bound is reached: slow down and offer the same work again later."""
