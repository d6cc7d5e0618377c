"""How far a training has come, in plain numbers: what a checkpoint holds besides parameters."""

import math
from dataclasses import asdict, dataclass, field, fields, replace

from pgti.errors import RunError
from pgti.training.config import TrainingConfig
from pgti.training.optim import Plateau

__all__ = ["FitResult", "Progress", "rate_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a training has come, between two optimizer steps.

    Attributes:
        epoch: epochs completed.
        step_in_epoch: optimizer steps of the current epoch.
        step: optimizer steps in total.
        loss_sum: summed loss of the current epoch so far, in float64.
        loss_count: observed targets (or what a user's own loss counts) behind it.
        epoch_windows: windows trained on in the current epoch.
        epoch_seconds: seconds of training in the current epoch.
        windows: windows trained on in total.
        seconds: seconds of training in total, without validation.
        validation_seconds: seconds of validation in total.
        train_loss: mean loss of the last epoch that was validated.
        val_mae: MAE of the last validation.
        best_val_mae: lowest validation MAE.
        best_epoch: the epoch it was reached in, counted from 1; 0 before the first validation, or
            where the weights that training started from are the best.
        bad_validations: validations since then.
        validated_at_step: step of the last validation.
        plateau: state of the plateau schedule.
        metrics_bytes: length of `metrics.jsonl`.
        is_stopped: whether a callback has stopped the training.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    epoch_windows: int = 0
    epoch_seconds: float = 0.0
    windows: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    train_loss: float | None = None
    val_mae: float | None = None
    best_val_mae: float = math.inf
    best_epoch: int = 0
    bad_validations: int = 0
    validated_at_step: int = -1
    plateau: Plateau = field(default_factory=Plateau)
    metrics_bytes: int = 0
    is_stopped: bool = False

    @property
    def epochs(self) -> int:
        """Epochs trained, the current one included."""
        return self.epoch + (1 if self.step_in_epoch else 0)

    def is_finished(self, config: TrainingConfig) -> bool:
        """Whether nothing is left to train."""
        if self.validated_at_step < 0:
            return False
        limit = config.max_steps
        is_cut = self.is_stopped or (limit is not None and self.step >= limit)
        return (
            self.epoch >= config.epochs
            or self.has_stopped_improving(config)
            or (is_cut and self.validated_at_step == self.step)
        )

    def has_stopped_improving(self, config: TrainingConfig) -> bool:
        """Whether early stopping ends the training."""
        return config.patience is not None and self.bad_validations >= config.patience

    def after_step(self, num_windows: int, seconds: float) -> "Progress":
        """The progress after another step, of so many windows of all ranks."""
        return replace(
            self.after_waiting(seconds),
            step=self.step + 1,
            step_in_epoch=self.step_in_epoch + 1,
            epoch_windows=self.epoch_windows + num_windows,
            windows=self.windows + num_windows,
        )

    def after_waiting(self, seconds: float) -> "Progress":
        """The progress when the steps so far have taken that much longer."""
        return replace(
            self,
            epoch_seconds=self.epoch_seconds + seconds,
            seconds=self.seconds + seconds,
        )

    def validated(
        self, epoch: int, mae: float, train_loss: float | None, config: TrainingConfig
    ) -> "Progress":
        """The progress after a validation that gave `mae`.

        Args:
            epoch: the one that it ends, counted from 1; 0 for the weights that training starts
                from.
            mae: of the validation.
            train_loss: mean loss of the epoch.
            config: how to train.
        """
        better = mae < self.best_val_mae
        return replace(
            self,
            train_loss=train_loss,
            val_mae=mae,
            best_val_mae=mae if better else self.best_val_mae,
            best_epoch=epoch if better else self.best_epoch,
            bad_validations=0 if better else self.bad_validations + 1,
            validated_at_step=self.step,
            plateau=self.plateau.after(mae, config),
        )

    def next_epoch(self) -> "Progress":
        """The progress at the beginning of the next epoch."""
        return replace(
            self,
            epoch=self.epoch + 1,
            step_in_epoch=0,
            loss_sum=0.0,
            loss_count=0.0,
            epoch_windows=0,
            epoch_seconds=0.0,
        )

    def to_plain(self) -> dict[str, int | float | None]:
        """Plain numbers by name, for a checkpoint."""
        plain = asdict(self)
        for name, value in plain.pop("plateau").items():
            plain[f"plateau_{name}"] = value
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, int | float | None]) -> "Progress":
        """The progress that `to_plain` wrote.

        Raises:
            RunError: if a number is missing or unknown.
        """
        known = {f.name for f in fields(cls)} - {"plateau"}
        in_plateau = {f"plateau_{f.name}": f.name for f in fields(Plateau)}
        plain = {"is_stopped": False, **plain}  # checkpoints of 0.1 lack it
        differing = set(plain) ^ (known | set(in_plateau))
        if differing:
            raise RunError(
                f"the checkpoint is damaged: its progress has too many or too few fields "
                f"({', '.join(sorted(differing))})"
            )
        plateau = Plateau(**{name: plain[key] for key, name in in_plateau.items()})  # type: ignore[arg-type] # as to_plain wrote them
        return cls(**{name: plain[name] for name in known}, plateau=plateau)  # type: ignore[arg-type] # as to_plain wrote them


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """How a training ended.

    Attributes:
        epochs: epochs trained; `max_steps` may have cut the last one short.
        steps: optimizer steps.
        train_loss: mean loss over the last epoch; None if none of its targets was observed.
        val_mae: MAE of the last validation, in original units.
        best_val_mae: the lowest.
        best_epoch: the epoch it was reached in, counted from 1; 0 for the weights that training
            started from.
        windows_per_second: training windows per second, without validation.
        seconds: seconds of training and validation since the run began, without interruptions.
        stopped_early: whether the training ended before its epochs were over, because validation
            stopped improving or a callback stopped it.
        parameters: number of trained parameters.
        was_finished: whether there was nothing left to train.
        peak_device_bytes: the most that tensors took on a rank's GPU while it trained; None on a
            CPU, and where there was nothing left to train.
    """

    epochs: int
    steps: int
    train_loss: float | None
    val_mae: float
    best_val_mae: float
    best_epoch: int
    windows_per_second: float
    seconds: float
    stopped_early: bool
    parameters: int
    was_finished: bool = False
    peak_device_bytes: int | None = None

    @classmethod
    def of(cls, progress: Progress, config: TrainingConfig, num_parameters: int) -> "FitResult":
        """How a training that is finished ended.

        Raises:
            RunError: if it was never validated.
        """
        if progress.val_mae is None:
            raise RunError("the run ended without a validation: its checkpoint is damaged")
        return cls(
            epochs=progress.epochs,
            steps=progress.step,
            train_loss=progress.train_loss,
            val_mae=progress.val_mae,
            best_val_mae=progress.best_val_mae,
            best_epoch=progress.best_epoch,
            windows_per_second=rate_of(progress.windows, progress.seconds),
            seconds=progress.seconds + progress.validation_seconds,
            stopped_early=progress.epoch < config.epochs
            and (progress.is_stopped or progress.has_stopped_improving(config)),
            parameters=num_parameters,
        )


def rate_of(windows: int, seconds: float) -> float:
    """Windows per second; 0 before any time has passed."""
    return windows / seconds if seconds > 0 else 0.0
