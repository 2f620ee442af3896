"""Where settings come from, and how they are shown.

Later wins: default, file `matchday.toml`, environment `MATCHDAY_<SECTION>__<NAME>`, command
line. A secret may be given as the name of a file that holds it:
`MATCHDAY_<SECTION>__<NAME>_FILE`. A variable that is set but empty counts as not set.
Unknown names are errors at every level and name the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from matchday.config.checks import ENV_PREFIX, check_together
from matchday.config.sections import Section, Settings
from matchday.errors import ConfigError


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
    check_together(settings)
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
        if not text.strip():  # Compose passes what is not set as empty
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
