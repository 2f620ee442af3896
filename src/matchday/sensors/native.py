"""The native recording: JSON Lines of `{"topic", "payload"}`, gzip allowed; read and written.

A line is one message. `payload` is the JSON value as it was sent; what was not JSON is
kept as `"text"` (valid UTF-8) or `"base64"` (any bytes) in its place. The optional
`"arrived"` is the recorder's wall clock, milliseconds UTC: it paces what has no time of
its own. Lines keep the order of arrival, so that a replay repeats what came late as late.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

from matchday.domain.instants import ms_from_iso
from matchday.errors import RefusedError
from matchday.sensors.recorded import RecordedMessage, RecordingFile

EARLIEST_MS = 31_536_000_000
LATEST_MS = 7_258_118_400_000


class _Line(msgspec.Struct):
    topic: str
    payload: Any = msgspec.UNSET
    text: str | None = None
    base64: str | None = None
    arrived: int | None = None


_line_decoder = msgspec.json.Decoder(_Line)


def fits(head: bytes, lines: list[str]) -> bool:
    """Tell whether the first line is a JSON object that begins with, or holds, a topic."""
    first = lines[0].lstrip() if lines else ""
    return first.startswith("{") and '"topic"' in first


def read(file: RecordingFile) -> Iterator[RecordedMessage]:
    """Give the messages in the file's order, which is that of their arrival.

    `t_ms` is the payload's `t`, else its `collectedAt`, else `arrived`, else that of the
    message before. A torn last line (a recorder was killed) counts as skipped.
    """
    t_ms = file.options.epoch_ms
    for text in file.lines():
        if not text.strip():
            continue
        try:
            line = _line_decoder.decode(text)
            payload = _payload(line)
        except (msgspec.MsgspecError, binascii.Error, RecursionError):
            file.skipped["malformed row"] += 1
            continue
        own_ms = event_time_ms(payload)
        if own_ms is None:
            own_ms = line.arrived
        t_ms = t_ms if own_ms is None else own_ms
        yield RecordedMessage(line.topic, t_ms, payload)


def line_of(topic: str, payload: bytes, *, arrived_ms: int) -> bytes:
    """Spell one message as a line of a native recording, with its line end.

    A JSON payload is kept digit for digit; only line breaks between its tokens become
    blanks. JSON as Python's `NaN` is none, and is kept as text.
    """
    head = b'{"topic":' + msgspec.json.encode(topic)
    tail = b',"arrived":%d}\n' % arrived_ms
    try:
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            body = b',"text":' + msgspec.json.encode(payload.decode("utf-8"))
        except UnicodeDecodeError:
            body = b',"base64":"' + base64.b64encode(payload) + b'"'
        return head + body + tail
    # Inside a JSON string a line break is always escaped, so these are between tokens.
    return head + b',"payload":' + payload.replace(b"\r", b" ").replace(b"\n", b" ") + tail


def event_time_ms(payload: Any) -> int | None:
    """Give the event time a payload states (`t`, or the original's `collectedAt`), or None.

    A time before 1971 or after 2199 is a clock's fault, and nothing to pace by: None too.
    """
    if not isinstance(payload, dict):
        return None
    stamp = payload.get("t", payload.get("collectedAt"))
    if isinstance(stamp, str):
        try:
            stamp = ms_from_iso(stamp)
        except RefusedError:
            return None
    if not isinstance(stamp, (int, float)) or isinstance(stamp, bool):
        return None
    return round(stamp) if EARLIEST_MS <= stamp < LATEST_MS else None


def _payload(line: _Line) -> Any:
    if line.payload is not msgspec.UNSET:
        return line.payload
    if line.text is not None:
        return line.text.encode("utf-8")
    if line.base64 is not None:
        return base64.b64decode(line.base64, validate=True)
    raise msgspec.ValidationError("no payload, text or base64")
