"""Fixtures for tests on a real container engine: the images, and one deployment at a time.

Without an engine, or without stand-ins for the images, these tests are skipped with the
reason, or fail where REQUIRE names "containers" or "all". MATCHDAY_TEST_ENGINE=start (as
`make test-containers` sets it) lets them start an engine where there is none, and that one
is stopped at the end. Figures that a test measures are printed after the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator

import pytest

from containers import engine
from containers.commands import docker
from containers.deployments import Deployment, Deployments, remove_leftovers
from containers.stack import ROOT, VERSION
from servers.install import is_required

LOGS_DIR = ROOT / "build" / "container-logs"
_FIGURES = pytest.StashKey[list[tuple[str, str]]]()
_CURRENT = pytest.StashKey[Deployments]()


@pytest.fixture(scope="session")
def require() -> Callable[[str, str], None]:
    """Give a function that skips with a reason, or fails where REQUIRE names the part."""

    def missing(name: str, reason: str) -> None:
        if is_required(name, os.environ.get("REQUIRE", "")):
            pytest.fail(f"REQUIRE wants {name}: {reason}", pytrace=False)
        pytest.skip(f"{name}: {reason}")

    return missing


@pytest.fixture(scope="session")
def images(require: Callable[[str, str], None]) -> Iterator[None]:
    """See to a running engine and to every image of `compose.yaml`."""
    with engine.running(may_start=os.environ.get("MATCHDAY_TEST_ENGINE") == "start") as lack:
        if lack is not None:
            require("containers", lack)
        remove_leftovers()
        engine.ensure_images()
        docker("build", "-f", f"{ROOT}/deploy/Dockerfile", "-t", f"matchday:{VERSION}", str(ROOT))
        yield
        for tag in docker("images", "-q", "--filter", f"reference=matchday:{VERSION}*").split():
            docker("rmi", "--force", tag)


@pytest.fixture(scope="session")
def deployments(images: None, request: pytest.FixtureRequest) -> Iterator[Deployments]:
    """Give what starts deployments; the last one is removed at the end, its logs kept."""
    LOGS_DIR.mkdir(parents=True, exist_ok=True)
    found = Deployments(LOGS_DIR)
    request.config.stash[_CURRENT] = found
    try:
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def quiet(deployments: Deployments) -> Deployment:
    """Give a deployment as a newcomer starts it, with three sensors and the tools."""
    return deployments.use("quiet", scale={"sensor": 3}, profiles=("tools",))


@pytest.fixture(scope="session")
def record_figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Give a function that notes a measured figure for the summary of the run."""
    found = request.config.stash.setdefault(_FIGURES, [])
    return lambda name, value: found.append((name, value))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures, on stand-in images, as what they are."""
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures, on stand-ins for the third-party images")
        for name, value in figures:
            terminalreporter.line(f"{name:<64} {value}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the states and the ends of all logs to the report of a test that failed."""
    report = yield
    running = item.config.stash.get(_CURRENT, None)
    stack = None if running is None else running.current()
    if report.failed and stack is not None:
        report.sections.append((f"containers of {stack.project}", stack.diagnosis()))
    return report
