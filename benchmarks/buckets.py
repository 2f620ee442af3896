"""What a reading costs MongoDB by how many measurements a bucket of a time series may hold.

The server rewrites a source's open bucket with each write that brings it a reading, so the
fuller the bucket, the dearer; `timeseriesBucketMaxCount` of the server closes it earlier than
its default of 1,000. Our own store and query do the work of `shapes`, with 100 sources, until
each has 1,000 readings or more: few in a write, as at a paced rate, and many, as while a backlog
is drained. Beside them a regular collection, which has no buckets. A server of its own for each.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from report import Figure, arguments, machine, progress, report
from shapes import take

from matchday.store.documents import Shape
from servers.mongo import BUCKET_MAX_COUNT, Mongo

SOURCES: Final = 100
BUCKETS: Final = f"1000,250,{BUCKET_MAX_COUNT},60"
PER_SOURCE: Final = (1, 4, 40)
"""Readings of a source in a write: at 500/s and 2,000/s with the default linger, and in a drain."""


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, messages=100_000, buckets=BUCKETS)
    machine_is = machine()
    parts: dict[str, list[Figure]] = {}
    wanted: list[tuple[str, Shape]] = [(count, "timeseries") for count in given.buckets.split(",")]
    wanted.append((str(BUCKET_MAX_COUNT), "regular"))
    for number in range(given.rounds):
        for count, shape in wanted[::-1] if number % 2 else wanted:
            name = "regular" if shape == "regular" else f"{count} in a bucket"
            progress(f"round {number + 1}: {name}")
            parameters = {"timeseriesBucketMaxCount": count}
            with (
                tempfile.TemporaryDirectory(prefix="matchday-bench-") as folder,
                Mongo(Path(folder) / "mongo", parameters) as mongo,
            ):
                take(mongo, shape, 20, messages=20_000, size=2000)
                for per_source in PER_SOURCE:
                    size = SOURCES * per_source
                    one = take(mongo, shape, per_source, messages=given.messages, size=size)
                    title = f"{per_source} readings of a source in a write"
                    parts.setdefault(title, []).append(replace(one, system=name))
    title = f"Size of buckets: {SOURCES} sources, the account included"
    report(title, machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
