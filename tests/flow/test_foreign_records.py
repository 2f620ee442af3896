"""What another program puts into the stream stops nothing: it is set aside, the rest goes on."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from matchday.clock import SystemClock
from matchday.config import load
from matchday.domain.account import Counts, LedgerRecord, encode_ledger
from matchday.domain.topics import Topic
from matchday.ports import Record
from matchday.services.together import build_together
from matchday.sqlite import DataFolder
from matchday.stream.embedded import EmbeddedStream
from servers.process import wait_until

pytestmark = pytest.mark.timeout(90)

DEEP = b"[" * 100_000 + b"]" * 100_000
LEDGER = encode_ledger(
    LedgerRecord(slot="all", tick="t", ts="2026-01-01T00:00:00.000Z", counts={"s": Counts(1)})
)


def reading(ts: str, value: float = 1.0, *, sensor: str = "foreign") -> bytes:
    return json.dumps({"v": value, "ts": ts, "sensor": sensor, "quantity": "q"}).encode()


WINDOW = [
    reading("2026-01-01T00:00:01Z", 1e308),
    reading("2026-01-01T00:00:02Z", -1e308),
    reading("2026-01-01T01:00:00Z"),
]
"""Three readings in order: a window whose spread no float can say, and what ends it."""

REFUSED: list[tuple[Topic, bytes]] = [
    (Topic.ANALYTICS, reading("2026-01-01T00:00:00Z").replace(b"}", b', "junk": ' + DEEP + b"}")),
    (Topic.ANALYTICS, reading("0001-01-01T00:00:00+05:00")),
    (Topic.LEDGER, LEDGER.replace(b'"s"', b'"s\xff"')),
    (Topic.LEDGER, LEDGER.replace(b"}", b', "junk": ' + DEEP + b"}")),
    (Topic.RESULTS, b'{"0": {"ds": "2026-01-01", "sensor": "a", "yhat": 1' + b"0" * 400 + b"}}"),
    (Topic.RESULTS, b'{"0": {"ds": "2026-01-01", "sensor": "\\ud800", "yhat": 1}}'),
    (
        Topic.RESULTS,
        b'{"0": {"ds": "2026-01-01", "sensor": "a", "yhat": 1, "junk": ' + DEEP + b"}}",
    ),
]

Page = Callable[[str], Any]


@pytest.fixture
def page(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Page]:
    """Run `matchday up` on a stream that another program has written to; give its answers."""
    folder = tmp_path / "data"
    put(folder, [*REFUSED, *((Topic.ANALYTICS, value) for value in WINDOW)])
    environ = {
        "MATCHDAY_DATA_DIR": str(folder),
        "MATCHDAY_HTTP__PORT": "0",
        "MATCHDAY_MQTT__PORT": "0",
    }
    service = build_together(load(environ=environ).settings, demo=False, clock=SystemClock())
    running = threading.Thread(target=service.run, name="up")
    running.start()
    said = ""

    def address() -> str | None:
        nonlocal said
        said += capfd.readouterr().err
        found = re.search(r"^page +(\S+)$", said, re.MULTILINE)
        return None if found is None else found[1]

    def answer(path: str) -> Any:
        assert running.is_alive(), said
        with urllib.request.urlopen(f"{address()}api/v1/{path}", timeout=10) as found:
            return json.load(found)

    try:
        wait_until(lambda: address() is not None, what="the page is told of", timeout_s=30)
        yield answer
        assert running.is_alive(), said
    finally:
        service.request_stop()
        running.join()


def put(folder: Path, records: list[tuple[Topic, bytes]]) -> None:
    own, stream = DataFolder(folder), EmbeddedStream(folder, clock=SystemClock())
    with closing(own), closing(stream):
        stream.prepare()
        with closing(stream.producer("another program")) as producer:
            for topic, value in records:
                producer.commit({topic: [Record(b"k", value)]})


def test_everything_goes_on_and_what_cannot_be_read_is_a_dead_letter(page: Page):
    def stored(collection: str) -> list[dict[str, Any]]:
        return list(page(f"collections/{collection}?limit=100")["documents"])

    wait_until(lambda: len(stored("sensors")) == len(WINDOW), what="the readings are stored")
    wait_until(lambda: len(stored("dead_letters")) == len(REFUSED), what="the rest is set aside")
    # Nobody received them here, and the account does not hide it.
    wait_until(lambda: accounted(page("ledger")) == (len(WINDOW), False), what="they are counted")


def accounted(ledger: dict[str, Any]) -> tuple[int, bool]:
    """Give how many readings of the other program are stored by the account, and if it adds up."""
    stored = {line["source"]: line["stored"] for line in ledger["sources"]}
    return stored.get("foreign", 0), bool(ledger["adds_up"])
