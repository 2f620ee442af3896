"""Model artifacts: loading one from a file, reducing one, and applying one to readings.

The only module of the analysis that reads a file, once, at start. An artifact is told by
its content, never by its name; pickled models are refused, whatever they are called, for
loading one runs its author's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from matchday.analysis.forecast import prophet_json
from matchday.analysis.windows import NEVER_MS
from matchday.domain.finding import Finding
from matchday.domain.reading import Reading, Scalar
from matchday.errors import ConfigError

if TYPE_CHECKING:
    from matchday.analysis.forecast.evaluator import Evaluator


class LoadedModel:
    """An artifact ready to use, with the name that its findings carry.

    Attributes:
        name: Name and version, such as "yosemite/3f2a91c0": the digest is of the artifact.
        evaluator: Computes the forecasts.
        quantity: What it forecasts; None where nobody said: then every scalar.
        unit: The unit of what it forecasts; None where nobody said.
    """

    def __init__(
        self,
        name: str,
        evaluator: Evaluator,
        *,
        quantity: str | None = None,
        unit: str | None = None,
    ) -> None:
        self.name = name
        self.evaluator = evaluator
        self.quantity = None if quantity is None else quantity.casefold()
        self.unit = unit

    def suits(self, reading: Reading) -> bool:
        """Tell whether a reading is of what the model was fitted on.

        Its quantity must be the model's, and its unit where both name one: a model of degC says
        nothing of degF. An artifact that says neither is taken for all scalars, as in the
        original system.
        """
        if type(reading) is not Scalar:
            return False
        if self.quantity is None:
            return True
        if reading.quantity.casefold() != self.quantity:
            return False
        return self.unit is None or reading.unit is None or reading.unit == self.unit


def load_model(path: Path, *, quantity: str | None = None) -> LoadedModel:
    """Load a Prophet artifact: `model_to_json`'s output unchanged, or our reduced form.

    Args:
        path: The file.
        quantity: What the model forecasts; None goes by what the artifact says.

    Raises:
        ConfigError: The file cannot be read, is no model, or has a part that cannot be
            served (extra regressors, holidays, conditions): the text says which. Or it says
            that it forecasts another quantity.
    """
    from matchday.analysis.forecast.evaluator import Evaluator

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
    known = model.quantity
    if quantity and known is not None and known.casefold() != quantity.casefold():
        raise ConfigError(f"loading model {path}: it forecasts {known}, not {quantity}")
    digest = hashlib.sha256(content).hexdigest()[:8]
    name = path.stem if model.name == "prophet" else model.name
    return LoadedModel(
        f"{name}/{digest}",
        Evaluator(model),
        quantity=quantity or model.quantity,
        unit=model.unit,
    )


def reduce_model(
    text: bytes | str,
    *,
    name: str,
    note: str = "",
    quantity: str | None = None,
    unit: str | None = None,
) -> str:
    """Turn `model_to_json`'s output into the reduced form, a few kilobytes of JSON.

    For scripts that fit models, such as `examples/models/fit_yosemite.py`.

    Args:
        text: The artifact, in either form.
        name: What findings will call the model.
        note: What it was fitted on; "" keeps the period of the training data.
        quantity: What it forecasts; None keeps what the artifact says.
        unit: The unit of that; None keeps what the artifact says.

    Raises:
        ConfigError: It is no model or cannot be served.
    """
    try:
        model = prophet_json.parse(text)
    except prophet_json.UnsupportedModel as error:
        raise ConfigError(f"reducing model {name}: {error}") from error
    reduced = msgspec.structs.replace(
        model,
        name=name,
        note=note or model.note,
        quantity=quantity or model.quantity,
        unit=unit or model.unit,
    )
    return prophet_json.dump(reduced)


class ModelForecast:
    """The analyser that applies a loaded model to each scalar reading that it suits.

    The forecast is for the reading's own time and needs no earlier reading, so that late
    readings have theirs too and a restart need not rewind.
    """

    deadline_ms = NEVER_MS

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def feed(self, reading: Reading, *, offset: int, stream_ms: int) -> Sequence[Finding]:
        """Give the forecast for the reading's time; nothing for what the model is not of."""
        if type(reading) is not Scalar or not self._model.suits(reading):
            return ()
        import numpy as np

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

    def settle(self) -> None:
        """Do nothing: no finding is promised."""

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
