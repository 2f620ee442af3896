"""What every stage may rely on from a consumer group of a stream.

Owns the claims of `matchday.ports.Consumer` and `Assignee`, and those of `Producer.commit`
about bookmarks, on each implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from contract.stream_suite import (
    DEADLINE_S,
    Member,
    Stage,
    by_key,
    drain,
    next_offsets,
    numbered,
    partitions_of,
    poll_until,
    unique,
    values_of,
)
from matchday.domain.topics import Topic
from matchday.errors import FencedError
from matchday.ports import Bookmark, Partition, Start
from servers.process import wait_until

pytest_plugins = ["contract.stream_fixtures"]

ANALYTICS, RESULTS, LEDGER = Topic.ANALYTICS, Topic.RESULTS, Topic.LEDGER


# Groups ---------------------------------------------------------------------------------


def test_new_group_is_told_of_no_bookmark_and_offset_0_is_the_oldest(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 50)})
    member = stage.owning_member(unique("group"))
    poll_until(lambda: len(member.records) >= 50, member, what="all was read")
    assert member.recorder.bookmarks == dict.fromkeys(partitions_of(ANALYTICS))
    assert values_of(member.records) == list(range(50))
    assert member.recorder.expirations == []


def test_group_goes_on_at_its_bookmarks_with_their_metadata(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    producer.commit({ANALYTICS: numbered(0, 50)})
    member = stage.owning_member(group)
    poll_until(lambda: len(member.records) == 50, member, what="all was read")
    marks = member.bookmarks(metadata='{"rewind": 3, "name": "Zürich"}')
    member.consumer.commit(marks)
    member.close()
    producer.commit({ANALYTICS: numbered(50, 50)})
    successor = stage.owning_member(group)
    poll_until(lambda: len(successor.records) >= 50, successor, what="the rest was read")
    assert {place: successor.recorder.bookmarks[place] for place in marks} == marks
    assert values_of(successor.records) == list(range(50, 100))


def test_metadata_of_4000_bytes_is_kept(stage: Stage) -> None:
    group = unique("group")
    place = Partition(LEDGER, 0)
    member = stage.owning_member(group, LEDGER)
    member.consumer.commit({place: Bookmark(0, "m" * 4000)})
    member.close()
    assert stage.owning_member(group, LEDGER).recorder.bookmarks[place] == (0, "m" * 4000)


def test_groups_do_not_know_each_other(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 20)})
    one, other = (stage.owning_member(unique("group")) for _ in range(2))
    poll_until(lambda: len(one.records) == 20, one, what="one read all")
    one.consumer.commit(one.bookmarks())
    poll_until(lambda: len(other.records) == 20, other, what="the other read all")
    assert values_of(one.records) == values_of(other.records) == list(range(20))


def test_assignee_chooses_where_to_read(stage: Stage) -> None:
    stage.producer().commit({LEDGER: numbered(0, 10)})
    offsets = [record.offset for record in stage.stored(LEDGER)]
    place, group = Partition(LEDGER, 0), unique("group")
    first = stage.owning_member(group, LEDGER)
    first.consumer.commit({place: Bookmark(offsets[6])})
    first.close()
    rewound = stage.member(group, LEDGER, offsets={place: offsets[2]})
    poll_until(lambda: len(rewound.records) == 8, rewound, what="it rewound")
    rewound.close()
    skipping = stage.member(group, LEDGER, offsets={place: offsets[9]})
    poll_until(lambda: len(skipping.records) == 1, skipping, what="it skipped")
    assert values_of(rewound.records) == list(range(2, 10))
    assert values_of(skipping.records) == [9]


def test_poll_keeps_to_its_maximum_and_gives_the_rest_later(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 1_000)})
    member = stage.owning_member(unique("group"))
    sizes = [len(member.records)]

    def poll() -> bool:
        sizes.append(len(member.poll(records_max=64)))
        return len(member.records) >= 1_000

    wait_until(poll, what="all was read", timeout_s=DEADLINE_S)
    assert max(sizes[1:]) <= 64
    assert values_of(member.records) == list(range(1_000))


def test_member_reads_each_key_in_order(stage: Stage) -> None:
    producer = stage.producer()
    sent = numbered(0, 600, keys=11)
    member = stage.owning_member(unique("group"))
    for start in range(0, 600, 100):
        producer.commit({ANALYTICS: sent[start : start + 100]})
        member.poll(records_max=33)
    poll_until(lambda: len(member.records) >= 600, member, what="all was read")
    assert by_key(member.records) == by_key(sent)


def test_poll_without_news_is_empty(stage: Stage) -> None:
    member = stage.owning_member(unique("group"))
    assert member.poll() == []


def test_paused_member_gets_nothing_and_keeps_its_partitions(stage: Stage) -> None:
    producer = stage.producer()
    member = stage.owning_member(unique("group"))
    producer.commit({ANALYTICS: numbered(0, 100)})
    poll_until(lambda: len(member.records) >= 1, member, what="it reads")
    member.consumer.pause()
    before = len(member.records)
    producer.commit({ANALYTICS: numbered(100, 100)})
    assert [member.poll() for _ in range(5)] == [[]] * 5
    assert len(member.records) == before
    member.consumer.resume()
    poll_until(lambda: len(member.records) >= 200, member, what="the rest was read")
    assert values_of(member.records) == list(range(200))
    assert member.recorder.calls == ["assigned"]


def test_member_paused_before_its_assignment_gets_partitions_but_no_records(stage: Stage) -> None:
    stage.producer().commit({ANALYTICS: numbered(0, 10)})
    member = stage.member(unique("group"))
    member.consumer.pause()
    places = partitions_of(ANALYTICS)
    poll_until(lambda: member.recorder.held == places, member, what="it holds everything")
    assert [member.poll() for _ in range(3)] == [[]] * 3
    member.consumer.resume()
    poll_until(lambda: len(member.records) >= 10, member, what="all was read")


def test_member_paused_through_a_change_of_members_reads_on_once_it_is_resumed(
    stage: Stage,
) -> None:
    group, producer, places = unique("group"), stage.producer(), partitions_of(ANALYTICS)
    member = stage.owning_member(group)
    member.consumer.pause()
    member.poll()
    other = stage.member(group)
    poll_until(lambda: bool(other.recorder.held), member, other, what="partitions are shared")
    other.close()
    poll_until(lambda: member.recorder.held == places, member, what="it holds everything again")
    producer.commit({ANALYTICS: numbered(0, 100)})
    member.consumer.resume()
    poll_until(lambda: len(member.records) >= 100, member, what="all was read")
    assert values_of(member.records) == list(range(100))


def test_ends_are_after_the_newest_record_of_each_partition(stage: Stage) -> None:
    producer = stage.producer()
    member = stage.owning_member(unique("group"))
    assert set(member.consumer.ends()) == partitions_of(ANALYTICS)
    before = dict(member.consumer.ends())
    producer.commit({ANALYTICS: numbered(0, 100)})
    after = member.consumer.ends()
    newest = next_offsets(stage.stored())
    for place in partitions_of(ANALYTICS):
        assert after[place] >= newest.get(place, 0)
        assert (after[place] > before[place]) == (place in newest)


def test_two_members_share_and_no_record_is_read_twice(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    producer.commit({ANALYTICS: numbered(0, 200)})
    one = stage.owning_member(group)
    one.poll(records_max=20)
    _commit_when_revoked(one)
    two = stage.member(group)
    _commit_when_revoked(two)

    def is_shared() -> bool:
        held = [one.recorder.held, two.recorder.held]
        return all(held) and held[0] | held[1] == partitions_of(ANALYTICS)

    poll_until(is_shared, one, two, what="both hold partitions")
    assert not one.recorder.held & two.recorder.held
    producer.commit({ANALYTICS: numbered(200, 200)})
    enough = 400
    poll_until(lambda: len(one.records + two.records) >= enough, one, two, what="all was read")
    one.poll()
    two.poll()
    assert values_of(one.records + two.records) == list(range(400))
    assert "revoked" in one.recorder.calls
    assert "lost" not in one.recorder.calls + two.recorder.calls


def _commit_when_revoked(member: Member) -> None:
    def commit(partitions: Sequence[Partition]) -> None:
        marks = member.bookmarks()
        member.consumer.commit({place: marks[place] for place in partitions if place in marks})

    member.recorder.before_revoked = commit


def test_single_partition_belongs_to_one_member_and_passes_on_when_it_leaves(
    stage: Stage,
) -> None:
    group, everything = unique("group"), partitions_of(Topic.SLOTS)
    one, two = stage.member(group, Topic.SLOTS), stage.member(group, Topic.SLOTS)
    poll_until(
        lambda: one.recorder.held | two.recorder.held == everything, one, two, what="it is owned"
    )
    owner, standby = (one, two) if one.recorder.held else (two, one)
    for _ in range(3):
        standby.poll()
        owner.poll()
    assert (owner.recorder.held, standby.recorder.held) == (everything, set())
    owner.close()
    assert owner.recorder.calls[-1] == "revoked"
    poll_until(lambda: standby.recorder.held == everything, standby, what="it passed on")


def test_closing_commits_what_revoked_commits_and_twice_is_safe(stage: Stage) -> None:
    group = unique("group")
    stage.producer().commit({ANALYTICS: numbered(0, 30)})
    member = stage.owning_member(group)
    _commit_when_revoked(member)
    poll_until(lambda: len(member.records) == 30, member, what="all was read")
    member.close()
    member.close()
    assert member.recorder.calls == ["assigned", "revoked"]
    successor = stage.owning_member(group)
    read_until = next_offsets(member.records)
    found = successor.recorder.bookmarks
    assert {place: found[place].offset for place in read_until} == read_until
    assert successor.poll() == []


@pytest.mark.timeout(240)
def test_zombie_member_can_commit_nothing_and_learns_that_it_lost(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    producer.commit({ANALYTICS: numbered(0, 40)})
    zombie = stage.owning_member(group)
    poll_until(lambda: len(zombie.records) == 40, zombie, what="all was read")
    marks = zombie.bookmarks()
    heir = stage.member(group)
    everything = partitions_of(ANALYTICS)
    # Only the heir polls, so the zombie is taken for dead.
    poll_until(lambda: heir.recorder.held == everything, heir, what="the heir holds everything")
    with pytest.raises(FencedError):
        zombie.consumer.commit(marks)
    with pytest.raises(FencedError):
        stage.producer().commit(
            {RESULTS: numbered(0, 5)}, consumer=zombie.consumer, bookmarks=marks
        )
    assert stage.stored(RESULTS) == []
    assert set(heir.recorder.bookmarks.values()) == {None}
    poll_until(lambda: "lost" in zombie.recorder.calls, heir, zombie, what="it was told")
    assert zombie.recorder.calls[:2] == ["assigned", "lost"]


# Outputs with bookmarks -----------------------------------------------------------------


def test_outputs_and_bookmarks_move_together(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    producer.commit({ANALYTICS: numbered(0, 40)})
    member = stage.owning_member(group)
    poll_until(lambda: len(member.records) == 40, member, what="all was read")
    marks = member.bookmarks(metadata="rewind=7")
    producer.commit({RESULTS: numbered(0, 3)}, consumer=member.consumer, bookmarks=marks)
    member.close()
    found = stage.owning_member(group).recorder.bookmarks
    assert {place: found[place] for place in marks} == marks
    assert values_of(stage.stored(RESULTS)) == [0, 1, 2]


def test_bookmarks_can_move_without_outputs(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    producer.commit({ANALYTICS: numbered(0, 40)})
    member = stage.owning_member(group)
    poll_until(lambda: len(member.records) == 40, member, what="all was read")
    producer.commit({}, consumer=member.consumer, bookmarks=member.bookmarks())
    member.close()
    assert stage.owning_member(group).poll() == []


def test_fenced_producer_moves_no_bookmark(stage: Stage) -> None:
    group, owner = unique("group"), unique("owner")
    older = stage.producer(owner)
    older.commit({ANALYTICS: numbered(0, 40)})
    member = stage.owning_member(group)
    poll_until(lambda: len(member.records) == 40, member, what="all was read")
    stage.producer(owner)
    with pytest.raises(FencedError):
        older.commit(
            {RESULTS: numbered(0, 3)}, consumer=member.consumer, bookmarks=member.bookmarks()
        )
    member.close()
    assert set(stage.owning_member(group).recorder.bookmarks.values()) == {None}
    assert stage.stored(RESULTS) == []


def test_bookmarks_can_be_committed_with_outputs_inside_revoked(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    producer.commit({ANALYTICS: numbered(0, 40)})
    member = stage.owning_member(group)
    poll_until(lambda: len(member.records) == 40, member, what="all was read")

    def finish(_: Sequence[Partition]) -> None:
        producer.commit(
            {RESULTS: numbered(0, 1)}, consumer=member.consumer, bookmarks=member.bookmarks()
        )

    member.recorder.before_revoked = finish
    member.close()
    assert stage.owning_member(group).poll() == []
    assert values_of(stage.stored(RESULTS)) == [0]


# Retention ------------------------------------------------------------------------------


def test_member_is_told_what_retention_deleted_and_reads_on_after_it(stage: Stage) -> None:
    group, producer = unique("group"), stage.producer()
    place = Partition(LEDGER, 0)
    producer.commit({LEDGER: numbered(0, 10)})
    wanted = stage.stored(LEDGER)[4].offset
    member = stage.owning_member(group, LEDGER)
    member.consumer.commit({place: Bookmark(wanted)})
    member.close()
    stage.world.expire(LEDGER)
    producer.commit({LEDGER: numbered(10, 5)})
    first = stage.reader(Start.beginning(), LEDGER).offsets()[place]
    successor = stage.owning_member(group, LEDGER)
    poll_until(lambda: len(successor.records) >= 5, successor, what="it read on")
    assert successor.recorder.expirations == [(place, wanted, first)]
    assert values_of(successor.records) == list(range(10, 15))


def test_member_overtaken_by_retention_is_given_or_told_of_each_record_once(stage: Stage) -> None:
    producer = stage.producer()
    for begin in (0, 10):
        producer.commit({LEDGER: numbered(begin, 10)})
    written = [record.offset for record in stage.stored(LEDGER)]
    member = stage.member(unique("group"), LEDGER)
    wait_until(lambda: bool(member.poll(records_max=3)), what="it took some", timeout_s=DEADLINE_S)
    stage.world.expire(LEDGER)
    producer.commit({LEDGER: numbered(20, 10)})
    newest = drain(stage.reader(Start.last(5), LEDGER))[-1]
    poll_until(lambda: newest in member.records, member, what="it read on")
    given = [record.offset for record in member.records]
    told = [range(wanted, first) for _, wanted, first in member.recorder.expirations]
    assert given == sorted(set(given))
    # How much of the old a stream has at hand is its own matter.
    for offset in written:
        assert (offset in given) + sum(offset in gap for gap in told) == 1
    assert values_of(member.records)[-10:] == list(range(20, 30))


def test_new_group_is_not_told_of_records_deleted_before_it_began(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({LEDGER: numbered(0, 10)})
    stage.world.expire(LEDGER)
    producer.commit({LEDGER: numbered(10, 5)})
    member = stage.owning_member(unique("group"), LEDGER)
    poll_until(lambda: len(member.records) >= 5, member, what="it read")
    assert member.recorder.expirations == []
    assert values_of(member.records) == list(range(10, 15))


def test_reader_begins_at_the_oldest_record_kept(stage: Stage) -> None:
    producer = stage.producer()
    producer.commit({LEDGER: numbered(0, 10)})
    stage.world.expire(LEDGER)
    producer.commit({LEDGER: numbered(10, 5)})
    begun = [Start.beginning(), Start.last(1_000), Start.at({})]
    for start in begun:
        assert values_of(drain(stage.reader(start, LEDGER))) == list(range(10, 15))
