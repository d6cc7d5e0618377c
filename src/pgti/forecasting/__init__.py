"""Forecasters and baselines, their evaluation, and forecasts as files."""

from pgti.forecasting.baselines import HistoricalAverageForecaster as HistoricalAverageForecaster
from pgti.forecasting.baselines import PersistenceForecaster as PersistenceForecaster
from pgti.forecasting.baselines import build_baselines as build_baselines
from pgti.forecasting.breakdowns import BREAKDOWNS as BREAKDOWNS
from pgti.forecasting.breakdowns import BreakdownName as BreakdownName
from pgti.forecasting.breakdowns import Breakdowns as Breakdowns
from pgti.forecasting.breakdowns import RangeEdges as RangeEdges
from pgti.forecasting.breakdowns import check_ranges as check_ranges
from pgti.forecasting.breakdowns import choose_edges as choose_edges
from pgti.forecasting.evaluation import evaluate as evaluate
from pgti.forecasting.evaluation import evaluation_report as evaluation_report
from pgti.forecasting.forecaster import AbstractForecaster as AbstractForecaster
from pgti.forecasting.forecaster import NetworkForecaster as NetworkForecaster
from pgti.forecasting.metrics import ForecastMetrics as ForecastMetrics
from pgti.forecasting.metrics import Metrics as Metrics
from pgti.forecasting.metrics import check_metrics as check_metrics
from pgti.forecasting.network_inputs import requested_inputs as requested_inputs
from pgti.forecasting.observers import Observer as Observer
from pgti.forecasting.observers import RichObserver as RichObserver
from pgti.forecasting.observers import TensorBoardObserver as TensorBoardObserver
from pgti.forecasting.prediction import forecast_blocks as forecast_blocks
from pgti.forecasting.prediction import forecast_frame as forecast_frame
from pgti.forecasting.prediction import predict as predict
from pgti.forecasting.report import Report as Report
from pgti.forecasting.report import step_heading as step_heading
from pgti.forecasting.writers import ForecastLabels as ForecastLabels
