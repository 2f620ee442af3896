"""What the ledger's topic says, added up: shared by the tests of ingest."""

from __future__ import annotations

from matchday.domain.account import Counts, decode_ledger
from matchday.domain.topics import Topic
from matchday.ports import Start
from matchday.stream.embedded import EmbeddedStream


def counted(stream: EmbeddedStream) -> Counts:
    """Give the counts of all sources together, read from the beginning."""
    reader = stream.reader([Topic.LEDGER], Start.beginning())
    total = Counts()
    while not reader.is_at_end():
        for record in reader.poll(timeout_s=0.1, records_max=1000):
            for counts in decode_ledger(record.value).counts.values():
                total.add(counts)
    reader.close()
    return total
