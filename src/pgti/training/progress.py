"""How far a training has come, in plain numbers: what a checkpoint holds besides parameters."""

import math
from dataclasses import asdict, dataclass, field, fields, replace

from pgti.errors import RunError
from pgti.training.config import TrainingConfig
from pgti.training.optim import Plateau

__all__ = ["Progress"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a training has come, between two optimizer steps.

    Attributes:
        epoch: epochs completed.
        step_in_epoch: optimizer steps of the current epoch.
        step: optimizer steps in total.
        loss_sum: summed loss of the current epoch so far, in float64.
        loss_count: observed targets behind it.
        epoch_windows: windows trained on in the current epoch.
        epoch_seconds: seconds of training in the current epoch.
        windows: windows trained on in total.
        seconds: seconds of training in total, without validation.
        validation_seconds: seconds of validation in total.
        train_loss: mean loss of the last epoch that was validated.
        val_mae: MAE of the last validation.
        best_val_mae: lowest validation MAE.
        best_epoch: the epoch it was reached in, counted from 1; 0 before the first validation.
        bad_validations: validations since then.
        validated_at_step: step of the last validation.
        plateau: state of the plateau schedule.
        metrics_bytes: length of `metrics.jsonl`.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
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

    def is_finished(self, config: TrainingConfig) -> bool:
        """Whether nothing is left to train."""
        limit = config.max_steps
        is_cut = limit is not None and self.step >= limit
        return (
            self.epoch >= config.epochs
            or self.has_stopped_improving(config)
            or (is_cut and self.validated_at_step == self.step)
        )

    def has_stopped_improving(self, config: TrainingConfig) -> bool:
        """Whether early stopping ends the training."""
        return config.patience is not None and self.bad_validations >= config.patience

    def validated(self, mae: float, train_loss: float | None, config: TrainingConfig) -> "Progress":
        """The progress after a validation that gave `mae`."""
        better = mae < self.best_val_mae
        return replace(
            self,
            train_loss=train_loss,
            val_mae=mae,
            best_val_mae=mae if better else self.best_val_mae,
            best_epoch=self.epoch + 1 if better else self.best_epoch,
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
            loss_count=0,
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
        differing = set(plain) ^ (known | set(in_plateau))
        if differing:
            raise RunError(
                f"the checkpoint is damaged: its progress has too many or too few fields "
                f"({', '.join(sorted(differing))})"
            )
        plateau = Plateau(**{name: plain[key] for key, name in in_plateau.items()})  # type: ignore[arg-type] # as to_plain wrote them
        return cls(**{name: plain[name] for name in known}, plateau=plateau)  # type: ignore[arg-type] # as to_plain wrote them
