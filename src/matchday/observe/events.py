"""The catalogue of everything that is logged or counted, one frozen type per event.

A stage never logs or counts by itself: it makes an event and hands it to `emit`. The
event knows its level, its log text (the class name in snake case) and what it adds to
which metric, so that a log line and its counter cannot drift apart. Reasons and stages
are bounded vocabularies; names of sources never become labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from matchday.observe import logs, metrics

Level = Literal["silent", "debug", "info", "warning", "error"]


@dataclass(frozen=True)
class Event:
    """Something worth counting or telling.

    Class attributes of a subclass say how: `level` (a "silent" event is only counted),
    and `counter`: the metric it adds to. The amount is the field `count` where the event
    has one, else 1; fields named in `labels` become labels.
    """

    level: ClassVar[Level] = "info"
    counter: ClassVar[str | None] = None
    labels: ClassVar[tuple[str, ...]] = ()


def emit(event: Event) -> None:
    """Log the event at its level and add it to its counter; safe from any thread."""
    values = {item.name: getattr(event, item.name) for item in fields(event)}
    if event.counter is not None:
        metrics.add(
            event.counter,
            float(values.get("count", 1)),
            {name: str(values[name]) for name in event.labels},
            text=type(event).__doc__ or "",
        )
    if event.level != "silent":
        logs.write(event.level, _snake(type(event).__name__), values)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


# --- services -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServiceStarted(Event):
    """A service has begun its work."""

    service: str
    detail: str = ""


@dataclass(frozen=True)
class ServiceStopped(Event):
    """A service has drained and stopped; `seconds` is what that took."""

    service: str
    seconds: float


@dataclass(frozen=True)
class RoleCrashed(Event):
    """A thread ended by an error nobody expected; its service ends with it."""

    level = "error"
    counter = "matchday_service_crashes_total"
    role: str
    error: str


@dataclass(frozen=True)
class LinkLost(Event):
    """A dependency stopped answering; the link is tried again with back-off."""

    level = "warning"
    counter = "matchday_link_losses_total"
    labels = ("link",)
    link: str
    detail: str


@dataclass(frozen=True)
class LinkRestored(Event):
    """A dependency answers (again)."""

    link: str
    detail: str


# --- ingest ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadingsAccepted(Event):
    """A tick appended readings to the stream."""

    level = "silent"
    counter = "matchday_ingest_readings_total"
    count: int


@dataclass(frozen=True)
class DuplicatesDropped(Event):
    """A tick met deliveries of readings accepted before."""

    level = "silent"
    counter = "matchday_ingest_duplicates_total"
    count: int


@dataclass(frozen=True)
class MessagesRefused(Event):
    """A tick set messages aside as dead letters."""

    level = "debug"
    counter = "matchday_ingest_refused_total"
    labels = ("reason",)
    reason: str
    count: int


@dataclass(frozen=True)
class RefusalFlood(Event):
    """Far more bad messages than good ones arrive; good sources are still served."""

    level = "warning"
    counter = "matchday_ingest_floods_total"
    refused_per_s: float
    example: str


@dataclass(frozen=True)
class NumbersMissing(Event):
    """Sources skipped numbers in their own numbering."""

    level = "silent"
    counter = "matchday_ingest_missing_total"
    count: int


@dataclass(frozen=True)
class IngestWarmed(Event):
    """The duplicate window was rebuilt from the stream."""

    slot: str
    identities: int
    seconds: float


@dataclass(frozen=True)
class OwnershipLost(Event):
    """Another owner took the work over; this one stands by."""

    level = "warning"
    counter = "matchday_ownership_losses_total"
    labels = ("stage",)
    stage: str
    detail: str


# --- persist --------------------------------------------------------------------------------


@dataclass(frozen=True)
class DocumentsStored(Event):
    """A write to the store was confirmed."""

    level = "silent"
    counter = "matchday_persist_documents_total"
    count: int


@dataclass(frozen=True)
class DocumentsRefused(Event):
    """The store can never take some documents; they are dead letters."""

    level = "warning"
    counter = "matchday_persist_refused_total"
    count: int
    example: str


@dataclass(frozen=True)
class RecordsExpired(Event):
    """Retention deleted records before they were stored or analysed."""

    level = "error"
    counter = "matchday_stream_expired_total"
    labels = ("stage",)
    stage: str
    partition: str
    count: int


@dataclass(frozen=True)
class RecordUndecodable(Event):
    """Stream records written by some other program are in no known form; they are skipped."""

    level = "warning"
    counter = "matchday_stream_undecodable_total"
    labels = ("stage",)
    stage: str
    error: str
    count: int = 1


# --- analysis -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FindingsEmitted(Event):
    """Analysis committed findings."""

    level = "silent"
    counter = "matchday_analysis_findings_total"
    count: int


@dataclass(frozen=True)
class ReadingsLate(Event):
    """Readings came after their window had been emitted; stored, in no finding."""

    level = "silent"
    counter = "matchday_analysis_late_total"
    count: int


@dataclass(frozen=True)
class AnalysisRewound(Event):
    """A worker recomputed state from earlier records before going on."""

    partition: str
    records: int
    seconds: float


# --- dashboard ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiveMessagesDropped(Event):
    """Live messages were dropped for clients too slow to take them; their pages catch up."""

    level = "silent"
    counter = "matchday_dashboard_dropped_total"
    count: int


@dataclass(frozen=True)
class LiveTailSkipped(Event):
    """The live view fell behind the stream and went on at its end."""

    level = "warning"
    counter = "matchday_dashboard_skips_total"
    behind_s: float


@dataclass(frozen=True)
class LoginRefused(Event):
    """Somebody offered the page a wrong token."""

    level = "warning"
    counter = "matchday_dashboard_logins_refused_total"
    client: str


# --- sensors --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublicationsAcknowledged(Event):
    """The other side took messages of a sensor over."""

    level = "silent"
    counter = "matchday_sensor_acknowledged_total"
    count: int


@dataclass(frozen=True)
class PublicationsHeld(Event):
    """The other side refused messages; they are kept and tried again."""

    level = "warning"
    counter = "matchday_sensor_refused_total"
    labels = ("reason",)
    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class RecordingRowsSkipped(Event):
    """Rows of a recording hold nothing that could be sent."""

    level = "warning"
    counter = "matchday_sensor_rows_skipped_total"
    path: str
    count: int
    reasons: str


@dataclass(frozen=True)
class ClientLogged(Event):
    """A client library wrote a log line of its own."""

    level = "debug"
    library: str
    text: str


# --- mqtt endpoint --------------------------------------------------------------------------


@dataclass(frozen=True)
class SensorConnected(Event):
    """The endpoint accepted a client's CONNECT."""

    level = "debug"
    counter = "matchday_mqtt_connections_total"
    client: str
    peer: str


@dataclass(frozen=True)
class SensorRefused(Event):
    """The endpoint closed a connection before it was accepted."""

    level = "warning"
    counter = "matchday_mqtt_refusals_total"
    labels = ("reason",)
    reason: str
    peer: str
    detail: str


@dataclass(frozen=True)
class SensorDropped(Event):
    """The endpoint ended an accepted connection; the reason is an MQTT reason code's name."""

    level = "warning"
    counter = "matchday_mqtt_drops_total"
    labels = ("reason",)
    reason: str
    client: str
    detail: str


@dataclass(frozen=True)
class FindingsUnusable(Event):
    """Findings were dropped that cannot be written: of absurd readings, numbers or times."""

    level = "warning"
    counter = "matchday_analysis_unusable_total"
    count: int


# --- deployment -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SecretsReady(Event):
    """The secrets of a deployment are complete; counts are of files."""

    directory: str
    written_count: int
    unchanged_count: int


@dataclass(frozen=True)
class SecretsOwnerKept(Event):
    """Secrets stay with the user who made them, as only root can give files away."""

    level = "warning"
    directory: str
    uid: int


@dataclass(frozen=True)
class ServerAwaited(Event):
    """`matchday setup` waits for a server that does not answer as it should yet."""

    server: str
    detail: str
