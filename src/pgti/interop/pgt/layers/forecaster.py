"""Layers of PyTorch Geometric Temporal (PGT) as forecasters: what all of them share.

A layer is called as it is, with the shapes that it expects, and its features become forecasts by
one affine map. There are three ways to call one:

- with a window, after a permutation of its axes: `PgtForecaster.features`;
- with one time step after the other, its states carried over them: `StepwiseForecaster`;
- where it takes no batches, with one copy of the graph for each sample: `Edges.repeat`.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.package import pgt_layer_class
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import Supports, without_autocast
from pgti.shapes import BHNC, BLNC

__all__ = ["LayerClass", "PgtForecaster", "StepwiseForecaster", "WholeForecaster"]

LayerClass = Callable[..., nn.Module]


class PgtForecaster(AbstractModel):
    """A layer of PGT whose features at the end of a window become forecasts by one affine map.

    Args:
        config: options from which the layer is built; unused where it is given.
        shape: sizes of the data.
        layer: the layer itself, to use in place of a new one.

    Attributes:
        layer_name: PGT's name of the class.
        width_attribute: the attribute of the layer that gives its number of features.
        supports_autocast: whether the layer can compute under autocast; otherwise autocast is off
            inside it.

    Raises:
        MissingExtraError: if PGT is not installed.
        ConfigError: if the layer cannot have these sizes.
    """

    support_kind = "none"
    layer_name: ClassVar[str]
    width_attribute: ClassVar[str] = "out_channels"
    supports_autocast: ClassVar[bool] = True

    def __init__(
        self, config: ModelConfig, shape: ModelShape, layer: nn.Module | None = None
    ) -> None:
        super().__init__(config, shape)
        # Any: the attributes of another library's layer have no types.
        self.layer: Any = self.build(pgt_layer_class(self.layer_name)) if layer is None else layer
        self.regression = self.build_regression()

    @property
    def needs_edges(self) -> bool:
        """True: the layers take edges, whatever the kind of supports."""
        return True

    @abstractmethod
    def build(self, layer_class: LayerClass) -> nn.Module:
        """The layer for this configuration and shape."""

    @property
    def width(self) -> int:
        """Number of features of a node, W."""
        width: int = attrgetter(self.width_attribute)(self.layer)
        return width

    @abstractmethod
    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The layer's features of a window.

        Args:
            x: [B, L, N, C].
            edges: of the graph.

        Returns:
            [B, N, W].
        """

    def build_regression(self) -> Regression | None:
        """The map from features to forecasts; None for a layer that has its own."""
        return Regression(self.width, self.shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Raises:
            ConfigError: the graph is not that of the model.
        """
        self.check_supports(supports)
        features: Callable[..., Tensor] = self._features
        # Code of PGT, on sparse graphs. A decorator would import the compiler, for a second.
        if torch.compiler.is_compiling():
            features = torch.compiler.disable(features)  # type: ignore[no-untyped-call] # torch
        features_BNW = features(x, supports)
        if self.regression is not None:
            forecast: BHNC = self.regression(features_BNW)
            return forecast
        forecast_BNHC = features_BNW.reshape(
            *features_BNW.shape[:2], self.shape.horizon, self.shape.target_channels
        )
        return forecast_BNHC.transpose(1, 2).to(x.dtype).contiguous()

    def _features(self, x: BLNC, supports: Supports) -> Tensor:
        edges = Edges(supports.edge_index, supports.edge_weight)
        with nullcontext() if self.supports_autocast else without_autocast(x.device):
            return self.features(x, edges)


class StepwiseForecaster(PgtForecaster):
    """For layers that take one time step and return their states, which start from zeros.

    Attributes:
        num_states: how many states the layer takes and returns.
        takes_batches: whether it takes [B, N, C]; otherwise it gets [B * N, C], and a copy of the
            graph for every window.
    """

    num_states: ClassVar[int] = 1
    takes_batches: ClassVar[bool] = True

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The first state after the last step."""
        batch, _, num_nodes, _ = x.shape
        steps = x.transpose(0, 1)
        if not self.takes_batches:
            steps, edges = steps.flatten(1, 2), edges.repeat(batch, num_nodes)
        zeros = x.new_zeros(*steps.shape[1:-1], self.width)
        states: tuple[Tensor, ...] = (zeros,) * self.num_states
        for step in steps:
            states = self.step(step, edges, states)
        return states[0].view(batch, num_nodes, -1)

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after one more input, [B, N, C] or [B * N, C]."""
        after = self.layer(x, edges.index, edges.weight, *states)
        return after if isinstance(after, tuple) else (after,)


class WholeForecaster(PgtForecaster):
    """For networks that end in forecasts: their features are H * C_out numbers of each node."""

    def build_regression(self) -> None:
        """Nothing: the layer's features are forecasts.

        Raises:
            ConfigError: if it gives another number of them.
        """
        expected = self.shape.horizon * self.shape.target_channels
        if self.width != expected:
            raise ConfigError(
                f"{self.layer_name} forecasts {self.width} numbers of each sensor: {expected} are "
                f"needed, {self.shape.horizon} steps of {self.shape.target_channels} targets"
            )
