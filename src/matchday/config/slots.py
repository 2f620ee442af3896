"""Ingest slots: reading their rows, and whether two MQTT filters can match one message.

A slot is a name with topic filters. Which replica works on which slot is not decided here
but in `matchday.ingest.slots`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SLOT_PATTERN: Final = r"^[a-z0-9-]{1,40}$"
FILTER_BYTES_MAX: Final = 65_535
SLOTS_MAX: Final = 100

_SLOT_NAME: Final = re.compile(r"[a-z0-9-]{1,40}")
_SHARED: Final = "$share/"


@dataclass(frozen=True)
class Slot:
    """One ingest slot.

    Attributes:
        name: Makes the MQTT client id and the transactional id `matchday-ingest-<name>`.
        filters: MQTT topic filters, as they were given.
    """

    name: str
    filters: tuple[str, ...]

    @property
    def owner(self) -> str:
        """Give the name under which it is known to the broker and to the stream."""
        return f"matchday-ingest-{self.name}"


def read_slots(rows: Sequence[str]) -> tuple[Slot, ...]:
    """Read rows `NAME=FILTER`; a name that repeats has several filters.

    The order is that of the first row of each name: it numbers the partitions of
    `ingest_slots`, so all replicas must have the same rows in the same order.

    Raises:
        ValueError: A row has no `=`, a name or filter is not valid, or filters of two slots
            can match the same message.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        name, equals, topic_filter = row.partition("=")
        if not equals or not _SLOT_NAME.fullmatch(name):
            raise ValueError(
                f"row {row!r} is no NAME=FILTER with a name of 1 to 40 of a-z, 0-9 and -"
            )
        if fault := _filter_fault(topic_filter):
            raise ValueError(f"row {row!r}: the topic filter {fault}")
        found.setdefault(name, []).append(topic_filter)
    if len(found) > SLOTS_MAX:
        raise ValueError(f"{len(found)} slots, above {SLOTS_MAX}")
    slots = tuple(Slot(name, tuple(filters)) for name, filters in found.items())
    _check_apart(slots)
    return slots


def slots_of(rows: Sequence[str], *, name: str, filters: tuple[str, ...]) -> tuple[Slot, ...]:
    """Give the slots of the rows, or the one slot of this name where there are none."""
    return read_slots(rows) or (Slot(name, filters),)


def filters_overlap(one: str, other: str) -> bool:
    """Tell whether some MQTT topic matches both filters (MQTT 5, sections 4.7.1 and 4.7.2).

    Both must be valid. `#` also stands for no level at all, so `a/#` and `a` overlap; a
    wildcard in the first level matches no topic that begins with `$`.
    """
    ours, theirs = one.split("/"), other.split("/")
    for first, against in ((ours[0], theirs[0]), (theirs[0], ours[0])):
        if first in ("+", "#") and against.startswith("$"):
            return False
    for mine, yours in zip(ours, theirs, strict=False):
        if "#" in (mine, yours):
            return True
        if mine != yours and "+" not in (mine, yours):
            return False
    shared = min(len(ours), len(theirs))
    rest = ours[shared:] or theirs[shared:]
    return not rest or rest[0] == "#"


def _check_apart(slots: Sequence[Slot]) -> None:
    for number, slot in enumerate(slots):
        for other in slots[number + 1 :]:
            for ours in slot.filters:
                for theirs in other.filters:
                    if filters_overlap(ours, theirs):
                        raise ValueError(
                            f"slots {slot.name} ({ours}) and {other.name} ({theirs}) overlap: a "
                            "message that matches both would be taken twice"
                        )


def _filter_fault(topic_filter: str) -> str:
    """Tell what makes a filter unfit for a slot; empty when nothing does."""
    levels = topic_filter.split("/")
    if not topic_filter or "\0" in topic_filter:
        return "is empty or has a NUL"
    if len(topic_filter.encode()) > FILTER_BYTES_MAX:
        return f"has more than {FILTER_BYTES_MAX} bytes"
    if topic_filter.startswith(_SHARED):
        return "is a shared subscription, which keeps no order: give slots to replicas instead"
    if "#" in levels[:-1] or any(len(one) > 1 and ("#" in one or "+" in one) for one in levels):
        return "has a wildcard that is not a level of its own, or a # before the end"
    return ""
