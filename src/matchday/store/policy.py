"""How the stage persist works: its bounds and pauses, checked on construction."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from matchday.errors import ConfigError


@dataclass(frozen=True)
class PersistPolicy:
    """How persist works.

    Attributes:
        member: Name of this member, unique in the group; its dead letters' producer is
            called `matchday-persist-<member>`.
        batch_records_max: Records per write at most.
        batch_bytes_max: Bytes of record values per write at which it is full.
        batch_linger_s: Longest that a record waits for others after a write began, in
            seconds; how much of it is used is the rule of `linger`.
        confirm_every_s: Least time between two confirmations of bookmarks alone, in seconds,
            and so between two settlings of the account, as long as records come; what was
            stored since the last one is looked up again after a crash.
        retry_s: First pause after store or stream did not answer, in seconds; doubles, jittered.
        retry_s_max: Longest such pause.
        stop_grace_s: How long a stop tries to finish the batch in hand while the store does
            not answer; after that it comes again at the next start.
    """

    member: str = "0"
    batch_records_max: int = 2000
    batch_bytes_max: int = 32 * 2**20
    batch_linger_s: float = 0.05
    confirm_every_s: float = 2.0
    retry_s: float = 0.1
    retry_s_max: float = 2.0
    stop_grace_s: float = 5.0

    def __post_init__(self) -> None:
        for name in ("batch_records_max", "batch_bytes_max", "retry_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"checking {name} = {getattr(self, name)}: must be above 0")
        for name in ("batch_linger_s", "confirm_every_s", "stop_grace_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"checking {name} = {getattr(self, name)}: must be 0 or more")
        if self.retry_s_max < self.retry_s:
            raise ConfigError(
                f"checking retry_s_max = {self.retry_s_max}: below retry_s = {self.retry_s}"
            )

    def is_full(self, records_count: int, bytes_count: int) -> bool:
        """Tell whether a batch of so many records and bytes takes nothing more."""
        return records_count >= self.batch_records_max or bytes_count >= self.batch_bytes_max

    def pause_s(self, failures: int, rng: Random) -> float:
        """Give how long to pause after the store failed so many times in a row, seconds."""
        doubled_s = self.retry_s * 2.0 ** min(failures - 1, 30)
        return min(doubled_s, self.retry_s_max) * rng.uniform(0.5, 1.0)
