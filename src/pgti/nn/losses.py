"""Masked losses as (sum, count): the caller divides, so that parts of a batch can be added.

Predictions and targets are in original units. Unobserved targets contribute neither to the sum nor
to the count, and the gradient there is exactly zero, whatever value the target has.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from pgti.errors import ConfigError

__all__ = ["MaskedLoss", "check_masked_sum", "huber", "mae", "mse", "pinball", "quantile"]

MaskedLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps prediction, target and mask of one shape to a sum and a count, both scalar tensors."""


def check_masked_sum(name: str, value: object) -> tuple[Tensor, Tensor]:
    """What a user's own loss or metric returned, if it is a sum and a count.

    Raises:
        ConfigError: naming the function and what it returned.
    """
    if isinstance(value, tuple) and len(value) == 2:
        total, count = value
        if isinstance(total, Tensor) and isinstance(count, Tensor):
            if total.ndim == count.ndim == 0:
                return total, count
            value = f"tensors of shapes {tuple(total.shape)} and {tuple(count.shape)}"
    raise ConfigError(
        f"{name} returned {value if isinstance(value, str) else type(value).__name__}: it must "
        "return (sum, count), two scalar tensors, such as (error[mask].sum(), mask.sum())"
    )


def mae(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of absolute errors over observed targets, and their number.

    Args:
        prediction: any shape.
        target: the same shape; any value, also NaN, where the mask is False.
        mask: the same shape, True where the target was observed.

    Returns:
        A float32 scalar (float64 for float64 predictions) and an int64 scalar.

    Raises:
        ValueError: the shapes differ; broadcasting would hide a mistake.
    """
    error = _observed_error(prediction, target, mask)
    return error.abs().sum(), mask.sum()


def mse(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squared errors over observed targets, and their number; see `mae`."""
    error = _observed_error(prediction, target, mask)
    return error.square().sum(), mask.sum()


def huber(
    prediction: Tensor, target: Tensor, mask: Tensor, delta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Sum of Huber losses over observed targets, and their number; see `mae`.

    Errors up to `delta`, positive and in original units, count e^2 / 2, and larger ones
    delta * (e - delta / 2).
    """
    error = _observed_error(prediction, target, mask)
    total = functional.huber_loss(error, torch.zeros_like(error), reduction="sum", delta=delta)
    return total, mask.sum()


def quantile(
    prediction: Tensor, target: Tensor, mask: Tensor, levels: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Twice the mean pinball loss (Koenker & Bassett 1978) of several quantiles, summed.

    It approximates the CRPS of the forecast distribution; for the median alone it is `mae`.

    Args:
        prediction: quantiles, the shape of the target and a last dimension of Q.
        target: any shape; any value, also NaN, where the mask is False.
        mask: the shape of the target, True where it was observed.
        levels: of the quantiles, each between 0 and 1 [Q].

    Returns:
        A float32 scalar (float64 for float64 predictions) and an int64 scalar, the observed
        targets.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape[-1:] != (len(levels),):
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}: its last dimension is that of "
            f"{len(levels)} quantiles"
        )
    # Levels are numbers, not a tensor, which would be copied to the device at every step.
    sums = [
        pinball(_observed_error(each, target, mask), level).sum()
        for each, level in zip(prediction.unbind(-1), levels, strict=True)
    ]
    return 2.0 / len(levels) * torch.stack(sums).sum(), mask.sum()


def pinball(error: Tensor, level: float) -> Tensor:
    """Pinball loss of prediction minus target, [..], at the quantile `level`, [..]."""
    return torch.maximum((1.0 - level) * error, -level * error)


def _observed_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Prediction minus target, at least in float32, and 0 where nothing was observed."""
    if not prediction.shape == target.shape == mask.shape:
        raise ValueError(
            f"prediction, target and mask have shapes {tuple(prediction.shape)}, "
            f"{tuple(target.shape)} and {tuple(mask.shape)}: they must be equal"
        )
    precision = torch.promote_types(prediction.dtype, torch.float32)
    # Selected before any function of the error: the gradient of a difference does not depend on its
    # value, so a masked NaN cannot reach the parameters.
    return torch.where(mask, prediction.to(precision) - target.to(precision), 0.0)
