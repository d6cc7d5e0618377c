"""Forecasts with intervals: calibrated once on a held-out split, or following what is observed."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.forecasting.calibration import Calibration, base_places, base_quantiles
from pgti.forecasting.forecaster import AbstractForecaster, NetworkForecaster, Prediction
from pgti.shapes import BHNC

__all__ = ["STEP_SIZE", "IntervalForecaster"]

STEP_SIZE = 0.05
"""How far an adaptive end moves when a target lies beyond it, in spreads of the residuals."""


class IntervalForecaster(AbstractForecaster):
    """A network with conformal intervals around its forecasts.

    An interval always contains its point forecast and every narrower interval, and stays within the
    bounds of the targets: where calibration says otherwise it is widened, which covers no less.

    Adaptive intervals follow the series: the ends of each step, sensor and target start where they
    were calibrated and move after every outcome, outwards where it lay beyond the end and inwards
    where it did not, so that in the long run the share beyond is the nominal one whatever the
    series does: quantile tracking, the P of conformal PID control (Angelopoulos, Candes &
    Tibshirani 2023), a successor of adaptive conformal inference (Gibbs & Candes 2021) whose step
    is in the target's unit. Where ours differs: each tail is tracked by itself, steps are fractions
    of the spread of the validation residuals, and the forecast of step h counts h rows after its
    origin, when its target is known, not before.

    Args:
        forecaster: the network, on its device.
        calibration: of it.
        adaptive: let intervals follow the outcomes of the windows, which then come in the order of
            time, one forecaster for each pass.
    """

    def __init__(
        self, forecaster: NetworkForecaster, calibration: Calibration, *, adaptive: bool = False
    ) -> None:
        super().__init__()
        self.network_forecaster = forecaster
        self.interval_levels = calibration.levels
        self.quantile_levels = forecaster.quantile_levels
        self.deterministic = forecaster.deterministic
        self.train(forecaster.training)  # what evaluates it restores this mode, of both
        self._places = base_places(forecaster, calibration.levels)
        device = forecaster.mean.device
        below, above = (
            torch.from_numpy(ends).to(device).movedim(0, -1)  # [H, N, C, I]
            for ends in (calibration.below, calibration.above)
        )
        self._below, self._above = below, above
        self._tracker: _Tracker | None = None
        if adaptive:
            tails = [0.5 - level / 2 for level in calibration.levels]
            spread = torch.from_numpy(calibration.spread).to(device)
            steps = STEP_SIZE * spread[..., None]
            self._tracker = _Tracker(
                below=below.clone(),
                above=above.clone(),
                inwards=torch.cat([steps * tail for tail in tails], dim=-1),
                outwards=torch.cat([steps * (1 - tail) for tail in tails], dim=-1),
            )

    @torch.no_grad()
    def replay(self, batches: Iterable[Batch]) -> None:
        """Let adaptive intervals learn from windows before those to forecast."""
        for batch in batches:
            self.predict(batch)

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """The network's point forecasts."""
        point: BHNC = self.network_forecaster(batch, step=step)
        return point

    def predict(self, batch: Batch) -> Prediction:
        """Forecasts and intervals; adaptive ones know the outcomes up to each window's origin.

        Raises:
            ConfigError: if adaptive windows are not in the order of time.
        """
        found = self.network_forecaster.predict(batch)
        quantiles = base_quantiles(found)
        low = torch.stack([quantiles[..., place] for place, _ in self._places], dim=-1)
        high = torch.stack([quantiles[..., place] for _, place in self._places], dim=-1)
        below, above = self._below, self._above
        if self._tracker is not None:
            below, above = self._tracker.follow(batch, low, high)
        point = found.point[..., None]
        lower = torch.minimum(low + below, point).cummin(dim=-1).values
        upper = torch.maximum(high + above, point).cummax(dim=-1).values
        clamped = (
            self.network_forecaster.clamp(ends.movedim(-1, 0)).movedim(0, -1)
            for ends in (lower, upper)
        )
        return Prediction(found.point, found.quantiles, *clamped)


@dataclass(kw_only=True, slots=True, eq=False)
class _Issued:
    """A forecast whose outcomes are not all known yet.

    Attributes:
        origin: row of its last input.
        known: steps whose outcomes have been counted.
        beyond_low, beyond_high: whether each outcome lies beyond an end, bool [H, N, C, I].
        observed: whether there is an outcome, bool [H, N, C, 1].
    """

    origin: int
    known: int
    beyond_low: Tensor
    beyond_high: Tensor
    observed: Tensor


@dataclass(kw_only=True, slots=True, eq=False)
class _Tracker:
    """Ends of intervals that follow the outcomes.

    Attributes:
        below, above: what is added to forecasts now, [H, N, C, I]. They are changed in place.
        inwards: how far an end moves after an outcome within, [H, N, C, I].
        outwards: how far after one beyond.
    """

    below: Tensor
    above: Tensor
    inwards: Tensor
    outwards: Tensor
    _issued: deque[_Issued] = field(default_factory=deque)
    _last: int = -1

    def follow(self, batch: Batch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the forecasts of each window [B, H, N, C, I], and learn from them.

        Args:
            batch: windows in the order of time, with or without targets.
            low: forecasts that the lower ends are made of, [B, H, N, C, I].
            high: those of the upper ends.
        """
        below, above = [], []
        origins = (batch.starts + batch.x.shape[1] - 1).tolist()
        for window, origin in enumerate(origins):
            if origin <= self._last:
                raise ConfigError("adaptive intervals follow time: give the windows in its order")
            self._last = origin
            self._learn(origin)
            below.append(self.below.clone())
            above.append(self.above.clone())
            if batch.y is None or batch.y_mask is None:
                continue
            target = batch.y[window, ..., None]
            issued = _Issued(
                origin=origin,
                known=0,
                beyond_low=target < low[window] + self.below,
                beyond_high=target > high[window] + self.above,
                observed=batch.y_mask[window, ..., None].clone(),  # later batches reuse it
            )
            self._issued.append(issued)
        if not below:  # a batch without windows
            return low, high
        return torch.stack(below), torch.stack(above)

    def _learn(self, origin: int) -> None:
        """Count the outcomes that are known at an origin: of step h, h rows after its own."""
        horizon = len(self.below)
        for each in self._issued:
            known = min(horizon, origin - each.origin)
            if known == each.known:
                continue
            steps = slice(each.known, known)
            each.known = known
            inwards, outwards = self.inwards[steps], self.outwards[steps]
            observed = each.observed[steps]
            moved = torch.where(each.beyond_high[steps], outwards, -inwards)
            self.above[steps] += torch.where(observed, moved, 0.0)
            moved = torch.where(each.beyond_low[steps], outwards, -inwards)
            self.below[steps] -= torch.where(observed, moved, 0.0)
        while self._issued and self._issued[0].known == horizon:
            self._issued.popleft()
