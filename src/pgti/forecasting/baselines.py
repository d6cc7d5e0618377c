"""Baselines that learn nothing by gradient: what any model has to beat."""

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.shapes import BHNC, BLNC

__all__ = ["HistoricalAverage", "Persistence"]


class Persistence(nn.Module):
    """Forecasts that every sensor stays at its last observed reading.

    Where the last input is missing, an earlier one serves; where all are, 0, which is the mean of
    standardised readings.

    Args:
        horizon: steps to forecast, H.
        target_indices: positions of the targets among the channels, in the order of the output.
    """

    def __init__(self, horizon: int, target_indices: tuple[int, ...]) -> None:
        super().__init__()
        self._horizon = horizon
        self._target_indices = list(target_indices)

    def forward(self, x: BLNC, mask: Tensor) -> BHNC:
        """Repeat the last observed reading over the horizon.

        Args:
            x: [B, L, N, C_in], the store's channels first, in any unit.
            mask: [B, L, N, C], True where observed; C at least up to the last target.

        Returns:
            [B, H, N, C_out], in the unit of `x`; a view that repeats one step.
        """
        readings = x[..., self._target_indices]
        observed = mask[..., self._target_indices]
        # Steps count from 1, so that 0 is left for "never observed".
        steps = torch.arange(1, x.shape[1] + 1, device=x.device).view(1, -1, 1, 1)
        last = (observed * steps).amax(dim=1, keepdim=True)
        value = readings.gather(1, (last - 1).clamp(min=0))
        value = torch.where(last > 0, value, 0.0)
        return value.expand(-1, self._horizon, -1, -1)


class HistoricalAverage(nn.Module):
    """Forecasts what a sensor read on average at the same time of the week.

    Args:
        table: [slots of the week, N, C_out], in original units, without gaps: whoever builds it
            decides what stands for a slot that was never observed.

    Raises:
        ConfigError: a table of another shape, or with a gap.
    """

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        if table.ndim != 3:
            raise ConfigError(
                f"the table of averages has shape {tuple(table.shape)}: it must be "
                "[slots, nodes, targets]"
            )
        num_gaps = int(torch.isnan(table).sum())
        if num_gaps:
            raise ConfigError(
                f"the table of averages has {num_gaps} gaps (NaN): fill slots that were never "
                "observed before the model is built"
            )
        self.register_buffer("table", table)

    def forward(self, week_bins: Tensor) -> BHNC:
        """Look the averages up.

        Args:
            week_bins: [B, H] int64, bin of the week of every target row.

        Returns:
            [B, H, N, C_out], in original units.
        """
        return self.table[week_bins]
