"""Every setting of the product: its unit, default, bound and origin.

One frozen section per stage. A setting comes from (later wins) its default, the file
`matchday.toml`, the environment `MATCHDAY_<SECTION>__<NAME>`, and the command line. A
secret may be given as the name of a file that holds it: `MATCHDAY_<SECTION>__<NAME>_FILE`.
Unknown names are errors at every level and name the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from matchday.errors import ConfigError

ENV_PREFIX = "MATCHDAY_"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
    slot: str = Field("all", pattern=r"^[a-z0-9-]{1,40}$", description="name of the slot")
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


@dataclass(frozen=True)
class Shown:
    """One setting as `matchday config show` prints it; secrets are masked."""

    name: str
    value: str
    origin: str
    bound: str
    description: str


@dataclass(frozen=True)
class Loaded:
    """Settings with the origin of each one that is not a default."""

    settings: Settings
    origins: Mapping[str, str]


def load(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Loaded:
    """Read all settings from file, environment and overrides, and check every one.

    Args:
        file: The configuration file; None means `MATCHDAY_CONFIG`, else `./matchday.toml`
            where it exists.
        environ: The environment; None means the process's own.
        overrides: Values by dotted name, from the command line; None values are left out.

    Raises:
        ConfigError: A name is unknown or a value out of bounds; names it, the value and
            the bound.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    path = _config_file(file, environ)
    if path is not None:
        for name, value in _flatten(_read_toml(path)).items():
            _put(values, origins, name, value, f"file {path}")
    for name, value, origin in _from_environ(environ):
        _put(values, origins, name, value, origin)
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(values, origins, name, value, "command line")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from error
    _check_exposure(settings)
    return Loaded(settings, origins)


def show(loaded: Loaded) -> list[Shown]:
    """List every setting with value, origin, bound and meaning, secrets as stars."""
    rows = []
    for name, field, value in _walk(loaded.settings):
        text = _masked(value) if isinstance(value, SecretStr) else str(value)
        rows.append(
            Shown(
                name,
                text,
                loaded.origins.get(name, "default"),
                _bound(field),
                field.description or "",
            )
        )
    return rows


def _check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond loopback without credentials on both doors."""
    if settings.bind in LOOPBACK:
        return
    needed = {
        "mqtt.users_file": settings.mqtt.users_file,
        "http.token_file": settings.http.token_file,
    }
    for name, value in needed.items():
        if value is None:
            raise ConfigError(
                f"checking bind {settings.bind}: listening beyond {LOOPBACK[0]} needs {name} "
                f"({ENV_PREFIX}{name.upper().replace('.', '__')})"
            )


def _config_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    if environ.get("MATCHDAY_CONFIG"):
        return Path(environ["MATCHDAY_CONFIG"])
    default = Path("matchday.toml")
    return default if default.is_file() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"reading configuration {path}: {error}") from error


def _flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            flat[name] = value
    return flat


def _from_environ(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    known = {name for name, _, _ in _walk(Settings())}
    lists = {name for name, _, value in _walk(Settings()) if isinstance(value, tuple)}
    found: list[tuple[str, Any, str]] = []
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable == "MATCHDAY_CONFIG":
            continue
        name = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        value: Any = text
        if name not in known and name.endswith("_file") and name.removesuffix("_file") in known:
            name = name.removesuffix("_file")
            try:
                value = Path(text).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigError(f"reading secret file of {variable}: {error}") from error
        if name in lists:
            value = [item.strip() for item in text.split(",") if item.strip()]
        found.append((name, value, f"environment {variable}"))
    return found


def _put(
    values: dict[str, Any], origins: dict[str, str], name: str, value: Any, origin: str
) -> None:
    known = [known_name for known_name, _, _ in _walk(Settings())]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"; the nearest known name is {near[0]}" if near else ""
        raise ConfigError(f"reading {origin}: no setting is called {name}{hint}")
    section, _, leaf = name.rpartition(".")
    (values.setdefault(section, {}) if section else values)[leaf] = value
    origins[name] = origin


def _walk(settings: Settings) -> list[tuple[str, FieldInfo, Any]]:
    rows: list[tuple[str, FieldInfo, Any]] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Section):
            rows.extend(
                (f"{name}.{leaf}", inner, getattr(value, leaf))
                for leaf, inner in type(value).model_fields.items()
            )
        else:
            rows.append((name, field, value))
    return rows


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    sentences = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        known = name if name in origins else name.rpartition(".")[0]
        value = "(secret)" if name.endswith("url") else repr(problem["input"])
        origin = origins.get(known, "default")
        sentences.append(f"checking {name} = {value} ({origin}): {problem['msg']}")
    return "; ".join(sentences)


def _bound(field: FieldInfo) -> str:
    texts = []
    for rule in field.metadata:
        for attribute, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if getattr(rule, attribute, None) is not None:
                texts.append(f"{sign} {getattr(rule, attribute):g}")
    return ", ".join(texts)


def _masked(secret: SecretStr) -> str:
    """Show an address without its user and password."""
    text = secret.get_secret_value()
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text
    credentials, at, address = rest.rpartition("@")
    return f"{scheme}://{'***@' if at and credentials else ''}{address}"
