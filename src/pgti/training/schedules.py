"""Options of the learning rate's schedules."""

from dataclasses import dataclass
from typing import Literal

from pgti.errors import ConfigError, require_whole_number
from pgti.options import convert_fields, require_number

__all__ = [
    "CosineSchedule",
    "ExponentialSchedule",
    "MultistepSchedule",
    "NoSchedule",
    "PlateauSchedule",
    "Schedule",
    "StepSchedule",
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
        min_learning_rate: Lowest learning rate.
    """

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self)
        epochs = list(self.milestones)
        if not epochs:
            raise ConfigError("milestones are missing: name the epochs, such as [20, 30]")
        if epochs != sorted({*epochs}) or epochs[0] < 1:
            raise ConfigError(f"milestones are {epochs}: they must rise, from 1 or more")
        _check_factor(self.factor)
        require_number("min_learning_rate", self.min_learning_rate)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSchedule:
    """The learning rate is multiplied by a factor after every so many epochs.

    Attributes:
        every: Epochs between two reductions.
        factor: Factor by which the learning rate is multiplied when it is reduced.
        min_learning_rate: Lowest learning rate.
    """

    kind: Literal["step"] = "step"
    every: int = 10
    factor: float = 0.1
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self)
        require_whole_number("every", self.every, 1)
        _check_factor(self.factor)
        require_number("min_learning_rate", self.min_learning_rate)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExponentialSchedule:
    """The learning rate is multiplied by a factor after every epoch.

    Attributes:
        factor: Factor by which the learning rate is multiplied when it is reduced.
        min_learning_rate: Lowest learning rate.
    """

    kind: Literal["exponential"] = "exponential"
    factor: float = 0.97
    min_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self)
        _check_factor(self.factor)
        require_number("min_learning_rate", self.min_learning_rate)


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


Schedule = (
    NoSchedule
    | MultistepSchedule
    | StepSchedule
    | ExponentialSchedule
    | CosineSchedule
    | PlateauSchedule
)


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ConfigError(f"factor is {factor!r}: it must lie between 0 and 1")
