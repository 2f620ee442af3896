"""`matchday doctor`: tests every configured connection and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matchday.clock import Clock
from matchday.config import Settings
from matchday.errors import ConfigError, MatchdayError, UnavailableError
from matchday.services.broker_check import check_broker
from matchday.services.links import claim_folder, is_embedded, open_store, open_stream


@dataclass(frozen=True)
class Diagnosis:
    """What was found about one link.

    Attributes:
        link: "mqtt", "stream" or "store".
        is_reachable: It answered.
        problems: What is wrong and what to do, one sentence each.
    """

    link: str
    is_reachable: bool
    problems: tuple[str, ...] = ()


def examine(settings: Settings, *, clock: Clock) -> list[Diagnosis]:
    """Test MQTT, stream and store, in the direction of the flow."""
    return [
        _diagnose("mqtt", lambda: check_broker(settings, clock=clock)),
        _diagnose("stream", lambda: _check_stream(settings, clock)),
        _diagnose("store", lambda: _check_store(settings, clock)),
    ]


def _diagnose(link: str, test: Callable[[], list[str]]) -> Diagnosis:
    try:
        return Diagnosis(link, True, tuple(test()))
    except UnavailableError as error:
        return Diagnosis(link, False, (str(error),))
    except ConfigError as error:
        return Diagnosis(link, True, (str(error),))
    except MatchdayError as error:
        return Diagnosis(link, False, (str(error),))


def _check_stream(settings: Settings, clock: Clock) -> list[str]:
    embedded = is_embedded(settings.stream.url.get_secret_value())
    if embedded and not (settings.data_dir / "stream.db").exists():
        return [f"no data in {settings.data_dir} yet; it is made by `matchday up`"]
    stream = open_stream(settings, clock=clock, read_only=embedded)
    try:
        return stream.check()
    finally:
        stream.close()


def _check_store(settings: Settings, clock: Clock) -> list[str]:
    if is_embedded(settings.store.url.get_secret_value()):
        if not (settings.data_dir / "store.db").exists():
            return [f"no data in {settings.data_dir} yet; it is made by `matchday up`"]
        try:
            folder = claim_folder(settings)
        except ConfigError:
            return []  # a running process owns and checks it
        try:
            store = open_store(settings, clock=clock)
            try:
                return store.check()
            finally:
                store.close()
        finally:
            if folder is not None:
                folder.close()
    store = open_store(settings, clock=clock)
    try:
        return store.check()
    finally:
        store.close()
