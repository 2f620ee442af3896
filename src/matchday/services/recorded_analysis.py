"""`matchday analyse`: a recording through the same analysers, with no server."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from matchday.analysis.pipeline import analyse_recording
from matchday.config import Settings
from matchday.domain.finding import Finding
from matchday.domain.instants import iso_from_ms
from matchday.domain.reading import Reading
from matchday.domain.venue import read_venue
from matchday.domain.wire import encode_finding
from matchday.errors import ConfigError, MatchdayError, RefusedError
from matchday.ingest.adapters import Adapters
from matchday.sensors.recordings import ReadOptions, Recording, open_recording
from matchday.services.analysis import plan_of

FIXED = ("subject", "kind", "span_start", "span_end", "model", "sensor", "venue", "session")


@dataclass(frozen=True)
class AnalyseRequest:
    """What `matchday analyse` was asked for."""

    recording: Path
    venue: Path | None
    out: Path | None
    length_unit: Literal["m", "cm"] | None
    fps: float | None
    offset_m: tuple[float, float]


def analyse_file(settings: Settings, request: AnalyseRequest) -> None:
    """Analyse a recording and write its findings.

    Raises:
        ConfigError: The recording, the venue or the form of the output is wrong.
    """
    plan = plan_of(settings)
    venue = "demo"
    if request.venue is not None:
        known = read_venue(request.venue)
        plan = replace(plan, venues={**plan.venues, known.id: known})
        venue = known.id
    options = ReadOptions(
        venue=venue,
        length_unit=request.length_unit,
        fps=request.fps,
        offset_m=request.offset_m,
    )
    recording = open_recording(request.recording, options)
    tally = _Tally()
    findings = analyse_recording(readings_of(recording, tally), plan)
    try:
        count = write_findings(findings, request.out)
    except OSError as error:
        # Nobody reads them any more: the command line knows that.
        if request.out is None:
            raise
        raise MatchdayError(f"writing {request.out}: {error.strerror or error}") from error
    print(  # noqa: T201
        f"{tally.readings} readings, {tally.refused} refused, {count} findings", file=sys.stderr
    )


@dataclass
class _Tally:
    readings: int = 0
    refused: int = 0


def readings_of(recording: Recording, tally: _Tally) -> Iterator[Reading]:
    """Give the readings of a recording, decoded by the adapters that ingest uses."""
    adapters = Adapters()
    encode = msgspec.json.Encoder().encode
    for message in recording:
        payload = message.payload
        raw = payload if isinstance(payload, bytes) else encode(payload)
        try:
            readings, _unknown = adapters.decode(message.topic, raw, message.t_ms)
        except RefusedError:
            tally.refused += 1
            continue
        for reading in readings:
            tally.readings += 1
            yield reading


def write_findings(findings: Iterable[Finding], out: Path | None) -> int:
    """Write findings as Parquet, CSV or JSON Lines, by the ending; gives how many.

    Raises:
        ConfigError: The ending is unknown, or Parquet's extra is not installed.
    """
    if out is None:
        return _write_lines(findings, None)
    if out.suffix in (".jsonl", ".ndjson"):
        return _write_lines(findings, out)
    rows = [_row(finding) for finding in findings]
    names = [*FIXED, *sorted({name for row in rows for name in row} - set(FIXED))]
    if out.suffix == ".csv":
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        return len(rows)
    if out.suffix == ".parquet":
        _write_parquet(rows, names, out)
        return len(rows)
    raise ConfigError(f"writing {out}: ending {out.suffix!r} is none of .parquet .csv .jsonl")


def _write_lines(findings: Iterable[Finding], out: Path | None) -> int:
    count = 0
    file = sys.stdout.buffer if out is None else out.open("wb")
    try:
        for finding in findings:
            file.write(encode_finding(finding) + b"\n")
            count += 1
        file.flush()
    finally:
        if out is not None:
            file.close()
    return count


def _write_parquet(rows: list[dict[str, Any]], names: list[str], out: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            f"writing {out}: Parquet is not installed; in the checkout: pip install '.[parquet]'"
        ) from error
    columns = {name: [row.get(name) for row in rows] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), out)


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "kind": finding.kind,
        "span_start": iso_from_ms(finding.span_start_ms),
        "span_end": iso_from_ms(finding.span_end_ms),
        "model": finding.model,
        "sensor": finding.sensor,
        "venue": finding.venue,
        "session": finding.session,
        **finding.values,
    }
