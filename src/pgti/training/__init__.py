"""Training: the trainer, its configuration, checkpoints and the run directory."""

from pgti.training.checkpoint import Checkpoint as Checkpoint
from pgti.training.config import TrainingConfig as TrainingConfig
from pgti.training.run_directory import RunDirectory as RunDirectory
from pgti.training.state import RunFingerprint as RunFingerprint
from pgti.training.step import RunningLoss as RunningLoss
from pgti.training.step import TrainStep as TrainStep
from pgti.training.trainer import FitResult as FitResult
from pgti.training.trainer import Trainer as Trainer
