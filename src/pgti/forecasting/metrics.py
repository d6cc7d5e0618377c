"""Masked errors of forecasts, accumulated as sums and counts at each horizon step."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.errors import ConfigError, RunError
from pgti.models import explain_failures
from pgti.nn import MaskedLoss, check_masked_sum
from pgti.options import require_type
from pgti.shapes import BHNC

__all__ = ["ErrorTable", "ForecastMetrics", "Metrics", "check_metrics"]

Metrics: TypeAlias = Mapping[str, MaskedLoss]
"""Metrics of a user's own by name: each maps prediction, target and mask, [B, N] of one horizon
step and channel, to a sum and a count. The metric is the sum of sums over the sum of counts."""

ErrorTable = dict[str, float | None]
"""An error per horizon step ("1", "2", ...) and over all ("mean"); None without observations."""


_RESERVED = (
    *("mae", "rmse", "mape", "count", "channels", "windows", "split_windows"),
    *("split", "forecaster", "channel", "horizon", "persistence"),
)
"""Names of other columns and entries of a report."""


def check_metrics(metrics: Metrics) -> None:
    """Refuse metrics that cannot be computed or would hide an entry of the report.

    Raises:
        ConfigError: naming the metric.
    """
    require_type("metrics", metrics, Mapping, "functions by name, in a mapping")
    for name, metric in metrics.items():
        if not str(name).isidentifier():
            raise ConfigError(f"metric {name!r}: a name must be a word, such as within_5")
        if name in _RESERVED:
            raise ConfigError(f"metric {name!r} is a name that the report has already: rename it")
        if not callable(metric):
            raise ConfigError(
                f"metric {name} is {metric!r}: it must be a function (prediction, target, mask) -> "
                "(sum, count)"
            )


class ForecastMetrics:
    """Accumulates the errors of forecasts on the device, in float64, without synchronizing.

    MAE and RMSE are over observed targets. MAPE, in percent, is over observed targets whose
    magnitude exceeds `mape_threshold`: a relative error of zero is undefined. "mean" is the error
    over all observed targets of all steps, not the mean of the steps' errors.

    Args:
        horizon: steps of a forecast, H.
        num_targets: target channels, C.
        mape_threshold: smallest magnitude, in the channel's unit, that MAPE counts.
        device: where the sums are; by default on the CPU, until an update moves them.
        own: metrics of a user's own.

    Attributes:
        sums: the accumulated sums, float64 [5 + 2 * own metrics, H, C]: those of parts of the data
            can be added.
    """

    def __init__(
        self,
        horizon: int,
        num_targets: int = 1,
        *,
        mape_threshold: float = 1e-3,
        device: torch.device | None = None,
        own: Metrics | None = None,
    ) -> None:
        if not (math.isfinite(mape_threshold) and mape_threshold >= 0):
            raise ConfigError(
                f"mape_threshold is {mape_threshold}: it must be a finite number, 0 or more"
            )
        self.horizon = horizon
        self.num_targets = num_targets
        self.mape_threshold = mape_threshold
        self._own = dict(own or {})
        # One tensor, so that ranks sum theirs in one all-reduce.
        shape = (5 + 2 * len(self._own), horizon, num_targets)
        self.sums = torch.zeros(shape, dtype=torch.float64, device=device)

    def update(self, prediction: BHNC, target: BHNC, mask: BHNC) -> None:
        """Add the errors of a batch.

        Args:
            prediction: forecasts in original units.
            target: observed values in original units; any finite number where missing.
            mask: True where the target was observed.
        """
        self.sums = self.sums.to(prediction.device)
        # One step at a time, so that the float64 temporaries stay small beside the batch.
        for step in range(self.horizon):
            of_step = prediction[:, step], target[:, step], mask[:, step]
            self.sums[:5, step] += self._step_sums(*of_step)
            if self._own:
                self.sums[5:, step] += self._own_sums(*of_step)

    def _step_sums(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        target = target.double()
        error = torch.where(mask, prediction.double() - target, 0.0).abs()
        magnitude = target.abs()
        relevant = mask & (magnitude > self.mape_threshold)
        relative = torch.where(relevant, error / magnitude, 0.0)
        parts = (mask.double(), error, error.square(), relative, relevant.double())
        # Each [B, N, C] -> [C]
        return torch.stack([part.sum(dim=(0, 1)) for part in parts])

    def _own_sums(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Sum and count of each metric of the user's own, [2 * own, C]."""
        sums = [
            self._call(name, prediction[..., c], target[..., c], mask[..., c])
            for c in range(self.num_targets)
            for name in self._own
        ]
        flat = torch.stack([each.double() for pair in sums for each in pair])
        return flat.view(self.num_targets, 2 * len(self._own)).T

    def _call(self, name: str, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        with explain_failures(f"metric {name} failed"):
            value = self._own[name](*tensors)
        return check_masked_sum(f"metric {name}", value)

    def summary(self, channel: int | None = None) -> dict[str, Any]:
        """The errors so far; this synchronizes the device.

        Returns:
            An `ErrorTable` for each metric by name, and "count", the number of observed targets.

        Args:
            channel: position of one target channel, or None for all of them together.

        Raises:
            RunError: if a forecast was not finite.
        """
        selected = self.sums if channel is None else self.sums[..., channel : channel + 1]
        steps = selected.sum(dim=-1).cpu()  # [sums, H]
        if not bool(torch.isfinite(steps[:5]).all()):
            raise RunError(
                "the forecasts are not finite numbers: the model has diverged; train again with a "
                "lower learning rate or stronger clipping"
            )
        for index, name in enumerate(self._own):
            if not bool(torch.isfinite(steps[5 + 2 * index : 7 + 2 * index]).all()):
                raise RunError(
                    f"metric {name} returned a sum or a count that is not finite: it must leave "
                    "out targets where the mask is False"
                )
        table = torch.cat([steps, steps.sum(dim=1, keepdim=True)], dim=1)  # [sums, H + 1]
        count, absolute, squared, relative, relative_count, *own = table.numpy()
        return {
            "mae": self._errors(absolute, count),
            "rmse": self._errors(squared, count, root=True),
            "mape": self._errors(100.0 * relative, relative_count),
            **{
                name: self._errors(own[2 * index], own[2 * index + 1])
                for index, name in enumerate(self._own)
            },
            "count": int(count[-1]),
        }

    def _errors(
        self, sums: NDArray[np.float64], counts: NDArray[np.float64], *, root: bool = False
    ) -> ErrorTable:
        """Sums over counts of each step and over all, [H + 1], by name; None for a count of 0."""
        names = [*(str(step) for step in range(1, self.horizon + 1)), "mean"]
        means = [
            total / count if count else None for total, count in zip(sums, counts, strict=True)
        ]
        # NumPy's root is the nearest number, torch's is not always.
        values = [
            None if each is None else float(np.sqrt(each) if root else each) for each in means
        ]
        return dict(zip(names, values, strict=True))
