"""Forecasters turn a batch into forecasts in original units; this is the one with a network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pgti.batching import Batch
from pgti.errors import ConfigError
from pgti.models import Head, TeacherForcing
from pgti.models.network_inputs import OF_BATCH, requested_inputs
from pgti.nn import Supports
from pgti.nn.numerics import deterministic_algorithms, float32_products
from pgti.shapes import BHNC, BHNCI, BHNCQ
from pgti.store import Scaler

__all__ = [
    "AbstractForecaster",
    "AbstractScaledForecaster",
    "NetworkForecaster",
    "Prediction",
]


class Prediction(NamedTuple):
    """What is forecast for a batch, in original units.

    Attributes:
        point: the forecasts.
        quantiles: of the levels `quantile_levels` of the forecaster, rising; None where it has
            none.
        lower: lower ends of the intervals of `interval_levels`; None where it has none.
        upper: their upper ends.
    """

    point: BHNC
    quantiles: BHNCQ | None = None
    lower: BHNCI | None = None
    upper: BHNCI | None = None


class AbstractForecaster(nn.Module, ABC):
    """Forecasts the targets of a batch in original units.

    Attributes:
        quantile_levels: of the quantiles that it forecasts, rising; () for point forecasts alone.
        interval_levels: probabilities that its intervals cover, rising; () for none.
    """

    quantile_levels: tuple[float, ...] = ()
    interval_levels: tuple[float, ...] = ()

    @abstractmethod
    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """Forecast the batch's windows.

        Args:
            batch: the windows.
            step: in training, the number of optimizer steps done so far; None in evaluation and
                prediction, where the forecaster must not see the targets.

        Returns:
            float32 (of an exact series float64) [B, H, N, C_out].
        """

    def predict(self, batch: Batch) -> Prediction:
        """Everything that is forecast for the batch's windows, outside training."""
        return Prediction(self(batch))


class AbstractScaledForecaster(AbstractForecaster):
    """A forecaster that works on standardised values and converts its output to original units.

    Args:
        scaler: standardisation of the store's channels.
        target_indices: positions of the targets among the store's channels.
        sensors: positions of the sensors that batches have; all if not given.

    Raises:
        ConfigError: if a target is not a channel of the scaler.
    """

    def __init__(
        self,
        scaler: Scaler,
        target_indices: tuple[int, ...],
        sensors: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__()
        if not target_indices:
            raise ConfigError("there is no target channel: name at least one to forecast")
        last = len(scaler.mean) - 1
        for index in target_indices:
            if not 0 <= index <= last:
                raise ConfigError(
                    f"target channel {index} does not exist: the series has channels 0 to {last}"
                )
        self.scaler = scaler
        self.target_indices = target_indices
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", scaler.mean), ("std", scaler.std)):
            of_targets = [values[index] for index in target_indices]
            tensor = torch.tensor(of_targets, dtype=torch.float32)
            self.register_buffer(name, tensor, persistent=False)
        every = scaler.offset_array
        offsets: Tensor | None = None
        if every is not None:
            chosen = every if sensors is None else every[sensors]
            offsets = torch.from_numpy(chosen[:, list(target_indices)])
        self.offsets: Tensor | None
        self.register_buffer("offsets", offsets, persistent=False)

    def unscale(self, scaled: BHNC) -> BHNC:
        """Standardised targets [.., H, N, C_out] in original units; with offsets in float64."""
        values = scaled * self.std + self.mean
        return values if self.offsets is None else values.double() + self.offsets

    def scale(self, targets: BHNC) -> BHNC:
        """Targets [B, H, N, C_out] in original units as standardised float32."""
        values = targets if self.offsets is None else targets.double() - self.offsets
        return (values.float() - self.mean) / self.std


class NetworkForecaster(AbstractScaledForecaster):
    """A network that forecasts standardised values.

    Args:
        network: called with x [B, L, N, C + F], standardised, and with those of the following that
            its `forward` names; returns [B, H, N, C_out], standardised. `supports`: the sensor
            graph. `edge_index`, `edge_weight`: its edges, [2, E] and [E]. `x_mask`: which inputs
            were observed, bool [B, L, N, C]. `calendar`: calendar features of inputs and horizon,
            [B, L + H, F]. `future`, `future_mask`, `static`, `static_codes`, `history`,
            `history_mask`: as in `Batch`, None where the windows have none. `teacher`: a
            `TeacherForcing` in training, None otherwise.
        supports: the sensor graph in the form that the network takes.
        scaler: standardisation of the store's channels.
        target_indices: positions of the targets among the store's channels.
        seed: seed of what the network draws in training (scheduled sampling).
        sensors: positions of the sensors that batches have; all if not given.
        channels: channels of x that the network sees, and positions of their readings among the
            channels of `x_mask`; all if not given.
        quantile_levels: of the quantiles that the network forecasts: it returns
            [B, H, N, C_out * Q], those of a target one after the other. They are sorted, so that
            none crosses another, which never makes their pinball loss larger (Chernozhukov,
            Fernandez-Val & Galichon 2010).
        bounds: lowest and highest forecast of each target; () for no limits. Outside training
            forecasts are clamped to them.
        heads: change what the network returns by the history and the covariates of a batch, one
            after the other; their parameters are the network's.

    Attributes:
        requested: names of the inputs that the network's `forward` asks for; None if they cannot be
            seen.
        deterministic: whether a GPU has to repeat forecasts bit for bit; see
            `deterministic_algorithms`.

    Raises:
        ConfigError: if a target is not a channel of the scaler, or the network requires an
            argument that does not exist.
    """

    def __init__(  # noqa: PLR0913 - each is a part of it
        self,
        network: nn.Module,
        supports: Supports,
        scaler: Scaler,
        target_indices: tuple[int, ...],
        seed: int = 0,
        sensors: NDArray[np.int64] | None = None,
        channels: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
        *,
        quantile_levels: tuple[float, ...] = (),
        bounds: Sequence[tuple[float, float]] = (),
        heads: tuple[Head, ...] = (),
    ) -> None:
        super().__init__(scaler, target_indices, sensors)
        self.heads = heads
        self.channels = channels
        self.quantile_levels = quantile_levels
        dtype = torch.float32 if self.offsets is None else torch.float64
        limits = torch.tensor(bounds, dtype=dtype).T if bounds else None
        self._limits: Tensor | None
        self.register_buffer("_limits", limits, persistent=False)
        self._seen: Tensor | None
        self._seen_readings: Tensor | None
        for name, positions in zip(
            ("_seen", "_seen_readings"), channels or (None,) * 2, strict=True
        ):
            chosen = None if positions is None else torch.tensor(positions)
            self.register_buffer(name, chosen, persistent=False)
        self.network = network
        self.supports = supports
        self.seed = seed
        self.deterministic = False
        self.requested = requested_inputs(network)
        self._added_losses: list[Tensor] = []

    @property
    def reads(self) -> frozenset[str]:
        """Names of the inputs that the network or a head of it reads."""
        return frozenset(self.requested or ()).union(*(head.reads for head in self.heads))

    @property
    def called(self) -> tuple[nn.Module, ...]:
        """What a pass calls, in this order: the network and its heads."""
        return (self.network, *self.heads)

    @property
    def uses_future(self) -> bool:
        """Whether values that are known in advance are read."""
        return bool({"future", "future_mask"} & self.reads)

    def forward(self, batch: Batch, *, step: int | None = None) -> BHNC:
        """Forecasts in original units; unscaled in float32 even where the network computes lower.

        Outside training, a GPU computes float32 products in float32, not in TF32. Of quantiles it
        is the median.

        Raises:
            ConfigError: if the network returns anything but a tensor of the forecasts' shape.
        """
        values = self.outputs(batch, step=step)
        return self._median(values) if self.quantile_levels else values

    def predict(self, batch: Batch) -> Prediction:
        """The forecasts and, if the network has them, their quantiles."""
        values = self.outputs(batch)
        if not self.quantile_levels:
            return Prediction(values)
        return Prediction(self._median(values), values)

    def _median(self, quantiles: BHNCQ) -> BHNC:
        return quantiles[..., self.quantile_levels.index(0.5)]

    def outputs(self, batch: Batch, *, step: int | None = None) -> Tensor:
        """What a loss is of: forecasts [B, H, N, C_out], or their quantiles [B, H, N, C_out, Q].

        Args:
            batch: as for `forward`.
            step: as for `forward`.

        Raises:
            ConfigError: as `forward`.
        """
        if step is None:
            device = batch.x.device
            with (
                float32_products(device),
                deterministic_algorithms(device, enabled=self.deterministic),
            ):
                scaled = self._run(batch, step)
        else:
            scaled = self._run(batch, step)
        num_targets, num_quantiles = len(self.target_indices), len(self.quantile_levels)
        if scaled.dtype not in (torch.float32, torch.float64):
            scaled = scaled.float()
        if num_quantiles:  # [Q, B, H, N, C_out]
            of_targets = scaled.reshape(*scaled.shape[:-1], num_targets, num_quantiles)
            scaled = of_targets.sort(dim=-1).values.movedim(-1, 0)
        values = self.unscale(scaled)
        if step is None:
            values = self.clamp(values)
        return values.movedim(0, -1) if num_quantiles else values

    def clamp(self, values: BHNC) -> BHNC:
        """Forecasts [.., C_out] within the bounds of their targets."""
        return values if self._limits is None else values.clamp(*self._limits.unbind())

    def take_added_loss(self, y_mask: Tensor) -> Tensor | None:
        """What the network added to the summed loss of the last batch; None if nothing.

        Args:
            y_mask: which of its targets were observed, bool [B, H, N, C_out].

        Returns:
            A scalar: the terms of `TeacherForcing.add_loss`, each as often as it has targets.
        """
        terms_BN, self._added_losses = self._added_losses, []
        if not terms_BN:
            return None
        return (torch.stack(terms_BN).sum(dim=0) * y_mask.sum(dim=(1, 3))).sum()

    def _run(self, batch: Batch, step: int | None) -> Tensor:
        """What the network and its heads return."""
        scaled: Tensor
        x = batch.x if self._seen is None else batch.x.index_select(-1, self._seen)
        if self.requested is None:
            scaled = self.network(x, self.supports)
        else:
            named = {name: self._input(name, batch, step) for name in self.requested}
            scaled = self.network(x, **named)
        _check_shape(scaled, batch, len(self.target_indices) * max(1, len(self.quantile_levels)))
        for head in self.heads:
            inputs: dict[str, Any] = {each: self._input(each, batch, step) for each in head.reads}
            scaled = head(scaled, x, **inputs)
        return scaled

    def _input(self, name: str, batch: Batch, step: int | None) -> object:
        """What a network asks for by this name, one of `NETWORK_INPUTS`."""
        if name == "supports":
            return self.supports
        if name == "teacher":
            return None if step is None else self._teacher(batch, step)
        if name in ("x_mask", "history", "history_mask") and self._seen_readings is not None:
            tensor = getattr(batch, name)
            return None if tensor is None else tensor.index_select(-1, self._seen_readings)
        source = batch if name in OF_BATCH else self.supports
        return getattr(source, name)

    def _teacher(self, batch: Batch, step: int) -> TeacherForcing | None:
        if batch.y is None or batch.y_mask is None:
            return None
        targets = torch.where(batch.y_mask, self.scale(batch.y), 0.0)
        if self.quantile_levels:  # one for each output of the network
            targets = targets.repeat_interleave(len(self.quantile_levels), dim=-1)
        teacher = TeacherForcing(
            targets_BHNC=targets,
            calendar_BHF=batch.calendar[:, batch.x.shape[1] :],
            step=step,
            seed=self.seed,
        )
        self._added_losses = teacher.added_losses
        return teacher


def _check_shape(scaled: object, batch: Batch, num_targets: int) -> None:
    """Refuse a shape that would broadcast: a user's own network may return anything."""
    if not isinstance(scaled, Tensor):
        raise ConfigError(
            f"the network returned a {type(scaled).__name__}: it must return one tensor, "
            "[B, H, N, C_out]"
        )
    num_windows, num_nodes = batch.x.shape[0], batch.x.shape[2]
    horizon = scaled.shape[1] if batch.y is None and scaled.ndim == 4 else None
    if batch.y is not None:
        horizon = batch.y.shape[1]
    expected = (num_windows, horizon, num_nodes, num_targets)
    if tuple(scaled.shape) != expected:
        raise ConfigError(
            f"the network returned the shape {tuple(scaled.shape)}: the rule is "
            f"[B, H, N, C_out] = {expected}"
        )
