"""Looking through a whole SQLite file for damage, for people who ask.

Owns one question. Does not own the file, and mends nothing. It reads every page, so it takes
as long as reading the file does; nothing asks it while the flow depends on the answer.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from matchday.errors import ConfigError
from matchday.sqlite import open_reader
from matchday.sqlite_errors import translated


def damage(path: Path) -> list[str]:
    """Give what is damaged in a file, one sentence; nothing where it is whole.

    May run beside the file's writer. What only a comparison with the other files can tell
    (a file that is older than the others) is not found.

    Raises:
        UnavailableError: The file is locked or the disk answers with an error; try again.
    """
    try:
        with closing(open_reader(path)) as connection, translated("checking", path):
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except ConfigError as error:
        return [str(error)]
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found == "ok":
        return []
    reason = " ".join(str(found).split())
    return [
        f"{path} is damaged ({reason}): stop, keep a copy of it with its -wal file, then try "
        "`sqlite3 FILE .recover`, or move it away: of the stream, what is not stored yet is "
        "lost with it; of the store, what the stream has is stored again"
    ]
