"""Fit the bundled model on the bundled temperature recording: `python fit_yosemite.py`.

Needs the extra `prophet`; serving the model does not. Writes `yosemite.json` beside this
file, in the reduced form. All readings are used, those with sun on the sensor too. A day's
cycle around a constant is fitted: two months say nothing of the year, the weather knows no
week, and a trend would run away when a replay moves the recording by years. The recording's
times have no zone and are taken as UTC, which they seem to be: the warmest hour is 21, early
afternoon in California.
"""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import pandas as pd
from prophet import Prophet
from prophet.serialize import model_to_json

from matchday.analysis.models import reduce_model

HERE = Path(__file__).parent
RECORDING = HERE.parent / "recordings" / "yosemite-temperature.csv.gz"


def main() -> None:
    """Read, fit, reduce, write."""
    logging.getLogger("cmdstanpy").setLevel(logging.WARNING)
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        rows = pd.read_csv(lines, parse_dates=["ds"]).dropna()
    model = Prophet(
        growth="flat",
        weekly_seasonality=False,
        yearly_seasonality=False,
        daily_seasonality=6,
    )
    model.fit(rows, seed=20170501)
    note = f"Yosemite outdoor temperature, degC, {len(rows)} readings, facebook/prophet (MIT)"
    text = reduce_model(
        model_to_json(model), name="yosemite", note=note, quantity="temperature", unit="degC"
    )
    (HERE / "yosemite.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
