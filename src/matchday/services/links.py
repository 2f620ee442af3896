"""The choice by URL: which implementation stands behind each port.

`embedded:` opens the SQLite parts in the data folder, `kafka://`, `mongodb://` and `mqtt://`
the real ones. Nothing else in the product asks which is which. Client libraries of
optional extras are imported only when their URL is used.
"""

from __future__ import annotations

import hmac
import random
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from matchday.clock import Clock
from matchday.config import Settings, Slot
from matchday.domain.topics import DAY_MS, Topic
from matchday.errors import ConfigError, UnavailableError
from matchday.ports import Feed, Query, Store, Stream
from matchday.sqlite import DataFolder
from matchday.stream.kafka_url import KafkaAddress

EMBEDDED = "embedded:"
BACKOFF_S_MAX = 2.0
"""Longest wait between two tries to prepare: so much later at most than the server is there."""
POLL_INTERVAL_MS_MIN = 20_000
"""A member may be at work for so long between two polls, at least; see `KafkaStream`."""


def is_embedded(url: str) -> bool:
    """Tell whether a URL names the parts inside the process."""
    return url == EMBEDDED


def needs_folder(settings: Settings) -> bool:
    """Tell whether the process owns a data folder: its stream or store is embedded."""
    return is_embedded(settings.stream.url.get_secret_value()) or is_embedded(
        settings.store.url.get_secret_value()
    )


def claim_folder(settings: Settings) -> DataFolder | None:
    """Take the lock of the data folder where one is needed.

    Raises:
        ConfigError: Another process owns it; names its pid.
    """
    return DataFolder(settings.data_dir) if needs_folder(settings) else None


def open_stream(settings: Settings, *, clock: Clock, read_only: bool = False) -> Stream:
    """Open the stream that `stream.url` names, with the partitions and retention wanted.

    Raises:
        ConfigError: The URL is unknown, or its extra is not installed.
    """
    url = settings.stream.url.get_secret_value()
    partitions = {
        Topic.ANALYTICS: settings.stream.partitions,
        Topic.RESULTS: settings.stream.partitions,
        Topic.SLOTS: len(settings.ingest.all_slots()),
    }
    kept_ms = settings.stream.retention_days * DAY_MS
    retention_ms = {Topic.ANALYTICS: kept_ms, Topic.RESULTS: kept_ms}
    if is_embedded(url):
        from matchday.stream.embedded import EmbeddedStream

        return EmbeddedStream(
            settings.data_dir,
            clock=clock,
            read_only=read_only,
            partitions=partitions,
            retention_ms=retention_ms,
        )
    if url.startswith(("kafka://", "kafkas://")):
        try:
            from matchday.stream.kafka import KafkaStream
        except ImportError as error:
            raise _no_extra("stream.url", "kafka") from error
        session_ms = round(settings.stream.session_timeout_s * 1000)
        return KafkaStream(
            url,
            clock=clock,
            partitions=partitions,
            retention_ms=retention_ms,
            session_timeout_ms=session_ms,
            instance=settings.stream.instance,
            poll_interval_ms_max=max(2 * session_ms, POLL_INTERVAL_MS_MIN),
        )
    raise _unknown("stream.url", url, "embedded: or kafka://host:port")


def open_store(settings: Settings, *, clock: Clock) -> Store:
    """Open the store that `store.url` names, for writing.

    Raises:
        ConfigError: The URL is unknown, or its extra is not installed.
    """
    url = settings.store.url.get_secret_value()
    if is_embedded(url):
        from matchday.store.embedded import EmbeddedStore

        if settings.store.shape != "timeseries":
            raise ConfigError(
                f"opening the store: store.shape = {settings.store.shape!r} is MongoDB's, and"
                " store.url is embedded: take one of them away"
            )
        return EmbeddedStore(settings.data_dir, clock=clock)
    if url.startswith(("mongodb://", "mongodb+srv://")):
        try:
            from matchday.store.mongo import MongoStore
        except ImportError as error:
            raise _no_extra("store.url", "mongo") from error
        return MongoStore(
            url, clock=clock, database=settings.store.database, shape=settings.store.shape
        )
    raise _unknown("store.url", url, "embedded: or mongodb://host:port")


def open_query(settings: Settings) -> Query:
    """Open the store that `store.url` names, for reading.

    Raises:
        ConfigError: The URL is unknown, its extra is not installed, or there is no data.
    """
    url = settings.store.url.get_secret_value()
    if is_embedded(url):
        from matchday.store.embedded_query import EmbeddedQuery

        return EmbeddedQuery(settings.data_dir)
    if url.startswith(("mongodb://", "mongodb+srv://")):
        try:
            from matchday.store.mongo_query import MongoQuery
        except ImportError as error:
            raise _no_extra("store.url", "mongo") from error
        return MongoQuery(url, database=settings.store.database)
    raise _unknown("store.url", url, "embedded: or mongodb://host:port")


def feed_opener(
    settings: Settings, slot: Slot, *, clock: Clock, rng: random.Random
) -> Callable[[], Feed]:
    """Give the function that opens the feed of a slot.

    The own endpoint takes what sensors send it, whatever the slot's filters are.

    Raises:
        ConfigError: The URL is unknown, a setting of it is out of bounds, or the own endpoint
            is to serve several slots.
    """
    url = settings.mqtt.url.get_secret_value()
    if is_embedded(url):
        # Here and not on loading: services without MQTT may be told of the slots, too.
        if (count := len(settings.ingest.all_slots())) > 1:
            raise ConfigError(
                f"opening mqtt.url {EMBEDDED}: {count} slots in ingest.slots, at most 1: the own "
                "endpoint is one door; slots share the work of a broker"
            )
        from matchday.mqtt.endpoint import EndpointFeed
        from matchday.mqtt.settings import EndpointSettings

        users = read_users(settings.mqtt.users_file) if settings.mqtt.users_file else None
        endpoint = EndpointSettings(
            host=settings.bind,
            port=settings.mqtt.port,
            receive_max=settings.mqtt.receive_max,
            authenticate=None if users is None else users.accepts,
        )
        return lambda: EndpointFeed(endpoint, clock=clock, rng=rng)
    if not url.startswith(("mqtt://", "mqtts://")):
        raise _unknown("mqtt.url", url, "embedded:, mqtt://host:port or mqtts://host:port")
    from matchday.mqtt.address import parse_address
    from matchday.mqtt.session import BrokerFeed
    from matchday.mqtt.settings import BrokerSettings

    broker = BrokerSettings(
        address=parse_address(url),
        client_id=slot.owner,
        filters=slot.filters,
        receive_max=settings.mqtt.receive_max,
        keep_alive_s=settings.mqtt.keep_alive_s,
        ca_file=settings.mqtt.ca_file,
    )
    return lambda: BrokerFeed(broker, clock=clock, rng=rng)


def check_addresses(settings: Settings) -> None:
    """Check `stream.url` and `store.url` as far as one can without their clients.

    Raises:
        ConfigError: One is no address of a known kind.
    """
    stream, store = settings.stream.url.get_secret_value(), settings.store.url.get_secret_value()
    if stream.startswith(("kafka://", "kafkas://")):
        KafkaAddress.parse(stream)
    elif not is_embedded(stream):
        raise _unknown("stream.url", stream, "embedded: or kafka://host:port")
    if not is_embedded(store) and not store.startswith(("mongodb://", "mongodb+srv://")):
        raise _unknown("store.url", store, "embedded: or mongodb://host:port")


class Users:
    """Who may publish to the endpoint; compares digests in constant time."""

    def __init__(self, passwords: dict[str, str]) -> None:
        self._digests = {user: _digest(word) for user, word in passwords.items()}

    def accepts(self, username: str, password: str) -> bool:
        """Tell whether the user exists and the password is theirs."""
        known = self._digests.get(username)
        offered = _digest(password)
        return hmac.compare_digest(known or b"\0" * 32, offered) and known is not None


def read_users(path: Path) -> Users:
    """Read a file of `user:password` lines; empty lines and `#` comments are skipped.

    Raises:
        ConfigError: The file cannot be read, or a line has no colon (named by number).
    """
    passwords = {}
    for number, line in enumerate(_text_of(path, "mqtt.users_file").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or not user or not password:
            raise ConfigError(f"reading mqtt.users_file {path}: line {number} is no user:password")
        passwords[user] = password
    if not passwords:
        raise ConfigError(f"reading mqtt.users_file {path}: no user in it")
    return Users(passwords)


def read_token(path: Path | None) -> str | None:
    """Read the page's token from its file; None where no file is configured.

    Raises:
        ConfigError: The file cannot be read, or the token is shorter than 16 characters or
            no printable ASCII, so that no browser could send it.
    """
    if path is None:
        return None
    token = _text_of(path, "http.token_file").strip()
    if len(token) < 16:
        raise ConfigError(f"reading http.token_file {path}: {len(token)} characters, below 16")
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(
            f"reading http.token_file {path}: the token holds characters that are not printable"
            " ASCII, which no browser could send"
        )
    return token


def _text_of(path: Path, setting: str) -> str:
    """Read a file that a setting names; errors name both, never what is in it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"reading {setting} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"reading {setting} {path}: byte {error.start} is no UTF-8") from error


class Prepared:
    """Prepares stream and store once per process, waiting until they answer."""

    def __init__(self, *steps: Callable[[], None], clock: Clock, rng: random.Random) -> None:
        self._steps = list(steps)
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> bool:
        """Do what is left to prepare; tell whether all is done (False: asked to stop).

        Raises:
            ConfigError: Something exists with other settings than wanted.
        """
        attempt = 0
        while not stop.is_set():
            with self._lock:
                try:
                    while self._steps:
                        self._steps[0]()
                        del self._steps[0]
                    return True
                except UnavailableError:
                    attempt += 1
            delay_s = min(BACKOFF_S_MAX, 0.2 * 2 ** min(attempt, 6))
            self._clock.wait(stop, delay_s * self._rng.uniform(0.5, 1.0))
        return False

    def gate(self, run: Callable[[threading.Event], None]) -> Callable[[threading.Event], None]:
        """Wrap a role's loop so that it begins when everything is prepared."""

        def prepared(stop: threading.Event) -> None:
            """Run the loop once all is prepared; never if a stop comes first."""
            if self.wait(stop):
                run(stop)

        return prepared


def _digest(word: str) -> bytes:
    return sha256(word.encode()).digest()


def _no_extra(name: str, extra: str) -> ConfigError:
    return ConfigError(
        f"opening {name}: its client is not installed; in the checkout: pip install '.[{extra}]'"
    )


def _unknown(name: str, url: str, wanted: str) -> ConfigError:
    scheme, mark, _ = url.partition("://")
    # What has no scheme may be a password in the wrong place.
    shown = f"scheme {scheme[:20]!r} is not known" if mark else "it is no address"
    return ConfigError(f"opening {name}: {shown}, wanted {wanted}")
