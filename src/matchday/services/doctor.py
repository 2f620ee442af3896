"""`matchday doctor`: tests every configured connection and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from matchday.clock import Clock
from matchday.config import Settings
from matchday.domain.instants import iso_from_ms
from matchday.errors import ConfigError, DeniedError, MatchdayError
from matchday.ingest.tails import slots_seen
from matchday.ports import Stream
from matchday.services.broker_check import check_broker
from matchday.services.links import (
    claim_folder,
    is_embedded,
    open_query,
    open_store,
    open_stream,
)
from matchday.sqlite_check import damage


@dataclass(frozen=True)
class Diagnosis:
    """What was found about one link.

    Attributes:
        link: "mqtt", "stream" or "store".
        is_reachable: It answered.
        problems: What is wrong and what to do, one sentence each.
        risks: What is not wrong and can lose data all the same, with what would help.
        unasked: What could not be asked, because the login has no more rights than it needs;
            no fault.
    """

    link: str
    is_reachable: bool
    problems: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()


def examine(settings: Settings, *, clock: Clock) -> list[Diagnosis]:
    """Test MQTT, stream and store, in the direction of the flow."""
    return [
        _diagnose("mqtt", lambda: _check_mqtt(settings, clock)),
        _diagnose("stream", lambda: _check_stream(settings, clock)),
        _diagnose("store", lambda: _check_store(settings, clock)),
    ]


def _diagnose(link: str, test: Callable[[], Diagnosis]) -> Diagnosis:
    try:
        return test()
    except (ConfigError, DeniedError) as error:
        return Diagnosis(link, True, (str(error),))
    except MatchdayError as error:
        return Diagnosis(link, False, (str(error),))


def _check_mqtt(settings: Settings, clock: Clock) -> Diagnosis:
    problems, risks = check_broker(settings, clock=clock)
    return Diagnosis("mqtt", True, tuple(problems), tuple(risks))


def _check_stream(settings: Settings, clock: Clock) -> Diagnosis:
    embedded = is_embedded(settings.stream.url.get_secret_value())
    if embedded and (problems := _unusable(settings, "stream.db")):
        return Diagnosis("stream", True, tuple(problems))
    with closing(open_stream(settings, clock=clock, read_only=embedded)) as stream:
        problems, risks = stream.check(), []
        if not any(line.endswith("does not exist") for line in problems):
            problems += _check_slots(settings, stream)
            risks = stream.risks()
        return Diagnosis("stream", True, tuple(problems), tuple(risks), tuple(stream.unasked()))


def _unusable(settings: Settings, name: str) -> list[str]:
    """Tell why a file of the data folder cannot be looked into, if so."""
    file = settings.data_dir / name
    if not file.exists():
        return [f"no data in {settings.data_dir} yet; it is made by `matchday up`"]
    return damage(file)


def _check_slots(settings: Settings, stream: Stream) -> list[str]:
    """Find slots that are no more but worked lately: a broker goes on queueing for them."""
    if is_embedded(settings.mqtt.url.get_secret_value()):
        return []
    slots = {slot.name for slot in settings.ingest.all_slots()}
    return [
        f"slot {name} took messages until {iso_from_ms(last_ms)} and is not among ingest.slots "
        f"any more: if the broker still has its session matchday-ingest-{name}, it keeps every "
        "message of the slot's filters there; remove the session (docs/how-to/ingest-slots.md)"
        for name, last_ms in slots_seen(stream).items()
        if name not in slots
    ]


def _check_store(settings: Settings, clock: Clock) -> Diagnosis:
    if is_embedded(settings.store.url.get_secret_value()):
        problems, risks = _check_embedded_store(settings, clock), _lone_store(settings)
        return Diagnosis("store", True, tuple(problems), tuple(risks))
    with closing(open_store(settings, clock=clock)) as store:
        try:
            problems, risks, unasked = store.check(), store.risks(), store.unasked()
            return Diagnosis("store", True, tuple(problems), tuple(risks), tuple(unasked))
        except DeniedError as error:
            denied = error
    # A login that only reads may not ask how things are laid out, and need not.
    with closing(open_query(settings)) as query:
        query.folded()
    return Diagnosis("store", True, unasked=(str(denied),))


def _lone_store(settings: Settings) -> list[str]:
    """Tell that the readings of an embedded store are nowhere else, once there are any."""
    file = settings.data_dir / "store.db"
    if not file.exists():
        return []
    return [
        f"{file} is the only copy of the store: it is lost with its disk; back it up, "
        "or use MongoDB with three members"
    ]


def _check_embedded_store(settings: Settings, clock: Clock) -> list[str]:
    if problems := _unusable(settings, "store.db"):
        return problems
    try:
        folder = claim_folder(settings)
    except ConfigError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return []  # a running process owns and checks it
        return [str(error)]
    try:
        with closing(open_store(settings, clock=clock)) as store:
            return store.check()
    finally:
        if folder is not None:
            folder.close()
