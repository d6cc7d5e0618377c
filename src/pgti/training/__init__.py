"""Training: the trainer, its configuration, checkpoints and the run directory."""

from typing import TYPE_CHECKING

from pgti.lazy import lazy_names

if TYPE_CHECKING:
    from pgti.training.callbacks import Callback as Callback
    from pgti.training.callbacks import Extensions as Extensions
    from pgti.training.callbacks import TrainingStatus as TrainingStatus
    from pgti.training.checkpoint import Checkpoint as Checkpoint
    from pgti.training.config import CustomLoss as CustomLoss
    from pgti.training.config import HuberLoss as HuberLoss
    from pgti.training.config import MAELoss as MAELoss
    from pgti.training.config import MSELoss as MSELoss
    from pgti.training.config import QuantileLoss as QuantileLoss
    from pgti.training.config import TrainingConfig as TrainingConfig
    from pgti.training.optimizers import AdamOptimizer as AdamOptimizer
    from pgti.training.optimizers import AdamWOptimizer as AdamWOptimizer
    from pgti.training.optimizers import RMSPropOptimizer as RMSPropOptimizer
    from pgti.training.orders import AutoOrder as AutoOrder
    from pgti.training.orders import BlocksOrder as BlocksOrder
    from pgti.training.orders import GlobalOrder as GlobalOrder
    from pgti.training.orders import PartitionsOrder as PartitionsOrder
    from pgti.training.progress import FitResult as FitResult
    from pgti.training.run_directory import RunDirectory as RunDirectory
    from pgti.training.running_loss import RunningLoss as RunningLoss
    from pgti.training.schedules import CosineSchedule as CosineSchedule
    from pgti.training.schedules import ExponentialSchedule as ExponentialSchedule
    from pgti.training.schedules import MultistepSchedule as MultistepSchedule
    from pgti.training.schedules import NoSchedule as NoSchedule
    from pgti.training.schedules import PlateauSchedule as PlateauSchedule
    from pgti.training.schedules import StepSchedule as StepSchedule
    from pgti.training.state import RunFingerprint as RunFingerprint
    from pgti.training.step import TrainStep as TrainStep
    from pgti.training.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
