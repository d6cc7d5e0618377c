"""Baselines: what any model has to beat."""

from pgti.forecasting.baselines.build import BASELINES as BASELINES
from pgti.forecasting.baselines.build import build_baselines as build_baselines
from pgti.forecasting.baselines.historical_average import (
    HistoricalAverageForecaster as HistoricalAverageForecaster,
)
from pgti.forecasting.baselines.persistence import PersistenceForecaster as PersistenceForecaster
