"""A member of a Kafka consumer group, and its side of membership.

Owns the group client, the assignee's calls and what is told of expired records. Does not
own transactions: `kafka_producer` commits bookmarks under the membership given here.

Partitions are shared out eagerly ("range"): at each change everybody gives everything up
and takes its new share over. The cooperative way spares partitions that stay where they
are, but then membership changes without a call in which to renew what is remembered of
it, and a share may be half given up; with few partitions and a quick take-over the simple
way costs a pause of some milliseconds. "range" gives the same member the same partition
numbers of several topics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from matchday.domain.topics import Topic
from matchday.errors import ConfigError, FencedError, UnavailableError
from matchday.ports import Assignee, Bookmark, Partition, StreamRecord
from matchday.stream.kafka_client import Cluster
from matchday.stream.kafka_commits import BoundedCommits
from matchday.stream.kafka_errors import said
from matchday.stream.kafka_membership import ask_bookmarks
from matchday.stream.kafka_order import Order
from matchday.stream.kafka_pulse import Pulse
from matchday.stream.kafka_records import (
    committed_place,
    convert,
    fetch,
    following,
    positions,
    read_from,
)

# A pause may overtake the start of reading on its way to the client's other thread, and there
# cancels it: nothing is read ever again, without an error (librdkafka issues 2190 and 5591).
_SETTLED_S: Final = 0.2
_EXPIRED: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


class KafkaConsumer:
    """A group member; see `matchday.ports.Consumer` for the contract.

    `poll` gives nothing while nobody answers: the link tells of that, once. It may also raise
    FencedError, once and for good, where another member came under the same instance name, and
    ConfigError where a partition ends before the group's own bookmark: then the cluster has
    lost records that it had confirmed, or the topic was made anew, and only a person can say
    from where to go on.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        topics: Sequence[Topic],
        assignee: Assignee,
        *,
        settings: Mapping[str, Any],
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._topics = {cluster.name_of(topic): topic for topic in topics}
        self._assignee = assignee
        self._settings = {**cluster.settings(self._heard), **settings}
        self._next: dict[Partition, int] = {}
        """Per partition held, the offset after the last record given out."""
        self._order = Order()
        self._member: tuple[str, Any] | None = None
        """Id and group metadata of the membership that the partitions are held under."""
        self._waiting: list[TopicPartition] = []
        """Partitions assigned that could not be taken over yet."""
        self._kept: list[StreamRecord] = []
        """Records received and not given out yet, because of a pause."""
        self._is_paused = False
        self._assigned_s = 0.0
        self._is_inside = False  # Within a call of the client, where it calls back.
        self._is_given_up = False
        """Closed while the cluster was silent: what was held is lost."""
        self._is_closed = False
        self._trouble: str | None = None
        self._fatal: KafkaError | None = None
        self._fenced: FencedError | None = None
        self._join()

    def poll(self, *, timeout_s: float, records_max: int) -> list[StreamRecord]:
        """Wait for records; see the port."""
        self._check_open()
        if self._is_adrift or self._commits.is_stuck or self._pulse.is_lost():
            self._replace()
        self._follow_pause()
        is_take_over_due = bool(self._waiting)
        is_giving_kept = bool(self._kept) and not self._is_paused
        self._is_inside = True
        try:
            messages = fetch(
                self._client,
                timeout_s=0.0 if is_giving_kept or is_take_over_due else timeout_s,
                count_max=1 if self._is_paused or is_giving_kept else records_max,
            )
        finally:
            self._is_inside = False
        runs, reports = convert(messages, self._topics)
        if runs:
            self._cluster.link.is_answering()
            self._pulse.beat()
        if runs or timeout_s > 0:
            self._receive(runs)
        for error, message in reports:
            self._follow(error, message)
        if self._fatal is not None:
            self._begin_anew(self._fatal)
        if is_take_over_due and self._waiting:
            self._take_over(self._client, self._waiting)
        given = self._give(records_max)
        self._tell_trouble(had_records=bool(given))
        return given

    def commit(self, bookmarks: Mapping[Partition, Bookmark]) -> None:
        """Store bookmarks durably, within `io_timeout_s`; see the port.

        After an UnavailableError for silence the next `poll` tells the assignee that the
        partitions are lost, unless the cluster has answered by then. Within `revoked` there
        is no bound: the group's coordinator has answered a moment before.
        """
        self._check_open()
        if not bookmarks:
            return
        action = f"committing {len(bookmarks)} bookmarks of group {self._group}"
        if self._commits.is_stuck:
            raise UnavailableError(f"{action}: the commit before this one is not answered yet")
        self.membership(bookmarks)
        # Thrown out, the client forgets its id, and would then ask as nobody; the broker
        # believes that where the group is empty. So it is compared here.
        if self._member is None or self._client.memberid() != self._member[0]:
            raise FencedError(f"{action}: the group has taken this member for dead")
        place = self._cluster.place
        places = [committed_place(place(one), mark) for one, mark in bookmarks.items()]
        try:
            if self._is_inside:
                self._commits.commit_here(places)
            else:
                self._commits.commit(places, timeout_s=self._cluster.io_timeout_s)
        except (KafkaException, TimeoutError) as error:
            raise self._cluster.unavailable(error, action=action) from error
        self._cluster.link.is_answering()

    def membership(self, partitions: Collection[Partition]) -> Any:
        """Give the group metadata under which this member holds `partitions`.

        Raises:
            FencedError: It does not hold all of them.
        """
        lacking = set(partitions) - self._next.keys()
        action = f"committing bookmarks of group {self._group}"
        if lacking or self._member is None:
            names = ", ".join(sorted(f"{one.topic}[{one.number}]" for one in lacking))
            raise FencedError(f"{action}: {names or 'its partitions'} belong to another member")
        return self._member[1]

    def pause(self) -> None:
        """Let `poll` give nothing; the next `poll` tells the client."""
        self._is_paused = True

    def resume(self) -> None:
        """Undo `pause`."""
        self._is_paused = False

    def ends(self) -> Mapping[Partition, int]:
        """Give the offset after the newest committed record per partition.

        Exact where this member has been given everything, so that its lag is then 0.
        Elsewhere it may be higher by what Kafka itself puts after a commit.

        Raises:
            UnavailableError: The cluster cannot be reached; ask again.
        """
        self._check_open()
        if self._commits.is_stuck:
            raise UnavailableError(f"asking for ends: a commit of {self._group} is not answered")
        found = self._cluster.ends(self._next) if self._next else {}
        kept = following(self._kept)
        reached = self._order.reached
        for partition, given in self._next.items():
            end = found[partition]
            if end < given or (reached[partition] >= end and partition not in kept):
                found[partition] = given
        return found

    def close(self) -> None:
        """Leave the group, with `revoked` for what is held; see the port."""
        if self._is_closed or self._is_given_up:
            return
        # What `revoked` may want to commit is only worth a try where somebody answers.
        self._is_given_up = self._commits.is_stuck or not self._pulse.is_answered()
        self._is_inside = True
        try:
            if self._is_given_up:
                self._give_up(self._assignee.lost)
                self._commits.abandon()
            else:
                self._client.close()
        finally:
            self._is_inside = False
            self._is_closed = True

    # --- membership, called by the client from within `poll` and `close` -------------------

    def _join(self) -> None:
        self._client = Client(self._settings)
        self._commits = BoundedCommits(self._client)
        self._pulse = Pulse(self._cluster, self._client)
        self._are_partitions_paused = False
        self._is_adrift = False  # Where it does not let go of where it read.
        self._client.subscribe(
            list(self._topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _on_assign(self, client: Client, places: list[TopicPartition]) -> None:
        # Nothing may be read before the assignee has said from where, whatever happens here.
        client.assign([])
        self._member = (client.memberid(), client.consumer_group_metadata())
        self._waiting = places
        try:
            self._take_over(client, places)
        except UnavailableError as error:
            # Raised in here it would not reach the caller as it is: `poll` tries again.
            self._trouble = str(error)

    def _on_revoke(self, client: Client, _places: list[TopicPartition]) -> None:
        if client is not self._client or self._is_given_up:
            return
        self._unpause()
        # It may have been thrown out since the change that it gets to tell only now.
        is_thrown_out = self._member is not None and client.memberid() != self._member[0]
        self._give_up(self._assignee.lost if is_thrown_out else self._assignee.revoked)

    def _on_lost(self, client: Client, _places: list[TopicPartition]) -> None:
        # An abandoned client ends in a thread of its own, and speaks for nobody any more.
        if client is self._client and not self._is_given_up:
            self._unpause()
            self._give_up(self._assignee.lost)

    def _give_up(self, tell: Callable[[Sequence[Partition]], None]) -> None:
        self._waiting = []
        self._kept = []
        held = list(self._next)
        try:
            if held:
                tell(held)
        finally:
            self._next = {}
            self._order.begin({})
            self._member = None

    def _take_over(self, client: Client, places: list[TopicPartition]) -> None:
        """Ask the group for its bookmarks and the assignee for the starts, then read on."""
        if not places:
            # More members than partitions: whoever stands by has been told so.
            self._assignee.assigned({})
            return
        marks = ask_bookmarks(self._cluster, client, places, topics=self._topics, group=self._group)
        firsts = self._cluster.firsts(marks)
        wanted = self._assignee.assigned(marks)
        self._waiting = []
        self._next = {one: max(wanted[one], first) for one, first in firsts.items()}
        # A new group that begins at 0 means the oldest record: nothing has passed it by.
        passed = [one for one in marks if wanted[one] < firsts[one] and (wanted[one] or marks[one])]
        self._assign(client, self._next)
        for partition in passed:
            self._assignee.expired(partition, wanted[partition], firsts[partition])

    # --- what the client reports -----------------------------------------------------------

    def _receive(self, runs: Mapping[Partition, Sequence[StreamRecord]]) -> None:
        """Keep what can be right, and have the rest read again."""
        # Of all: a batch too low gives no record, only a position behind it, and so does the
        # marker that leaves a quiet partition without lag. Measured: 1.5 us a partition.
        places = {one: self._cluster.place(one) for one in self._order.received}
        taken, again = self._order.check(runs, positions(self._client, places))
        self._kept += taken
        if again:
            self._assign(self._client, self._order.received)

    def _heard(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        why = self._cluster.heard(error)
        # Heard with each attempt to connect, so that who reads would see the stream go and
        # come every second.
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self._cluster.link.refusal:
            self._trouble = why or self._trouble

    def _tell_trouble(self, *, had_records: bool) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is not None and not had_records:
            raise UnavailableError(f"reading as group {self._group}: {trouble}")

    def _follow(self, error: KafkaError, message: Message) -> None:
        """Do what a report of the client asks for."""
        code = error.code()
        if code in _EXPIRED:
            self._pass_gap(message)
        elif error.fatal() or code == KafkaError._FATAL:
            self._fatal = self._fatal or error
        elif code != KafkaError._MAX_POLL_EXCEEDED:
            # In that case the client has left the group: `lost` follows, then it joins again.
            self._trouble = self._cluster.heard(error) or said(error)

    def _pass_gap(self, message: Message) -> None:
        """Go on at the oldest record kept where retention has passed the place to read."""
        partition = Partition(self._topics[message.topic() or ""], message.partition() or 0)
        if partition not in self._next:
            return
        wanted = self._next[partition]
        try:
            first = self._cluster.firsts([partition])[partition]
            end = self._cluster.ends([partition])[partition]
        except UnavailableError:
            # The client has told it once, and rests there until it is told where to read.
            self._assign(self._client, self._order.received)
            raise
        name = f"{self._cluster.name_of(partition.topic)}[{partition.number}]"
        if wanted > end:
            raise ConfigError(
                f"reading {name} from offset {wanted}: the partition ends at {end}; it lost "
                f"records or was made anew: set the bookmark of group {self._group} to where it "
                "shall go on"
            )
        # At or above the first after all: a new leader may lag for a moment.
        start = max(first, wanted)
        # What came from there and was not given out comes again, or has expired.
        self._kept = [one for one in self._kept if (one.topic, one.partition) != partition]
        self._assign(self._client, {**self._order.received, partition: start})
        if start > wanted:
            self._next[partition] = start
            self._assignee.expired(partition, wanted, start)

    def _begin_anew(self, error: KafkaError) -> None:
        """Replace a client that can never go on, as if thrown out of the group."""
        self._fatal = None
        if "group.instance.id" in self._settings:
            # The one error of this kind that members under a name meet: another one has come
            # under it. Joining again would throw that one out, and so on for ever.
            self._fenced = FencedError(f"reading as group {self._group}: {said(error)}")
            self._give_up(self._assignee.lost)
            raise self._fenced
        self._trouble = said(error)
        self._replace()

    def _replace(self) -> None:
        """Join the group with another client, where this one cannot go on."""
        self._give_up(self._assignee.lost)
        self._commits.abandon()
        self._join()

    # --- leaves ----------------------------------------------------------------------------

    def _assign(self, client: Client, starts: Mapping[Partition, int]) -> None:
        """Let the client read from these offsets; an error forbids to seek. `poll` pauses again."""
        self._order.begin(starts)
        # What is paused stays so over an assignment: nothing would come ever again.
        self._unpause()
        places = [self._cluster.place(*one) for one in starts.items()]
        self._is_adrift = not read_from(client, places, clock=self._cluster.clock)
        self._assigned_s = self._cluster.clock.monotonic_s()

    def _follow_pause(self) -> None:
        is_settled = self._cluster.clock.monotonic_s() >= self._assigned_s + _SETTLED_S
        if not self._is_paused:
            self._unpause()
        elif is_settled and not self._are_partitions_paused:
            self._client.pause([self._cluster.place(one) for one in self._next])
            self._are_partitions_paused = bool(self._next)

    def _unpause(self) -> None:
        if self._are_partitions_paused:
            self._are_partitions_paused = False
            self._client.resume([self._cluster.place(one) for one in self._next])

    def _give(self, records_max: int) -> list[StreamRecord]:
        """Take what may be given out now, and remember how far that is."""
        if self._is_paused or not self._kept:
            return []
        given, self._kept = self._kept[:records_max], self._kept[records_max:]
        self._next.update(following(given) if self._kept else self._order.received)
        return given

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"using the consumer of group {self._group}: it is closed")
        if self._fenced is not None:
            raise self._fenced
