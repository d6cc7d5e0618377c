"""Layers of PyTorch Geometric Temporal (PGT) made forecasters: what all of them share.

A layer is called as it is, with the shapes that it wants, and its features become forecasts by one
affine map. There are three ways to call one:

- with a window, after a permutation of its axes: `PgtForecaster.features`;
- with one time step after the other, its states carried over them: `StepwiseForecaster`;
- where it knows no batches, with the disjoint union of as many copies of the graph: `copies_of`.
"""

from abc import abstractmethod
from contextlib import nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.package import pgt_layer_class
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import SupportKind, Supports, without_autocast
from pgti.nn.execution import compiler_disabled
from pgti.shapes import BHNC, BLNC

__all__ = [
    "PgtForecaster",
    "StepwiseForecaster",
    "WholeForecaster",
]


class PgtForecaster(AbstractModel):
    """A layer of PGT whose features at the end of a window become forecasts by one affine map.

    Attributes:
        knows_autocast: whether the layer can compute under autocast; otherwise it is kept out.

    Args:
        config: options from which the layer is made; unused where it is given.
        shape: sizes of the data.
        layer: the layer itself, to use in place of a new one.

    Raises:
        MissingExtraError: if PGT is not installed.
        ConfigError: if the layer cannot have these sizes.
    """

    support_kind: ClassVar[SupportKind] = "none"
    layer_name: ClassVar[str]
    knows_autocast: ClassVar[bool] = True

    def __init__(
        self, config: ModelConfig, shape: ModelShape, layer: nn.Module | None = None
    ) -> None:
        super().__init__(config, shape)
        # Any: what a layer of another library has is not known here.
        self.layer: Any = self.make(pgt_layer_class(self.layer_name)) if layer is None else layer
        self.regression = self.make_regression()

    @abstractmethod
    def make(self, layer_class: type[Any]) -> nn.Module:
        """The layer for this configuration and shape."""

    @property
    def width(self) -> int:
        """Number of features of a node."""
        width: int = self.layer.out_channels
        return width

    @abstractmethod
    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """What the layer makes of a window.

        Args:
            x: [B, L, N, C].
            edges: of the graph.

        Returns:
            [B, N, W], W the width.
        """

    def make_regression(self) -> Regression | None:
        """The map from features to forecasts; None for a layer that has its own."""
        return Regression(self.width, self.shape)

    def forward(
        self,
        x: BLNC,
        supports: Supports,
        teacher: TeacherForcing | None = None,
    ) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Raises:
            ConfigError: the graph is not that of the model.
        """
        self.check_supports(supports)
        features_BNW = self._features(x, supports)
        if self.regression is not None:
            forecast: BHNC = self.regression(features_BNW)
            return forecast
        forecast_BNHC = features_BNW.reshape(
            *features_BNW.shape[:2], self.shape.horizon, self.shape.target_channels
        )
        return forecast_BNHC.transpose(1, 2).to(x.dtype).contiguous()

    @compiler_disabled
    def _features(self, x: BLNC, supports: Supports) -> Tensor:
        edges = Edges(supports.edge_index, supports.edge_weight)
        with nullcontext() if self.knows_autocast else without_autocast(x.device):
            return self.features(x, edges)


class StepwiseForecaster(PgtForecaster):
    """For layers that take one time step and give their states, which are carried from zeros.

    Attributes:
        num_states: how many states the layer takes and gives.
        knows_batches: whether it takes [B, N, C]; otherwise it is given [B * N, C], and a copy of
            the graph for every window.
    """

    num_states: ClassVar[int] = 1
    knows_batches: ClassVar[bool] = True

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The first state after the last step."""
        batch, _, num_nodes, _ = x.shape
        steps = x.transpose(0, 1)
        if not self.knows_batches:
            steps, edges = steps.flatten(1, 2), edges.repeat(batch, num_nodes)
        zeros = x.new_zeros(*steps.shape[1:-1], self.width)
        states: tuple[Tensor, ...] = (zeros,) * self.num_states
        for step in steps:
            states = self.step(step, edges, states)
        return states[0].view(batch, num_nodes, -1)

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after one more input, [B, N, C] or [B * N, C]."""
        made = self.layer(x, edges.index, edges.weight, *states)
        return made if isinstance(made, tuple) else (made,)


class WholeForecaster(PgtForecaster):
    """For networks that end in forecasts: their features are H * C_out numbers of each node."""

    def make_regression(self) -> None:
        """Nothing: what the layer gives are forecasts.

        Raises:
            ConfigError: if it gives another number of them.
        """
        expected = self.shape.horizon * self.shape.target_channels
        if self.width != expected:
            raise ConfigError(
                f"{self.layer_name} forecasts {self.width} numbers of each sensor: {expected} are "
                f"needed, {self.shape.horizon} steps of {self.shape.target_channels} targets"
            )
