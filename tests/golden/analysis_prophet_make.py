"""Makes `analysis_prophet.json.gz`: models fitted by Prophet and what Prophet predicts.

Run with the extra `prophet` installed; the test that reads the file needs no Prophet.
`cases()` is used by the test that compares with a live Prophet, too.
"""

from __future__ import annotations

import gzip
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("analysis_prophet.json.gz")
POINTS = 120

SHAPES: dict[str, dict[str, Any]] = {
    "linear, additive": {},
    "linear, multiplicative": {"seasonality_mode": "multiplicative"},
    "flat": {"growth": "flat"},
    "logistic": {"growth": "logistic"},
    "logistic with a floor": {"growth": "logistic", "floor": 5.0},
    "minmax scaling": {"scaling": "minmax"},
    "mixed modes, odd period": {
        "n_changepoints": 5,
        "interval_width": 0.9,
        "extra": {"name": "odd", "period": 3.3, "fourier_order": 3, "mode": "multiplicative"},
    },
    "trend alone": {
        "n_changepoints": 0,
        "daily_seasonality": False,
        "weekly_seasonality": False,
        "yearly_seasonality": False,
    },
}


def cases(names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Fit each shape to the same seeded data and predict inside and beyond it.

    Yields:
        `name`, the artifact as `text`, `ds_ms` (milliseconds UTC) and Prophet's `yhat`,
        `yhat_lower` and `yhat_upper` there.
    """
    logging.getLogger("cmdstanpy").setLevel(logging.ERROR)
    logging.getLogger("prophet").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import numpy as np
        import pandas as pd
        from prophet import Prophet
        from prophet.serialize import model_to_json

        rng = np.random.default_rng(1)
        x = np.arange(POINTS)
        y = 20 + 0.05 * x + 5 * np.sin(x * np.pi / 2) + np.maximum(x - 60, 0) * 0.1
        y = np.round(y + rng.normal(0, 1, POINTS), 3)
        for name in names or SHAPES:
            options = dict(SHAPES[name])
            extra, floor = options.pop("extra", None), options.pop("floor", None)
            rows = pd.DataFrame({"ds": pd.date_range("2021-01-01", periods=POINTS, freq="6h")})
            rows["y"] = y
            later = pd.DataFrame({"ds": pd.date_range("2021-01-01 00:07", periods=240, freq="6h")})
            for frame in (rows, later):
                if options.get("growth") == "logistic":
                    frame["cap"] = 90.0
                if floor is not None:
                    frame["floor"] = floor
            model = Prophet(**options)
            if extra is not None:
                model.add_seasonality(**extra)
            model.fit(rows, seed=1)
            np.random.seed(1)
            made = model.predict(later)
            yield {
                "name": name,
                "text": model_to_json(model),
                "ds_ms": (later["ds"].astype("datetime64[ms]").astype("int64")).tolist(),
                **{key: made[key].tolist() for key in ("yhat", "yhat_lower", "yhat_upper")},
            }


if __name__ == "__main__":
    FILE.write_bytes(gzip.compress(json.dumps(list(cases())).encode(), 9, mtime=0))
