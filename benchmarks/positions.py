"""Positions end to end: batched tracking frames, and the shape of the DEBS 2013 challenge.

The deployment is that of `end_to_end`: ingest, persist and analysis as processes of their own
beside all three servers. Part one raises the rate of frames of 23 objects, 25 a second from each
venue, so that a higher rate is more venues; part two that of messages of one object each, 7
player samples and 8 ball samples a millisecond at 15,000/s. Sustained means the same as there,
and a step ends the ramp when it is not. The servers are warmed up first (`warming`).
`--frame-rates ""` or `--event-rates ""` leaves a part out.
"""

from __future__ import annotations

from dataclasses import replace

from end_to_end import Load, ramp
from harness import Servers
from publisher import FRAME_OBJECTS
from report import BASELINE, Figure, arguments, machine, progress, report, systems
from warming import SECONDS, warm

FRAMES_HZ = 25
FRAMES_PER_S = "1000,2500,3500,4600,5200"
EVENTS_PER_S = "3750,7500,11250,15000,18750"


def frames_at(rate_per_s: int) -> Load:
    """Give the load of so many frames a second: as many venues as that takes at 25 Hz."""
    return {"kind": "frame", "sources": rate_per_s // FRAMES_HZ}


def events_at(_rate_per_s: int) -> Load:
    """Give the load of single objects, of one venue whatever their rate."""
    return {"kind": "event"}


def rates(text: str) -> list[int]:
    """Read rates separated by commas."""
    return [int(one) for one in text.split(",") if one]


def with_positions(one: Figure, each: int) -> Figure:
    """Give a figure of messages with the positions in them as a further column."""
    return replace(one, notes={"positions/s": one.per_s * each, **one.notes})


def main() -> None:
    """Take the figures and print them."""
    given = arguments(
        __doc__,
        step_seconds=10,
        frame_rates=FRAMES_PER_S,
        event_rates=EVENTS_PER_S,
        warm_seconds=SECONDS,
    )
    machine_is = machine()
    shapes = (
        ("frames", rates(given.frame_rates), frames_at, FRAME_OBJECTS),
        ("single objects", rates(given.event_rates), events_at, 1),
    )
    taken: dict[str, list[Figure]] = {name: [] for name, wanted, _, _ in shapes if wanted}
    with Servers(mongo=True) as servers:
        progress("warming the servers up")
        warm(servers, given.warm_seconds)
        for number in range(given.rounds):
            for system in systems(given, round_number=number):
                # The baseline has no analysis, and knows no positions.
                if system == BASELINE:
                    continue
                for name, wanted, load_at, each in shapes:
                    if not wanted:
                        continue
                    progress(f"round {number + 1}: {system}, {name}")
                    figures, _ = ramp(
                        servers,
                        system,
                        seconds=given.step_seconds,
                        against=given.against,
                        rates_per_s=wanted,
                        collection="positions",
                        load_at=load_at,
                    )
                    taken[name] += [with_positions(one, each) for one in figures]
    titles = {
        "frames": f"frames of {FRAME_OBJECTS} objects (CPU: seconds per 100,000 frames)",
        "single objects": "DEBS 2013: one object a message (CPU: seconds per 100,000)",
    }
    parts = {titles[name]: figures for name, figures in taken.items()}
    report("Positions: sensor -> stored and analysed", machine_is, parts, as_json=given.json)


if __name__ == "__main__":
    main()
