"""Schedules of the learning rate: their options, and the rate as a pure function of the step."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pgti.errors import ConfigError, require_whole_number
from pgti.options import convert_fields, require_number

if TYPE_CHECKING:
    from pgti.training.config import TrainingConfig

__all__ = [
    "CosineSchedule",
    "MultistepSchedule",
    "NoSchedule",
    "Plateau",
    "PlateauSchedule",
    "Schedule",
    "learning_rate",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoSchedule:
    """The learning rate stays constant after warm-up."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class MultistepSchedule:
    """The learning rate is multiplied by a factor at given epochs.

    Attributes:
        milestones: Epochs, counted from 0, at whose beginning the learning rate is reduced.
        factor: Factor by which the learning rate is multiplied when it is reduced.
    """

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        convert_fields(self)
        epochs = list(self.milestones)
        if not epochs:
            raise ConfigError("milestones are missing: name the epochs, such as [20, 30]")
        if epochs != sorted({*epochs}) or epochs[0] < 1:
            raise ConfigError(f"milestones are {epochs}: they must rise, from 1 or more")
        _check_factor(self.factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineSchedule:
    """The learning rate falls along half a cosine over all epochs (Loshchilov & Hutter 2017).

    Attributes:
        min_learning_rate: Learning rate at the end.
    """

    kind: Literal["cosine"] = "cosine"
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self)
        require_number("min_learning_rate", self.min_learning_rate)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlateauSchedule:
    """The learning rate is multiplied by a factor when the validation MAE stops improving.

    Attributes:
        patience: Validations without improvement before the learning rate is reduced.
        factor: Factor by which the learning rate is multiplied when it is reduced.
        min_learning_rate: Lowest learning rate.
    """

    kind: Literal["plateau"] = "plateau"
    patience: int = 5
    factor: float = 0.1
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self)
        require_whole_number("patience", self.patience, 0)
        _check_factor(self.factor)
        require_number("min_learning_rate", self.min_learning_rate)


Schedule = NoSchedule | MultistepSchedule | CosineSchedule | PlateauSchedule


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ConfigError(f"factor is {factor!r}: it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """State of the plateau schedule after the validations so far.

    Attributes:
        best: Lowest validation MAE so far.
        bad_validations: Validations since then, or since the rate was last reduced.
        factor: What the learning rate is multiplied by.
    """

    best: float = math.inf
    bad_validations: int = 0
    factor: float = 1.0

    def after(self, mae: float, config: "TrainingConfig") -> "Plateau":
        """The state after one more validation, which gave `mae`."""
        if mae < self.best:
            return Plateau(best=mae, bad_validations=0, factor=self.factor)
        schedule = config.schedule
        if not isinstance(schedule, PlateauSchedule) or self.bad_validations < schedule.patience:
            return Plateau(
                best=self.best, bad_validations=self.bad_validations + 1, factor=self.factor
            )
        lowest = schedule.min_learning_rate / config.learning_rate
        factor = max(self.factor * schedule.factor, lowest)
        return Plateau(best=self.best, bad_validations=0, factor=factor)


def learning_rate(
    config: "TrainingConfig", *, step: int, steps_per_epoch: int, plateau: Plateau
) -> float:
    """The learning rate of one optimizer step.

    It is a pure function, so that resuming a run needs no scheduler state. A cosine runs over all
    epochs; `max_steps` ends a run and does not change its schedule.

    Args:
        config: learning rate, warm-up and schedule.
        step: optimizer steps done before this one.
        steps_per_epoch: optimizer steps of an epoch.
        plateau: state of the plateau schedule.
    """
    schedule, full = config.schedule, config.learning_rate
    rising = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    if isinstance(schedule, MultistepSchedule):
        full *= schedule.factor ** bisect_right(schedule.milestones, step // steps_per_epoch)
    elif isinstance(schedule, PlateauSchedule):
        full *= plateau.factor
    elif isinstance(schedule, CosineSchedule):
        falling_steps = max(1, config.epochs * steps_per_epoch - config.warmup_steps)
        done = min(1.0, max(0, step - config.warmup_steps) / falling_steps)
        span = config.learning_rate - schedule.min_learning_rate
        full = schedule.min_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * done))
    return rising * full
