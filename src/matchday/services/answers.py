"""The reading commands: each opens what it needs, prints one answer, and closes it again."""

from __future__ import annotations

import base64
from collections import deque
from contextlib import closing
from typing import Any, Literal

import msgspec

from matchday.clock import Clock
from matchday.config import Loaded, Settings, show
from matchday.domain.account import Account, AccountLine
from matchday.domain.topics import Topic
from matchday.errors import ConfigError, RefusedError
from matchday.ports import Partition, Start, Stream, StreamRecord
from matchday.services.accounting import settled_account, to_the_end, verify
from matchday.services.doctor import Diagnosis, examine
from matchday.services.links import (
    check_addresses,
    feed_opener,
    is_embedded,
    open_query,
    open_stream,
    read_token,
)
from matchday.services.printing import (
    in_one_line,
    print_bytes,
    print_json,
    print_table,
    say,
)

FIELDS = (
    "source",
    "received",
    "stored",
    "pending",
    "duplicate",
    "refused",
    "expired",
    "missing",
)
PREVIEW_CHARS = 60
PARTITION_DIGITS_MAX = 9
OFFSET_DIGITS_MAX = 18
LETTERS_AT_ONCE = 10


def ledger(
    settings: Settings, *, source: str | None, is_verified: bool, as_json: bool, clock: Clock
) -> bool:
    """Print the account; tell whether it adds up.

    Raises:
        UnavailableError: Stream or store does not answer.
        ConfigError: The source is not in the account.
    """
    with closing(_open_reading(settings, clock)) as stream, closing(open_query(settings)) as query:
        account = settled_account(stream, query, clock=clock)
        wrong = []
        if is_verified:
            documents = query.document_count_by_source()
            wrong = verify(account, documents, later=settled_account(stream, query, clock=clock))
    if source is not None:
        lines = tuple(line for line in account.lines if line.source == source)
        if not lines:
            raise ConfigError(f"reading the ledger: no source is called {source[:80]!r}")
        account = Account(lines)
        wrong = [mismatch for mismatch in wrong if mismatch.source == source]
    adds_up = account.adds_up and not wrong
    if as_json:
        print_json(
            {
                "sources": [_line_row(line) for line in account.lines],
                "totals": {
                    name: count
                    for name, count in _line_row(account.totals).items()
                    if name != "source"
                },
                "adds_up": adds_up,
            }
            | (
                {"verify": [msgspec.to_builtins(mismatch) for mismatch in wrong]}
                if is_verified
                else {}
            )
        )
        return adds_up
    rows = [*account.lines, account.totals]
    print_table(
        [*FIELDS, "adds up"],
        [
            [*(str(value) for value in _line_row(line).values()), "yes" if line.adds_up else "NO"]
            for line in rows
        ],
    )
    for mismatch in wrong:
        say(
            f"{mismatch.source}: {mismatch.documents} documents, {mismatch.stored} stored and "
            f"{mismatch.pending} pending"
        )
    if is_verified and not wrong:
        say("verified: the documents agree with the account")
    return adds_up


def show_settings(loaded: Loaded, *, as_json: bool) -> None:
    """Print every setting."""
    rows = show(loaded)
    if as_json:
        print_json([msgspec.to_builtins(row) for row in rows])
        return
    print_table(
        ["setting", "value", "origin", "bound", "meaning"],
        [[row.name, row.value, row.origin, row.bound, row.description] for row in rows],
    )


def check_settings(settings: Settings) -> None:
    """Check what only opening a file shows; the settings themselves were checked on loading.

    Raises:
        ConfigError: A file is wrong.
    """
    import random

    from matchday.clock import SystemClock
    from matchday.ingest.adapters import Adapters
    from matchday.services.analysis import plan_of
    from matchday.services.setup import read_accounts
    from matchday.services.stages import zone_of

    plan_of(settings)
    zone_of(settings.ingest.zone)
    Adapters(settings.ingest.adapters)
    check_addresses(settings)
    read_accounts(settings.setup.accounts_file)
    read_token(settings.http.token_file)
    for slot in settings.ingest.all_slots():
        feed_opener(settings, slot, clock=SystemClock(), rng=random.Random())
    say("the configuration is right")


def list_dead_letters(settings: Settings, *, limit: int, as_json: bool, clock: Clock) -> None:
    """Print the newest dead letters, newest first."""
    rows: deque[dict[str, Any]] = deque(maxlen=limit)
    with (
        closing(_open_reading(settings, clock)) as stream,
        closing(stream.reader([Topic.DEAD_LETTERS], Start.last(limit))) as reader,
    ):
        # Row by row: of messages of several megabytes only the beginnings are kept.
        for record in to_the_end(reader, records_max=LETTERS_AT_ONCE):
            rows.appendleft(_letter_row(record))
    if as_json:
        print_json(list(rows))
        return
    print_table(
        ["id", "time", "source", "reason", "topic", "bytes", "begins"],
        [
            [
                row["id"],
                row["time"],
                row["source"],
                row["reason"],
                row["topic"][:PREVIEW_CHARS],
                str(row["bytes"]),
                row["text"][:PREVIEW_CHARS],
            ]
            for row in rows
        ],
    )


def show_dead_letter(
    settings: Settings, identity: str, *, is_raw: bool, as_json: bool, clock: Clock
) -> None:
    """Print one dead letter whole.

    Raises:
        ConfigError: The id is not of the form `partition-offset`.
        RefusedError: There is no such dead letter (`no_dead_letter`).
    """
    partition, _, offset = identity.partition("-")
    is_id = partition.isdecimal() and offset.isdecimal()
    if not is_id or len(partition) > PARTITION_DIGITS_MAX or len(offset) > OFFSET_DIGITS_MAX:
        raise ConfigError(f"reading dead letter {identity[:80]!r}: an id looks like 0-17")
    place = Partition(Topic.DEAD_LETTERS, int(partition))
    found = _dead_letter(settings, place, int(offset), clock=clock)
    if found is None:
        raise RefusedError("no_dead_letter", f"reading dead letter {identity}: there is none")
    if is_raw:
        print_bytes(found.value)
        return
    row = _letter_row(found)
    if as_json:
        print_json(row | {"base64": base64.b64encode(found.value).decode()})
        return
    for name, value in row.items():
        if name != "text":
            say(f"{name:8} {in_one_line(str(value))}", to_result=True)
    say("", to_result=True)
    say(row["text"], to_result=True)


def doctor(
    settings: Settings, *, as_json: bool, clock: Clock
) -> Literal["well", "wrong", "unreachable"]:
    """Print what is wrong with each link and what to do; tell how bad the worst is."""
    found = examine(settings, clock=clock)
    if as_json:
        print_json([msgspec.to_builtins(item) for item in found])
    else:
        print_table(["link", "state", "what to do"], [_diagnosis_row(item) for item in found])
    if not all(item.is_reachable for item in found):
        return "unreachable"
    return "wrong" if any(item.problems for item in found) else "well"


def _diagnosis_row(item: Diagnosis) -> list[str]:
    state = "unreachable" if not item.is_reachable else "look" if item.problems else "well"
    risks = [f"(a risk) {sentence}" for sentence in item.risks]
    unasked = [f"(not asked) {sentence}" for sentence in item.unasked]
    return [item.link, state, "\n".join([*item.problems, *risks, *unasked])]


def _open_reading(settings: Settings, clock: Clock) -> Stream:
    embedded = is_embedded(settings.stream.url.get_secret_value())
    return open_stream(settings, clock=clock, read_only=embedded)


def _dead_letter(
    settings: Settings, place: Partition, offset: int, *, clock: Clock
) -> StreamRecord | None:
    """Read one dead letter; None where there is none at this place."""
    with (
        closing(_open_reading(settings, clock)) as stream,
        closing(stream.reader([place.topic], Start.at({place: offset}))) as reader,
    ):
        for record in to_the_end(reader, records_max=LETTERS_AT_ONCE):
            if record.partition == place.number:
                # What was at a place that retention has passed is gone: this is the next one.
                return record if record.offset == offset else None
    return None


def _letter_row(record: StreamRecord) -> dict[str, Any]:
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    return {
        "id": f"{record.partition}-{record.offset}",
        "time": headers.get("time", ""),
        "source": headers.get("source", record.key.decode(errors="replace")),
        "reason": headers.get("reason", ""),
        "detail": headers.get("detail", ""),
        "topic": headers.get("topic", ""),
        "bytes": int(headers.get("length", len(record.value))),
        "text": record.value[:65536].decode(errors="backslashreplace"),
    }


def _line_row(line: AccountLine) -> dict[str, Any]:
    return {name: getattr(line, name) for name in FIELDS}
