"""Until the benchmarks call `TrainStep`: the parts of a step that they copied."""

import torch
from torch import Tensor

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting import NetworkForecaster
from pgti.nn import MaskedLoss
from pgti.training.config import Precision

__all__ = ["batch_loss", "count_observed"]


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
