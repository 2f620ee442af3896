"""Every setting of the product: its unit, default, bound and meaning.

One frozen section per stage. Owns what one value may be; what several have to say together
is in `checks`, where they come from in `loading`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from matchday.config.slots import SLOT_PATTERN, Slot, read_slots, slots_of


class Section(BaseModel):
    """A frozen group of settings that knows no other names than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class MqttSettings(Section):
    """Where messages come from."""

    url: SecretStr = Field(
        SecretStr("embedded:"),
        description="`embedded:` (sensors connect to us) or `mqtt[s]://user:pass@host:port`",
    )
    port: int = Field(1883, ge=0, le=65535, description="port of the embedded endpoint")
    users_file: Path | None = Field(
        None, description="file of `user:password` lines that sensors must log in with"
    )
    ca_file: Path | None = Field(None, description="certificate authority for mqtts://")
    receive_max: int = Field(2000, ge=1, le=60000, description="unacknowledged messages at most")
    keep_alive_s: int = Field(60, ge=6, le=3600, description="longest silence towards a broker")


class StreamSettings(Section):
    """Where records flow."""

    url: SecretStr = Field(
        SecretStr("embedded:"), description="`embedded:` or `kafka://host:port[,host:port]`"
    )
    partitions: int = Field(
        4, ge=1, le=1000, description="partitions of `analytics` and of `analytics_results`"
    )
    retention_days: int = Field(
        7, ge=1, le=3650, description="how long these two topics keep their records, days"
    )
    instance: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="name of this replica in Kafka's groups: one that is killed and restarted "
        "has its work back at once, one that stops keeps it for `session_timeout_s`; or empty",
    )
    session_timeout_s: float = Field(
        10,
        ge=1,
        le=1800,
        description="Kafka gives a silent member's work to others after so long, seconds",
    )


class StoreSettings(Section):
    """Where readings are kept."""

    url: SecretStr = Field(
        SecretStr("embedded:"), description="`embedded:` or `mongodb://user:pass@host:port/...`"
    )
    database: str = Field("server", min_length=1, max_length=60, description="database name")


class IngestSettings(Section):
    """How messages become readings."""

    filters: tuple[str, ...] = Field(
        ("#",), description="MQTT topic filters of the one default slot"
    )
    slot: str = Field("all", pattern=SLOT_PATTERN, description="name of the one default slot")
    slots: tuple[str, ...] = Field(
        (), description="rows NAME=FILTER: slots that replicas share; a name may repeat"
    )
    tick_s: float = Field(0.05, ge=0.005, le=1, description="least time between two commits")
    duplicate_window_s: float = Field(
        120, ge=1, le=3600, description="how long a reading is remembered"
    )
    payload_bytes_max: int = Field(
        12 * 2**20, ge=1024, le=12 * 2**20, description="largest payload taken whole"
    )
    adapters: tuple[str, ...] = Field(
        (), description="rows FILTER=FORMAT put before the table of adapters"
    )
    sources: Literal["open", "registered"] = Field(
        "open", description="`registered` refuses sources that `registered` does not name"
    )
    registered: tuple[str, ...] = Field((), description="the sources accepted if registered")
    zone: str = Field("UTC", description="time zone of text sensors that state none")

    @field_validator("slots")
    @classmethod
    def _slots_are_apart(cls, rows: tuple[str, ...]) -> tuple[str, ...]:
        read_slots(rows)
        return rows

    def all_slots(self) -> tuple[Slot, ...]:
        """Give every slot, numbered as the partitions of the topic `ingest_slots` are."""
        return slots_of(self.slots, name=self.slot, filters=self.filters)


class GateSettings(Section):
    """What a believable reading is."""

    ahead_s_max: float = Field(300, ge=0, le=86400, description="how far `t` may lie ahead")
    value_abs_max: float = Field(1e12, gt=0, description="largest magnitude of a scalar")
    position_m_max: float = Field(5000, gt=0, description="largest coordinate, metres")
    count_max: float = Field(1e6, gt=0, description="largest count of people")
    objects_max: int = Field(5000, ge=1, le=100_000, description="most objects in one reading")
    name_chars_max: int = Field(200, ge=8, le=1000, description="longest name of a source")


class PersistSettings(Section):
    """How records become documents."""

    batch_records_max: int = Field(8000, ge=1, le=20000, description="records per write at most")
    batch_linger_s: float = Field(0.1, ge=0, le=5, description="wait for a fuller batch")


class AnalysisSettings(Section):
    """How readings become findings."""

    model_path: Path | None = Field(
        None, description="a Prophet artifact (JSON) applied to every scalar reading"
    )
    window_s: float = Field(10, ge=0.1, le=86400, description="length of a window, event time")
    lateness_s: float = Field(2, ge=1.28, le=3600, description="how long a window waits for data")
    idle_s: float = Field(30, ge=0.1, le=86400, description="silence that closes a window")
    baseline_seasons: int = Field(2, ge=2, le=8, description="seasons a baseline looks back")
    baseline_points_max: int = Field(
        400, ge=8, le=5000, description="most readings of one season of a baseline"
    )
    tick_s: float = Field(0.05, ge=0.001, le=5, description="least time between two commits")


class HttpSettings(Section):
    """The page."""

    port: int = Field(8081, ge=0, le=65535, description="port of the page")
    token_file: Path | None = Field(None, description="file with the token the page asks for")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names by which browsers may reach the page, besides localhost"
    )


class HealthSettings(Section):
    """Where a service answers /livez, /readyz and /metrics."""

    port: int | None = Field(
        None, ge=0, le=65535, description="port; none means the service's own default"
    )
    bind: str = Field(
        "127.0.0.1", description="address; beyond loopback details ask for the page's token"
    )


class DataSettings(Section):
    """The data folder of the embedded parts."""

    free_bytes_min: int = Field(
        100 * 2**20, ge=0, description="free disk below which nothing is acknowledged"
    )


class SensorSettings(Section):
    """Sensors of our own."""

    state_dir: Path | None = Field(
        None, description="where a sensor keeps its number and unacknowledged messages"
    )


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level")
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto` is text on a terminal, else JSON"
    )


class VenueSettings(Section):
    """The grounds that analysis and the page know."""

    files: tuple[Path, ...] = Field((), description="venue files (TOML)")


class SetupSettings(Section):
    """What `matchday setup` makes besides topics and collections."""

    accounts_file: Path | None = Field(
        None, description="users to make, with their passwords (JSON); none leaves users alone"
    )
    replica_set: str = Field(
        "rs0", pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="name of MongoDB's replica set"
    )
    member: str = Field(
        "", description="host:port by which members and clients reach MongoDB; empty: store.url's"
    )
    browser_writes: bool = Field(
        False, description="the database browser's user may also change documents"
    )
    timeout_s: float = Field(
        120, ge=1, le=3600, description="how long to wait for each server to answer"
    )


class Settings(Section):
    """All settings of one process."""

    bind: str = Field("127.0.0.1", description="address that endpoint and page listen on")
    data_dir: Path = Field(Path("matchday-data"), description="folder of the embedded parts")
    mqtt: MqttSettings = MqttSettings()
    stream: StreamSettings = StreamSettings()
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    gate: GateSettings = GateSettings()
    persist: PersistSettings = PersistSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    http: HttpSettings = HttpSettings()
    health: HealthSettings = HealthSettings()
    data: DataSettings = DataSettings()
    sensor: SensorSettings = SensorSettings()
    venue: VenueSettings = VenueSettings()
    log: LogSettings = LogSettings()
    setup: SetupSettings = SetupSettings()
