"""The settings: what they are (`sections`), where from (`loading`), what fits (`checks`).

Import from here. Importing reads nothing; `load` does.
"""

from __future__ import annotations

from matchday.config.checks import ENV_PREFIX, LOOPBACK
from matchday.config.loading import Loaded, Shown, load, show
from matchday.config.sections import (
    AnalysisSettings,
    DataSettings,
    GateSettings,
    HealthSettings,
    HttpSettings,
    IngestSettings,
    LogSettings,
    MqttSettings,
    PersistSettings,
    Section,
    SensorSettings,
    Settings,
    SetupSettings,
    StoreSettings,
    StreamSettings,
    VenueSettings,
)
from matchday.config.slots import Slot, filters_overlap, slots_of

__all__ = [
    "ENV_PREFIX",
    "LOOPBACK",
    "AnalysisSettings",
    "DataSettings",
    "GateSettings",
    "HealthSettings",
    "HttpSettings",
    "IngestSettings",
    "Loaded",
    "LogSettings",
    "MqttSettings",
    "PersistSettings",
    "Section",
    "SensorSettings",
    "Settings",
    "SetupSettings",
    "Shown",
    "Slot",
    "StoreSettings",
    "StreamSettings",
    "VenueSettings",
    "filters_overlap",
    "load",
    "show",
    "slots_of",
]
