"""Every setting of the product: its unit, default, bound and meaning.

One frozen section per stage. Owns what one value may be; what several have to say together
is in `checks`, where they come from, and the checking of each, in `loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from matchday.config.secret import Secret
from matchday.config.slots import SLOT_PATTERN, Slot, read_slots, slots_of


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen group of settings.

    Made by `loading`, which checks every value against its annotation; a value given to the
    constructor is taken as it is.
    """


class MqttSettings(Section, frozen=True, kw_only=True):
    """Where messages come from."""

    url: Annotated[
        Secret,
        Meta(description="`embedded:` (sensors connect to us) or `mqtt[s]://user:pass@host:port`"),
    ] = Secret("embedded:")
    port: Annotated[int, Meta(ge=0, le=65535, description="port of the embedded endpoint")] = 1883
    users_file: Annotated[
        Path | None, Meta(description="file of `user:password` lines that sensors must log in with")
    ] = None
    ca_file: Annotated[Path | None, Meta(description="certificate authority for mqtts://")] = None
    receive_max: Annotated[
        int, Meta(ge=1, le=60000, description="unacknowledged messages at most")
    ] = 2000
    keep_alive_s: Annotated[
        int, Meta(ge=6, le=3600, description="longest silence towards a broker")
    ] = 60


class StreamSettings(Section, frozen=True, kw_only=True):
    """Where records flow."""

    url: Annotated[Secret, Meta(description="`embedded:` or `kafka://host:port[,host:port]`")] = (
        Secret("embedded:")
    )
    partitions: Annotated[
        int, Meta(ge=1, le=1000, description="partitions of `analytics` and of `analytics_results`")
    ] = 4
    retention_days: Annotated[
        int, Meta(ge=1, le=3650, description="how long these two topics keep their records, days")
    ] = 7
    instance: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{0,100}$",
            description="name of this replica in Kafka's groups: one that is killed and restarted "
            "has its work back at once, one that stops keeps it for `session_timeout_s`; or empty",
        ),
    ] = ""
    session_timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=1800,
            description="Kafka gives a silent member's work to others after so long, seconds",
        ),
    ] = 10.0


class StoreSettings(Section, frozen=True, kw_only=True):
    """Where readings are kept."""

    url: Annotated[
        Secret, Meta(description="`embedded:` or `mongodb://user:pass@host:port/...`")
    ] = Secret("embedded:")
    database: Annotated[str, Meta(min_length=1, max_length=60, description="database name")] = (
        "server"
    )
    shape: Annotated[
        Literal["timeseries", "regular"],
        Meta(description="how MongoDB keeps `sensors`; regular for many sources that speak rarely"),
    ] = "timeseries"


class IngestSettings(Section, frozen=True, kw_only=True):
    """How messages become readings."""

    filters: Annotated[
        tuple[str, ...], Meta(description="MQTT topic filters of the one default slot")
    ] = ("#",)
    slot: Annotated[str, Meta(pattern=SLOT_PATTERN, description="name of the one default slot")] = (
        "all"
    )
    slots: Annotated[
        tuple[str, ...],
        Meta(description="rows NAME=FILTER: slots that replicas share; a name may repeat"),
    ] = ()
    tick_s: Annotated[
        float,
        Meta(
            ge=0.005,
            le=1,
            description="least time between two commits; longer is later and costs Kafka less",
        ),
    ] = 0.025
    duplicate_window_s: Annotated[
        float, Meta(ge=1, le=3600, description="how long a reading is remembered")
    ] = 120.0
    payload_bytes_max: Annotated[
        int, Meta(ge=1024, le=12 * 2**20, description="largest payload taken whole")
    ] = 12 * 2**20
    adapters: Annotated[
        tuple[str, ...], Meta(description="rows FILTER=FORMAT put before the table of adapters")
    ] = ()
    sources: Annotated[
        Literal["open", "registered"],
        Meta(description="`registered` refuses sources that `registered` does not name"),
    ] = "open"
    registered: Annotated[
        tuple[str, ...], Meta(description="the sources accepted if registered")
    ] = ()
    zone: Annotated[str, Meta(description="time zone of text sensors that state none")] = "UTC"

    def all_slots(self) -> tuple[Slot, ...]:
        """Give every slot, numbered as the partitions of the topic `ingest_slots` are."""
        return slots_of(self.slots, name=self.slot, filters=self.filters)


class GateSettings(Section, frozen=True, kw_only=True):
    """What a believable reading is."""

    ahead_s_max: Annotated[float, Meta(ge=0, le=86400, description="how far `t` may lie ahead")] = (
        300.0
    )
    value_abs_max: Annotated[float, Meta(gt=0, description="largest magnitude of a scalar")] = 1e12
    position_m_max: Annotated[float, Meta(gt=0, description="largest coordinate, metres")] = 5000.0
    count_max: Annotated[float, Meta(gt=0, description="largest count of people")] = 1e6
    objects_max: Annotated[
        int, Meta(ge=1, le=100_000, description="most objects in one reading")
    ] = 5000
    name_chars_max: Annotated[int, Meta(ge=8, le=1000, description="longest name of a source")] = (
        200
    )


class PersistSettings(Section, frozen=True, kw_only=True):
    """How records become documents."""

    batch_records_max: Annotated[
        int,
        Meta(ge=1, le=20000, description="records per write at most; 1000 in an embedded store"),
    ] = 8000
    batch_linger_s: Annotated[
        float, Meta(ge=0, le=5, description="longest wait for a fuller batch; less at low rates")
    ] = 0.2


class AnalysisSettings(Section, frozen=True, kw_only=True):
    """How readings become findings."""

    model_path: Annotated[
        Path | None,
        Meta(description="a Prophet artifact (JSON), applied to readings of its quantity"),
    ] = None
    model_quantity: Annotated[
        str,
        Meta(
            max_length=200,
            description="what the model forecasts, such as `temperature`, where its artifact does "
            "not say; empty: then every scalar",
        ),
    ] = ""
    window_s: Annotated[
        float, Meta(ge=0.1, le=86400, description="length of a window, event time")
    ] = 10.0
    lateness_s: Annotated[
        float, Meta(ge=1.3, le=3600, description="how long a window waits for data")
    ] = 2.0
    idle_s: Annotated[float, Meta(ge=0.1, le=86400, description="silence that closes a window")] = (
        30.0
    )
    baseline_seasons: Annotated[
        int, Meta(ge=2, le=8, description="seasons a baseline looks back")
    ] = 2
    baseline_points_max: Annotated[
        int, Meta(ge=8, le=5000, description="most readings of one season of a baseline")
    ] = 400
    tick_s: Annotated[
        float,
        Meta(ge=0.001, le=5, description="least time between two looks at the stream, and commits"),
    ] = 0.1


class HttpSettings(Section, frozen=True, kw_only=True):
    """The page."""

    port: Annotated[int, Meta(ge=0, le=65535, description="port of the page")] = 8081
    token_file: Annotated[
        Path | None, Meta(description="file with the token the page asks for")
    ] = None
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="names by which browsers may reach the page, besides localhost"),
    ] = ()


class HealthSettings(Section, frozen=True, kw_only=True):
    """Where a service answers /livez, /readyz and /metrics."""

    port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="port; none means the service's own default"),
    ] = None
    bind: Annotated[
        str, Meta(description="address; beyond loopback details ask for the page's token")
    ] = "127.0.0.1"


class DataSettings(Section, frozen=True, kw_only=True):
    """The data folder of the embedded parts."""

    free_bytes_min: Annotated[
        int, Meta(ge=0, description="free disk below which nothing is acknowledged")
    ] = 100 * 2**20


class SensorSettings(Section, frozen=True, kw_only=True):
    """Sensors of our own."""

    state_dir: Annotated[
        Path | None, Meta(description="where a sensor keeps its number and unacknowledged messages")
    ] = None


class LogSettings(Section, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="lowest level")
    ] = "info"
    format: Annotated[
        Literal["auto", "text", "json"], Meta(description="`auto` is text on a terminal, else JSON")
    ] = "auto"


class VenueSettings(Section, frozen=True, kw_only=True):
    """The grounds that analysis and the page know."""

    files: Annotated[tuple[Path, ...], Meta(description="venue files (TOML)")] = ()


class SetupSettings(Section, frozen=True, kw_only=True):
    """What `matchday setup` makes besides topics and collections."""

    accounts_file: Annotated[
        Path | None,
        Meta(description="users to make, with their passwords (JSON); none leaves users alone"),
    ] = None
    replica_set: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="name of MongoDB's replica set")
    ] = "rs0"
    member: Annotated[
        str,
        Meta(
            description="host:port by which members and clients reach MongoDB; empty: store.url's"
        ),
    ] = ""
    browser_writes: Annotated[
        bool, Meta(description="the database browser's user may also change documents")
    ] = False
    timeout_s: Annotated[
        float, Meta(ge=1, le=3600, description="how long to wait for each server to answer")
    ] = 120.0


class Settings(Section, frozen=True, kw_only=True):
    """All settings of one process."""

    bind: Annotated[str, Meta(description="address that endpoint and page listen on")] = "127.0.0.1"
    data_dir: Annotated[Path, Meta(description="folder of the embedded parts")] = Path(
        "matchday-data"
    )
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


RULES: Final[Mapping[str, Callable[[Any], object]]] = MappingProxyType({"ingest.slots": read_slots})
"""What the type of a value cannot say: called with it, raises ValueError where it is wrong."""
