"""Persistence: every sensor stays at its last observed reading."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.batching import Batch
from pgti.forecasting.forecaster import AbstractScaledForecaster
from pgti.shapes import BHNC, BLNC
from pgti.store import Scaler

__all__ = ["PersistenceForecaster", "last_observed"]


class PersistenceForecaster(AbstractScaledForecaster):
    """Forecasts that every sensor stays at its last observed value in the window.

    Where a window has no observed value, the forecast is the training mean.

    Args:
        scaler: standardisation of the store's channels, undone here.
        target_indices: positions of the targets among the store's channels.
        horizon: steps to forecast, H.
        sensors: positions of the sensors that batches have; all if not given.

    Raises:
        ConfigError: if a target is not a channel of the scaler.
    """

    def __init__(
        self,
        scaler: Scaler,
        target_indices: tuple[int, ...],
        horizon: int,
        sensors: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(scaler, target_indices, sensors)
        self.horizon = horizon

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The last observed value of each node and target, repeated over the horizon."""
        last_B1NC = last_observed(batch.x, batch.x_mask, self.target_indices)
        return self.unscale(last_B1NC.expand(-1, self.horizon, -1, -1))


def last_observed(x: BLNC, mask: Tensor, channels: tuple[int, ...]) -> Tensor:
    """The last observed value of each node and channel; 0 where a window has none.

    Args:
        x: [B, L, N, C_in], the store's channels first, in any unit.
        mask: [B, L, N, C], True where observed; C at least up to the last channel.
        channels: positions of the channels to return, in their order.

    Returns:
        [B, 1, N, len(channels)], in the unit of `x`.
    """
    # Not an index of a list, which a GPU would wait for.
    values, observed = (
        torch.stack([each[..., channel] for channel in channels], dim=-1) for each in (x, mask)
    )
    # Steps count from 1: 0 stands for "never observed".
    steps = torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1, 1)
    last = (observed * steps).amax(dim=1, keepdim=True)
    return torch.where(last > 0, values.gather(1, (last - 1).clamp(min=0)), 0.0)
