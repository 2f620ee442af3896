"""What doctor and `config check` find without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from matchday.clock import SystemClock
from matchday.config import load
from matchday.errors import ConfigError
from matchday.services.answers import check_settings
from matchday.services.doctor import examine
from matchday.services.links import claim_folder, open_store


def test_doctor_tells_of_a_data_folder_that_is_too_new(tmp_path: Path) -> None:
    settings = load(environ={"MATCHDAY_DATA_DIR": str(tmp_path)}).settings
    folder, store = claim_folder(settings), open_store(settings, clock=SystemClock())
    assert folder is not None
    store.prepare()
    store.close()
    folder.close()
    (tmp_path / "format").write_text("99\n")
    found = {one.link: one for one in examine(settings, clock=SystemClock())}
    assert "format 99 is newer" in found["store"].problems[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STORE__URL", "postgres://h"),
        ("STREAM__URL", "kakfa://h"),
        ("INGEST__ZONE", "Mars"),
        ("INGEST__ADAPTERS", "x"),
        ("SETUP__ACCOUNTS_FILE", "/nonexistent"),
    ],
)
def test_check_refuses_what_a_service_would(variable: str, value: str) -> None:
    with pytest.raises(ConfigError):
        check_settings(load(environ={f"MATCHDAY_{variable}": value}).settings)
