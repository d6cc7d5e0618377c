"""Training, evaluation and prediction: the loop, metrics, checkpoints and the run directory."""

from pgti.forecasting.evaluation import evaluate as evaluate
from pgti.forecasting.evaluation import evaluation_report as evaluation_report
from pgti.forecasting.evaluation import measure as measure
from pgti.forecasting.forecaster import AbstractForecaster as AbstractForecaster
from pgti.forecasting.forecaster import NetworkForecaster as NetworkForecaster
from pgti.forecasting.forecaster import PersistenceForecaster as PersistenceForecaster
from pgti.forecasting.forecaster import shape_of as shape_of
from pgti.forecasting.historical_average import (
    HistoricalAverageForecaster as HistoricalAverageForecaster,
)
from pgti.forecasting.loader import Loader as Loader
from pgti.forecasting.metrics import ForecastMetrics as ForecastMetrics
from pgti.forecasting.metrics import MetricSummary as MetricSummary
from pgti.forecasting.observers import AbstractObserver as AbstractObserver
from pgti.forecasting.observers import RichObserver as RichObserver
from pgti.forecasting.observers import TensorBoardObserver as TensorBoardObserver
from pgti.forecasting.predict import ForecastLabels as ForecastLabels
from pgti.forecasting.predict import predict as predict
from pgti.training.checkpoint import Checkpoint as Checkpoint
from pgti.training.config import TrainingConfig as TrainingConfig
from pgti.training.run_directory import RunDirectory as RunDirectory
from pgti.training.state import RunFingerprint as RunFingerprint
from pgti.training.step import RunningLoss as RunningLoss
from pgti.training.step import TrainStep as TrainStep
from pgti.training.toml_text import to_toml as to_toml
from pgti.training.trainer import FitResult as FitResult
from pgti.training.trainer import Trainer as Trainer
