"""The same recordings through the embedded parts and through the real servers.

What is stored and what is found must not depend on what the product runs on: the same
readings, to the message, and the same findings, to the last bit of every number.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from matchday.sensors.recordings import ReadOptions, open_recording
from system.deployments import EXAMPLES, Deployment, embedded, is_of_the_end, real

MATCH_FRAMES = 1500
CROWD_FRAMES = 1657
END_COUNTS = 2
WINDOW_MS = 10_000
LATENESS_MS = 2_000

# Silence closes a window by the stream's own clock, that is by how fast this machine is.
# With the longest silence there is, event time alone decides.
SETTINGS = {
    "MATCHDAY_VENUE__FILES": str(EXAMPLES / "venues" / "demo.toml"),
    "MATCHDAY_ANALYSIS__IDLE_S": "300",
}
COLLECTIONS = ("positions", "player_metrics", "crowd_metrics")
CROWD = EXAMPLES / "recordings" / "crowd-bottleneck.txt.gz"
CROWD_OPTIONS = ("--source", "camera-north", "--offset", "0", "44")

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Outcome:
    """What one deployment made of the recordings: comparable documents by collection."""

    documents: dict[str, Counter[str]]
    spans: dict[str, set[tuple[int, int]]]
    totals: dict[str, int]


@pytest.fixture(scope="module")
def match(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the first minute of the bundled match as a recording of its own."""
    file = tmp_path_factory.mktemp("recordings") / "match.csv"
    with gzip.open(EXAMPLES / "recordings" / "match.csv.gz", "rt", encoding="utf-8") as lines:
        file.write_text("".join(islice(lines, 1 + MATCH_FRAMES)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def on_embedded(match: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Give what `matchday up` made of them."""
    with embedded(tmp_path_factory.mktemp("up"), SETTINGS) as deployment:
        return outcome(deployment, match)


@pytest.fixture(scope="module")
def on_servers(
    match: Path,
    tmp_path_factory: pytest.TempPathFactory,
    need_server: Callable[[str], None],
    servers_dir: Callable[[str], Path],
) -> Iterator[Outcome]:
    """Give what Mosquitto, Kafka and MongoDB with our processes between them made of them."""
    with real(
        tmp_path_factory.mktemp("real"),
        SETTINGS,
        need_server=need_server,
        servers_dir=servers_dir,
    ) as deployment:
        yield outcome(deployment, match)


def outcome(deployment: Deployment, match: Path) -> Outcome:
    deployment.replay(match)
    deployment.replay(CROWD, *CROWD_OPTIONS)
    account = deployment.finish("demo")
    assert account["exit"] == 0
    return Outcome(
        {name: deployment.compared(name) for name in COLLECTIONS},
        {name: spans(deployment, name) for name in COLLECTIONS[1:]},
        account["totals"],
    )


def spans(deployment: Deployment, collection: str) -> set[tuple[int, int]]:
    """Give the spans of all findings, milliseconds UTC."""
    return {
        (
            round(one["span_start"].timestamp() * 1000),
            round(one["span_end"].timestamp() * 1000),
        )
        for one in deployment.read(collection)
        if not is_of_the_end(one)
    }


def passed_windows(recording: Path) -> set[tuple[int, int]]:
    """Give the windows that the watermark passes: event time alone decides."""
    times = [message.t_ms for message in open_recording(recording, ReadOptions())]
    starts = {t_ms - t_ms % WINDOW_MS for t_ms in times}
    watermark_ms = max(times) - LATENESS_MS
    return {(at, at + WINDOW_MS) for at in starts if at + WINDOW_MS <= watermark_ms}


def test_same_readings_are_stored_to_the_message(on_embedded, on_servers):
    assert on_embedded.documents["positions"] == on_servers.documents["positions"]
    # One document for each message, none twice.
    assert set(on_embedded.documents["positions"].values()) == {1}
    assert on_embedded.documents["positions"].total() == MATCH_FRAMES + CROWD_FRAMES


@pytest.mark.parametrize("collection", ["player_metrics", "crowd_metrics"])
def test_same_findings_are_stored_to_the_last_bit(on_embedded, on_servers, collection):
    assert on_embedded.documents[collection] == on_servers.documents[collection]
    assert set(on_embedded.documents[collection].values()) == {1}


def test_windows_are_emitted_by_event_time_alone(match, on_embedded, on_servers):
    expected = {
        "player_metrics": passed_windows(match),
        "crowd_metrics": passed_windows(CROWD),
    }
    assert len(expected["player_metrics"]) >= 5
    assert len(expected["crowd_metrics"]) >= 6
    assert on_embedded.spans == expected
    assert on_servers.spans == expected


def test_accounts_are_equal(on_embedded, on_servers):
    assert on_embedded.totals == on_servers.totals
    assert on_embedded.totals["stored"] == MATCH_FRAMES + CROWD_FRAMES + END_COUNTS
