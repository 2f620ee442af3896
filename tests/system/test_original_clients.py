"""Clients of the original system, unchanged, at both ends of the flow on real servers.

Its sensors publish what they always did, its consumers read the topics they always did, and
its models, which Prophet wrote, are applied to each reading as they always were.
"""

from __future__ import annotations

import gzip
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from servers.process import wait_until
from servers.services import MatchdayService, ask
from system.deployments import EXAMPLES, Deployment, Document, mqtt_client, real

SENSOR = "464fc87d3c5a"

# Topic, QoS and the message as the original's sensors spell it.
MESSAGES = (
    (
        "temperature",
        1,
        '{"sensorId": "464fc87d3c5a", "temperature": 21.5, "collectedAt": "2024-09-09 14:01:09"}',
    ),
    (
        "temperature",
        0,
        '{"sensorId": "464fc87d3c5a", "temperature": 21.75, "collectedAt": "2024-09-09 14:01:19"}',
    ),
    (
        "Image",
        1,
        '{"sensorId": "464fc87d3c5a", "image": 7, "collectedAt": "2024-09-09 14:01:09"}',
    ),
    (
        "Image",
        0,
        '{"sensorId": "464fc87d3c5a", "image": 8, "collectedAt": "2024-09-09 14:01:10"}',
    ),
    (
        "image",
        1,
        '{"sensorId": "464fc87d3c5a", "image": 9, "collectedAt": "2024-09-09 14:01:11"}',
    ),
)
STORED = (
    ("temperature", 21.5, "2024-09-09T14:01:09Z"),
    ("temperature", 21.75, "2024-09-09T14:01:19Z"),
    ("image", 7, "2024-09-09T14:01:09Z"),
    ("image", 8, "2024-09-09T14:01:10Z"),
    ("image", 9, "2024-09-09T14:01:11Z"),
)
FORECAST_NAMES = ("yhat", "yhat_lower", "yhat_upper")

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a model fitted now, as `prophet.serialize.model_to_json` writes it."""
    pytest.importorskip("prophet", reason="the extra prophet is not installed")
    file = tmp_path_factory.mktemp("model") / "pitch-side.json"
    file.write_text(fitted(), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def deployment(
    artifact: Path,
    tmp_path_factory: pytest.TempPathFactory,
    need_server: Callable[[str], None],
    servers_dir: Callable[[str], Path],
) -> Iterator[Deployment]:
    """Give the product on real servers, with the original's messages gone through it."""
    with real(
        tmp_path_factory.mktemp("real"),
        {"MATCHDAY_ANALYSIS__MODEL_PATH": str(artifact)},
        need_server=need_server,
        servers_dir=servers_dir,
    ) as running:
        publish(running, MESSAGES)
        running.settled_account(len(MESSAGES))
        wait_until(
            lambda: len(predictions(running, SENSOR)) >= len(MESSAGES),
            what="each reading has its prediction",
            timeout_s=60,
        )
        yield running


def publish(deployment: Deployment, messages: tuple[tuple[str, int, str], ...]) -> None:
    """Publish in this order, each after the one before was taken over."""
    with mqtt_client(deployment.mqtt_port, "original-sensor") as client:
        for topic, qos, payload in messages:
            client.publish(topic, payload, qos=qos).wait_for_publish(30)


def predictions(deployment: Deployment, sensor: str) -> list[Document]:
    found = deployment.read("model_predictions")
    return [one for one in found if one["metadata"]["sensor_id"] == sensor]


def consumed(deployment: Deployment, topic: str, count: int) -> list[dict[str, Any]]:
    """Read a topic as another program's consumer does: its own group, from the beginning."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": deployment.settings["MATCHDAY_STREAM__URL"].partition("//")[2],
            "group.id": "original-consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found: list[dict[str, Any]] = []

    def has_enough() -> bool:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            value = json.loads(message.value())
            if isinstance(value, dict) and value["sensor"] == SENSOR:
                found.append(value)
        return sum("v" in one or "ds" in one for one in found) >= count

    try:
        consumer.subscribe([topic])
        wait_until(has_enough, what=f"{count} records of {topic}", timeout_s=60)
    finally:
        consumer.close()
    return [one for one in found if "v" in one or "ds" in one]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


# --- the original's sensors -------------------------------------------------------------------


def test_messages_of_original_sensors_end_as_the_originals_documents(deployment):
    found = [
        {name: value for name, value in one.items() if name != "_id"}
        for one in deployment.read("sensors")
        if one["metadata"]["sensor_id"] == SENSOR
    ]
    expected = [
        {"collected_at": instant(at), quantity: value, "metadata": {"sensor_id": SENSOR}}
        for quantity, value, at in STORED
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_message_an_original_sensor_sends_again_is_stored_once(deployment):
    publish(deployment, MESSAGES[:1])

    def line() -> dict[str, Any]:
        return dict(ask(deployment.settings, "ledger", "--source", SENSOR)["sources"][0])

    wait_until(lambda: line()["duplicate"] == 1, what="the second copy is counted", timeout_s=30)
    assert line()["received"] == len(MESSAGES) + 1
    assert line()["stored"] == len(MESSAGES)


# --- the original's models --------------------------------------------------------------------


def test_predictions_are_prophets_own(deployment, artifact):
    found = {
        (one["subject"].rpartition("/")[2], one["date"]): one
        for one in predictions(deployment, SENSOR)
    }
    assert set(found) == {(quantity, instant(at)) for quantity, _, at in STORED}
    own = prophets_own(artifact, sorted({at for _, at in found}))
    for (_, at), document in found.items():
        assert document["y_hat"] == pytest.approx(own[at], rel=0, abs=1e-6)
        assert document["y_hat_lower"] < document["y_hat"] < document["y_hat_upper"]
        assert document["metadata"]["model"].startswith("pitch-side/")
        assert isinstance(document["created_at"], datetime)


def test_bundled_model_serves_in_place_of_ones_own(deployment, tmp_path):
    deployment.services["analysis"].stop()
    bundled = {"MATCHDAY_ANALYSIS__MODEL_PATH": str(EXAMPLES / "models" / "yosemite.json")}
    analysis = MatchdayService(tmp_path, ("analysis",), {**deployment.settings, **bundled})
    text = '{"sensorId": "t2", "temperature": 24.0, "collectedAt": "2024-09-10 21:00:00"}'
    analysis.start()
    try:
        publish(deployment, (("temperature", 1, text),))
        wait_until(lambda: bool(predictions(deployment, "t2")), what="it is served", timeout_s=60)
    finally:
        analysis.kill()
        deployment.services["analysis"].start()
    (document,) = predictions(deployment, "t2")
    assert document["metadata"]["model"].startswith("yosemite/")
    # A day's cycle fitted to the whole recording passes near its means of each time of day;
    # six harmonics smooth the steps between them by less than 1 degC.
    assert document["y_hat"] == pytest.approx(recorded_mean("21:00:00"), abs=1.0)


# --- the original's consumers and producers ---------------------------------------------------


def test_original_consumer_finds_its_fields_in_analytics(deployment):
    found = consumed(deployment, "analytics", len(STORED))
    assert {(one["v"], one["ts"], one["sensor"]) for one in found} == {
        (value, at.replace("Z", ".000Z"), SENSOR) for _, value, at in STORED
    }


def test_original_consumer_finds_its_fields_in_analytics_results(deployment):
    found = consumed(deployment, "analytics_results", len(STORED))
    stored = {
        (one["date"], one["y_hat"], one["y_hat_lower"], one["y_hat_upper"])
        for one in predictions(deployment, SENSOR)
    }
    assert {
        (instant(one["ds"]), *(one[name] for name in FORECAST_NAMES)) for one in found
    } == stored
    assert all(one["sensor"] == SENSOR for one in found)


@pytest.mark.parametrize("ds", ["2024-09-09T14:01:09.000Z", 1725890469000], ids=["iso", "epoch"])
def test_result_in_the_originals_quoted_form_ends_as_a_prediction(deployment, ds):
    from confluent_kafka import Producer

    sensor = f"quoted-{type(ds).__name__}"
    row = {"ds": ds, "yhat": 20.25, "yhat_lower": 18.5, "yhat_upper": 22.0, "sensor": sensor}
    quoted = json.dumps(json.dumps({"0": row}))
    bootstrap = deployment.settings["MATCHDAY_STREAM__URL"].partition("//")[2]
    # Without a key, as the original's model service writes.
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce("analytics_results", value=quoted.encode())
    assert producer.flush(30) == 0
    wait_until(lambda: bool(predictions(deployment, sensor)), what="it is stored", timeout_s=30)
    (document,) = predictions(deployment, sensor)
    assert isinstance(document.pop("created_at"), datetime)
    del document["_id"]
    assert document == {
        "date": instant("2024-09-09T14:01:09Z"),
        "y_hat": 20.25,
        "y_hat_lower": 18.5,
        "y_hat_upper": 22.0,
        "metadata": {"sensor_id": sensor, "model": "external"},
    }


# --- Prophet itself ---------------------------------------------------------------------------


def fitted() -> str:
    """Fit a small model to ten days before the messages and give what Prophet writes of it."""
    with quiet_prophet():
        import numpy as np
        import pandas as pd
        from prophet import Prophet
        from prophet.serialize import model_to_json

        hours = np.arange(240)
        noise = np.random.default_rng(1).normal(0.0, 0.5, hours.size)
        y = 18.0 + 0.01 * hours + 5.0 * np.sin(2.0 * np.pi * hours / 24.0) + noise
        rows = pd.DataFrame({"ds": pd.date_range("2024-08-30", periods=hours.size, freq="h")})
        rows["y"] = y
        model = Prophet(weekly_seasonality=False, yearly_seasonality=False)
        model.fit(rows, seed=1)
        return str(model_to_json(model))


def prophets_own(artifact: Path, instants: list[datetime]) -> dict[datetime, float]:
    """Give the `yhat` of Prophet's own `predict` by the same artifact."""
    with quiet_prophet():
        import pandas as pd
        from prophet.serialize import model_from_json

        model = model_from_json(artifact.read_text(encoding="utf-8"))
        asked = pd.DataFrame({"ds": [at.replace(tzinfo=None) for at in instants]})
        made = model.predict(asked)
        return dict(zip(instants, map(float, made["yhat"]), strict=True))


def quiet_prophet() -> warnings.catch_warnings[None]:
    """Keep Prophet's libraries from warning of each other; its own doings are not tested."""
    logging.getLogger("cmdstanpy").setLevel(logging.ERROR)
    logging.getLogger("prophet").setLevel(logging.CRITICAL)
    return warnings.catch_warnings(action="ignore")


def recorded_mean(time_of_day: str) -> float:
    """Give the mean of the bundled temperature recording at a time of day, degC."""
    file = EXAMPLES / "recordings" / "yosemite-temperature.csv.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [line.strip().split(",") for line in lines]
    values = [float(y) for ds, y in rows[1:] if ds.endswith(time_of_day) and y not in ("", "NaN")]
    return sum(values) / len(values)
