"""What all readers of recordings share: the recorded message, the options, opening a file.

Owns decompression and the count of what a reader had to leave out. Does not know any
format; those are in `tracking`, `trajectories`, `series`, `footfall` and `native`, and
`recordings` chooses between them.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from matchday.domain.topics import NativeTopic
from matchday.errors import ConfigError

GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 16_384

Skipped: TypeAlias = Counter[str]


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """One message of a recording, as a sensor would send it.

    Attributes:
        topic: The MQTT topic.
        t_ms: Event time, milliseconds UTC, by which replay paces it; in a native recording
            without event time, when it arrived.
        payload: The JSON value (nearly always an object with its own `t`), or the exact
            bytes where they are not JSON.
    """

    topic: str
    t_ms: int
    payload: Any


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a file cannot say about itself.

    Attributes:
        venue: The venue level of the topics.
        source: The source; None names it after the format or the file.
        length_unit: Of trajectories; None trusts the header, a value overrides it.
        fps: Frames per second; None trusts the header or the time column.
        offset_m: Added to x and y, metres: places recorded people at a venue.
        time_zone: IANA name of the zone of times without one; None is the format's own
            (Australia/Melbourne for footfall, else UTC).
        quantity: Of a time series; None goes by the file's name, else "value".
        value_unit: Of a time series; None goes by the file's name.
        interval_s: Between the values of a file without times, seconds.
        epoch_ms: The instant of frame or row 0 where the file holds no date,
            milliseconds UTC; the default is 2000-01-01.

    Raises:
        ConfigError: A number is not finite or not positive, or a name cannot be a level.
    """

    venue: str = "demo"
    source: str | None = None
    length_unit: Literal["m", "cm"] | None = None
    fps: float | None = None
    offset_m: tuple[float, float] = (0.0, 0.0)
    time_zone: str | None = None
    quantity: str | None = None
    value_unit: str | None = None
    interval_s: float = 1.0
    epoch_ms: int = 946_684_800_000

    def __post_init__(self) -> None:
        if self.length_unit not in (None, "m", "cm"):
            raise ConfigError(f"reading a recording: length unit {self.length_unit!r}: not m or cm")
        for name, value in (("fps", self.fps), ("interval_s", self.interval_s)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"reading a recording: {name} {value}: not above 0")
        if not all(math.isfinite(value) for value in self.offset_m):
            raise ConfigError(f"reading a recording: offset {self.offset_m}: not finite")
        for name, level in (("venue", self.venue), ("source", self.source)):
            if level is not None and level != topic_level(level):
                raise ConfigError(f"reading a recording: {name} {level!r}: not one topic level")


@dataclass(frozen=True)
class RecordingFile:
    """A file being read: where it is, how to read it, and what was left out so far.

    Attributes:
        path: The file.
        options: What it cannot say about itself.
        skipped: How many rows were left out, by reason; readers add to it.
    """

    path: Path
    options: ReadOptions
    skipped: Skipped = field(default_factory=Counter)

    @property
    def stem(self) -> str:
        """Give the file's name without endings, fit to be a topic level."""
        return topic_level(self.path.name.split(".")[0]) or "recording"

    def topic(self, kind: str, source: str) -> str:
        """Give the native topic of a source; the option `source` takes precedence."""
        return str(NativeTopic(self.options.venue, kind, self.options.source or source))

    def lines(self) -> Iterator[str]:
        r"""Give the lines without their ends; LF, CR LF and CR end a line, gzip is undone.

        A file cut off in the middle of its compression (a recorder was killed) gives what
        can be read; the cut counts as skipped.

        Raises:
            ConfigError: The file cannot be read or is not UTF-8 text.
        """
        try:
            with open_bytes(self.path) as raw:
                text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline=None)
                for line in text:
                    yield line.rstrip("\n")
        except (EOFError, zlib.error):
            self.skipped["cut off"] += 1
        except OSError as error:
            raise ConfigError(
                f"reading recording {self.path}: {error.strerror or error}"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"reading recording {self.path}: {error}") from error


@dataclass(frozen=True)
class RecordingFormat:
    """One row of the table of formats.

    Attributes:
        name: For people, such as "tracking CSV".
        fits: Tell from the first bytes (decompressed) and their lines whether it is this.
        read: Give the messages of a file of this format, in time order.
    """

    name: str
    fits: Callable[[bytes, list[str]], bool]
    read: Callable[[RecordingFile], Iterator[RecordedMessage]]


def open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a file for reading, decompressing gzip by content; OSError as it comes."""
    with path.open("rb") as probe:
        is_gzip = probe.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def head_of(path: Path) -> bytes:
    """Give the first decompressed bytes, by which a format is recognised.

    Raises:
        ConfigError: The file cannot be read.
    """
    head = b""
    try:
        with open_bytes(path) as raw:
            while len(head) < HEAD_BYTES and (more := raw.read1(HEAD_BYTES)):
                head += more
    except (EOFError, zlib.error):
        pass  # Cut off early: what there is decides.
    except OSError as error:
        raise ConfigError(f"reading recording {path}: {error.strerror or error}") from error
    return head


def topic_level(text: str) -> str:
    """Make text fit to be one level of an MQTT topic: no slash, wildcard or space."""
    return re.sub(r"[\s/+#\x00]+", "-", text).strip("-")
