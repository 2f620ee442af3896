"""Servers and analysers that join and leave under load, and two that claim the same slot."""

from __future__ import annotations

from collections import Counter

import pytest
from confluent_kafka import KafkaException, Producer

from faults.books import EmbeddedBooks
from faults.campaign import ROUNDS, SEED, VENUES, Campaign
from faults.deployment import Deployment, on_servers
from faults.schedule import Move, moves
from servers.process import wait_until
from servers.services import MatchdayService

pytestmark = pytest.mark.timeout(600 * ROUNDS)

SLOTS = {"MATCHDAY_INGEST__SLOTS": ",".join(f"{one}=matchday/{one}/#" for one in VENUES)}
OWNER = "matchday-ingest-all"
ENDED_S_MAX = 180.0


def test_servers_and_analysers_come_and_go_under_load(start, tmp_path):
    names = [f"{role}{number}" for role in ("server", "analysis") for number in (1, 2, 3)]
    with (
        on_servers(tmp_path, ("server1", "analysis1"), start=start, settings=SLOTS) as deployment,
        Campaign(deployment) as campaign,
    ):
        for move in moves(SEED, names, count=6 * ROUNDS):
            campaign.struck.append(str(move))
            make(deployment, move)
            campaign.recover(str(move))
        campaign.check(campaign.settle())


def test_second_server_with_the_same_slot_stands_by_in_silence(start, tmp_path):
    roles = ("ingest1", "ingest2", "persist", "analysis")
    with on_servers(tmp_path, roles, start=start) as deployment, Campaign(deployment) as campaign:
        campaign.flow(2000)
        pair = [deployment.processes[name] for name in roles[:2]]
        working = ["mqtt" in process.links() for process in pair]
        assert sorted(working) == [False, True]
        assert all(process.is_ready() for process in pair)
        campaign.flow(2000)
        assert ["mqtt" in process.links() for process in pair] == working
        assert not any("ownership_lost" in process.log() for process in pair)
        campaign.check(campaign.settle())


def test_stranger_with_the_name_of_our_producer_ends_the_server_and_writes_stay_single(
    start, tmp_path
):
    roles = ("ingest", "persist", "analysis")
    with on_servers(tmp_path, roles, start=start) as deployment, Campaign(deployment) as campaign:
        campaign.flow(400)
        ingest = deployment.processes["ingest"]
        bootstrap = f"127.0.0.1:{deployment.servers['kafka'].port}"

        def is_driven_away() -> bool:
            if ingest.is_running and ingest.links().get("mqtt", False):
                fence(bootstrap)
            return not ingest.is_running

        wait_until(is_driven_away, what="the server gave up", timeout_s=ENDED_S_MAX)
        assert "by a program outside our group" in ingest.log()
        ingest.start()
        campaign.recover("a stranger fenced us")
        campaign.check(campaign.settle())


def test_two_installations_with_one_client_id_fight_until_one_gives_up(start, tmp_path):
    roles = ("ingest", "persist", "analysis")
    with on_servers(tmp_path, roles, start=start) as deployment, Campaign(deployment) as campaign:
        campaign.flow(400)
        elsewhere = {"MATCHDAY_STREAM__URL": "embedded:", "MATCHDAY_DATA_DIR": str(tmp_path / "b")}
        ours = deployment.processes["ingest"]
        theirs = MatchdayService(
            tmp_path, ("server", "--role", "ingest"), {**deployment.settings, **elsewhere}
        )
        with theirs:
            wait_until(
                lambda: not (ours.is_running and theirs.is_running),
                what="one of the two gave up",
                timeout_s=ENDED_S_MAX,
            )
            gone = theirs if ours.is_running else ours
            assert "by a program outside our group" in gone.log()
            target = len(campaign.load.acknowledged) + 400
            wait_until(lambda: len(campaign.load.acknowledged) > target, what="readings flow on")
            assert ours.is_running or theirs.is_running
        if not ours.is_running:
            ours.start()
        campaign.recover("the other installation was stopped")
        verdict = campaign.settle()
        streamed = EmbeddedBooks(tmp_path / "b").in_stream()
        there = Counter((one.source, one.seq) for one in streamed)
        assert not campaign.load.acknowledged - set(verdict.in_store) - set(there)
        assert max(verdict.in_store.values()) == 1
        assert max(there.values(), default=1) == 1


def make(deployment: Deployment, move: Move) -> None:
    if move.verb == "start":
        deployment.add(move.process).start()
        return
    process = deployment.processes.pop(move.process)
    if move.verb == "kill":
        process.kill()
    else:
        assert process.stop(), f"{move.process}: {process.log()[-2000:]}"


def fence(bootstrap: str) -> None:
    """Take the name of our producer over, as another program with the same settings would."""
    stranger = Producer({"bootstrap.servers": bootstrap, "transactional.id": OWNER, "log_level": 0})
    try:
        stranger.init_transactions(10)
    except KafkaException as error:
        # The transaction that it ends may be in the middle of a commit.
        if not error.args[0].retriable():
            raise
