"""The two threads that feed the live view: the tail of the stream, and the slow states.

`Tail` reads readings and findings from the stream's end and hands them to the board;
`Watch` asks for the account and the links, once a second while somebody watches. Both
outlive any outage of what they read, tell which it is and since when, and go on alone.
Neither knows a client.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from matchday.clock import Clock
from matchday.dashboard import messages
from matchday.dashboard.board import Board
from matchday.dashboard.state import DashboardState
from matchday.domain.account import Account, AccountLine
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading
from matchday.domain.topics import Topic
from matchday.domain.wire import decode_findings, decode_reading
from matchday.errors import MatchdayError, RefusedError, UnavailableError
from matchday.observe.events import (
    LinkLost,
    LinkRestored,
    LiveTailSkipped,
    RecordUndecodable,
    emit,
)
from matchday.ports import LinkState, Reader, Start, Stream, StreamRecord

LINK_NAME = "live view"
RECORDS_MAX = 2_000
POLL_S = 0.25
LINGER_S = 0.01
"""Pause after a poll that gave something, so that records come in batches: 100 polls/s."""
UNWATCHED_LINGER_S = 0.5
"""The same while nobody watches: what a first tab begins with is as old, and costs less."""
BEHIND_S_MAX = 3.0
"""Behind the stream's end for longer: skip to it, because a live view shows what is."""
BACK_OFF_S_MAX = 2.0
WATCH_EVERY_S = 1.0
LEDGER_LINES_MAX = 500
"""Of the account in the live view: it goes whole to every tab, up to once a second, and 100,000
lines are 13 MB. `/api/v1/ledger` gives them all."""
UNWATCHED_EVERY_S = 10.0
"""How old the account may be that a first tab begins with; a second later it is of now."""


class Tail:
    """Follows the stream's end into a board; `run` belongs to one thread."""

    def __init__(self, state: DashboardState, board: Board, *, stop: threading.Event) -> None:
        self._state = state
        self._clock: Clock = state.clock
        self._board = board
        self._stop = stop
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self._is_watched = False
        self._link = LinkState(LINK_NAME, False, self._clock.wall_ms(), "starting")

    def link(self) -> LinkState:
        """Tell whether the stream's end is being read, and since when; from any thread."""
        with self._lock:
            return self._link

    def follow(self, *, is_watched: bool) -> None:
        """Take note whether any tab is open; from any thread."""
        self._is_watched = is_watched

    def run(self) -> None:
        """Follow the stream until `stop` is set; outages are waited out with back-off."""
        if self._state.stream is None:
            self._set_link(is_up=False, detail="no stream is configured")
            return
        back_off_s = 0.1
        while not self._stop.is_set():
            try:
                reader = self._open()
            except UnavailableError as error:
                self._set_link(is_up=False, detail=str(error))
                self._clock.wait(self._stop, back_off_s)
                back_off_s = min(back_off_s * 2, BACK_OFF_S_MAX)
                continue
            back_off_s = 0.1
            self._set_link(is_up=True, detail="reading at the stream's end")
            try:
                self._follow(reader)
            except UnavailableError as error:
                # A new reader starts at the end: after an outage the backlog is not live.
                self._set_link(is_up=False, detail=str(error))
                self._clock.wait(self._stop, back_off_s)
            finally:
                reader.close()

    def _open(self) -> Reader:
        if self._stream is None:
            assert self._state.stream is not None
            self._stream = self._state.stream()
        return self._stream.reader((Topic.ANALYTICS, Topic.RESULTS), Start.end())

    def _follow(self, reader: Reader) -> None:
        """Poll until asked to stop, or until so far behind that a new reader is due."""
        behind_since_s: float | None = None
        while not self._stop.is_set():
            records = reader.poll(timeout_s=POLL_S, records_max=RECORDS_MAX)
            take(records, self._board)
            if len(records) < RECORDS_MAX:
                behind_since_s = None
                if records:
                    linger_s = LINGER_S if self._is_watched else UNWATCHED_LINGER_S
                    self._clock.wait(self._stop, linger_s)
                continue
            now_s = self._clock.monotonic_s()
            if behind_since_s is None:
                behind_since_s = now_s
            elif now_s - behind_since_s > BEHIND_S_MAX:
                emit(LiveTailSkipped(behind_s=now_s - behind_since_s))
                return

    def _set_link(self, *, is_up: bool, detail: str) -> None:
        with self._lock:
            last = self._link
            since_ms = last.since_ms if last.is_up == is_up else self._clock.wall_ms()
            self._link = LinkState(LINK_NAME, is_up, since_ms, detail)
        if is_up and not last.is_up:
            emit(LinkRestored(LINK_NAME, detail))
        elif last.is_up and not is_up:
            emit(LinkLost(LINK_NAME, detail))


def take(records: list[StreamRecord], board: Board) -> None:
    """Decode stream records into a board; what no program of ours wrote is skipped."""
    readings: list[Reading] = []
    findings: list[Finding] = []
    for record in records:
        try:
            if record.topic == Topic.ANALYTICS:
                readings.append(decode_reading(record.value))
            else:
                findings.extend(decode_findings(record.value))
        except RefusedError as error:
            emit(RecordUndecodable(stage="dashboard", error=str(error)))
    if readings:
        board.take_readings(readings)
    if findings:
        board.take_findings(findings)


@dataclass(frozen=True)
class Slow:
    """The slow states as last asked for.

    Attributes:
        ledger: The account; None before the first answer.
        ledger_error: Why the last question for the account had no answer.
        links: All links, the live view's own among them.
    """

    ledger: messages.Ledger | None = None
    ledger_error: str | None = None
    links: tuple[messages.Link, ...] = ()


class Watch:
    """Asks for account and links again and again, so that no client ever waits for them.

    Once a second while somebody watches or a link is down (a link may learn only from the
    next question that it is up again), else every `UNWATCHED_EVERY_S`: reading the account
    is by far the dearest thing that an idle dashboard does.
    """

    def __init__(self, state: DashboardState, tail: Tail, *, stop: threading.Event) -> None:
        self._state = state
        self._tail = tail
        self._stop = stop
        self._slow = Slow(links=(link_of(tail.link()),))
        self._is_watched = False

    def follow(self, *, is_watched: bool) -> None:
        """Take note whether any tab is open, within a second; from any thread."""
        self._is_watched = is_watched
        self._tail.follow(is_watched=is_watched)

    @property
    def slow(self) -> Slow:
        """Give the newest states; replaced as a whole, so reading needs no lock."""
        return self._slow

    def run(self) -> None:
        """Ask until `stop` is set."""
        clock = self._state.clock
        due_s = clock.monotonic_s()
        while not self._stop.is_set():
            are_up = all(link.is_up for link in self._slow.links)
            if self._is_watched or not are_up or clock.monotonic_s() >= due_s:
                self.ask()
                due_s = clock.monotonic_s() + UNWATCHED_EVERY_S
            clock.wait(self._stop, WATCH_EVERY_S)

    def ask(self) -> None:
        """Ask once; an account that cannot be had keeps the last one and says why."""
        links = tuple(link_of(link) for link in self.links())
        try:
            account = self._state.account()
        except MatchdayError as error:
            self._slow = Slow(self._slow.ledger, str(error), links)
            return
        self._slow = Slow(_ledger_of(account), None, links)

    def links(self) -> list[LinkState]:
        """Give the state of every link at this moment, the live view's own last."""
        return [*self._state.links(), self._tail.link()]


def _ledger_of(account: Account) -> messages.Ledger:
    """Give the account with as many lines as a page has room for: what is wrong comes first."""
    adds_up, lines = account.adds_up, account.lines
    if not adds_up:
        lines = tuple(sorted(lines, key=lambda line: line.adds_up))
    shown = [line_of(line) for line in lines[:LEDGER_LINES_MAX]]
    return messages.Ledger(shown, line_of(account.totals), adds_up, len(lines))


def link_of(link: LinkState) -> messages.Link:
    """Give a link's state in the shape that browsers get."""
    return messages.Link(link.name, link.is_up, link.since_ms, link.detail)


def line_of(line: AccountLine) -> messages.Line:
    """Give an account line in the shape that browsers get."""
    return messages.Line(
        source=line.source,
        received=line.received,
        stored=line.stored,
        pending=line.pending,
        duplicate=line.duplicate,
        refused=line.refused,
        expired=line.expired,
        missing=line.missing,
        adds_up=line.adds_up,
    )
