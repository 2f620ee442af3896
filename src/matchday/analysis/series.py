"""Which numbers of a reading are followed as series, and what a series is called.

Owns the naming that findings, charts and models share: the subject of a series is
`<source>/<quantity>` for scalars, `<source>/<field>` or, where the zone is not the source
itself, `<source>/<zone>/<field>` for counts, with the field `in`, `out` or `occupancy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matchday.analysis.policy import AnalysisPolicy
from matchday.domain.reading import Count, Reading, Scalar


class Sample(NamedTuple):
    """One number of a reading.

    Attributes:
        subject: Name of the series.
        value: The number, in the reading's unit.
        is_count: It counts things: never negative.
    """

    subject: str
    value: float
    is_count: bool


def samples_of(reading: Reading, policy: AnalysisPolicy) -> Sequence[Sample]:
    """Give the numbers of a reading that are followed over time; none for positions."""
    if type(reading) is Scalar:
        is_count = reading.unit in policy.count_units
        return (Sample(f"{reading.source}/{reading.quantity}", reading.value, is_count),)
    if type(reading) is not Count:
        return ()
    prefix = reading.source
    if reading.zone != reading.source:
        prefix = f"{reading.source}/{reading.zone}"
    fields = (("in", reading.entered), ("out", reading.left), ("occupancy", reading.occupancy))
    return [
        Sample(f"{prefix}/{name}", value, is_count=True)
        for name, value in fields
        if value is not None
    ]
