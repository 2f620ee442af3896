"""The same flow, and the same locked doors, on a Kafka that ZooKeeper coordinates."""

# ruff: noqa: F811, the imported fixtures are named by the imported tests

from __future__ import annotations

import pytest

from containers.deployments import Deployment, Deployments
from containers.stack import ROOT
from containers.test_compose_flow import (  # noqa: F401
    page,
    stack,
    test_after_down_and_up_all_is_still_there,
    test_the_account_adds_up_and_agrees_with_the_documents,
    test_the_database_holds_the_originals_shapes,
    test_the_live_view_has_three_sensors_with_forecasts_of_the_prophet_model,
    test_three_sensors_start_healthy_within_90_s,
)
from containers.test_compose_security import (  # noqa: F401
    test_nothing_on_this_host_answers_without_credentials,
    test_sensors_reach_the_broker_and_nothing_else,
)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def quiet(deployments: Deployments) -> Deployment:
    """Give a deployment on ZooKeeper, under the name the imported tests know."""
    return deployments.use(
        "zookeeper", scale={"sensor": 3}, env_file=ROOT / "deploy" / "zookeeper.env"
    )


def test_kafka_runs_on_zookeeper_and_kraft_does_not_run(stack):
    running = {one.service for one in stack.containers() if one.status == "running"}
    assert {"zookeeper", "kafka-zookeeper"} <= running
    assert "kafka" not in running
