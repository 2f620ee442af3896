"""A replaying process to be killed: URL, recording and state folder are its arguments."""

from __future__ import annotations

import math
import sys
import threading
from pathlib import Path

from matchday.clock import SystemClock
from matchday.sensors.broker import parse_broker
from matchday.sensors.outbox import Outbox, claim_slot
from matchday.sensors.publisher import Publisher
from matchday.sensors.recordings import open_recording
from matchday.sensors.replay import ReplayOptions, replay


def main() -> None:
    url, recording, state_dir = sys.argv[1:]
    clock = SystemClock()
    with claim_slot(Path(state_dir), prefix="s") as slot:
        publisher = Publisher(
            parse_broker(url),
            Outbox(slot.outbox_path),
            clock,
            client_id=f"child-{slot.source}",
            inflight_max=50,
        )
        options = ReplayOptions(speed=math.inf, source_suffix=f"-{slot.number}")
        replay(open_recording(Path(recording)), options, publisher, clock, threading.Event())
        publisher.close()


if __name__ == "__main__":
    main()
