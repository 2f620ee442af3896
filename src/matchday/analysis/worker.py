"""The analysis stage: a member of the group that turns readings into findings, exactly once.

Owns the loop, the commits and what to do about each error. Who may write is decided by the
stream, twice: a commit moves bookmarks under the membership that holds the partitions, and
the stream refuses it as a whole, findings included, when the group has given a partition
to somebody else meanwhile. So a worker that was paused cannot add findings, whatever name
its producer has. The producer's own name is therefore free: one per worker. A *stable* name
(`owner`) is still worth having where a service is restarted in place, because the new
process then ends what the killed one left open at once; with a fresh name that waits for
the stream's own transaction time-out. Two live workers must never share a name: each commit
would fence the other.

After a doubtful commit: a new producer of the same name ends it, then the group is
joined again, and the committed bookmark tells where to go on. Findings are recomputed from
`rewind` in silence up to there.
"""

from __future__ import annotations

import random
import threading
import uuid
from dataclasses import dataclass

from matchday.analysis.forecast.seasonal import SeriesStatus
from matchday.analysis.plan import Plan
from matchday.analysis.shares import Shares
from matchday.clock import Clock
from matchday.domain.finding import Finding
from matchday.domain.topics import Topic
from matchday.errors import FencedError, UnavailableError
from matchday.observe import events
from matchday.ports import Consumer, Producer, Stream, StreamRecord
from matchday.protocols.ownership import Event, illegal

GROUP = "matchday-analysis"
BACKOFF_S_MAX = 2.0
SERVED_S = 10.0
"""Who was a member for so long may be thrown out and come back at once; who was not, backs off."""


@dataclass(frozen=True)
class WorkerPolicy:
    """How the worker spends time and memory.

    Attributes:
        tick_s: Least time between two looks at the stream that gave readings, and between
            two commits of findings, seconds; the first after a pause goes at once. Who is
            behind does not wait.
        bookmark_every_s: How often bookmarks move while there are no findings, seconds.
        poll_s: Longest wait for records, seconds.
        records_max: Most records taken at once.
        findings_max: Most findings held uncommitted; then a commit does not wait.
    """

    tick_s: float = 0.1
    bookmark_every_s: float = 1.0
    poll_s: float = 0.25
    records_max: int = 2000
    findings_max: int = 5000


class Analysis:
    """One worker; several share the partitions of `analytics` by the group.

    Args:
        stream: Where readings come from and findings go.
        plan: What is computed.
        clock: Monotonic time for ticks; event and stream time come with the data.
        rng: Spreads the retries.
        policy: Ticks and bounds.
        owner: Name of the producer; None makes a fresh one. See the module's text.

    Attributes:
        state: What it is doing, for people.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        plan: Plan,
        clock: Clock,
        rng: random.Random,
        policy: WorkerPolicy | None = None,
        owner: str | None = None,
    ) -> None:
        self._stream = stream
        self._plan = plan
        self._clock = clock
        self._rng = rng
        self._policy = policy or WorkerPolicy()
        self._owner = owner or f"{GROUP}-{uuid.uuid4().hex}"
        self._shares: Shares | None = None
        self._attempt = 0
        self.state = "waiting for the stream"

    def run(self, stop: threading.Event) -> None:
        """Analyse until asked to stop; commits what is finished before it returns.

        Raises:
            ConfigError: The stream holds what this version cannot go on from.
        """
        try:
            while not stop.is_set():
                try:
                    member = _Member(
                        self._stream, self._owner, self._plan, self._policy, self._clock
                    )
                except UnavailableError as error:
                    self._pause(error, stop)
                    continue
                self._shares = member.shares
                try:
                    self._serve(member, stop)
                except UnavailableError as error:
                    member.abandon()
                    self._pause(error, stop)
                except BaseException:
                    member.abandon()
                    raise
        finally:
            self._shares = None
            self.state = "stopped"

    def provisional(self) -> list[Finding]:
        """Give what the open windows say so far; may be called from any thread."""
        shares = self._shares
        return [] if shares is None else shares.provisional()

    def statuses(self) -> list[SeriesStatus]:
        """Tell how far the baselines have come; may be called from any thread."""
        shares = self._shares
        return [] if shares is None else shares.statuses()

    def _serve(self, member: _Member, stop: threading.Event) -> None:
        """Work as one member of the group until asked to stop or until it is none."""
        is_reached = True
        served_s = self._clock.monotonic_s() + SERVED_S
        while not stop.is_set():
            if (rest_s := member.rest_s()) > 0:
                # Waking up for every commit of ingest costs more than the readings in it.
                self._clock.wait(stop, rest_s)
            try:
                records = member.poll()
            except FencedError:
                raise
            except UnavailableError as error:
                if is_reached:
                    events.emit(events.LinkLost("stream", str(error)))
                is_reached = False
                self.state = f"waiting for the stream: {error}"
                self._clock.wait(stop, min(error.retry_after_s, BACKOFF_S_MAX))
                continue
            if not is_reached:
                events.emit(events.LinkRestored("stream", "readings come again"))
            is_reached = True
            self.state = "running"
            member.shares.take(records)
            member.commit_if_due()
            if self._attempt and self._clock.monotonic_s() >= served_s:
                self._attempt = 0
        member.commit()
        member.close()

    def _pause(self, error: UnavailableError, stop: threading.Event) -> None:
        """Wait before joining again: exponential, capped, jittered."""
        self._attempt += 1
        self.state = f"waiting for the stream: {error}"
        if isinstance(error, FencedError):
            events.emit(events.OwnershipLost("analysis", str(error)))
        elif self._attempt == 1:
            events.emit(events.LinkLost("stream", str(error)))
        longest_s = min(BACKOFF_S_MAX, 0.1 * 2 ** min(self._attempt, 8))
        self._clock.wait(stop, longest_s * self._rng.uniform(0.5, 1.0))


class _Member:
    """One producer and one membership, from joining to leaving; never mended, only replaced."""

    def __init__(
        self, stream: Stream, owner: str, plan: Plan, policy: WorkerPolicy, clock: Clock
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._next_poll_s = self._next_commit_s = float("-inf")
        self._next_bookmark_s = clock.monotonic_s() + policy.bookmark_every_s
        self.shares = Shares(plan, clock=clock, flush=self.commit)
        # Only then join: the bookmarks read while joining include the commit in doubt.
        self._producer: Producer = stream.producer(owner)
        self.shares.ownership.follow(Event.TOOK_OVER)
        try:
            self._consumer: Consumer = stream.consumer(GROUP, [Topic.ANALYTICS], self.shares)
        except BaseException:
            self._producer.close()
            raise

    def rest_s(self) -> float:
        """Give how long readings may still gather before the next poll, seconds."""
        return self._next_poll_s - self._clock.monotonic_s()

    def poll(self) -> list[StreamRecord]:
        """Wait for records, no longer than the next commit allows."""
        wait_s = self._policy.poll_s
        if self.shares.finding_count:
            wait_s = min(wait_s, max(self._next_commit_s - self._clock.monotonic_s(), 0.0))
        records = self._consumer.poll(timeout_s=wait_s, records_max=self._policy.records_max)
        if 0 < len(records) < self._policy.records_max:
            self._next_poll_s = self._clock.monotonic_s() + self._policy.tick_s
        if self.shares.trouble is not None:
            raise self.shares.trouble
        return records

    def commit_if_due(self) -> None:
        """Commit findings once per tick, and bookmarks alone now and then."""
        now_s = self._clock.monotonic_s()
        count = self.shares.finding_count
        is_tick = count > 0 and now_s >= self._next_commit_s
        if is_tick or count >= self._policy.findings_max or now_s >= self._next_bookmark_s:
            self.commit()

    def commit(self) -> None:
        """Store findings and bookmarks together, or neither.

        Raises:
            FencedError: The partitions are somebody else's: drop everything, join again.
            UnavailableError: The fate is unknown: the same.
        """
        if self.shares.is_dirty:
            self._write()
        now_s = self._clock.monotonic_s()
        self._next_commit_s = now_s + self._policy.tick_s
        self._next_bookmark_s = now_s + self._policy.bookmark_every_s

    def _write(self) -> None:
        ownership = self.shares.ownership
        if ownership.is_over and self.shares.trouble is not None:
            raise self.shares.trouble
        if not ownership.may_write:
            raise illegal("a worker", ownership.standing, "commit")
        try:
            self._producer.commit(
                self.shares.outputs(), consumer=self._consumer, bookmarks=self.shares.bookmarks()
            )
        except FencedError:
            ownership.follow(Event.REFUSAL)
            raise
        except UnavailableError:
            ownership.follow(Event.SILENCE)
            raise
        ownership.follow(Event.WROTE)
        self.shares.confirmed()

    def abandon(self) -> None:
        """Leave without committing anything more."""
        self.shares.drop()
        self.close()

    def close(self) -> None:
        """Leave the group and close the producer."""
        try:
            self._consumer.close()
        finally:
            self._producer.close()
