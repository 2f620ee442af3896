"""Recordings: any file of a known format as messages in time order.

Owns the table of formats and the choice between them, which goes by content, never by
the file's ending. Does not pace (that is `replay`) and does not number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matchday.errors import ConfigError
from matchday.sensors import footfall, native, series, tracking, trajectories
from matchday.sensors.recorded import (
    ReadOptions,
    RecordedMessage,
    RecordingFile,
    RecordingFormat,
    Skipped,
    head_of,
)

__all__ = ["FORMATS", "ReadOptions", "RecordedMessage", "Recording", "Span", "open_recording"]

# Ordered from the most particular to the least: a column of numbers fits nearly anything.
FORMATS = (
    RecordingFormat("tracking Parquet", tracking.fits_parquet, tracking.read_parquet),
    RecordingFormat("native JSON Lines", native.fits, native.read),
    RecordingFormat("tracking CSV", tracking.fits_csv, tracking.read_csv),
    RecordingFormat("footfall CSV", footfall.fits, footfall.read),
    RecordingFormat("time series CSV", series.fits_timed, series.read_timed),
    RecordingFormat("trajectory text", trajectories.fits, trajectories.read),
    RecordingFormat("column of numbers", series.fits_column, series.read_column),
)


@dataclass(frozen=True)
class Span:
    """What a recording covers in event time.

    Attributes:
        first_ms: The earliest time, milliseconds UTC.
        last_ms: The latest.
        messages: How many there are.
    """

    first_ms: int
    last_ms: int
    messages: int


class Recording:
    """One recording, which may be gone through any number of times; not by two threads."""

    def __init__(self, path: Path, shape: RecordingFormat, options: ReadOptions) -> None:
        self.path = path
        self.options = options
        self._shape = shape
        self._skipped: Skipped = Counter()
        self._span: Span | None = None

    @property
    def format(self) -> str:
        """Give the name of the format recognised, for people."""
        return self._shape.name

    @property
    def skipped(self) -> dict[str, int]:
        """Give how many rows the latest pass left out, by reason; complete at its end."""
        return dict(self._skipped)

    def __iter__(self) -> Iterator[RecordedMessage]:
        """Give the messages from the first on; see the format's reader for what it raises."""
        file = RecordingFile(self.path, self.options)
        self._skipped = file.skipped
        return self._shape.read(file)

    def span(self) -> Span:
        """Give what the recording covers; the first call goes through all of it.

        Raises:
            ConfigError: It cannot be read, or holds no message.
        """
        if self._span is None:
            first_ms = last_ms = None
            messages = 0
            for message in self:
                messages += 1
                if first_ms is None or message.t_ms < first_ms:
                    first_ms = message.t_ms
                if last_ms is None or message.t_ms > last_ms:
                    last_ms = message.t_ms
            if first_ms is None or last_ms is None:
                raise ConfigError(f"reading recording {self.path}: no message in it")
            self._span = Span(first_ms, last_ms, messages)
        return self._span


def open_recording(path: Path, options: ReadOptions | None = None) -> Recording:
    """Recognise the format of a file; the messages are read when iterated.

    Raises:
        ConfigError: The file cannot be read or is of no known format.
    """
    head = head_of(path)
    lines = head.decode("utf-8-sig", errors="replace").splitlines()
    for shape in FORMATS:
        if shape.fits(head, lines):
            return Recording(path, shape, options or ReadOptions())
    known = ", ".join(shape.name for shape in FORMATS)
    raise ConfigError(f"reading recording {path}: of no known format ({known})")
