"""Training, evaluation and prediction: the loop, metrics, checkpoints and the run directory."""

from pgti.training.checkpoint import Checkpoint as Checkpoint
from pgti.training.config import TrainingConfig as TrainingConfig
from pgti.training.evaluation import evaluate as evaluate
from pgti.training.evaluation import evaluation_report as evaluation_report
from pgti.training.evaluation import measure as measure
from pgti.training.forecaster import AbstractForecaster as AbstractForecaster
from pgti.training.forecaster import NetworkForecaster as NetworkForecaster
from pgti.training.forecaster import PersistenceForecaster as PersistenceForecaster
from pgti.training.forecaster import shape_of as shape_of
from pgti.training.historical_average import (
    HistoricalAverageForecaster as HistoricalAverageForecaster,
)
from pgti.training.loader import Loader as Loader
from pgti.training.loop import FitResult as FitResult
from pgti.training.loop import Trainer as Trainer
from pgti.training.metrics import ForecastMetrics as ForecastMetrics
from pgti.training.metrics import MetricSummary as MetricSummary
from pgti.training.observers import AbstractObserver as AbstractObserver
from pgti.training.observers import RichObserver as RichObserver
from pgti.training.observers import TensorBoardObserver as TensorBoardObserver
from pgti.training.prediction import ForecastLabels as ForecastLabels
from pgti.training.prediction import predict as predict
from pgti.training.run_directory import RunDirectory as RunDirectory
from pgti.training.state import RunIdentity as RunIdentity
from pgti.training.toml_text import to_toml as to_toml
