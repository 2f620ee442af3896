"""Positions end to end: batched tracking frames, and the shape of the DEBS 2013 challenge.

The deployment is that of `end_to_end`: ingest, persist and analysis as processes of their own
beside all three servers. Part one raises the rate of frames of 23 objects from 20 venues; part
two that of messages of one object each, 7 player samples and 8 ball samples a millisecond at
15,000/s. Sustained means the same as there, and a step ends the ramp when it is not.
"""

from __future__ import annotations

from dataclasses import replace

from end_to_end import deployed, ramp, step
from harness import Servers
from publisher import FRAME_OBJECTS
from report import BASELINE, Figure, arguments, machine, progress, report, systems

VENUES = 20
FRAMES_PER_S = (1_000, 1_750, 2_500, 3_500, 4_350, 5_000)
EVENTS_PER_S = (3_750, 7_500, 11_250, 15_000, 18_750)


def with_positions(one: Figure, each: int) -> Figure:
    """Give a figure of messages with the positions in them as a further column."""
    return replace(one, notes={"positions/s": one.per_s * each, **one.notes})


def main() -> None:
    """Take the figures and print them."""
    given = arguments(__doc__, step_seconds=10)
    machine_is = machine()
    frames: list[Figure] = []
    events: list[Figure] = []
    with Servers(mongo=True) as servers:
        progress("warming the servers up")
        wanted = [name for name in systems(given) if name != BASELINE]
        for system in wanted:
            with deployed(servers, system, against=given.against) as at:
                step(at, rate_per_s=5000, seconds=4, seq_first=1)
        for number in range(given.rounds):
            for system in wanted if number % 2 == 0 else wanted[::-1]:
                progress(f"round {number + 1}: {system}, frames")
                taken, _ = ramp(
                    servers,
                    system,
                    seconds=given.step_seconds,
                    against=given.against,
                    rates_per_s=FRAMES_PER_S,
                    collection="positions",
                    load={"kind": "frame", "sources": VENUES},
                )
                frames += [with_positions(one, FRAME_OBJECTS) for one in taken]
                progress(f"round {number + 1}: {system}, single objects")
                taken, _ = ramp(
                    servers,
                    system,
                    seconds=given.step_seconds,
                    against=given.against,
                    rates_per_s=EVENTS_PER_S,
                    collection="positions",
                    load={"kind": "event"},
                )
                events += [with_positions(one, 1) for one in taken]
    parts = {
        f"frames of {FRAME_OBJECTS} objects (CPU: seconds per 100,000 frames)": frames,
        "DEBS 2013: one object a message (CPU: seconds per 100,000)": events,
    }
    report("Positions: sensor -> stored and analysed", machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
