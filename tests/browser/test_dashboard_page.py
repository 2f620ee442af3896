"""The pages in a real browser: what is shown, how it recovers, and that all can use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from browser.ground import (
    START_MS,
    Ground,
    crowd_at,
    forecast,
    players_at,
    positions,
    scalar,
)
from matchday.clock import SystemClock
from matchday.dashboard.serve import DashboardServer
from matchday.domain.finding import Finding
from matchday.domain.reading import Count, TrackedObject
from matchday.ports import LinkState

WIDTHS = (1400, 420)
SCHEMES = ("dark", "light")


class Feeder:
    """Publishes a moving match, a crowd and sensors at 25 Hz until stopped."""

    def __init__(self, ground: Ground, *, sensor_count: int = 3) -> None:
        self._ground = ground
        self._names = [f"gate-{index}" for index in range(sensor_count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test.feeder")
        self.seq = 0

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        clock = SystemClock()
        while not clock.wait(self._stop, 0.04):
            self.seq += 1
            t_ms = clock.wall_ms()
            self._ground.publish(
                positions("tracking", t_ms, players_at(t_ms), self.seq),
                positions("crowd", t_ms, crowd_at(t_ms), self.seq),
            )
            if self.seq % 5 == 0:
                for place, name in enumerate(self._names):
                    value = 20 + place + (self.seq % 50) / 25
                    self._ground.publish(scalar(name, t_ms, value, seq=self.seq))
                    if place:
                        self._ground.find(forecast(name, t_ms, 21 + place, 1.5))


@pytest.fixture
def lively(ground: Ground) -> Iterator[Feeder]:
    """Give a ground that is full of life."""
    with Feeder(ground) as feeder:
        yield feeder


def text(page, selector: str) -> str:
    return page.locator(selector).inner_text().strip()


def wait_text(page, selector: str, wanted: str) -> None:
    page.wait_for_function(
        "([s, w]) => document.querySelector(s)?.textContent.trim() === w", arg=[selector, wanted]
    )


def until(page, expression: str) -> None:
    # As a function: the page's own policy forbids the evaluation of bare text.
    page.wait_for_function(f"() => {expression}")


def is_live(page) -> None:
    wait_text(page, "#status-text", "Live")


def violations(page) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {[n['html'][:120] for n in v['nodes']]}" for v in found]


def too_wide(page) -> list[str]:
    """Name what stands out of a page that has to be moved sideways, or nothing."""
    return page.evaluate("""() => document.documentElement.scrollWidth <= innerWidth ? [] : [
        `the page: ${document.documentElement.scrollWidth} px of ${innerWidth}`,
        ...[...document.querySelectorAll("body *")]
            .map((one) => [one, Math.round(one.getBoundingClientRect().right)])
            .filter(([, right]) => right > innerWidth)
            .map(([one, right]) => `${one.tagName} ${one.id || one.className} ${right} px ` +
                one.innerText?.slice(0, 80)),
    ]""")


# --- what is shown --------------------------------------------------------------------------


def test_the_numbers_on_the_page_are_those_that_were_fed(ground, server, open_page):
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    now_ms = SystemClock().wall_ms()
    inside_n4 = [TrackedObject(f"p{i}", -3 + i * 0.5, 50.5) for i in range(12)]
    ground.publish(*[scalar("roof", now_ms + i, 20 + i, seq=i) for i in range(4)])
    ground.persist()
    ground.publish(
        positions("tracking", now_ms, players_at(now_ms), 1),
        positions("crowd", now_ms, inside_n4, 1),
        Count(source="cam", t_ms=now_ms, zone="N1", occupancy=7, venue="demo"),
    )
    ground.refuse("roof", b"{", reason="not_json")
    wait_text(page, "#tile-objects", "35")
    wait_text(page, '[data-series="roof/temperature"] .now strong', "23")
    wait_text(page, "#tile-pending", "3")
    wait_text(page, "#tile-refused", "1")
    # 12 persons on 7 m x 3 m; 7 counted on 2.4 m x 2 m: by hand.
    wait_text(page, '[data-zone="N4"] .density', "0.57")
    wait_text(page, '[data-zone="N1"] .density', "1.46")
    row = page.locator('#ledger-body tr[data-source="roof"] td').all_inner_texts()
    assert row == ["5", "4", "0", "0", "1", "0", "✓ yes", "0"]
    totals = page.locator("#ledger-totals td").all_inner_texts()
    assert totals == ["8", "4", "3", "0", "1", "0", "✓ yes", "0"]
    assert text(page, "#ledger-mark") == "✓ adds up"


def test_what_is_counted_live_is_marked_provisional_and_the_window_final(ground, server, open_page):
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    t_ms = SystemClock().wall_ms()
    ground.publish(positions("crowd", t_ms, [TrackedObject("p1", 0, 50)], 1))
    page.wait_for_selector('[data-zone="N4"] .provisional:not([hidden])')
    values = {"count_mean": 10.5, "density_mean_per_m2": 0.5}
    ground.find(
        Finding(subject="N4", kind="crowd_metric", span_start_ms=t_ms - 10_000, span_end_ms=t_ms,
                model="zone-density/1", values=values, sensor="crowd", venue="demo")
    )  # fmt: skip
    wanted = "final 0.50/m² (10 s to"
    until(
        page, f"document.querySelector('[data-zone=N4] .window').textContent.startsWith('{wanted}')"
    )


def test_a_series_is_learning_until_its_first_forecast(ground, server, open_page):
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    card = '[data-series="roof/temperature"]'
    now_ms = SystemClock().wall_ms()
    ground.publish(scalar("roof", now_ms, 25.0))
    page.locator(card).scroll_into_view_if_needed()
    wait_text(page, f"{card} .chip", "learning")
    ground.find(forecast("roof", now_ms, 25.5, 1.0))
    wait_text(page, f"{card} .chip", "within band")
    ground.publish(scalar("roof", now_ms + 1000, 29.0, seq=2))
    ground.find(forecast("roof", now_ms + 1000, 25.5, 1.0))
    wait_text(page, f"{card} .chip", "▲ outside band")
    assert page.locator(f"{card} canvas").count() == 1


def test_the_chart_of_one_reading_spans_a_minute_around_it(ground, server, open_page):
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    now_ms = SystemClock().wall_ms()
    ground.publish(scalar("roof", now_ms, 25.0))
    page.locator('[data-series="roof/temperature"]').scroll_into_view_if_needed()
    until(page, "document.querySelector('.card')?.card.plot !== null")
    span_s = page.evaluate(
        "(({ min, max }) => [min, max])(document.querySelector('.card').card.plot.scales.x)"
    )
    assert span_s == [now_ms / 1000 - 30, now_ms / 1000 + 30]


def test_charts_begin_with_what_the_store_holds(ground, server, open_page):
    now_ms = SystemClock().wall_ms()
    ground.publish(*[scalar("roof", now_ms - 60_000 + i * 1000, 20, seq=i) for i in range(50)])
    ground.persist()
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    ground.publish(scalar("roof", now_ms, 20, seq=51))
    card = page.locator('[data-series="roof/temperature"]')
    card.scroll_into_view_if_needed()
    until(page, "document.querySelector('.plot').getAttribute('aria-label')?.includes('51 points')")


def test_a_chosen_player_shows_its_speed_from_the_finding(ground, server, lively, open_page):
    page = open_page(server.url)
    is_live(page)
    t_ms = SystemClock().wall_ms() // 1000 * 1000
    values = {"distance_m": 12.0, "time_in_view_s": 4.0, "speed_max_mps": 5.25}
    page.wait_for_selector("#follow:not([disabled])")
    page.select_option("#follow", label="home 7")
    ground.find(
        Finding(subject="home_7", kind="player_metric", span_start_ms=t_ms - 4000,
                span_end_ms=t_ms, model="player-kinematics/1", values=values,
                sensor="tracking", venue="demo", session="one")
    )  # fmt: skip
    page.wait_for_selector("#player-facts:not([hidden])")
    facts = page.locator("#player-facts > div").all_inner_texts()
    assert [fact.split("\n") for fact in facts][:3] == [
        ["speed mean", "3 m/s"],
        ["speed max", "5.25 m/s"],
        ["distance", "12 m"],
    ]


def test_an_empty_page_teaches_how_to_connect_a_sensor(server, open_page):
    page = open_page(server.url)
    wait_text(page, "#status-text", "Waiting for data")
    line = text(page, ".publish-line")
    assert line.startswith("mosquitto_pub -h 127.0.0.1 -p 1883 -q 1 -t matchday/demo/scalar/")
    assert page.locator("#pitch-empty").is_visible()
    assert page.locator("#ledger-empty").is_visible()


def test_a_link_that_is_down_is_named_with_its_reason(ground, server, open_page):
    page = open_page(server.url)
    ground.links.append(LinkState("mqtt", False, START_MS, "connection refused"))
    wait_text(page, '[data-link="mqtt"] .chip', "✗ down")
    wait_text(page, '[data-link="mqtt"] .detail', "connection refused")


def test_the_data_names_who_recorded_it(server, open_page):
    page = open_page(server.url)
    page.wait_for_selector("#attributions:not([hidden])")
    assert "Match recorded by a provider, MIT" in text(page, "#attributions-list")


def test_dead_letters_are_one_click_away(ground, server, open_page):
    ground.refuse("roof", b"<b>not json</b>", reason="not_json")
    ground.persist()
    page = open_page(server.url)
    wait_text(page, "#tile-refused", "1")
    page.click("#dead-letters")
    page.wait_for_url("**/db/server/dead_letters")
    assert "<b>not json</b>" in text(page, "tbody")


def test_more_sources_than_the_page_lists_are_counted_and_the_next_are_linked(
    ground, server, open_page
):
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    now_ms = SystemClock().wall_ms()
    ground.publish(*[scalar(f"s{number:03}", now_ms, 1.0) for number in range(501)])
    wait_text(page, "#sources-count", "501")
    assert page.locator("#sources-body tr").count() == 500
    assert page.get_attribute("#sources-next", "href") == "/api/v1/sources?after=s499"


def test_what_a_sensor_calls_itself_is_shown_as_text(ground, server, open_page):
    page = open_page(server.url)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    name = "<img src=x onerror=document.title='owned'>"
    ground.publish(scalar(name, SystemClock().wall_ms(), 1.0))
    page.wait_for_selector("#wall article")
    assert name in text(page, "#wall article h3")
    assert page.title() == "Demo ground"


def test_the_oval_is_another_venue_of_the_same_page(server, lively, open_page):
    page = open_page(server.url)
    is_live(page)
    page.select_option("#venue", label="Oval")
    wait_text(page, "#venue-name", "Oval")
    wait_text(page, "#tile-objects", "0")
    assert page.locator("[data-zone]").count() == 4
    assert page.locator("#detail").is_hidden()


# --- how it behaves -------------------------------------------------------------------------


def test_the_page_reconnects_after_the_server_restarted(ground, open_page):
    refused = ["ERR_CONNECTION_REFUSED", "WebSocket connection"]
    first = DashboardServer(ground.state(), port=0)
    first.start()
    page = open_page(first.url, tolerate=refused)
    wait_text(page, '[data-link="live view"] .chip', "✓ up")
    first.stop()
    wait_text(page, "#status-text", "Reconnecting")
    assert page.locator("main.stale").count() == 1
    with DashboardServer(ground.state(), port=first.port):
        until(page, "document.querySelector('#status').classList.contains('wait')")
        assert page.locator("main.stale").count() == 0
        ground.publish(scalar("roof", SystemClock().wall_ms(), 33.5))
        wait_text(page, "#status-text", "Live")
        wait_text(page, '[data-series="roof/temperature"] .now strong', "33.5")


def test_players_move_between_readings_and_stand_still_when_paused(server, lively, open_page):
    page = open_page(server.url)
    is_live(page)
    page.wait_for_selector("#follow:not([disabled])")
    picture = "document.querySelector('#pitch canvas.players').toDataURL()"
    changes = f"""() => new Promise((done) => {{
        let last = {picture}, count = 0, frames = 0;
        const look = () => {{
            const now = {picture};
            count += now !== last; last = now; frames += 1;
            frames < 20 ? requestAnimationFrame(look) : done(count);
        }};
        requestAnimationFrame(look);
    }})"""
    assert page.evaluate(changes) >= 6
    page.click("#pause")
    assert page.evaluate(changes) <= 1


def test_those_who_asked_for_less_motion_get_a_still_picture_once_a_second(
    server, lively, open_page
):
    page = open_page(server.url, reduced_motion="reduce")
    is_live(page)
    page.wait_for_selector("#follow:not([disabled])")
    picture = "document.querySelector('#pitch canvas.players').toDataURL()"
    changes = page.evaluate(f"""() => new Promise((done) => {{
        let last = {picture}, count = 0; const start = performance.now();
        const look = () => {{
            const now = {picture};
            count += now !== last; last = now;
            performance.now() - start < 1500 ? requestAnimationFrame(look) : done(count);
        }};
        requestAnimationFrame(look);
    }})""")
    assert 1 <= changes <= 2


def test_everything_can_be_reached_by_keyboard(server, lively, open_page):
    page = open_page(server.url)
    is_live(page)
    page.wait_for_selector("#follow:not([disabled])")
    page.wait_for_selector("#ledger-table:not([hidden])")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.className")
        )
    assert reached[0] == "skip"
    assert {"venue", "pause", "theme", "dead-letters", "follow", "ledger-table"} <= set(reached)


def test_the_theme_button_overrides_the_system_and_is_remembered(server, open_page):
    page = open_page(server.url, scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("#theme")
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == dark


def test_the_page_draws_at_the_screens_rate(server, lively, open_page):
    page = open_page(server.url)
    is_live(page)
    page.wait_for_selector("#follow:not([disabled])")
    fps = page.evaluate("""() => new Promise((done) => {
        let count = 0; const start = performance.now();
        const frame = (now) => now - start < 2000
            ? (count += 1, requestAnimationFrame(frame)) : done(count / ((now - start) / 1000));
        requestAnimationFrame(frame);
    })""")
    # 60 on an idle machine; tests share two cores with others.
    assert fps > 25


# --- for everybody --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_page_has_no_accessibility_violation(
    ground, server, lively, open_page, width, scheme
):
    ground.refuse("gate-1", b"{", reason="not_json")
    ground.links.append(LinkState("mqtt", False, START_MS, "connection refused"))
    page = open_page(server.url, width=width, scheme=scheme)
    is_live(page)
    page.wait_for_selector("#follow:not([disabled])")
    page.locator("#wall article").first.scroll_into_view_if_needed()
    page.wait_for_selector("#wall canvas")
    assert violations(page) == []
    assert too_wide(page) == []


@pytest.mark.parametrize("width", [320, 420, 700, 1400])
def test_the_longest_words_at_the_top_fit_the_page(server, open_page, width):
    page = open_page(server.url, width=width)
    wait_text(page, "#status-text", "Waiting for data")
    wide = page.evaluate("""() => {
        document.getElementById("status-text").textContent = "Server does not answer";
        document.getElementById("status-note").textContent = "next try in 10 s";
        document.getElementById("venue-choice").hidden = false;
        const name = new Option("A venue whose name is as long as its sponsor liked, and longer");
        document.getElementById("venue").replaceChildren(name);
        document.documentElement.style.fontSize = "20px";
        return [...document.querySelectorAll(".top-end, .top-end *")]
            .filter((one) => one.getBoundingClientRect().right > innerWidth)
            .map((one) => one.id || one.className);
    }""")
    assert wide == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_empty_page_has_no_accessibility_violation(server, open_page, width, scheme):
    page = open_page(server.url, width=width, scheme=scheme)
    wait_text(page, "#status-text", "Waiting for data")
    assert violations(page) == []
    assert too_wide(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_database_pages_have_no_accessibility_violation(
    ground, server, open_page, width, scheme
):
    t_ms = START_MS
    ground.publish(scalar("roof", t_ms, 20.0), positions("tracking", t_ms, players_at(t_ms), 1))
    ground.persist()
    paths = ("db/server", "db/server/sensors", "db/server/positions", "db/server/anomalies")
    for path in paths:
        page = open_page(server.url + path, width=width, scheme=scheme)
        assert (path, violations(page)) == (path, [])
        assert too_wide(page) == []


def test_the_log_in_page_lets_the_right_token_in(ground, open_page):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        page = open_page(server.url)
        page.wait_for_url("**/login")
        assert violations(page) == []
        page.fill("#token", "open sesame")
        page.click("button[type=submit]")
        wait_text(page, "#status-text", "Waiting for data")
