"""Records of the stream that nobody of ours has written: refused, and nothing else is raised."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from matchday.domain.account import Counts, LedgerRecord, decode_ledger, encode_ledger
from matchday.domain.instants import SPELT_MS, iso_from_ms, ms_from_iso
from matchday.domain.wire import decode_findings, decode_reading
from matchday.errors import RefusedError

DEEP = b"[" * 100_000 + b"]" * 100_000
LEDGER = encode_ledger(
    LedgerRecord(slot="all", tick="t", ts="2026-01-01T00:00:00.000Z", counts={"s": Counts(1)})
)


@pytest.mark.parametrize(
    ("decode", "value"),
    [
        (decode_reading, b'{"v": 1, "ts": "2026-01-01", "sensor": "s", "junk": ' + DEEP + b"}"),
        (decode_reading, b'{"v": 1, "ts": "0001-01-01T00:00:00+05:00", "sensor": "s"}'),
        (decode_reading, b'{"v": 1, "ts": "0999-12-31T23:59:59.999Z", "sensor": "s"}'),
        (decode_reading, b'{"v": 1, "ts": "9999-12-31T23:59:59-05:00", "sensor": "s"}'),
        (decode_findings, b'{"ds": "2026-01-01", "yhat": 1, "sensor": "s", "x": ' + DEEP + b"}"),
        (decode_findings, b'{"ds": 1, "yhat": 1' + b"0" * 400 + b', "sensor": "s"}'),
        (decode_findings, b'{"ds": 1, "yhat": 1, "sensor": "\\ud800"}'),
    ],
)
def test_reading_or_finding_that_cannot_be_one_is_refused(
    decode: Callable[[bytes], object], value: bytes
):
    with pytest.raises(RefusedError):
        decode(value)


@pytest.mark.parametrize(
    "value",
    [LEDGER.replace(b'"s"', b'"s\xff"'), LEDGER.replace(b"}", b', "junk": ' + DEEP + b"}")],
)
def test_ledger_record_that_cannot_be_one_is_a_decoding_error(value: bytes):
    with pytest.raises(msgspec.MsgspecError):
        decode_ledger(value)


@pytest.mark.parametrize("instant_ms", [SPELT_MS[0], SPELT_MS[-1], -1, 0])
def test_instant_has_one_spelling_from_the_first_to_the_last(instant_ms: int):
    assert ms_from_iso(iso_from_ms(instant_ms)) == instant_ms


@pytest.mark.parametrize("text", ["0999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999-00:01"])
def test_instant_without_a_spelling_is_refused(text: str):
    with pytest.raises(RefusedError, match="years 1000 to 9999"):
        ms_from_iso(text)
