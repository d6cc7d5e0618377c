"""Masked errors of forecasts, accumulated as sums and counts at each horizon step."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgti.errors import ConfigError, RunError
from pgti.forecasting.breakdowns import BreakdownName, Breakdowns, GroupsOfBatch
from pgti.forecasting.own_metrics import Metrics
from pgti.forecasting.scores import num_scores, score_means, score_parts
from pgti.models import explain_failures
from pgti.nn import check_masked_sum
from pgti.nn.execution import split_rows
from pgti.shapes import BHNC, BHNCQ

__all__ = ["ErrorTable", "ForecastMetrics", "add_average"]

ErrorTable = dict[str, float | None]
"""An error per horizon step ("1", "2", ...), over all observed targets of all steps ("mean"), and
the mean of the steps' errors ("average"); None without observations."""


_NUMBERS_AT_ONCE = 1 << 21
"""Errors that a GPU, where each operation is a launch, computes together: 16 MiB in float64."""


class ForecastMetrics:
    """Accumulates the errors of forecasts on the device, in float64, without synchronizing.

    MAE and RMSE are over observed targets. MAPE, in percent, is over observed targets whose
    magnitude exceeds `mape_threshold`: a relative error of zero is undefined. "mean" is the error
    over all observed targets of all steps, and "average", as many published tables have it, the
    mean of the steps' errors.

    Args:
        horizon: steps of a forecast, H.
        num_targets: target channels, C.
        mape_threshold: smallest magnitude, in the channel's unit, that MAPE counts.
        device: where the sums are; by default on the CPU, until an update moves them.
        own: metrics of a user's own.
        breakdowns: the groups of targets whose errors are accumulated too; none by default.
        sensors: positions, among those of the breakdowns, of the sensors in an update [n]; all of
            them by default.
        levels: of the quantiles that are scored (`score_parts`); none by default.

    Attributes:
        sums: the accumulated sums, float64 [5 + scores + 2 * own metrics, H, C]: those of parts of
            the data can be added.
        group_sums: the same sums over all steps for each group of a breakdown,
            float64 [5 + scores + 2 * own metrics, G, C], by its name.
    """

    def __init__(
        self,
        horizon: int,
        num_targets: int = 1,
        *,
        mape_threshold: float = 1e-3,
        device: torch.device | None = None,
        own: Metrics | None = None,
        breakdowns: Breakdowns | None = None,
        sensors: NDArray[np.int64] | None = None,
        levels: tuple[float, ...] = (),
    ) -> None:
        if not (math.isfinite(mape_threshold) and mape_threshold >= 0):
            raise ConfigError(
                f"mape_threshold is {mape_threshold}: it must be a finite number, 0 or more"
            )
        self.horizon = horizon
        self.num_targets = num_targets
        self.mape_threshold = mape_threshold
        self._levels = levels
        self._num_parts = 5 + num_scores(levels)
        self._own = dict(own or {})
        self._without_vmap: set[str] = set()
        self._sensors = None if sensors is None else torch.from_numpy(sensors).to(device or "cpu")

        def zeros(groups: int) -> Tensor:
            shape = (self._num_parts + 2 * len(self._own), groups, num_targets)
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.sums = zeros(horizon)
        self.group_sums: dict[BreakdownName, Tensor] = {}
        if breakdowns is not None:
            self.group_sums = {
                name: zeros(breakdowns.num_groups(name)) for name in breakdowns.summed
            }

    @property
    def all_sums(self) -> list[Tensor]:
        """Every tensor that ranks have to sum."""
        return [self.sums, *self.group_sums.values()]

    def update(
        self,
        prediction: BHNC,
        target: BHNC,
        mask: BHNC,
        groups: GroupsOfBatch | None = None,
        quantiles: BHNCQ | None = None,
    ) -> None:
        """Add the errors of a batch.

        Args:
            prediction: forecasts in original units.
            target: observed values in original units; any finite number where missing.
            mask: True where the target was observed.
            groups: the groups of its targets, where there are breakdowns.
            quantiles: of the levels, if there are any.
        """
        count = self._num_parts
        self.sums = self.sums.to(prediction.device)
        self.group_sums = {
            name: sums.to(prediction.device) for name, sums in self.group_sums.items()
        }
        of_windows: list[Tensor] = []
        for part in split_rows(self.horizon, self._steps_at_once(prediction)):
            parts = self._parts(prediction[:, part], target[:, part], mask[:, part])
            if quantiles is not None:
                of_part = quantiles[:, part], target[:, part].double(), mask[:, part]
                parts += tuple(score_parts(*of_part, self._levels))
            self.sums[:count, part] += torch.stack([each.sum(dim=(0, 2)) for each in parts])
            if groups is not None:
                together = torch.stack(parts)  # [parts, B, S, N, C]
                of_windows += together.sum(dim=3).unbind(2)
            for step in range(part.start, part.stop):
                of_step = prediction[:, step], target[:, step], mask[:, step]
                if self._own:
                    self.sums[count:, step] += self._own_sums(*of_step)
                if groups is not None:
                    self._add_groups(groups, step, together[:, :, step - part.start])
                    if self._own:
                        self._add_own_groups(groups, step, *of_step)
        if groups is not None:
            sums = torch.stack(of_windows)  # [H, parts, B, C]
            for name, members in groups.members.items():
                self.group_sums[name][:count] += torch.einsum("hgb,hkbc->kgc", members, sums)

    def _steps_at_once(self, prediction: Tensor) -> int:
        """How many steps are computed together: float64 temporaries stay small beside the batch."""
        if prediction.device.type == "cpu":
            return 1
        return _NUMBERS_AT_ONCE // max(1, prediction[:, 0].numel())

    def _parts(self, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """What is summed, each float64 [B, S, N, C]."""
        target = target.double()
        error = torch.where(mask, prediction.double() - target, 0.0).abs()
        magnitude = target.abs()
        relevant = mask & (magnitude > self.mape_threshold)
        relative = torch.where(relevant, error / magnitude, 0.0)
        return mask.double(), error, error.square(), relative, relevant.double()

    def _add_groups(self, groups: GroupsOfBatch, step: int, parts: Tensor) -> None:
        """Add the sums [parts, B, N, C] of a step to those of sensors and ranges."""
        self._add_sensors(slice(self._num_parts), parts.sum(dim=1))
        if groups.ranges is not None:
            sums = self.group_sums["range"]
            numbers = torch.arange(sums.shape[1], dtype=torch.uint8, device=sums.device)
            of_step = groups.ranges[step].permute(2, 0, 1).flatten(1)  # [C, B * N]
            inside = (of_step[:, None] == numbers[:, None]).double()  # [C, G, B * N]
            flat = parts.permute(3, 0, 1, 2).flatten(2)  # [C, parts, B * N]
            sums[: self._num_parts] += (flat @ inside.transpose(1, 2)).permute(1, 2, 0)

    def _add_sensors(self, where: Any, sums: Tensor) -> None:
        """Add sums [rows, n, ..] to those of the sensors that an update has."""
        of_sensors = self.group_sums["sensor"][where]
        if self._sensors is None:
            of_sensors += sums
        else:
            of_sensors.index_add_(1, self._sensors, sums)

    def _add_own_groups(
        self,
        groups: GroupsOfBatch,
        step: int,
        prediction: Tensor,
        target: Tensor,
        mask: Tensor,
    ) -> None:
        """Add sums and counts of metrics of the user's own, called with the mask of each group."""
        for c in range(self.num_targets):
            of_channel = prediction[..., c], target[..., c]
            observed = mask[..., c]
            masks: list[tuple[BreakdownName, int, Tensor]] = [
                (name, group, observed & (members[step, group] > 0)[:, None])
                for name, members in groups.members.items()
                for group in np.unique(groups.times[name][:, step]).tolist()
            ]
            if groups.ranges is not None:
                masks += [
                    ("range", group, observed & (groups.ranges[step, ..., c] == group))
                    for group in range(self.group_sums["range"].shape[1])
                ]
            for index, name in enumerate(self._own):
                rows = self._rows_of_own(index)
                by_sensor = self._own_by_sensor(name, *of_channel, observed)
                self._add_sensors((rows, slice(None), c), by_sensor)
                for breakdown, group, chosen in masks:
                    pair = self._call(name, *of_channel, chosen)
                    self.group_sums[breakdown][rows, group, c] += torch.stack(
                        [each.double() for each in pair]
                    )

    def _rows_of_own(self, index: int) -> slice:
        """Sum and count of a metric of the user's own."""
        first = self._num_parts + 2 * index
        return slice(first, first + 2)

    def _own_by_sensor(self, name: str, *tensors: Tensor) -> Tensor:
        """Sum and count of each sensor, [2, N]: one call for all of them where torch can."""

        def of_sensor(*columns: Tensor) -> Tensor:
            pair = self._call(name, *(column[:, None] for column in columns))
            return torch.stack([each.double() for each in pair])

        if name not in self._without_vmap:
            try:
                with warnings.catch_warnings(action="ignore"):
                    return torch.vmap(of_sensor, in_dims=1, out_dims=1)(*tensors)
            except Exception:  # noqa: BLE001 - whatever it does that vmap cannot; errors come again
                self._without_vmap.add(name)
        num_nodes = tensors[0].shape[1]
        each = [of_sensor(*(tensor[:, n] for tensor in tensors)) for n in range(num_nodes)]
        return torch.stack(each, dim=1)

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
        if not bool(torch.isfinite(steps[: self._num_parts]).all()):
            raise RunError(
                "the forecasts are not finite numbers: the model has diverged; train again with a "
                "lower learning rate or stronger clipping"
            )
        for index, name in enumerate(self._own):
            if not bool(torch.isfinite(steps[self._rows_of_own(index)]).all()):
                raise RunError(
                    f"metric {name} returned a sum or a count that is not finite: it must leave "
                    "out targets where the mask is False"
                )
        table = torch.cat([steps, steps.sum(dim=1, keepdim=True)], dim=1)  # [sums, H + 1]
        count, absolute, squared, relative, relative_count, *more = table.numpy()
        scores, own = more[: self._num_parts - 5], more[self._num_parts - 5 :]
        return {
            "mae": self._errors(absolute, count),
            "rmse": self._errors(squared, count, root=True),
            "mape": self._errors(100.0 * relative, relative_count),
            **{name: self._errors(each, count) for name, each in self._score_means(scores).items()},
            **{
                name: self._errors(own[2 * index], own[2 * index + 1])
                for index, name in enumerate(self._own)
            },
            "count": int(count[-1]),
        }

    def _score_means(self, sums: Any) -> Mapping[str, Any]:
        return score_means(self._levels, sums) if self._levels else {}

    def by(self, breakdown: BreakdownName, channel: int) -> dict[str, list[Any]]:
        """Errors of one target over all steps in each group; this synchronizes the device.

        Args:
            breakdown: of which the groups are.
            channel: position of the target.

        Returns:
            A list over the groups for each metric, with None where nothing was observed, and
            "count", the observed targets.
        """
        sums = self._sums_by(breakdown)[..., channel].cpu().numpy()
        pairs = {"mae": (sums[1], sums[0]), "rmse": (sums[2], sums[0])}
        pairs["mape"] = 100.0 * sums[3], sums[4]
        scores = self._score_means(sums[5 : self._num_parts])
        pairs |= {name: (each, sums[0]) for name, each in scores.items()}
        own = {name: sums[self._rows_of_own(i)] for i, name in enumerate(self._own)}
        pairs |= {name: (total, count) for name, (total, count) in own.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            means = {name: total / count for name, (total, count) in pairs.items()}
        means["rmse"] = np.sqrt(means["rmse"])
        lists: dict[str, list[Any]] = {
            name: [error if math.isfinite(error) else None for error in errors.tolist()]
            for name, errors in means.items()
        }
        return lists | {"count": sums[0].astype(np.int64).tolist()}

    def _sums_by(self, breakdown: BreakdownName) -> Tensor:
        """Sums of each group, [.., G, C]; of hours and weekdays from those of the week's hours."""
        if breakdown in self.group_sums:
            return self.group_sums[breakdown]
        of_week = self.group_sums["hour-of-week"]
        of_week = of_week.view(len(of_week), 7, 24, self.num_targets)
        return of_week.sum(dim=1 if breakdown == "hour" else 2)

    def _errors(
        self, sums: NDArray[np.float64], counts: NDArray[np.float64], *, root: bool = False
    ) -> ErrorTable:
        """Sums over counts of each step and over all, [H + 1], by name; None for a count of 0."""
        steps = [str(step) for step in range(1, self.horizon + 1)]
        means = [
            total / count if count else None for total, count in zip(sums, counts, strict=True)
        ]
        # NumPy's root is the nearest number, torch's is not always.
        values = [
            None if each is None else float(np.sqrt(each) if root else each) for each in means
        ]
        return add_average(dict(zip([*steps, "mean"], values, strict=True)))


def add_average(table: Mapping[str, float | None]) -> ErrorTable:
    """The table with the mean of its steps' errors as "average"; steps without error are left out.

    Args:
        table: an error per horizon step and "mean"; tables of 0.1 lack "average".
    """
    steps = [error for key, error in table.items() if key.isdigit() and error is not None]
    return {**table, "average": math.fsum(steps) / len(steps) if steps else None}
