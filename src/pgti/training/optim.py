"""Optimizer and loss as the configuration names them."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from pgti.errors import ConfigError
from pgti.nn import MaskedLoss, huber, mae, mse
from pgti.training.config import AdamWOptimizer, HuberLoss, TrainingConfig

__all__ = ["build_loss", "build_optimizer"]


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Adam:
    """Build the configured optimizer over the trainable parameters.

    Raises:
        ConfigError: if no parameter is trainable.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        raise ConfigError("the model has no trainable parameters: there is nothing to train")
    options = config.optimizer
    kind = torch.optim.AdamW if isinstance(options, AdamWOptimizer) else torch.optim.Adam
    return kind(
        trainable,
        lr=config.learning_rate,
        eps=options.epsilon,
        weight_decay=options.weight_decay,
    )


def build_loss(config: TrainingConfig) -> MaskedLoss:
    """The loss that the configuration names: (prediction, target, mask) -> (sum, count)."""
    if isinstance(config.loss, HuberLoss):
        return partial(huber, delta=config.loss.delta)
    return {"mae": mae, "mse": mse}[config.loss.kind]
