"""How to connect a first sensor, as the one line that the empty page teaches. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matchday.domain.topics import NativeTopic
from matchday.domain.venue import Venue

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+):(\d{1,5})\b")


def publish_line(endpoint_note: str, venues: Sequence[Venue]) -> str:
    """Give a `mosquitto_pub` command that makes a sensor appear on the page.

    Host and port are the first `host:port` in the note, else those of a local broker.
    """
    found = _ADDRESS.search(endpoint_note)
    host, port = (found[1].strip("[]"), found[2]) if found else ("127.0.0.1", "1883")
    topic = NativeTopic(venues[0].id if venues else "demo", "scalar", "my-sensor")
    payload = '{"quantity": "temperature", "value": 21.5, "unit": "degC"}'
    return f"mosquitto_pub -h {host} -p {port} -q 1 -t {topic} -m '{payload}'"
