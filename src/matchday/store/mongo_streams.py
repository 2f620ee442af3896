"""Which stream partitions write here: their slots in `_id`, and how far each one got.

Owns the internal collection `matchday`: the format version and one document per topic
identity and partition. A slot stands for both in the bits of `_id` above the offset: the
partition's own number for the first identity of a topic, so that `_id` reads as
partition << 48 | offset, and a number from `SLOTS_LATER` on for a topic made anew, whose offset
0 is another record. Does not own what is stored under these ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.write_concern import WriteConcern

from matchday.domain.topics import Topic
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import Partition
from matchday.store.mongo_cells import SLOTS
from matchday.store.mongo_link import Document, MongoLink

INTERNAL: Final = "matchday"
INDEX: Final = "topic_slot"
FORMAT_VERSION: Final = 1
SLOTS_LATER: Final = 4096
ATTEMPTS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class StreamSlot:
    """What stands for one identity of a topic and one of its partitions.

    Attributes:
        document_id: `_id` in the internal collection.
        key: Its name in the account's `folded`.
        slot: Its bits in the `_id` of documents.
    """

    document_id: str
    key: str
    slot: int


class Streams:
    """The internal collection. One thread uses it.

    Args:
        link: The connection.
    """

    def __init__(self, link: MongoLink) -> None:
        self._link = link

    def prepare(self) -> None:
        """Make the collection and write the format version, or check it.

        Raises:
            ConfigError: A newer version of the program wrote this database.
            UnavailableError: The server does not answer.
        """
        with self._link.translated("preparing the store's format"):
            if INTERNAL not in self._link.found():
                self._link.create(INTERNAL, {})
            if INDEX not in self._collection.index_information():
                self._collection.create_index(
                    [("topic", ASCENDING), ("slot", ASCENDING)],
                    name=INDEX,
                    unique=True,
                    partialFilterExpression={"slot": {"$exists": True}},
                )
            self._collection.update_one(
                {"_id": "format"}, {"$setOnInsert": {"version": FORMAT_VERSION}}, upsert=True
            )
        wrong = self.check()
        if wrong:
            raise ConfigError(f"preparing store {self._link.address}: {'; '.join(wrong)}")

    def check(self) -> list[str]:
        """Give what is wrong with the format version, in one sentence."""
        with self._link.translated("reading the store's format"):
            found = self._collection.find_one({"_id": "format"})
        if found is None:
            return [f"collection {INTERNAL} has no format version: the store is not prepared"]
        version = found.get("version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            return [
                f"format version {version!r} is above {FORMAT_VERSION}: a newer matchday wrote"
                " this database; install that version"
            ]
        return []

    def claim(self, partition: Partition, topic_id: str) -> StreamSlot:
        """Find the slot of a partition, or take one.

        Raises:
            ConfigError: All slots are taken.
            UnavailableError: The server does not answer; try again.
        """
        document_id = f"{partition.topic}/{partition.number}/{topic_id}"
        with self._link.translated(f"claiming {partition.topic}-{partition.number}"):
            for _ in range(ATTEMPTS_MAX):
                siblings = list(self._collection.find({"topic": str(partition.topic)}))
                known = next((one for one in siblings if one["_id"] == document_id), None)
                same = [one for one in siblings if one["partition"] == partition.number]
                claim = 1 + max((one["claim"] for one in same), default=0)
                if known is not None:
                    self._collection.update_one({"_id": document_id}, {"$max": {"claim": claim}})
                    return _slot_of(known)
                document = {
                    "_id": document_id,
                    "topic": str(partition.topic),
                    "partition": partition.number,
                    "topic_id": topic_id,
                    "slot": _free_slot(partition, siblings),
                    "claim": claim,
                    "next_offset": 0,
                }
                try:
                    self._collection.insert_one(document)
                except DuplicateKeyError:
                    continue
                return _slot_of(document)
            raise UnavailableError(
                f"claiming {partition.topic}-{partition.number}: {ATTEMPTS_MAX} attempts to take"
                " a slot were forestalled"
            )

    def advance(self, next_offsets: Mapping[str, int], *, is_majority: bool) -> None:
        """Note how far streams are folded into the account.

        Args:
            next_offsets: By `StreamSlot.document_id`.
            is_majority: Wait until a majority has this, and with it everything the primary
                had before. Else it may be lost in a crash: it then only lags.
        """
        concern = self._link.database.write_concern if is_majority else WriteConcern(w=1)
        updates: list[Document] = [
            {"q": {"_id": document_id}, "u": {"$max": {"next_offset": offset}}}
            for document_id, offset in next_offsets.items()
        ]
        with self._link.translated("noting offsets"):
            self._update(updates, concern)

    def await_majority(self) -> None:
        """Wait until a majority has everything that the primary has now.

        An update that changes nothing is confirmed when all before it is.
        """
        with self._link.translated("waiting for a majority"):
            same = {"q": {"_id": "format"}, "u": {"$max": {"version": FORMAT_VERSION}}}
            self._update([same], self._link.database.write_concern)

    def _update(self, updates: list[Document], concern: WriteConcern) -> None:
        reply = self._link.database.command(
            {"update": INTERNAL, "updates": updates, "writeConcern": concern.document}
        )
        trouble = reply.get("writeConcernError") or next(iter(reply.get("writeErrors", ())), None)
        if trouble is not None:
            raise OperationFailure(str(trouble.get("errmsg")), trouble.get("code"), trouble)

    @property
    def _collection(self) -> Any:
        return self._link.database[INTERNAL]


def newest_streams(documents: list[Document]) -> dict[Partition, tuple[str, int]]:
    """Give, per partition, the account's key and next offset of the identity claimed last."""
    newest: dict[Partition, tuple[str, int]] = {}
    for document in sorted(documents, key=lambda one: int(one["claim"])):
        partition = Partition(Topic(document["topic"]), document["partition"])
        newest[partition] = (_slot_of(document).key, document["next_offset"])
    return newest


def _slot_of(document: Document) -> StreamSlot:
    slot = int(document["slot"])
    return StreamSlot(document["_id"], f"{document['topic']}-{slot}", slot)


def _free_slot(partition: Partition, siblings: list[Document]) -> int:
    taken = {int(one["slot"]) for one in siblings}
    if partition.number < SLOTS_LATER and partition.number not in taken:
        return partition.number
    slot = max(SLOTS_LATER, 1 + max(taken, default=0))
    if slot >= SLOTS:
        raise ConfigError(
            f"claiming {partition.topic}-{partition.number}: all {SLOTS} slots are taken by"
            " earlier identities of the topic; store into a new database"
        )
    return slot
