"""Fitted Prophet models: read from JSON, reduced to what a forecast needs, evaluated by numpy.

Owns the two forms of the artifact and the arithmetic of a forecast (Taylor & Letham 2018,
"Forecasting at scale"): trend g(t) by piecewise linear, logistic or flat growth, seasonal
terms as Fourier sums, `yhat = g(t) (1 + multiplicative) + additive`. Prophet itself is not
needed; `yhat` equals its own `predict` to rounding. What cannot be evaluated from the time
alone is refused: extra regressors, holidays, conditional seasonalities. So are models fitted
by sampling (`mcmc_samples`), whose interval comes from the samples that we do not keep.

The reduced form is one JSON object, `{"format": "matchday-prophet", "version": 1, ...}`
with the fields of `ProphetModel`. Instants are naive in Prophet: here they are UTC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

FORMAT_NAME: Final = "matchday-prophet"
VERSION = 1


class Seasonality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A periodic term as a Fourier sum.

    Attributes:
        name: For people, such as "daily".
        period_days: Length of the period, days.
        mode: Added to the trend, or a share of it.
        beta: Coefficients of sin and cos in turn, first harmonic first; in units of
            `y_scale` where additive.
    """

    name: str
    period_days: float
    mode: Literal["additive", "multiplicative"]
    beta: tuple[float, ...]


class ProphetModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a forecast needs of a fitted Prophet model; this is the reduced form's schema.

    Attributes:
        format: Always "matchday-prophet".
        version: Of this schema; a newer one is refused.
        name: For people; part of the model's name in findings.
        note: What it was fitted on.
        quantity: What it forecasts, such as "temperature"; None where nobody said.
        unit: Unit of what it forecasts, such as "degC"; None where nobody said.
        growth: Shape of the trend.
        start_s: Start of the training data, seconds since 1970, UTC.
        span_s: Length of the training data, seconds: one unit of the model's time t.
        y_scale: Unit of the model's values.
        floor: Added to the scaled trend, and the lower asymptote of logistic growth.
        cap: Upper asymptote of logistic growth: the training data's last; None otherwise.
        k: Initial growth rate, per unit of t.
        m: Initial offset.
        changepoints_t: Where the rate changes, in t, rising.
        deltas: By how much, one for each changepoint.
        sigma: Standard deviation of the noise, in `y_scale`.
        interval_ratio: Share of observations the interval is to contain.
        seasonalities: The periodic terms.
    """

    format: Literal["matchday-prophet"] = FORMAT_NAME
    version: int = VERSION
    name: str = "prophet"
    note: str = ""
    quantity: str | None = None
    unit: str | None = None
    growth: Literal["linear", "logistic", "flat"]
    start_s: float
    span_s: float
    y_scale: float
    floor: float
    cap: float | None = None
    k: float
    m: float
    changepoints_t: tuple[float, ...]
    deltas: tuple[float, ...]
    sigma: float
    interval_ratio: float
    seasonalities: tuple[Seasonality, ...]


class UnsupportedModel(ValueError):
    """The artifact is no model, or has a part that cannot be evaluated here."""


def parse(text: bytes | str) -> ProphetModel:
    """Read a model in either form, told apart by content.

    Raises:
        UnsupportedModel: Not a model, of a newer version, or with a part that is refused;
            the text says which.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise UnsupportedModel(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UnsupportedModel("not a JSON object")
    if fields.get("format") == FORMAT_NAME:
        return _parse_reduced(fields)
    if "params" not in fields or "growth" not in fields:
        raise UnsupportedModel("neither matchday-prophet nor prophet.serialize.model_to_json")
    try:
        return _checked(_reduced(fields))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UnsupportedModel):
            raise
        raise UnsupportedModel(f"not of model_to_json's shape: {error!r}") from error


def dump(model: ProphetModel) -> str:
    """Write the reduced form as JSON text, keys in the schema's order, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(model), indent=1).decode() + "\n"


def _parse_reduced(fields: Mapping[str, Any]) -> ProphetModel:
    version = fields.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnsupportedModel(f"version {version} above {VERSION}")
    try:
        return _checked(msgspec.convert(fields, ProphetModel))
    except msgspec.ValidationError as error:
        raise UnsupportedModel(f"matchday-prophet: {error}") from error


def _checked(model: ProphetModel) -> ProphetModel:
    if len(model.deltas) != len(model.changepoints_t):
        raise UnsupportedModel(
            f"{len(model.deltas)} deltas for {len(model.changepoints_t)} changepoints"
        )
    if model.span_s <= 0 or model.y_scale <= 0 or not 0 < model.interval_ratio < 1:
        raise UnsupportedModel("span_s and y_scale must be above 0, interval_ratio in 0..1")
    if model.growth == "logistic" and (model.cap is None or model.cap <= model.floor):
        raise UnsupportedModel(f"logistic growth needs a cap above its floor, not {model.cap}")
    for season in model.seasonalities:
        if season.period_days <= 0 or not season.beta or len(season.beta) % 2:
            raise UnsupportedModel(f"seasonality {season.name}: no period or odd coefficients")
    return model


def _reduced(fields: Mapping[str, Any]) -> ProphetModel:
    _refuse_unsupported(fields)
    params = fields["params"]
    beta = params["beta"][0]
    names, terms = fields["seasonalities"]
    seasonalities = []
    used = 0
    for name in names:
        term = terms[name]
        count = 2 * int(term["fourier_order"])
        seasonalities.append(
            Seasonality(name, float(term["period"]), term["mode"], tuple(beta[used : used + count]))
        )
        used += count
    if names and used != len(beta):
        raise UnsupportedModel(f"{len(beta)} coefficients where its seasonalities have {used}")
    last = json.loads(fields["history"])["data"][-1]
    scaling = fields.get("scaling", "absmax")
    floor = 0.0 if scaling == "absmax" else float(fields["y_min"])
    # A flat trend has parameters for changes that it never uses.
    is_flat = fields["growth"] == "flat"
    return ProphetModel(
        growth=fields["growth"],
        start_s=float(fields["start"]),
        span_s=float(fields["t_scale"]),
        y_scale=float(fields["y_scale"]),
        floor=float(last["floor"]) if fields["logistic_floor"] else floor,
        cap=float(last["cap"]) if fields["growth"] == "logistic" else None,
        k=float(params["k"][0][0]),
        m=float(params["m"][0][0]),
        changepoints_t=() if is_flat else tuple(map(float, fields["changepoints_t"])),
        deltas=() if is_flat else tuple(map(float, params["delta"][0])),
        sigma=float(params["sigma_obs"][0][0]),
        interval_ratio=float(fields["interval_width"]),
        seasonalities=tuple(seasonalities),
        note=_note(fields["start"], fields["t_scale"]),
    )


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    if fields.get("extra_regressors") and fields["extra_regressors"][0]:
        raise UnsupportedModel(f"extra regressors {fields['extra_regressors'][0]}")
    if fields.get("holidays") or fields.get("country_holidays"):
        raise UnsupportedModel("holidays")
    if fields.get("mcmc_samples"):
        raise UnsupportedModel(f"mcmc_samples {fields['mcmc_samples']} above 0")
    for name, term in fields["seasonalities"][1].items():
        if term.get("condition_name"):
            raise UnsupportedModel(
                f"seasonality {name} depends on condition {term['condition_name']}"
            )


def _note(start_s: float, span_s: float) -> str:
    first = datetime.fromtimestamp(start_s, UTC).date()
    last = datetime.fromtimestamp(start_s + span_s, UTC).date()
    return f"fitted on {first} to {last}"
