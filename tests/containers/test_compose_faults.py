"""Every fault that a deployment meets, under 500 readings a second, and then the reckoning.

One deployment and one load for the whole module: each test makes one fault and waits until
everything is stored again, without a hand; the last tests close the books. Not covered
here: a SIGKILL of the servers themselves (tests/system does that without containers).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from containers import accounting
from containers.commands import docker, pause, until
from containers.reading import mqtt_login
from containers.stack import OURS, VERSION, Stack
from servers.load import Load

pytestmark = pytest.mark.timeout(600)

RATE_PER_S = 500
SOURCES = tuple(f"load-{number}" for number in range(20))
QUANTITY = {"quantity": "temperature", "unit": "degC"}
# What is measured is printed. The bound is for a machine that others load as well: a killed
# process holds its partitions until its session ends, and a store that was away a minute has
# 30,000 readings to catch up with.
RECOVERY_S = 120.0
BEHIND_S_MAX = 3.0
PAUSE_S = 60.0
CUT_S = 15.0
NEXT_VERSION = f"{VERSION}-next"


@pytest.fixture(scope="module")
def stack(deployments) -> Stack:
    return deployments.use("faults", scale={"sensor": 1}).stack


class Thermometers(Load):
    """Readings of what the deployment's model forecasts."""

    def payload(self, source: str, seq: int) -> bytes:
        """Give a temperature; nothing else is forecast by the model."""
        return json.dumps(json.loads(super().payload(source, seq)) | QUANTITY).encode()


@pytest.fixture(scope="module")
def load(stack: Stack) -> Iterator[Load]:
    """Give a load that flows while the module runs, once its first readings are stored."""
    running = Thermometers(
        stack.port("MQTT"),
        rate_per_s=RATE_PER_S,
        sources=SOURCES,
        venue="demo",
        login=mqtt_login(stack),
    )
    try:
        await_flow(stack)
        yield running
    finally:
        running.close()


def await_flow(stack: Stack, *, within_s: float = RECOVERY_S) -> float:
    """Wait until the store keeps up with all sources again; gives the seconds it took."""
    with accounting.database(stack) as held:
        return until(
            lambda: accounting.behind_s(held, SOURCES) < BEHIND_S_MAX,
            f"every source stored within {BEHIND_S_MAX:.0f} s",
            within_s=within_s,
            explain=stack.diagnosis,
        )


@pytest.fixture
def recovered(stack: Stack, load: Load, record_figure) -> Iterator[Callable[..., None]]:
    """Give a function that waits for recovery, notes how long it took, and checks that."""

    def await_recovery(name: str, *, within_s: float = RECOVERY_S) -> None:
        healthy_s = stack.await_healthy(within_s=within_s)
        flow_s = await_flow(stack, within_s=within_s)
        record_figure(
            f"{name}: healthy after",
            f"{healthy_s:.1f} s, caught up after {healthy_s + flow_s:.1f} s",
        )

    return await_recovery


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("service", OURS)
def test_a_crash_is_recovered_without_a_hand(stack, load, recovered, record_figure, service):
    victim = stack.kill(service)
    taken_s = stack.await_restarted(victim)
    record_figure(f"SIGKILL of {service}: running and healthy again after", f"{taken_s:.1f} s")
    recovered(f"SIGKILL of {service}")


def test_running_out_of_memory_is_recovered_without_a_hand(stack, load, recovered):
    victim = stack.exhaust_memory("model_analysis")
    stack.await_restarted(victim)
    recovered("model_analysis out of memory")


@pytest.mark.parametrize("server", ["kafka", "mongo", "mosquitto"])
def test_a_restart_of_a_server_is_waited_out(stack, load, recovered, server):
    stack.compose("restart", server)
    recovered(f"restart of {server}")


def test_a_store_that_hangs_for_a_minute_is_waited_out(stack, load, recovered):
    stack.compose("pause", "mongo")
    pause(PAUSE_S)
    stack.compose("unpause", "mongo")
    recovered(f"mongo paused for {PAUSE_S:.0f} s")


def test_a_server_cut_off_the_network_comes_back_alone(stack, load, recovered):
    connect = stack.disconnect("server")
    pause(CUT_S)
    connect()
    recovered(f"server without network for {CUT_S:.0f} s")


@pytest.mark.parametrize("service", ["server", "model_analysis"])
def test_more_replicas_share_the_work_and_fewer_take_it_over(stack, load, recovered, service):
    count = 3 if service == "server" else 2
    for wanted in (count, 1):
        stack.compose(
            "up", "-d", "--no-recreate", f"--scale={service}={wanted}", "--scale=sensor=1"
        )
        assert len(stack.containers(service)) == wanted
        recovered(f"{service} scaled to {wanted}")


def test_a_new_image_replaces_the_old_one_while_readings_flow(stack, load, recovered, next_image):
    before = {one.identity for one in stack.containers(*OURS)}
    stack.settings["MATCHDAY_VERSION"] = NEXT_VERSION
    stack.up(scale={"sensor": 1}, within_s=180.0)
    after = stack.containers(*OURS)
    assert not before & {one.identity for one in after}
    assert {one.details["Config"]["Image"] for one in after} == {f"matchday:{NEXT_VERSION}"}
    # The old server has to end before the new one starts: half a minute of readings waits.
    recovered("all services re-created from a new image", within_s=2 * RECOVERY_S)


@pytest.fixture
def next_image() -> None:
    """Make another image of the same program: one more label, and a tag of its own."""
    docker(
        "build",
        "-q",
        "-t",
        f"matchday:{NEXT_VERSION}",
        "-",
        text=f"FROM matchday:{VERSION}\nLABEL next=yes\n",
    )


# --- the reckoning ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settled(stack: Stack, load: Load, record_figure) -> Load:
    """Give the load after its end, everything acknowledged and nothing on its way."""
    load.stop()
    until(lambda: load.open_count == 0, "every acknowledgement", within_s=60)
    stack.compose("stop", "sensor")
    until(
        lambda: accounting.ledger(stack)["totals"]["pending"] == 0,
        "nothing pending",
        within_s=RECOVERY_S,
        explain=stack.diagnosis,
    )
    record_figure("readings sent, acknowledged", f"{load.sent_count}, {len(load.acknowledged)}")
    return load


def test_nothing_acknowledged_is_lost_and_nothing_is_stored_twice(stack, settled, record_figure):
    found = accounting.counted(stack, SOURCES)
    lost = settled.acknowledged - found.keys()
    twice = [identity for identity, count in found.items() if count > 1]
    record_figure("acknowledged and lost, stored twice", f"{len(lost)}, {len(twice)}")
    assert (sorted(lost)[:10], sorted(twice)[:10]) == ([], [])
    assert len(settled.acknowledged) == settled.sent_count


def test_the_account_adds_up_and_agrees_with_the_documents(stack, settled):
    account = accounting.ledger(stack)
    assert (account["adds_up"], account["exit"]) == (True, 0)
    for line in account["sources"]:
        assert (line["missing"], line["expired"], line["refused"]) == (0, 0, 0), line


def test_the_products_own_sensor_lost_nothing_either(stack, settled):
    found = accounting.counted(stack, ["sim-0"])
    assert set(found.values()) == {1}
    numbers = sorted(seq for _, seq in found)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_every_reading_has_one_forecast(stack, settled):
    with accounting.database(stack) as held:
        counts = {
            name: {
                row["_id"]: row["count"]
                for row in held[name].aggregate(
                    [{"$group": {"_id": "$metadata.sensor_id", "count": {"$sum": 1}}}]
                )
            }
            for name in ("sensors", "model_predictions")
        }
    assert counts["model_predictions"] == counts["sensors"]
