"""The two books that must agree: the product's own account, and the documents themselves.

The account is asked for as an administrator does, in the server's container. The documents
are counted by a plain pymongo client as the database's root, by (source, seq), so that
nothing of the product decides whether something was lost or stored twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pymongo import MongoClient

from containers.commands import CLOCK
from containers.stack import Stack


@contextmanager
def database(stack: Stack) -> Iterator[Any]:
    """Give the product's database through its published port, as root."""
    password = stack.execute("mongo", "cat", "/run/secrets/root_password").stdout.strip()
    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1",
        stack.port("MONGO"),
        username="root",
        password=password,
        directConnection=True,
        serverSelectionTimeoutMS=10_000,
    )
    try:
        yield client["server"]
    finally:
        client.close()


def ledger(stack: Stack) -> dict[str, Any]:
    """Give `matchday ledger --json --verify` with its exit code as "exit"."""
    done = stack.execute("server", "matchday", "ledger", "--json", "--verify", is_checked=False)
    assert done.stdout.startswith("{"), f"ledger: exit {done.returncode}: {done.stderr}"
    return {**json.loads(done.stdout), "exit": done.returncode}


def lines(stack: Stack) -> dict[str, dict[str, Any]]:
    """Give the account's line of each source."""
    return {line["source"]: line for line in ledger(stack)["sources"]}


def counted(stack: Stack, sources: Collection[str]) -> Counter[tuple[str, int]]:
    """Count the stored readings of these sources by (source, seq)."""
    found: Counter[tuple[str, int]] = Counter()
    with database(stack) as held:
        for document in held["sensors"].find(
            {"metadata.sensor_id": {"$in": list(sources)}},
            {"_id": 0, "metadata.sensor_id": 1, "seq": 1},
            batch_size=20_000,
        ):
            found[document["metadata"]["sensor_id"], document["seq"]] += 1
    return found


def behind_s(held: Any, sources: Collection[str]) -> float:
    """Give how old the newest stored reading of the most belated source is, seconds.

    Args:
        held: As `database` gives it.
        sources: Those that speak all the time.
    """
    now = datetime.fromtimestamp(CLOCK.wall_ms() / 1000, UTC).replace(tzinfo=None)
    ages_s: list[float] = []
    for source in sources:
        newest = held["sensors"].find_one(
            {"metadata.sensor_id": source}, {"collected_at": 1}, sort=[("collected_at", -1)]
        )
        if newest is None:
            return float("inf")
        ages_s.append((now - newest["collected_at"]).total_seconds())
    return float(max(ages_s))
