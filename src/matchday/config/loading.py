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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta

from matchday.config.checks import EMBEDDED, ENV_PREFIX, check_together
from matchday.config.secret import Secret
from matchday.config.sections import RULES, Section, Settings
from matchday.errors import ConfigError

_WORDS: Final = {"yes": True, "on": True, "no": False, "off": False}
_SIGNS: Final = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


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
    settings = _checked(values, origins)
    check_together(settings)
    return Loaded(settings, origins)


def show(loaded: Loaded) -> list[Shown]:
    """List every setting with value, origin, bound and meaning, secrets as stars."""
    rows = []
    for name, known in _known().items():
        value = _value_of(loaded.settings, name)
        text = _masked(value) if isinstance(value, Secret) else str(value)
        rows.append(
            Shown(
                name,
                text,
                loaded.origins.get(name, "default"),
                _bound(known.rules),
                known.rules[0].description or "",
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
    except OSError as error:
        raise ConfigError(f"reading configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    known = _known()
    found: list[tuple[str, Any, str]] = []
    given: dict[str, str] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable == "MATCHDAY_CONFIG":
            continue
        if not text.strip():  # Compose passes what is not set as empty
            continue
        name = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        value: Any = text
        if name not in known and name.endswith("_file") and name.removesuffix("_file") in known:
            name = name.removesuffix("_file")
            value = _read_secret(variable, text)
        if name in given:
            raise ConfigError(
                f"reading the environment: {given[name]} and {variable} both set {name}; take one"
                " of them away"
            )
        given[name] = variable
        if name in known and known[name].is_list:
            value = [item.strip() for item in text.split(",") if item.strip()]
        found.append((name, value, f"environment {variable}"))
    return found


def _read_secret(variable: str, path: str) -> str:
    # Somebody may have given the address itself, with its password, in place of a file.
    shown = "***, an address and no file" if "://" in path else path
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"reading secret file of {variable}: {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        # The library's sentence, and what caused it, would show what is secret.
        raise ConfigError(f"reading secret file of {variable}: {shown} is not UTF-8 text") from None


def _put(
    values: dict[str, Any], origins: dict[str, str], name: str, value: Any, origin: str
) -> None:
    if name not in _known():
        near = difflib.get_close_matches(name, _known(), n=1, cutoff=0.3)
        hint = f"; the nearest known name is {near[0]}" if near else ""
        raise ConfigError(f"reading {origin}: no setting is called {name}{hint}")
    values[name] = value
    origins[name] = origin


class _Known(NamedTuple):
    """A setting that exists.

    Attributes:
        annotation: Its type with everything annotated to it.
        plain: Its type alone, inside which there may be more annotations.
        rules: The annotations; the first one describes it.
    """

    annotation: Any
    plain: Any
    rules: tuple[Meta, ...]

    @property
    def is_list(self) -> bool:
        """Tell whether it has several values."""
        return get_origin(self.plain) is tuple


@cache
def _known() -> dict[str, _Known]:
    """Give every setting by its dotted name."""
    return dict(_settings_of(Settings, ""))


def _settings_of(section: type[Section], prefix: str) -> Iterator[tuple[str, _Known]]:
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield from _settings_of(field.type, f"{prefix}{field.name}.")
        else:
            plain = get_args(field.type)[0]
            yield prefix + field.name, _Known(field.type, plain, tuple(_rules(field.type)))


def _rules(annotation: Any) -> Iterator[Meta]:
    """Give what is annotated to a type, then what is annotated inside of it."""
    within = get_args(annotation)
    yield from (one for one in within if isinstance(one, Meta))
    for one in within:
        yield from _rules(one)


def _value_of(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _checked(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    """Check every value by itself, so that one run tells all that is wrong."""
    sections: dict[str, dict[str, Any]] = {}
    wrong = []
    for name, value in values.items():
        section, _, leaf = name.rpartition(".")
        try:
            sections.setdefault(section, {})[leaf] = _convert(name, value)
        except (msgspec.ValidationError, ValueError) as error:
            shown = "(secret)" if name.endswith("url") else repr(value)
            wrong.append(f"checking {name} = {shown} ({origins[name]}): {_sentence(error)}")
    if wrong:
        raise ConfigError("; ".join(wrong))
    plain = sections.pop("", {})
    defaults = Settings()
    built = {
        name: msgspec.structs.replace(getattr(defaults, name), **given)
        for name, given in sections.items()
    }
    return msgspec.structs.replace(defaults, **plain, **built)


def _convert(name: str, value: Any) -> Any:
    """Give the value in the setting's type; text of the environment may stand for numbers."""
    known = _known()[name]
    if isinstance(value, str):
        value = value.strip()
        if known.plain is bool:
            value = _WORDS.get(value.lower(), value)
    if get_origin(known.plain) is Literal and value not in (choices := get_args(known.plain)):
        raise ValueError(f"expected one of {', '.join(choices)}")
    converted = msgspec.convert(value, known.annotation, strict=False, dec_hook=_hook)
    if rule := RULES.get(name):
        rule(converted)
    return converted


def _hook(wanted: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {type(value).__name__}")
    return wanted(value)


def _sentence(error: Exception) -> str:
    """Give the library's sentence in the case and words of ours."""
    text = str(error).replace("`", "")
    return text[:1].lower() + text[1:]


def _bound(rules: Sequence[Meta]) -> str:
    found = ((getattr(rule, name), sign) for rule in rules for name, sign in _SIGNS)
    return ", ".join(
        f"{sign} {bound if isinstance(bound, int) else format(bound, 'g')}"
        for bound, sign in found
        if bound is not None
    )


def _masked(secret: Secret) -> str:
    """Show an address without its user and password."""
    text = secret.get_secret_value()
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    credentials, at, address = rest.rpartition("@")
    address, question, options = address.partition("?")
    shown = "&".join(_masked_option(option) for option in options.split("&"))
    if not mark and not at and text != EMBEDDED:
        return "***"  # No address: a password perhaps, in the wrong place.
    return f"{scheme}{mark}{'***@' if at and credentials else ''}{address}{question}{shown}"


def _masked_option(option: str) -> str:
    """Show an option of an address; of those that can hold a secret, only the name."""
    name, equals, _ = option.partition("=")
    is_secret = any(word in name.lower() for word in ("password", "token", "properties"))
    return f"{name}{equals}***" if is_secret else option
