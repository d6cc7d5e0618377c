"""How far a training has come, in plain numbers: what a checkpoint holds besides parameters."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

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
            RunError: naming a number that is missing, unknown, of another type or out of range.
        """
        known = {f.name for f in fields(cls)} - {"plateau"}
        in_plateau = {f"plateau_{f.name}": f.name for f in fields(Plateau)}
        plain = {"is_stopped": False, **plain}  # checkpoints of 0.1 lack it
        differing = set(plain) ^ (known | set(in_plateau))
        if differing:
            raise RunError(
                f"its progress has too many or too few fields ({', '.join(sorted(differing)):.200})"
            )
        hints, of_plateau = get_type_hints(cls), get_type_hints(Plateau)
        plateau = Plateau(
            **{name: _parsed(key, plain[key], of_plateau[name]) for key, name in in_plateau.items()}
        )
        progress = cls(
            **{name: _parsed(name, plain[name], hints[name]) for name in known}, plateau=plateau
        )
        progress._check_ranges()
        return progress

    def _check_ranges(self) -> None:
        """Refuse numbers that no training reaches together."""
        most = {
            "epoch": self.step,
            "step_in_epoch": self.step,
            "validated_at_step": self.step,
            "best_epoch": self.epoch + 1,
            "bad_validations": self.step + 1,
            "epoch_windows": self.windows,
        }
        for name, limit in most.items():
            if getattr(self, name) > limit:
                raise RunError(
                    f"its {name} is {getattr(self, name)}: it must be at most {limit} after step "
                    f"{self.step}"
                )
        plateau, is_validated = self.plateau, self.validated_at_step >= 0
        if plateau.bad_validations > self.step + 1 or plateau.factor > 1:
            raise RunError(
                f"its plateau_bad_validations is {plateau.bad_validations} and its plateau_factor "
                f"{plateau.factor}: they must be at most {self.step + 1} and 1 after step "
                f"{self.step}"
            )
        for name, value in (
            ("val_mae", math.inf if self.val_mae is None else self.val_mae),
            ("best_val_mae", self.best_val_mae),
            ("plateau_best", plateau.best),
        ):
            if math.isfinite(value) != is_validated:
                raise RunError(
                    f"its {name} is {value} and its validated_at_step {self.validated_at_step}: "
                    "one says that there was a validation and the other that there was none"
                )


_INFINITE = ("best_val_mae", "plateau_best")
"""Lowest MAEs, before there was any."""

_LEAST = {"loss_sum": -math.inf, "train_loss": -math.inf, "validated_at_step": -1}
"""The least value of a field; of the others it is 0."""

_LIMIT = 1 << 63
"""Counts, in steps, windows and bytes, are below it."""


def _parsed(name: str, value: object, kind: Any) -> Any:
    """A number of a checkpoint as its field declares it: never rounded, cast or out of range."""
    if kind is bool and isinstance(value, bool):
        return value
    if value is None and kind == float | None:
        return None
    least, is_fit = _LEAST.get(name, 0), False
    may_be_whole = kind is int or name == "loss_count"  # whole in 0.1
    if isinstance(value, int) and not isinstance(value, bool) and may_be_whole:
        is_fit = max(least, -_LIMIT) <= value < _LIMIT
    elif isinstance(value, float) and kind not in (bool, int):
        is_infinite = name in _INFINITE and value == math.inf
        is_fit = is_infinite or (math.isfinite(value) and value >= least)
    if is_fit:
        return value if kind is int else float(value)  # type: ignore[arg-type] # a number
    what = {bool: "True or False", int: "a whole number"}.get(kind, "a finite number")
    at_least = "" if kind is bool or least == -math.inf else f", at least {least}"
    raise RunError(f"its {name} is {_shown(value)}: it must be {what}{at_least}")


def _shown(value: object) -> str:
    return f"{value!r:.60}" if isinstance(value, int | float | str | None) else type(value).__name__


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
