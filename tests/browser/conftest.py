"""Fixtures for tests in a real browser: the system's Chromium, a ground, a server, a page.

A missing browser is a skip with its reason, or a failure where REQUIRE names "chromium" or
"all". Every page notes console messages, script errors and requests to another host, and
the fixture checks that there were none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser.ground import Ground
from matchday.dashboard.serve import DashboardServer
from servers.install import is_required

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 20_000


def missing_browser() -> str | None:
    """Say why no browser can be used, or None."""
    try:
        import playwright.sync_api  # noqa: F401 - only whether it is there
    except ImportError:
        return "the package playwright is not installed"
    if find_chromium() is None:
        return "no chromium on PATH"
    return None


def find_chromium() -> str | None:
    """Give the system's Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium():
    """Give a running browser.

    It ends with its module: while it runs, its event loop stands in the way of `asyncio.run`
    in the tests of others.
    """
    reason = missing_browser()
    if reason is not None:
        if is_required("chromium", os.environ.get("REQUIRE", "")):
            pytest.fail(f"REQUIRE wants chromium: {reason}", pytrace=False)
        pytest.skip(f"chromium: {reason}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Give an empty ground on the embedded stream and store."""
    found = Ground(tmp_path / "data")
    yield found
    found.close()


@pytest.fixture
def server(ground: Ground) -> Iterator[DashboardServer]:
    """Give a dashboard of that ground on a free port."""
    with DashboardServer(ground.state(), port=0) as running:
        yield running


@pytest.fixture
def open_page(chromium) -> Iterator[Callable]:
    """Give a function that opens an address; at the end nothing may have gone wrong there.

    `tolerate` are parts of console messages that the test provokes itself.
    """
    contexts = []
    faults: list[str] = []
    tolerated: list[str] = []

    def open_(url: str, *, width: int = 1400, scheme: str = "dark", tolerate=(), **options):
        tolerated.extend(tolerate)
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        home = url.split("/")[2]
        page.on("console", lambda m: faults.append(f"console: {m.text}"))
        page.on("pageerror", lambda e: faults.append(f"script: {e}"))
        page.on(
            "request",
            lambda r: faults.append(f"foreign: {r.url}") if r.url.split("/")[2] != home else None,
        )
        page.on(
            "websocket",
            lambda w: faults.append(f"foreign: {w.url}") if w.url.split("/")[2] != home else None,
        )
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [f for f in faults if not any(part in f for part in tolerated)] == []
