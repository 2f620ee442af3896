"""The dashboard over real HTTP on the embedded stream and store."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from browser.ground import START_MS, Ground, forecast, players_at, positions, scalar
from matchday.clock import SystemClock
from matchday.dashboard import api, browser, security, serve
from matchday.dashboard.fanout import Hub
from matchday.dashboard.listing import LIST_BYTES_MAX, newest_within
from matchday.dashboard.security import COOKIE, COOKIE_S, cookie_value
from matchday.dashboard.serve import DashboardServer
from matchday.dashboard.state import Attribution
from matchday.domain.account import Account, Counts
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import LinkState

DEADLINE_S = 20


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    found = Ground(tmp_path / "data")
    yield found
    found.close()


@pytest.fixture
def server(ground: Ground) -> Iterator[DashboardServer]:
    with DashboardServer(ground.state(), port=0) as running:
        yield running


def get(server, path, *, method="GET", body=None, **headers):
    """Ask the server; gives the answer, its body read into `.text`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    try:
        connection.request(
            method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        answer.text = answer.read().decode()
        return answer
    finally:
        connection.close()


def get_json(server, path):
    answer = get(server, path)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


def live(server, venue="demo", **options):
    return connect(
        f"ws://127.0.0.1:{server.port}/api/v1/live?venue={venue}",
        open_timeout=DEADLINE_S,
        max_size=2**22,
        **options,
    )


def until(socket_, accepts):
    """Receive until a message is accepted, and give it."""
    while True:
        message = json.loads(socket_.recv(timeout=DEADLINE_S))
        if accepts(message):
            return message


def wait_until(condition):
    never, clock = threading.Event(), SystemClock()
    deadline_s = clock.monotonic_s() + DEADLINE_S
    while not condition():
        assert clock.monotonic_s() < deadline_s, "condition did not come true in time"
        never.wait(0.02)


def is_live(server):
    links = get_json(server, "/api/v1/links")["links"]
    return any(link["name"] == "live view" and link["is_up"] for link in links)


def test_what_is_published_arrives_on_the_live_connection(ground, server):
    wait_until(lambda: is_live(server))
    with live(server) as tab:
        until(tab, lambda m: m["kind"] == "state")
        ground.publish(
            positions("tracking", START_MS, players_at(START_MS), 1), scalar("roof", START_MS, 21.5)
        )
        ground.find(forecast("roof", START_MS, 21.0, 1.5))
        frame = until(tab, lambda m: m["kind"] == "positions" and m["frames"])["frames"][0]
        state = until(tab, lambda m: m.get("forecasts"))
    assert frame["t_ms"] == START_MS
    assert len(frame["objects"]) == 23
    assert state["forecasts"][0]["yhat"] == 21.0


def test_only_what_comes_after_the_start_is_live(ground):
    ground.publish(scalar("before", START_MS, 1.0))
    with DashboardServer(ground.state(), port=0) as server:
        wait_until(lambda: is_live(server))
        with live(server) as tab:
            ground.publish(scalar("after", START_MS + 1, 2.0))
            until(tab, lambda m: any(s["source"] == "after" for s in m.get("series", [])))
        answer = get_json(server, "/api/v1/sources")
        assert get_json(server, "/api/v1/sources?after=after&limit=7")["sources"] == []
        assert get(server, "/api/v1/sources?limit=0").status == 400
    assert [source["source"] for source in answer["sources"]] == ["after"]
    assert (answer["source_count"], answer["next"]) == (1, None)


def test_the_ledger_has_the_public_shape_and_adds_up(ground, server):
    ground.publish(*[scalar("roof", START_MS + i, 20.0, seq=i) for i in range(5)])
    ground.persist()
    ground.publish(scalar("roof", START_MS + 9, 20.0, seq=9))
    ground.refuse("roof", b"{", reason="not_json")
    answer = get_json(server, "/api/v1/ledger")
    assert answer["adds_up"] is True
    (line,) = answer["sources"]
    assert {k: line[k] for k in ("received", "stored", "pending", "refused")} == {
        "received": 7, "stored": 5, "pending": 1, "refused": 1,
    }  # fmt: skip
    assert answer["totals"]["received"] == 7


def test_venues_come_with_their_geometry_and_zone_areas(server):
    demo, oval = get_json(server, "/api/v1/venues")["venues"]
    assert (demo["id"], oval["pitch"]["shape"]) == ("demo", "oval")
    # N4 is 7 m by 3 m.
    assert {z["id"]: z["area_m2"] for z in demo["zones"]}["N4"] == pytest.approx(21.0)


def test_stored_documents_and_history_are_read_back_by_source(ground, server):
    ground.publish(
        *[scalar(name, START_MS + i * 1000, i, seq=i) for i in range(3) for name in ("a", "b")]
    )
    ground.find(forecast("a", START_MS + 1000, 1.1, 0.5))
    ground.persist()
    found = get_json(server, "/api/v1/collections/sensors?source=a&limit=2")["documents"]
    assert [d["temperature"] for d in found] == [2.0, 1.0]
    history = get_json(server, "/api/v1/history?source=a&quantity=temperature&limit=10")
    assert history["values"] == [[START_MS, 0.0], [START_MS + 1000, 1.0], [START_MS + 2000, 2.0]]
    assert history["forecasts"] == [[START_MS + 1000, 1.1, pytest.approx(0.6), pytest.approx(1.6)]]


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/api/v1/collections/nothing", 404, "no_collection"),
        ("/api/v1/collections/sensors?limit=0", 400, "bad_limit"),
        ("/api/v1/collections/sensors?limit=many", 400, "bad_limit"),
        (f"/api/v1/collections/sensors?limit={'9' * 5000}", 400, "bad_limit"),
        ("/api/v1/history?source=a", 400, "bad_request"),
    ],
)
def test_a_bad_question_gets_its_reason(server, path, status, reason):
    answer = get(server, path)
    assert (answer.status, json.loads(answer.text)["error"]["reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("path", "method", "status", "reason"),
    [
        ("/api/v1/nothing", "GET", 404, "no_path"),
        ("/api/v1/ledger", "POST", 405, "bad_method"),
        ("/nothing", "BREW", 404, "no_path"),
    ],
)
def test_what_is_not_there_is_told_in_the_shape_of_all_errors(server, path, method, status, reason):
    answer = get(server, path, method=method)
    assert (answer.status, json.loads(answer.text)["error"]["reason"]) == (status, reason)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Allow" in answer.headers) == (status == 405)


def test_the_data_browser_shows_documents_and_escapes_what_sensors_wrote(ground, server):
    ground.publish(scalar("<script>alert(1)</script>", START_MS, 20.25))
    ground.refuse("roof", b"<img src=x onerror=alert(1)>", reason="not_json")
    ground.persist()
    page = get(server, "/db/server/sensors").text
    letters = get(server, "/db/server/dead_letters").text
    assert "20.25" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in letters
    assert "<img src=x" not in letters


def test_a_list_of_dead_letters_tells_of_long_ones_how_long_they_are(ground, server):
    ground.refuse("roof", b"short", reason="not_json")
    ground.refuse("roof", b"x" * 100_000, reason="not_json")
    ground.persist()
    page = get(server, "/db/server/dead_letters").text
    listed = json.loads(get(server, "/api/v1/collections/dead_letters").text)["documents"]
    assert sorted((one["raw"], one.get("length")) for one in listed) == [
        ("", 100_000),
        ("short", None),
    ]
    assert "100000" in page
    assert "xxx" not in page
    assert "matchday deadletter show" in page


def test_a_list_of_large_readings_ends_where_its_bytes_do_and_says_how_to_go_on(
    ground, server, monkeypatch
):
    monkeypatch.setattr(api, "LIST_BYTES_MAX", 40_000)
    monkeypatch.setattr(browser, "PAGE_BYTES_MAX", 40_000)
    ground.publish(
        *[positions("tracking", START_MS + i, players_at(START_MS), i) for i in range(100)],
        scalar("roof", START_MS, 20.25),
    )
    ground.persist()
    path = "/api/v1/collections/positions?limit=90"
    answer = get(server, path)
    listed = json.loads(answer.text)
    assert 1 < len(listed["documents"]) < 50
    assert len(answer.text) < 41_000
    assert listed["documents"] == get_json(server, path + "&source=tracking")["documents"]
    assert listed["cut"].startswith(f"{len(listed['documents'])} of 90 documents")
    older = get_json(server, f"{path}&after={listed['next']}")["documents"]
    assert [one["seq"] for one in [*listed["documents"], *older]] == [
        *range(99, 99 - len(listed["documents"]) - len(older), -1)
    ]
    page = get(server, "/db/server/positions?limit=90").text
    assert html.escape(listed["cut"]) in page
    assert f"{len(listed['documents'])} newest documents" in page
    assert get_json(server, "/api/v1/collections/sensors")["cut"] == ""


def test_a_list_gives_one_document_however_large_and_all_where_there_is_room(ground):
    ground.publish(
        *[positions("tracking", START_MS + i, players_at(START_MS), i) for i in range(120)]
    )
    ground.persist()
    query = ground.state().query
    first = newest_within(query, "positions", limit=120, source=None, bytes_max=1)
    assert len(first.documents) == 1
    every = newest_within(query, "positions", limit=120, source=None, bytes_max=LIST_BYTES_MAX)
    assert (len(every.documents), every.cut, every.next) == (120, "", None)
    assert every.documents[0] == first.documents[0]
    fewer = newest_within(query, "positions", limit=60, source=None, bytes_max=LIST_BYTES_MAX)
    assert fewer.documents == every.documents[:60]
    assert (fewer.cut, fewer.next is None) == ("", False)


def test_dead_letters_are_read_page_by_page_on_the_page_and_by_the_interface(ground, server):
    for number in range(7):
        ground.refuse(f"s{number}", b"{", reason="not_json")
    ground.persist()
    path, seen, after = "/api/v1/collections/dead_letters?limit=3", [], ""
    while after is not None:
        listed = get_json(server, f"{path}&after={after}")
        seen += [one["source"] for one in listed["documents"]]
        after = listed["next"]
    assert sorted(seen) == [f"s{number}" for number in range(7)]
    path, seen = "/db/server/dead_letters?limit=3", []
    while path:
        page = get(server, path).text
        seen += re.findall(r"<td>(s\d)</td>", page)
        older = re.search(r'rel="next" href="([^"]*)"', page)
        path = html.unescape(older[1]) if older else ""
    assert sorted(seen) == [f"s{number}" for number in range(7)]
    assert get(server, "/api/v1/collections/dead_letters?after=nothing").status == 400


def test_the_account_is_read_page_by_page_while_every_source_speaks(ground, server):
    names = [f"s{number}" for number in range(7)]

    def all_speak(turn):
        ground.publish(*[scalar(name, START_MS + turn, 1.5, seq=turn) for name in names])
        ground.persist()

    all_speak(0)
    path, seen, pages = "/db/server/ledger?limit=3", [], []
    while path:
        pages.append(get(server, path).text)
        all_speak(len(pages))
        seen += re.findall(r"<td>(s\d)</td>", pages[-1])
        following = re.search(r'rel="next" href="([^"]*)">Next documents<', pages[-1])
        path = html.unescape(following[1]) if following else ""
    assert seen == names
    assert all("documents, by source" in page for page in pages[:-1])
    assert not any("newest" in page.casefold() for page in pages)


def test_a_page_after_the_last_document_does_not_say_that_there_is_none_yet(ground, server):
    ground.publish(scalar("a", START_MS, 1.5))
    ground.persist()
    (last,) = ground.state().query.listed("sensors", limit=5)
    page = get(server, f"/db/server/sensors?after={last.cursor}").text
    assert "No more documents in sensors." in page
    assert (
        "No documents of source b in sensors yet."
        in get(server, "/db/server/sensors?source=b").text
    )


def test_the_data_browser_filters_by_source(ground, server):
    ground.publish(scalar("a", START_MS, 1.125), scalar("b", START_MS, 2.125))
    ground.persist()
    page = get(server, "/db/server/sensors?source=b").text
    assert "2.125" in page
    assert "1.125" not in page


@pytest.mark.parametrize("path", ["/db/other/sensors", "/db/server/nothing", "/db/other"])
def test_an_unknown_database_or_collection_is_not_found(server, path):
    assert get(server, path).status == 404


def test_the_database_root_leads_to_the_one_database(server):
    answer = get(server, "/db")
    assert (answer.status, answer.headers["Location"]) == (307, "/db/server")
    assert "/db/server/sensors" in get(server, "/db/server").text


@pytest.mark.parametrize(
    "path", ["/", "/db/server", "/api/v1/ledger", "/assets/main.js", "/nothing"]
)
def test_every_answer_carries_the_security_headers(server, path):
    headers = get(server, path).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "unsafe-inline" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_foreign_host_name_is_refused(server):
    assert get(server, "/api/v1/ledger", Host="attacker.example").status == 421


def test_a_live_connection_from_a_foreign_page_is_refused(server):
    with pytest.raises(InvalidStatus), live(server, origin="https://attacker.example"):
        pass


def test_nothing_outside_the_asset_folder_is_served(server):
    for path in ("/assets/../app.py", "/assets/%2e%2e/app.py", "/assets//etc/passwd"):
        assert get(server, path).status == 404


def test_an_asset_the_browser_has_already_is_not_sent_again(server):
    first = get(server, "/assets/app.css")
    assert first.headers["Cache-Control"] == "no-cache"
    again = get(server, "/assets/app.css", If_None_Match=first.headers["ETag"])
    assert (again.status, again.text) == (304, "")


def test_who_sends_a_wrong_token_is_told_so_and_it_is_not_repeated(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        reasons = {}
        for sent in ("", "Bearer", "Bearer ", "Basic Zm9v", "Bearer open-barley"):
            headers = {"Authorization": sent} if sent else {}
            answer = get(server, "/api/v1/ledger", **headers)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "barley" not in answer.text
            reasons[sent] = json.loads(answer.text)["error"]["reason"]
        assert reasons.pop("Bearer open-barley") == "wrong_token"
        assert set(reasons.values()) == {"no_token"}


def test_with_a_token_nothing_answers_without_it_but_probes_and_the_log_in(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        assert get(server, "/api/v1/ledger").status == 401
        assert get(server, "/metrics").status == 401
        page = get(server, "/", Accept="text/html")
        assert (page.status, page.headers["Location"]) == (303, "/login")
        assert get(server, "/livez").status == 200
        assert get(server, "/login").status == 200
        allowed = get(server, "/api/v1/ledger", Authorization="Bearer open sesame")
        assert allowed.status == 200
        with pytest.raises(InvalidStatus), live(server):
            pass


def test_logging_in_leaves_a_cookie_that_opens_pages_and_the_live_connection(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        form = urllib.parse.urlencode({"token": "open sesame"})
        answer = get(server, "/login", method="POST", body=form)
        cookie = answer.headers["Set-Cookie"]
        assert answer.status == 303
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert "sesame" not in cookie
        pair = cookie.partition(";")[0]
        assert get(server, "/", Cookie=pair).status == 200
        with live(server, additional_headers={"Cookie": pair}) as tab:
            until(tab, lambda m: m["kind"] == "state")
        assert get(server, "/", Cookie=f"{COOKIE}=wrong").status == 401


def test_guessing_the_token_is_stopped_after_ten_attempts(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        codes = [get(server, "/login", method="POST", body="token=guess").status for _ in range(11)]
        assert codes == [401] * 10 + [429]


def test_who_guesses_the_token_keeps_nobody_else_out(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        for _ in range(11):
            # As a proxy on this machine tells where a request came from.
            get(server, "/login", method="POST", body="token=guess", X_Forwarded_For="198.51.100.7")
        guessed = get(
            server, "/login", method="POST", body="token=x", X_Forwarded_For="198.51.100.7"
        )
        form = urllib.parse.urlencode({"token": "open sesame"})
        assert guessed.status == 429
        assert get(server, "/login", method="POST", body=form).status == 303


def test_wrong_bearer_tokens_are_counted_as_those_of_the_log_in_page_are(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        good = {"Authorization": "Bearer open sesame"}
        assert get(server, "/metrics", **good).status == 200
        codes = [
            get(server, "/metrics", Authorization=f"Bearer guess {number}").status
            for number in range(11)
        ]
        assert codes == [401] * 9 + [401, 429]
        limited = get(server, "/metrics", Authorization="Bearer one more")
        assert limited.headers["Retry-After"] == "60"
        assert "10 wrong tokens from 127.0.0.1 within 60 s" in limited.text
        assert get(server, "/login", method="POST", body="token=guess").status == 429
        # What was right before goes on; a right one that comes now waits, else guessing would pay.
        assert get(server, "/metrics", **good).status == 200
        pair = f"{COOKIE}={cookie_value('open sesame', until_ms=2**50)}"
        assert get(server, "/metrics", Cookie=pair).status == 429
        assert get(server, "/livez").status == 200
        assert get(server, "/metrics", X_Forwarded_For="198.51.100.7", Cookie=pair).status == 200


def test_cookies_made_of_guessed_tokens_are_counted_too(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        codes = [
            get(server, "/metrics", Cookie=f"{COOKIE}={cookie_value(guess, until_ms=2**50)}").status
            for guess in "abcdefghijk"
        ]
        assert codes == [401] * 10 + [429]


def test_who_says_the_same_wrong_token_again_and_again_does_not_guess(ground):
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        old = {"Authorization": "Bearer the one before"}
        assert {get(server, "/metrics", **old).status for _ in range(30)} == {401}
        assert get(server, "/metrics", Authorization="Bearer open sesame").status == 200


def test_an_address_written_in_front_of_the_proxys_does_not_dodge_the_bound(ground):
    """A proxy appends the address that it sees to whatever the client sent."""
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        codes = [
            get(
                server,
                "/metrics",
                Authorization=f"Bearer guess {number}",
                X_Forwarded_For=f"203.0.113.{number}, 198.51.100.7",
            ).status
            for number in range(11)
        ]
        assert codes == [401] * 10 + [429]


class LaterClock(SystemClock):
    """The machine's clocks, the wall clock ahead by as much as a test says."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


def test_a_session_that_has_ended_opens_nothing(ground):
    clock = LaterClock()
    with DashboardServer(ground.state(token="open sesame", clock=clock), port=0) as server:
        form = urllib.parse.urlencode({"token": "open sesame"})
        cookie = get(server, "/login", method="POST", body=form).headers["Set-Cookie"]
        pair = cookie.partition(";")[0]
        assert get(server, "/api/v1/venues", Cookie=pair).status == 200
        clock.ahead_ms = (COOKIE_S + 1) * 1000
        assert get(server, "/api/v1/venues", Cookie=pair).status == 401


def test_half_a_request_is_not_waited_for(ground, monkeypatch):
    monkeypatch.setattr(serve, "HEAD_S_MAX", 0.2)
    monkeypatch.setattr(security, "LOGIN_S_MAX", 0.2)
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: local"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as half:
                half.sendall(said)
                assert half.recv(100) == b""
        slow = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\ntoken="
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as half:
            half.sendall(slow)
            assert half.recv(100).startswith(b"HTTP/1.1 408")


def test_a_live_connection_is_kept_while_nothing_is_said_on_it(ground, monkeypatch):
    monkeypatch.setattr(serve, "HEAD_S_MAX", 0.2)
    with DashboardServer(ground.state(), port=0) as server, live(server) as tab:
        # By the second message that tells of the sources, more than that has passed.
        until(tab, lambda m: m.get("sources") is not None)
        until(tab, lambda m: m.get("sources") is not None)
        until(tab, lambda m: m["kind"] == "state")


def test_probes_answer_at_once_while_links_store_and_account_hang(ground):
    goes_on, links_hang = threading.Event(), threading.Event()

    def hanging(*_args: object, **_options: object) -> list:
        assert goes_on.wait(60)
        return []

    def account() -> Account:
        return Account(tuple(hanging()))

    def links() -> Sequence[LinkState]:
        return hanging() if links_hang.is_set() else ground.link_states()

    query = SimpleNamespace(listed=hanging, newest=hanging, collections=hanging)
    state = ground.state(account=account, links=links, query=query)
    clock = SystemClock()
    with DashboardServer(state, port=0) as server, ThreadPoolExecutor(60) as pool:
        try:
            wait_until(lambda: is_live(server))
            links_hang.set()
            paths = ["/api/v1/ledger", "/api/v1/collections/sensors", "/db/server"]
            page = [pool.submit(get, server, paths[n % 3]) for n in range(50)]
            for path, status in 5 * [("/livez", 200), ("/readyz", 503), ("/api/v1/links", 200)]:
                began_s = clock.monotonic_s()
                answer = get(server, path)
                assert clock.monotonic_s() - began_s < 4.0
                assert answer.status == status
            assert "asking for an answer: none" in answer.text
            assert {one.result().status for one in page} == {503}
        finally:
            links_hang.clear()
            goes_on.set()
        wait_until(lambda: get(server, "/readyz").status == 200)


def test_readiness_names_the_link_that_is_down_and_since_when(ground, server):
    wait_until(lambda: is_live(server))
    assert get(server, "/readyz").status == 200
    ground.links.append(LinkState("mqtt", False, 1_700_000_000_000, "connection refused"))
    answer = get(server, "/readyz")
    down = [link for link in json.loads(answer.text)["links"] if not link["is_up"]]
    assert answer.status == 503
    assert down == [
        {"name": "mqtt", "is_up": False, "since_ms": 1_700_000_000_000,
         "detail": "connection refused"}
    ]  # fmt: skip


def test_readiness_names_no_link_to_who_has_no_token(ground):
    ground.links.append(LinkState("mqtt", False, 1_700_000_000_000, "no route to broker-7"))
    with DashboardServer(ground.state(token="open sesame"), port=0) as server:
        assert json.loads(get(server, "/readyz").text) == {"ready": False}
        known = get(server, "/readyz", Authorization="Bearer open sesame")
        assert "broker-7" in known.text


def test_credits_of_the_demo_show_once_its_data_is_there(ground):
    credit = Attribution("Match", "somebody, MIT", sources=frozenset({"roof"}))
    with DashboardServer(ground.state(attributions=[credit]), port=0) as server:
        assert get_json(server, "/api/v1/about")["attributions"] == []
        ground.counts["roof"] = Counts(accepted=1, stored=1)
        shown = get_json(server, "/api/v1/about")["attributions"]
    assert [item["name"] for item in shown] == ["Match"]


def test_it_starts_while_the_stream_is_down_and_goes_live_by_itself(ground):
    reachable = threading.Event()

    def stream():
        if not reachable.is_set():
            raise UnavailableError("connecting to the stream: refused")
        return ground.stream

    with DashboardServer(ground.state(stream=stream), port=0) as server:
        down = get(server, "/readyz")
        assert down.status == 503
        assert "live view" in down.text
        with live(server) as tab:
            reachable.set()
            wait_until(lambda: is_live(server))
            ground.publish(scalar("roof", START_MS, 21.5))
            until(tab, lambda m: any(s["value"] == 21.5 for s in m.get("series", [])))


def test_an_account_that_cannot_be_read_is_said_and_does_not_stop_the_rest(ground):
    def account():
        raise UnavailableError("reading the account: store does not answer")

    with DashboardServer(ground.state(account=account), port=0) as server:
        answer = get(server, "/api/v1/ledger")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        with live(server) as tab:
            state = until(tab, lambda m: m.get("ledger_error"))
    assert "store does not answer" in state["ledger_error"]


def test_metrics_are_in_the_prometheus_text_format(server):
    text = get(server, "/metrics").text
    assert "# TYPE matchday_dashboard_clients gauge" in text


def test_a_port_in_use_is_told_with_port_and_flag_before_anything_starts(ground):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        before = threading.active_count()
        with pytest.raises(ConfigError, match=rf"port {port}: already in use.*--http-port"):
            DashboardServer(ground.state(), port=port).start()
        assert threading.active_count() == before


def test_stopping_ends_every_thread_and_closes_tabs_as_a_restart(ground):
    before = {thread.name for thread in threading.enumerate()}
    server = DashboardServer(ground.state(), port=0)
    server.start()
    with live(server) as tab:
        until(tab, lambda m: m["kind"] == "state")
        server.stop()
        wait_until(lambda: tab.close_code is not None or _drain(tab))
        assert tab.close_code == 1012
    left = {t.name for t in threading.enumerate()} - before
    assert not {name for name in left if name.startswith("dashboard")}
    server.stop()


def _drain(tab) -> bool:
    try:
        while True:
            tab.recv(timeout=0)
    except TimeoutError:
        return False
    except Exception:  # noqa: BLE001 - the library's close exceptions; the code is asserted
        return True


def test_run_serves_until_it_is_told_to_stop(ground):
    stop = threading.Event()
    server = DashboardServer(ground.state(), port=0)
    thread = threading.Thread(target=server.run, args=(stop,), name="test.run")
    thread.start()
    wait_until(lambda: server.is_running and server.port)
    wait_until(lambda: get(server, "/livez").status == 200)
    stop.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_thread_that_ends_by_an_error_ends_the_service_and_is_named(ground):
    def account() -> Account:
        raise ValueError("decoding the account: broken")

    server = DashboardServer(ground.state(account=account), port=0)
    with pytest.raises(RuntimeError, match=r"ended by ValueError.*broken"):
        server.run(threading.Event())
    assert not server.is_running


def test_a_tick_that_ends_by_an_error_ends_the_service_and_is_named(ground, monkeypatch):
    def broken(hub: Hub) -> None:
        raise ValueError("encoding the state: broken")

    monkeypatch.setattr(Hub, "send_state", broken)
    server = DashboardServer(ground.state(), port=0)
    crashed: list[BaseException] = []

    def run() -> None:
        try:
            server.run(threading.Event())
        except RuntimeError as error:
            crashed.append(error)

    thread = threading.Thread(target=run, name="test.run")
    thread.start()
    wait_until(lambda: server.is_running and server.port and get(server, "/livez").status == 200)
    with contextlib.suppress(ConnectionClosed, TimeoutError), live(server) as tab:
        while True:
            tab.recv(timeout=DEADLINE_S)
    thread.join(DEADLINE_S)
    assert "ended by ValueError" in str(crashed[0])
