"""The optimiser and its learning rate, which is a pure function of the step and the validations."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from pgti.errors import ConfigError
from pgti.nn import MaskedLoss, huber, mae, mse
from pgti.training.config import TrainingConfig

__all__ = [
    "Plateau",
    "build_loss",
    "build_optimizer",
    "learning_rate",
]


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Adam:
    """The optimiser that the configuration names, over the parameters that learn.

    Raises:
        ConfigError: if no parameter learns.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not learning:
        raise ConfigError("the model has no parameter that learns: there is nothing to train")
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        learning,
        lr=config.learning_rate,
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """How the plateau schedule stands after the validations so far.

    Args:
        best: lowest validation MAE so far.
        bad_validations: validations since then, or since the rate last fell.
        factor: what the learning rate is multiplied by.
    """

    best: float = math.inf
    bad_validations: int = 0
    factor: float = 1.0

    def after(self, mae: float, config: TrainingConfig) -> "Plateau":
        """How it stands after one more validation gave `mae`."""
        if mae < self.best:
            return Plateau(best=mae, bad_validations=0, factor=self.factor)
        if self.bad_validations < config.plateau_patience:
            return Plateau(
                best=self.best, bad_validations=self.bad_validations + 1, factor=self.factor
            )
        lowest = config.min_learning_rate / config.learning_rate
        factor = max(self.factor * config.schedule_factor, lowest)
        return Plateau(best=self.best, bad_validations=0, factor=factor)


def learning_rate(
    config: TrainingConfig, *, step: int, steps_per_epoch: int, plateau: Plateau
) -> float:
    """The learning rate of one optimiser step.

    It has no memory of its own, so that a resumed run needs none. Cosine annealing (Loshchilov &
    Hutter 2017) runs over all epochs; `max_steps` ends a run and does not bend its schedule.

    Args:
        config: names the schedule.
        step: optimiser steps done before this one.
        steps_per_epoch: optimiser steps of an epoch.
        plateau: how the plateau schedule stands.
    """
    rising = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    full = config.learning_rate
    if config.schedule == "multistep":
        full *= config.schedule_factor ** bisect_right(config.milestones, step // steps_per_epoch)
    elif config.schedule == "plateau":
        full *= plateau.factor
    elif config.schedule == "cosine":
        falling_steps = max(1, config.epochs * steps_per_epoch - config.warmup_steps)
        share = min(1.0, max(0, step - config.warmup_steps) / falling_steps)
        span = config.learning_rate - config.min_learning_rate
        full = config.min_learning_rate + span * 0.5 * (1.0 + math.cos(math.pi * share))
    return rising * full


def build_loss(config: TrainingConfig) -> MaskedLoss:
    """The loss that the configuration names: (prediction, target, mask) -> (sum, count)."""
    if config.loss == "huber":
        return partial(huber, delta=config.huber_delta)
    return {"mae": mae, "mse": mse}[config.loss]
