"""The optimiser and its learning rate, which is a pure function of the step and the validations."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting.forecaster import NetworkForecaster
from pgti.nn import MaskedLoss, huber, mae, mse
from pgti.training.config import Precision, TrainingConfig

__all__ = [
    "Plateau",
    "batch_loss",
    "build_loss",
    "build_optimizer",
    "count_observed",
    "learning_rate",
    "scale_gradients",
    "seed_of_step",
    "set_learning_rate",
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


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group of the optimiser the rate of the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def scale_gradients(parameters: Iterable[nn.Parameter], count: Tensor) -> None:
    """Turn gradients of a summed loss into those of its mean over `count` observed targets.

    Batches are accumulated as sums and divided once, so that any partition of the windows into
    batches gives the gradient of the one big batch. A count of 0 gives zero gradients, not NaN.
    The count stays on its device.
    """
    share = 1.0 / count.clamp(min=1).double()
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(share.to(parameter.grad.dtype))


def batch_loss(
    forecaster: NetworkForecaster,
    loss: MaskedLoss,
    batch: Batch,
    *,
    precision: Precision,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Summed loss of a batch, and how many targets it is the sum over.

    Args:
        forecaster: the network, in training.
        loss: as `build_loss` makes it.
        batch: windows with targets.
        precision: bfloat16 runs the network under autocast, and the loss never.
        step: optimiser steps done so far.

    Raises:
        ConfigError: if the windows have no targets.
    """
    if batch.y is None or batch.y_mask is None:
        raise ConfigError("a batch without targets cannot be learnt from: gather them")
    lower = precision == "bfloat16"
    with torch.autocast(batch.x.device.type, dtype=torch.bfloat16, enabled=lower):
        prediction = forecaster(batch, step=step)
    return loss(prediction, batch.y, batch.y_mask)


def count_observed(batch: Batch) -> Tensor:
    """How many targets of a batch were observed: an int64 scalar on its device.

    Raises:
        ConfigError: if the windows have no targets.
    """
    if batch.y_mask is None:
        raise ConfigError("a batch without targets cannot be learnt from: gather them")
    return batch.y_mask.sum()


def seed_of_step(seed: int, step: int, rank: int) -> int:
    """Seed of what a network draws in a step (dropout): a function of these three alone.

    A resumed run draws the same numbers; two ranks draw different ones.
    """
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def build_loss(config: TrainingConfig) -> MaskedLoss:
    """The loss that the configuration names: (prediction, target, mask) -> (sum, count)."""
    if config.loss == "huber":
        return partial(huber, delta=config.huber_delta)
    return {"mae": mae, "mse": mse}[config.loss]
