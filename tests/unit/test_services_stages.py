"""Claims about what stages are told: the settings, and what an embedded part changes in them."""

from __future__ import annotations

import pytest

from matchday.config import load
from matchday.services.stages import EMBEDDED_BATCH_RECORDS_MAX, persist_policy


@pytest.mark.parametrize(
    ("url", "wanted", "given"),
    [
        ("embedded:", 8000, EMBEDDED_BATCH_RECORDS_MAX),
        ("embedded:", 50, 50),
        ("mongodb://db", 8000, 8000),
    ],
)
def test_batches_of_an_embedded_store_stay_small(url: str, wanted: int, given: int):
    overrides = {"store.url": url, "persist.batch_records_max": wanted}
    settings = load(environ={}, overrides=overrides).settings
    assert persist_policy(settings).batch_records_max == given
