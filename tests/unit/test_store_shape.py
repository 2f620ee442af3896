"""What the two shapes of `sensors` share, and where the choice means nothing."""

from __future__ import annotations

import pytest

from matchday.clock import ManualClock
from matchday.config.sections import Settings, StoreSettings
from matchday.errors import ConfigError
from matchday.services.links import open_store
from matchday.store.documents import COLLECTIONS, collections_of


def test_regular_readings_differ_from_time_series_in_nothing_but_their_buckets():
    regular, series = collections_of("regular"), collections_of("timeseries")
    assert series == COLLECTIONS
    assert regular.keys() == series.keys()
    assert {name for name in regular if regular[name] != series[name]} == {"sensors"}
    sensors = regular["sensors"]
    assert not sensors.is_time_series
    assert sensors.is_numbered
    assert (sensors.index, sensors.time_fields) == (
        series["sensors"].index,
        series["sensors"].time_fields,
    )


def test_dead_letters_are_put_in_place_in_either_shape():
    assert not collections_of("regular")["dead_letters"].is_numbered


def test_shape_of_mongodb_is_refused_where_the_store_is_embedded():
    settings = Settings(store=StoreSettings(shape="regular"))
    with pytest.raises(ConfigError, match=r"store\.shape = 'regular' is MongoDB's"):
        open_store(settings, clock=ManualClock())
