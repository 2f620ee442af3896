"""Model artifacts: loading one from a file, reducing one, and applying one to readings.

The only module of the analysis that reads a file, once, at start. An artifact is told by
its content, never by its name; pickled models are refused, whatever they are called, for
loading one runs its author's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from matchday.analysis.forecast import prophet_json
from matchday.analysis.forecast.evaluator import Evaluator
from matchday.analysis.windows import NEVER_MS
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading, Scalar
from matchday.errors import ConfigError


class LoadedModel:
    """An artifact ready to use, with the name that its findings carry.

    Attributes:
        name: Name and version, such as "yosemite/3f2a91c0": the digest is of the artifact.
        evaluator: Computes the forecasts.
    """

    def __init__(self, name: str, evaluator: Evaluator) -> None:
        self.name = name
        self.evaluator = evaluator


def load_model(path: Path) -> LoadedModel:
    """Load a Prophet artifact: `model_to_json`'s output unchanged, or our reduced form.

    Raises:
        ConfigError: The file cannot be read, is no model, or has a part that cannot be
            served (extra regressors, holidays, conditions): the text says which.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"loading model {path}: {error.strerror or error}") from error
    if content[:1] == b"\x80" or content[:2] == b"PK":
        raise ConfigError(
            f"loading model {path}: a pickle or archive, which could run code; "
            "export it with prophet.serialize.model_to_json"
        )
    try:
        model = prophet_json.parse(content)
    except (prophet_json.UnsupportedModel, UnicodeDecodeError) as error:
        raise ConfigError(f"loading model {path}: {error}") from error
    digest = hashlib.sha256(content).hexdigest()[:8]
    name = path.stem if model.name == "prophet" else model.name
    return LoadedModel(f"{name}/{digest}", Evaluator(model))


def reduce_model(text: bytes | str, *, name: str, note: str = "") -> str:
    """Turn `model_to_json`'s output into the reduced form, a few kilobytes of JSON.

    Args:
        text: The artifact, in either form.
        name: What findings will call the model.
        note: What it was fitted on; "" keeps the period of the training data.

    Raises:
        ConfigError: It is no model or cannot be served.
    """
    try:
        model = prophet_json.parse(text)
    except prophet_json.UnsupportedModel as error:
        raise ConfigError(f"reducing model {name}: {error}") from error
    return prophet_json.dump(msgspec.structs.replace(model, name=name, note=note or model.note))


class ModelForecast:
    """The analyser that applies a loaded model to every scalar reading, as the original did.

    The forecast is for the reading's own time and needs no earlier reading, so that late
    readings have theirs too and a restart need not rewind.
    """

    deadline_ms = NEVER_MS

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Give the forecast for the reading's time; nothing for other kinds."""
        if type(reading) is not Scalar:
            return ()
        made = self._model.evaluator.at(np.array([reading.t_ms]))
        finding = Finding(
            subject=f"{reading.source}/{reading.quantity}",
            kind="forecast",
            span_start_ms=reading.t_ms,
            span_end_ms=reading.t_ms,
            model=self._model.name,
            values={
                "yhat": float(made.yhat[0]),
                "yhat_lower": float(made.lower[0]),
                "yhat_upper": float(made.upper[0]),
                "y": reading.value,
            },
            sensor=reading.source,
            venue=reading.venue,
            session=reading.session,
        )
        return (finding,)

    def pass_time(self, stream_ms: int) -> Sequence[Finding]:
        """Do nothing: there is no state."""
        return ()

    def finish(self) -> Sequence[Finding]:
        """Do nothing: there is no state."""
        return ()

    def rewind(self, next_offset: int, *, stream_ms: int) -> int:
        """Need nothing again."""
        return next_offset

    def provisional(self) -> Sequence[Finding]:
        """Give nothing: a forecast is final when it is made."""
        return ()

    def take_late(self) -> dict[str, int]:
        """Give nothing: no reading is late for a model."""
        return {}
