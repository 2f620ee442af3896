"""What only the embedded store promises: its file, its errors and its pace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from matchday.clock import ManualClock
from matchday.domain.account import Counts
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import Entry, Partition, PartitionWrite, Row
from matchday.sqlite import DataFolder
from matchday.store.embedded import FILE_NAME, EmbeddedStore
from matchday.store.embedded_query import EmbeddedQuery

READINGS = Partition(Topic.ANALYTICS, 1)
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with DataFolder(tmp_path):
        yield tmp_path


@pytest.fixture
def store(folder: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(folder, clock=ManualClock(wall_ms=1000))
    store.prepare()
    store.claim(READINGS, "id")
    yield store
    store.close()


def row(offset: int, **fields) -> Row:
    document = {
        "collected_at": T0 + timedelta(seconds=offset),
        "seq": offset,
        "metadata": {"sensor_id": "s"},
        **fields,
    }
    return Row("sensors", offset, document, "s")


def test_claim_gives_the_offset_after_the_last_write(folder: Path, store: EmbeddedStore):
    store.write([PartitionWrite(READINGS, 9, [row(0)])])
    assert EmbeddedStore(folder, clock=ManualClock()).claim(READINGS, "id") == 9


def test_bookmark_never_moves_back(store: EmbeddedStore):
    store.write([PartitionWrite(READINGS, 9, [row(8)])])
    store.write([PartitionWrite(READINGS, 3, [row(2)])])
    assert store.claim(READINGS, "id") == 9


def test_writing_an_unclaimed_partition_is_a_mistake(store: EmbeddedStore):
    with pytest.raises(ValueError, match="never claimed"):
        store.write([PartitionWrite(Partition(Topic.ANALYTICS, 3), 1)])


def test_write_that_breaks_off_leaves_nothing_behind(store: EmbeddedStore, folder: Path):
    """The second partition's numbers fit no column, after the first one's rows went in."""
    ledger = Partition(Topic.LEDGER, 0)
    store.claim(ledger, "id")
    broken = PartitionWrite(ledger, 1, (), [Entry(0, "new", Counts(accepted=2**70))])
    with pytest.raises(OverflowError):
        store.write([PartitionWrite(READINGS, 1, [row(0)]), broken])
    query = EmbeddedQuery(folder)
    assert query.newest("sensors", limit=1) == []
    assert query.folded().counts == {}
    store.write([PartitionWrite(READINGS, 1, [row(0)])])
    assert [found["seq"] for found in query.newest("sensors", limit=9, source="s")] == [0]
    query.close()


def test_document_that_is_no_text_is_refused(store: EmbeddedStore):
    (refusal,) = store.write([PartitionWrite(READINGS, 1, [row(0, text="\ud800")])])
    assert "cannot be encoded" in refusal.reason


def test_document_small_as_json_and_too_large_as_bson_is_refused(store: EmbeddedStore):
    (refusal,) = store.write([PartitionWrite(READINGS, 1, [row(0, numbers=[1] * 1_400_000)])])
    assert "above 16777216" in refusal.reason


@pytest.mark.parametrize("source", [None, "s"])
def test_newest_is_read_off_an_index_however_much_is_stored(
    store: EmbeddedStore, folder: Path, source: str | None
):
    store.write([PartitionWrite(READINGS, 1, [row(0)])])
    query = EmbeddedQuery(folder)
    asked: list[str] = []
    assert query._connection is not None
    query._connection.set_trace_callback(asked.append)
    (first,) = query.listed("sensors", limit=1, source=source)
    query.listed("sensors", limit=1, source=source, after=first.cursor)
    query._connection.set_trace_callback(None)
    questions = [one for one in asked if one.startswith("SELECT time_ms")]
    assert len(questions) == 2
    for question in questions:
        steps = [step[-1] for step in query._connection.execute(f"EXPLAIN QUERY PLAN {question}")]
        assert any("INDEX documents_sensors_by_" in step for step in steps)
        assert not any("TEMP B-TREE" in step for step in steps)
    assert "time_ms<?" in steps[0]
    query.close()


def test_account_shows_as_a_collection(store: EmbeddedStore, folder: Path):
    store.write([PartitionWrite(READINGS, 1, [row(0)])])
    query = EmbeddedQuery(folder)
    (found,) = query.newest("ledger", limit=5)
    assert (found["_id"], found["stored"]) == ("s", 1)
    assert found["updated_at"] == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert query.newest("ledger", limit=5, source="nobody") == []
    query.close()


def test_newer_format_of_the_folder_is_refused(store: EmbeddedStore, folder: Path):
    (folder / "format").write_text("99\n")
    with pytest.raises(ConfigError, match="99 is newer"):
        store.prepare()
    with pytest.raises(ConfigError, match="99 is newer"):
        EmbeddedQuery(folder)


def test_table_of_another_shape_is_named(folder: Path):
    connection = sqlite3.connect(folder / FILE_NAME)
    connection.execute(
        "CREATE TABLE documents_sensors (source, time_ms, coordinates, document, extra)"
    )
    connection.close()
    store = EmbeddedStore(folder, clock=ManualClock())
    with pytest.raises(ConfigError, match="table documents_sensors has columns"):
        store.prepare()
    store.close()


def test_folder_without_a_store_is_named(folder: Path):
    with pytest.raises(ConfigError, match="no such file"):
        EmbeddedQuery(folder)


def test_closed_store_and_query_are_unavailable(store: EmbeddedStore, folder: Path):
    query = EmbeddedQuery(folder)
    query.close()
    store.close()
    with pytest.raises(UnavailableError):
        store.write([PartitionWrite(READINGS, 1, [row(0)])])
    with pytest.raises(UnavailableError):
        query.folded()
    assert not store.link().is_up
    assert not query.link().is_up
