"""From built images to forecasts on the page, as in the original, and what survives a stop.

One deployment for the module, in the order of the file; `test_compose_security` uses it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from browser.conftest import FLAGS, find_chromium, missing_browser
from containers import accounting
from containers.commands import CLOCK, eventually, pause, until
from containers.host import use_of
from containers.reading import Page, get
from containers.stack import OURS, Stack

pytestmark = pytest.mark.timeout(600)

SENSORS = {"sim-0", "sim-1", "sim-2"}
REST_S = 30.0
REST_MEMORY_MB_MAX = 100.0
REST_CPU_RATIO_MAX = 0.01


@pytest.fixture(scope="module")
def stack(quiet) -> Stack:
    return quiet.stack


@pytest.fixture(scope="module")
def page(stack: Stack) -> Page:
    return Page(stack)


def heard(stack: Stack) -> dict[str, int]:
    """Give how many readings of each simulated sensor are stored."""
    lines = accounting.lines(stack)
    return {name: line["stored"] for name, line in lines.items() if name.startswith("sim-")}


def await_growth(stack: Stack, *, wanted: int = 2, within_s: float = 40.0) -> None:
    """Wait until every sensor, and nobody else, has stored some more readings."""
    before = heard(stack)

    def has_grown() -> set[str]:
        now = heard(stack)
        return {name for name in now if now[name] >= before.get(name, 0) + wanted} == SENSORS

    until(has_grown, "readings of every sensor", within_s=within_s, explain=stack.diagnosis)


# --- start and look ---------------------------------------------------------------------------


def test_three_sensors_start_healthy_within_90_s(quiet, stack, record_figure):
    record_figure("up -d --wait --scale sensor=3, healthy after", f"{quiet.started_s:.1f} s")
    assert quiet.started_s < 90
    assert len(stack.containers("sensor")) == 3
    assert stack.is_healthy()


def test_the_page_asks_for_its_token_and_opens_with_it(page):
    assert get(f"{page.url}/api/v1/ledger").status == 401
    as_browser = get(page.url, headers={"Accept": "text/html"})
    assert (as_browser.status, as_browser.headers["location"]) == (303, "/login")
    assert page.get("/api/v1/ledger").status == 200


def test_the_live_view_has_three_sensors_with_forecasts_of_the_prophet_model(page):
    values: dict[str, float] = {}
    forecasts: dict[str, dict[str, Any]] = {}
    for message in page.live(within_s=60):
        values |= {point["source"]: point["value"] for point in message.get("series", ())}
        forecasts |= {point["sensor"]: point for point in message.get("forecasts", ())}
        if values.keys() >= SENSORS and forecasts.keys() >= SENSORS:
            break
    assert values.keys() == SENSORS
    assert forecasts.keys() == SENSORS
    for forecast in forecasts.values():
        assert forecast["model"].startswith("yosemite")
        assert forecast["yhat_lower"] < forecast["yhat"] < forecast["yhat_upper"]


def test_a_browser_shows_three_live_sensors_with_forecasts(page, require):
    reason = missing_browser()
    if reason is not None:
        require("chromium", reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        tab = browser.new_page()
        tab.goto(page.url)
        tab.fill("#token", page.token)
        tab.click("button[type=submit]")
        for name in SENSORS:
            shown = tab.locator(f'[data-series="{name}/temperature"]')
            shown.wait_for(timeout=30_000)
            shown.scroll_into_view_if_needed()  # charts out of sight are not drawn
            tab.wait_for_function(
                "(key) => /Forecast [-−]?\\d/.test("
                "document.querySelector(`[data-series='${key}']`).textContent)",
                arg=f"{name}/temperature",
                timeout=30_000,
            )
        browser.close()


def test_the_database_holds_the_originals_shapes(stack):
    def newest(held: Any, name: str) -> dict[str, Any] | None:
        return held[name].find_one({"metadata.sensor_id": "sim-1"})

    with accounting.database(stack) as held:
        reading = eventually(lambda: newest(held, "sensors"), "a reading", within_s=30)
        forecast = eventually(lambda: newest(held, "model_predictions"), "a forecast", within_s=30)
    assert {"collected_at", "temperature", "seq", "metadata"} <= reading.keys()
    assert isinstance(reading["temperature"], float)
    assert reading["metadata"]["venue"] == "demo"
    assert {"created_at", "date", "y_hat", "y_hat_lower", "y_hat_upper"} <= forecast.keys()
    assert forecast["metadata"]["model"].startswith("yosemite")
    assert forecast["y_hat_lower"] < forecast["y_hat"] < forecast["y_hat_upper"]


def test_the_account_adds_up_and_agrees_with_the_documents(stack):
    account = accounting.ledger(stack)
    assert (account["adds_up"], account["exit"]) == (True, 0), account
    assert {line["source"] for line in account["sources"]} >= SENSORS


# --- identities -------------------------------------------------------------------------------


def restart(stack: Stack) -> None:
    stack.compose("restart", "sensor")


def recreate(stack: Stack) -> None:
    stack.compose("up", "-d", "--force-recreate", "--no-deps", "--scale=sensor=3", "sensor")


def scale_down_and_up(stack: Stack) -> None:
    stack.compose("up", "-d", "--no-recreate", "--scale=sensor=1", "sensor")
    assert len(stack.containers("sensor")) == 1
    stack.compose("up", "-d", "--no-recreate", "--scale=sensor=3", "sensor")


@pytest.mark.parametrize("change", [restart, recreate, scale_down_and_up])
def test_sensors_keep_their_names_and_numbers_when_they_(stack, change: Callable[[Stack], None]):
    change(stack)
    stack.await_healthy("sensor")
    await_growth(stack)
    assert heard(stack).keys() == SENSORS
    for line in accounting.lines(stack).values():
        assert line["missing"] == 0, line


# --- at rest ----------------------------------------------------------------------------------


def test_our_services_need_almost_nothing_at_rest(stack, record_figure):
    stack.compose("stop", "sensor")
    until(
        lambda: accounting.ledger(stack)["totals"]["pending"] == 0, "nothing pending", within_s=30
    )
    watched = [one for one in stack.containers() if one.status == "running"]
    before = {one.name: use_of(one) for one in watched}
    began_s = CLOCK.monotonic_s()
    pause(REST_S)
    passed_s = CLOCK.monotonic_s() - began_s
    too_much = []
    for one in watched:
        use = use_of(one)
        cpu_ratio = (use.cpu_s - before[one.name].cpu_s) / passed_s
        memory_mb = use.memory_bytes / 1e6
        record_figure(f"{one.service} at rest", f"{memory_mb:.0f} MB, {cpu_ratio:.2%} of a core")
        if one.service in OURS and (
            memory_mb >= REST_MEMORY_MB_MAX or cpu_ratio >= REST_CPU_RATIO_MAX
        ):
            too_much.append(f"{one.service}: {memory_mb:.0f} MB, {cpu_ratio:.2%} of a core")
    stack.compose("start", "sensor")
    assert too_much == []


# --- stop -------------------------------------------------------------------------------------


def test_after_down_and_up_all_is_still_there(stack, page, record_figure):
    stack.compose("stop", "sensor")
    before = accounting.counted(stack, SENSORS)
    stack.down()
    assert stack.leftovers()["containers"] == []
    taken_s = stack.up(scale={"sensor": 3})
    record_figure("up again with data, healthy after", f"{taken_s:.1f} s")
    await_growth(stack)
    after = accounting.counted(stack, SENSORS)
    assert before.keys() <= after.keys()
    assert set(after.values()) == {1}
    assert page.get("/api/v1/ledger").json["adds_up"], "the token is the same as before"
    assert all(line["missing"] == 0 for line in accounting.lines(stack).values())
