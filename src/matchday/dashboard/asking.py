"""Asking what may block without holding up the event loop, and telling callers what went wrong.

Owns the dashboard's worker threads and the one table from errors to HTTP status codes. Its
threads are daemons: a question to a server that hangs must not hold up the process's end.
Knows no collection and no shape.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from matchday.errors import MatchdayError, OverloadedError, RefusedError, UnavailableError

WORKERS = 4
ANSWER_S_MAX = 10.0
WAITING_MAX = 64

_T = TypeVar("_T")


class Asker:
    """Runs blocking questions on a few named threads; belongs to the event loop.

    At most `WAITING_MAX` questions wait for a thread. Where every thread is held by a question
    that nobody waits for any more, a new one is refused at once: it would only wait, too.

    Args:
        name: Of the threads.
        workers: How many there are at most; they start when they are needed.
    """

    def __init__(self, name: str = "dashboard.query", *, workers: int = WORKERS) -> None:
        self._name = name
        self._workers = workers
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._thread_count = 0
        self._idle_count = 0
        self._lost_count = 0
        self._is_closed = False

    async def ask(
        self, question: Callable[[], _T], *, answer_s_max: float | None = ANSWER_S_MAX
    ) -> _T:
        """Run `question` and give its answer; waits for ever where `answer_s_max` is None.

        Raises:
            OverloadedError: `WAITING_MAX` questions wait already; ask again later.
            UnavailableError: No answer within `answer_s_max`, none to be expected, or what is
                asked is down.
            RefusedError: The question can never be answered.
        """
        job = _Job(question)
        self._put(job)
        try:
            async with asyncio.timeout(answer_s_max):
                answer: _T = await asyncio.wrap_future(job.future)
                return answer
        except TimeoutError as error:
            raise UnavailableError(f"asking for an answer: none within {answer_s_max} s") from error
        finally:
            self._leave(job)
            # A traceback holds this frame, and the job may hold the error of the traceback.
            del job

    def close(self) -> None:
        """Take no more questions; those running end by their own time-outs."""
        with self._changed:
            self._is_closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify_all()

    def _put(self, job: _Job) -> None:
        with self._changed:
            if self._is_closed:
                raise UnavailableError("asking a question: the dashboard is stopping")
            if self._lost_count >= self._workers:
                raise UnavailableError(
                    f"asking a question: {self._lost_count} earlier ones hang, and no more than "
                    f"{self._workers} are asked at once"
                )
            if len(self._jobs) >= WAITING_MAX:
                raise OverloadedError(f"asking a question: {WAITING_MAX} wait already")
            self._jobs.append(job)
            if self._idle_count < len(self._jobs) and self._thread_count < self._workers:
                self._thread_count += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            self._changed.notify()

    def _leave(self, job: _Job) -> None:
        """Take note that nobody waits for the answer any more."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            elif not job.future.done():
                job.is_lost = True
                self._lost_count += 1

    def _work(self) -> None:
        while (job := self._next()) is not None:
            _run(job)
            with self._changed:
                self._lost_count -= job.is_lost
            del job

    def _next(self) -> _Job | None:
        with self._changed:
            self._idle_count += 1
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            self._idle_count -= 1
            return self._jobs.popleft() if self._jobs else None


class Shared(Generic[_T]):
    """One question that many ask: who comes while it is under way waits for the same answer.

    So any number of callers hold one thread. Belongs to the event loop.
    """

    def __init__(self, question: Callable[[], _T], *, name: str) -> None:
        self._question = question
        self._asker = Asker(name, workers=1)
        self._pending: asyncio.Task[_T] | None = None
        self._asked_s = 0.0

    @property
    def pending_s(self) -> float:
        """Give for how long the question under way has had no answer; 0 without one."""
        if self._pending is None or self._pending.done():
            return 0.0
        return asyncio.get_running_loop().time() - self._asked_s

    async def ask(self, *, answer_s_max: float = ANSWER_S_MAX) -> _T:
        """Give the answer to the question under way, or ask it.

        Raises:
            UnavailableError: No answer within `answer_s_max` of when it was asked; the question
                stays under way, and its answer is for who asks next.
            MatchdayError: What the question raises.
        """
        if self._pending is None or self._pending.done():
            self._asked_s = asyncio.get_running_loop().time()
            self._pending = asyncio.create_task(
                self._asker.ask(self._question, answer_s_max=None),
                name="dashboard.shared_question",
            )
            # All who asked may have left before it fails.
            self._pending.add_done_callback(lambda done: done.cancelled() or done.exception())
        pending = self._pending
        await asyncio.wait([pending], timeout=max(0.0, answer_s_max - self.pending_s))
        if not pending.done():
            raise UnavailableError(
                f"asking for an answer: none for {self.pending_s:.1f} s, bound {answer_s_max:.1f} s"
            )
        return pending.result()

    def close(self) -> None:
        """Ask no more; an answer under way is for nobody."""
        if self._pending is not None:
            self._pending.cancel()
        self._asker.close()


class _Job:
    """A question on its way, and the future of its answer; nobody waits for a lost one."""

    __slots__ = ("future", "is_lost", "question")

    def __init__(self, question: Callable[[], Any]) -> None:
        self.question = question
        self.future: Future[Any] = Future()
        self.is_lost = False


def _run(job: _Job) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    try:
        job.future.set_result(job.question())
    except BaseException as error:  # noqa: BLE001 - belongs to whoever asked
        job.future.set_exception(error)
        # Else the error would hold its traceback, that this frame, and this the error.
        del job


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
