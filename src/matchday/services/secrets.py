"""The secrets of a deployment on disk: made once, kept, and handed to each service's folder.

    <dir>/made/passwords.json     every password; root's alone, mounted by nobody
    <dir>/<service>/...           what follows from it, each folder its service's alone

The first file is the only one with anything random in it, and it is written whole before
any other. So a run that is killed at any point leaves nothing half: the next one finishes
it with the same passwords, and a run with nothing to do writes nothing. Does not own what
the files say (`services.secret_files`). No password goes into a log or an error.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from matchday.errors import ConfigError
from matchday.observe.events import SecretsOwnerKept, SecretsReady, emit
from matchday.services import secret_files
from matchday.services.secret_files import (
    DEMO,
    INGEST,
    KEY,
    OWNERS,
    PASSWORDS,
    SALT_BYTES,
    Addresses,
    Made,
    MqttLogin,
    SecretFile,
)
from matchday.stream.kafka_url import KafkaAddress

MADE_FOLDER: Final = "made"
MADE_FILE: Final = "passwords.json"
MQTT_PREFIX: Final = "mqtt-"
KEPT: Final = frozenset({"mongo-root", KEY})
"""What cannot be replaced by writing it to a file."""
_PASSWORD_BYTES: Final = 32
_KEY_BYTES: Final = 192
_URL_BYTES_MAX: Final = 8192


@dataclass(frozen=True)
class Outcome:
    """What `create` did.

    Attributes:
        written_count: Files that were new or said something else.
        unchanged_count: Files that were right already.
    """

    written_count: int
    unchanged_count: int


def create(directory: Path, addresses: Addresses) -> Outcome:
    """Make the secrets that are missing, and every file that does not say what it must.

    May be called any number of times, also while another run is under way: it waits for
    the other's end. Existing passwords are kept.

    Args:
        directory: Made if it is not there.
        addresses: Where the servers are.

    Raises:
        ConfigError: A file cannot be written, or the passwords are lost or damaged while
            files made from them exist: servers know those, so new ones are not made.
    """
    with _locked(directory):
        old = _read_made(directory)
        made = _complete(old or Made())
        made.check()
        files = secret_files.render(made, addresses)
        if old is None:
            _refuse_leftovers(directory, files)
        written = int(_settle(directory, _made_file(made), uid=os.geteuid()))
        written += _settle_all(directory, files)
    emit(SecretsReady(str(directory), written, len(files) + 1 - written))
    return Outcome(written, len(files) + 1 - written)


def add_sensor(directory: Path, venue: str) -> str:
    """Let the sensors of one more venue log in at the MQTT broker; give their password.

    The user is called as the venue and may publish below `matchday/<venue>/` alone. The
    broker knows once it reads its files again (SIGHUP).

    Raises:
        ConfigError: The venue has a password already, its name cannot be one level of a
            topic, or `create` did not run here.
    """
    secret_files.check_name(venue)
    with _locked(directory):
        made = _need_made(directory)
        if venue in made.mqtt:
            raise ConfigError(
                f"adding sensors of {venue!r}: there is such a user already; its password is"
                f" shown by `matchday secrets show {MQTT_PREFIX}{venue}`"
            )
        made = replace(made, mqtt={**made.mqtt, venue: _new_login()})
        _settle(directory, _made_file(made), uid=os.geteuid())
        _settle_all(directory, secret_files.mosquitto(made))
    return made.mqtt[venue].password


def rotate(directory: Path, name: str) -> None:
    """Replace one password; it is in force once `create` and then the services run again.

    Only the passwords' own file changes here, whole or not at all: every other file follows
    from it and from where the servers are, which `create` is told.

    Args:
        directory: Where `create` ran.
        name: One of `names`.

    Raises:
        ConfigError: There is no such name, or it is one that MongoDB took at its first start
            and would not know anew.
    """
    if name in KEPT:
        raise ConfigError(
            f"rotating secret {name!r}: MongoDB took it at its first start and would let nobody in"
            " with another"
        )
    with _locked(directory):
        made = _need_made(directory)
        user = name.removeprefix(MQTT_PREFIX)
        if name in made.passwords:
            made = replace(made, passwords={**made.passwords, name: _new_password()})
        elif name != user and user in made.mqtt:
            made = replace(made, mqtt={**made.mqtt, user: _new_login()})
        else:
            raise _unknown(f"rotating secret {name[:80]!r}", made)
        _settle(directory, _made_file(made), uid=os.geteuid())


def reveal(directory: Path, name: str) -> str:
    """Give one password by its name in `names`.

    Raises:
        ConfigError: There is no such name, `create` did not run here, or the files may not
            be read by this user.
    """
    made = _need_made(directory)
    found = made.passwords.get(name)
    if found is None and name.startswith(MQTT_PREFIX):
        login = made.mqtt.get(name.removeprefix(MQTT_PREFIX))
        found = None if login is None else login.password
    if found is None:
        raise _unknown(f"showing secret {name[:80]!r}", made)
    return found


def names(directory: Path) -> list[str]:
    """Give the names of all passwords, those of sensors as `mqtt-<venue>`.

    Raises:
        ConfigError: `create` did not run here, or the files may not be read by this user.
    """
    return _names(_need_made(directory))


def read_stream_url(file: str) -> str | None:
    """Read the address of a Kafka of one's own; None without a file or from an empty one.

    Raises:
        ConfigError: The file cannot be read or says something else; its text is not shown.
    """
    url = _read_url(file, "--stream-url-file")
    if url is not None:
        try:
            KafkaAddress.parse(url)
        except ConfigError:
            # Its text leaves out the login, but of a malformed URL that is a guess.
            raise ConfigError(
                f"reading --stream-url-file {file}: not of the form"
                " kafka://user:password@host:port with user and password percent-encoded"
            ) from None
    return url


def read_store_url(file: str) -> str | None:
    """Read the address of a MongoDB of one's own; None without a file or from an empty one.

    Raises:
        ConfigError: The file cannot be read or says something else; its text is not shown.
    """
    url = _read_url(file, "--store-url-file")
    if url is not None and not url.startswith(("mongodb://", "mongodb+srv://")):
        raise ConfigError(
            f"reading --store-url-file {file}: begins with neither mongodb:// nor mongodb+srv://"
        )
    return url


def _read_url(file: str, option: str) -> str | None:
    if not file:
        return None
    with _translated(f"reading {option}"), open(file, encoding="utf-8") as opened:
        url = opened.read(_URL_BYTES_MAX + 1).strip()
    if len(url) > _URL_BYTES_MAX or len(url.split()) > 1:
        raise ConfigError(f"reading {option} {file}: more than one line, or above 8192 characters")
    return url or None


def _complete(made: Made) -> Made:
    """Add what is missing, of a first run or of a version that needs one more."""
    passwords = {name: _new_password() for name in PASSWORDS}
    passwords[KEY] = base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()
    logins = {user: _new_login() for user in (INGEST, DEMO)}
    return Made({**passwords, **made.passwords}, {**logins, **made.mqtt})


def _new_login() -> MqttLogin:
    salt = base64.b64encode(secrets.token_bytes(SALT_BYTES)).decode()
    return MqttLogin(_new_password(), salt)


def _new_password() -> str:
    # People hand these to programs as arguments: none may look like an option.
    while (password := secrets.token_urlsafe(_PASSWORD_BYTES)).startswith("-"):
        pass
    return password


def _unknown(action: str, made: Made) -> ConfigError:
    return ConfigError(f"{action}: none is called so; there are {', '.join(_names(made))}")


def _names(made: Made) -> list[str]:
    return sorted(made.passwords) + [f"{MQTT_PREFIX}{user}" for user in sorted(made.mqtt)]


def _made_file(made: Made) -> SecretFile:
    text = msgspec.json.format(msgspec.json.encode(made, order="deterministic"), indent=2)
    return SecretFile(MADE_FOLDER, MADE_FILE, f"{text.decode()}\n")


def _read_made(directory: Path) -> Made | None:
    path = directory / MADE_FOLDER / MADE_FILE
    with _translated("reading secrets"):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        made = msgspec.json.decode(content, type=Made)
        made.check()
    except (msgspec.DecodeError, ConfigError) as error:
        # The decoder's text may quote the file; of ours, `check` names no value.
        why = str(error) if isinstance(error, ConfigError) else f"{len(content)} bytes, damaged"
        raise ConfigError(f"reading {path}: {why}; {_REMEDY}") from None
    return made


_REMEDY: Final = (
    "put back a copy of it, or remove the volumes of secrets and of the servers together"
)


def _need_made(directory: Path) -> Made:
    made = _read_made(directory)
    if made is None:
        raise ConfigError(
            f"reading secrets in {directory}: none there; make them by `matchday secrets create`"
        )
    return made


def _refuse_leftovers(directory: Path, files: Iterable[SecretFile]) -> None:
    """Refuse a folder that holds what we made, or what others did: it would be given away."""
    for file in files:
        path = directory / file.folder / file.name
        if path.exists():
            raise ConfigError(
                f"making secrets: {MADE_FOLDER}/{MADE_FILE} is gone from {directory}, yet {path}"
                f" was made from it; {_REMEDY}"
            )
    for folder in (directory / name for name in OWNERS):
        if folder.is_symlink() or (folder.is_dir() and any(folder.iterdir())):
            raise ConfigError(
                f"making secrets in {directory}: {folder} is there and was not made here; choose"
                " a folder that holds nothing else"
            )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the folder for this process alone; the kernel lets go when a holder dies."""
    with _translated("writing secrets"):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{action}: {error.filename}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{action}: not text in UTF-8") from error


def _settle_all(directory: Path, files: Iterable[SecretFile]) -> int:
    is_root = os.geteuid() == 0
    if not is_root:
        emit(SecretsOwnerKept(str(directory), os.geteuid()))
    return sum(
        _settle(directory, file, uid=OWNERS[file.folder] if is_root else os.geteuid())
        for file in files
    )


def _settle(directory: Path, file: SecretFile, *, uid: int) -> bool:
    """Make one file what it must be; tell whether it had to be written."""
    folder = directory / file.folder
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        _sync(directory)
    _own(folder, uid=uid, mode=0o700)
    path, new = folder / file.name, folder / f".{file.name}.new"
    with suppress(FileNotFoundError):
        new.unlink()  # Of a run that was killed; the lock says that it is nobody's now.
    content = file.text.encode()
    if _content(path) == content:
        _own(path, uid=uid, mode=file.mode)
        return False
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(opened, "wb") as target:
        target.write(content)
        target.flush()
        _own(target.fileno(), uid=uid, mode=file.mode)
        os.fsync(target.fileno())
    new.replace(path)
    _sync(folder)
    return True


def _content(path: Path) -> bytes | None:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(opened, "rb") as source:
        return source.read()


def _own(target: Path | int, *, uid: int, mode: int) -> None:
    """Set owner, group and mode where they differ: setting them anew would change the ctime."""
    found = os.stat(target)
    if (found.st_uid, found.st_gid) != (uid, uid) and os.geteuid() == 0:
        os.chown(target, uid, uid)
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(target, mode)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
