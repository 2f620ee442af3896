"""Asking the store without holding up the event loop, and telling callers what went wrong.

Owns the dashboard's worker threads for queries and the one table from errors to HTTP
status codes. Knows no collection and no shape.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from matchday.errors import MatchdayError, OverloadedError, RefusedError, UnavailableError

WORKERS = 4
ANSWER_S_MAX = 10.0
WAITING_MAX = 64

_T = TypeVar("_T")


class Asker:
    """Runs blocking questions on a few named threads; belongs to the event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="dashboard.query")
        self._waiting_count = 0

    async def ask(self, question: Callable[[], _T]) -> _T:
        """Run `question` and give its answer.

        Raises:
            OverloadedError: `WAITING_MAX` questions wait already; ask again later.
            UnavailableError: No answer within `ANSWER_S_MAX`, or the store is down.
            RefusedError: The question can never be answered.
        """
        if self._waiting_count >= WAITING_MAX:
            raise OverloadedError(f"asking the store: {WAITING_MAX} questions wait already")
        self._waiting_count += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, question)
            async with asyncio.timeout(ANSWER_S_MAX):
                return await future
        except TimeoutError as error:
            raise UnavailableError(
                f"asking the store: no answer within {ANSWER_S_MAX:.0f} s"
            ) from error
        finally:
            self._waiting_count -= 1

    def close(self) -> None:
        """Take no more questions; those running end by their own time-outs."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def status_of(error: MatchdayError) -> int:
    """Give the HTTP status that an error becomes."""
    if isinstance(error, RefusedError):
        return 404 if error.reason.startswith("no_") else 400
    if isinstance(error, OverloadedError):
        return 429
    return 503 if isinstance(error, UnavailableError) else 500


def reason_of(error: MatchdayError) -> str:
    """Give the short code that an error is known by in answers."""
    if isinstance(error, RefusedError):
        return error.reason
    if isinstance(error, OverloadedError):
        return "overloaded"
    return "unavailable" if isinstance(error, UnavailableError) else "failed"
