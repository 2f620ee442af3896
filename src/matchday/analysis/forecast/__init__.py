"""Forecasts of scalars and counts: a seasonal baseline, and fitted Prophet artifacts."""
