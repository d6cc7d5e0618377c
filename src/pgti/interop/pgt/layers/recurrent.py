"""Recurrent layers of PyTorch Geometric Temporal as forecasters: those with a width and a filter.

What each layer is, and what is wrong with it, stands in `pgti.interop.pgt.layers.PGT_LAYERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pgti.errors import ConfigError
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.layers.forecaster import PgtForecaster, StepwiseForecaster
from pgti.models.base import ModelConfig, check_at_least
from pgti.shapes import BLNC

__all__ = [
    "HiddenConfig",
    "HopsConfig",
    "PgtA3TGCN",
    "PgtA3TGCN2",
    "PgtBatchedDCRNN",
    "PgtDCRNN",
    "PgtGCLSTM",
    "PgtGConvGRU",
    "PgtGConvLSTM",
    "PgtTGCN",
    "PgtTGCN2",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenConfig(ModelConfig):
    """Options of layers that have a width alone.

    Attributes:
        hidden: units D; the layer's `out_channels`.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HopsConfig(ModelConfig):
    """Options of layers with a width and a filter.

    Attributes:
        hidden: units D; the layer's `out_channels`.
        hops: how far one filter reaches; the layer's `K` less 1.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32
    hops: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=1, hops=0)


_FINITE = WeakIdKeyDictionary()  # edges that have been looked at, as long as they are there


class _Hidden(PgtForecaster):
    """A layer that is made of its channels."""

    config: HiddenConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`LAYER(C, D)`."""
        layer: nn.Module = layer_class(self.shape.input_channels, self.config.hidden)
        return layer


class _Hops(PgtForecaster):
    """A layer that is made of its channels and the terms of its filters."""

    config: HopsConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`LAYER(C, D, K)`."""
        layer: nn.Module = layer_class(
            self.shape.input_channels, self.config.hidden, K=self.config.hops + 1
        )
        return layer


class PgtBatchedDCRNN(_Hops):
    """Takes windows as they are; its last state is kept."""

    layer_name = "BatchedDCRNN"

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The state after the last step."""
        _refuse_division_by_zero(edges, x.shape[2])
        # It adds the weights up in float32.
        states_BLND: Tensor = self.layer(x, edges.index, edges.weight.float())
        return states_BLND[:, -1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move, and have the layer forget the graph, which it compares with the next one."""
        self.layer._cached_edge_index = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class PgtDCRNN(_Hops):
    """Takes one step of one sample: it makes an N x N matrix at every call, so no copies."""

    layer_name = "DCRNN"

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The states after the last step, sample by sample."""
        _refuse_division_by_zero(edges, x.shape[2])
        weight = edges.weight.float()  # it adds them up in float32
        states_ND = []
        for sample_LNC in x:
            state_ND = x.new_zeros(x.shape[2], self.width)
            for x_NC in sample_LNC:
                state_ND = self.layer(x_NC, edges.index, weight, state_ND)
            states_ND.append(state_ND)
        return torch.stack(states_ND)


class PgtTGCN(_Hidden, StepwiseForecaster):
    """Takes steps without a batch."""

    layer_name = "TGCN"
    knows_batches = False


class PgtTGCN2(StepwiseForecaster):
    """Takes steps of a batch, whose size it asks for and does not use."""

    layer_name = "TGCN2"
    config: HiddenConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`TGCN2(C, D, batch_size)`."""
        layer: nn.Module = layer_class(self.shape.input_channels, self.config.hidden, 1)
        return layer


class PgtGConvGRU(_Hops, StepwiseForecaster):
    """Takes steps of a batch, once it has a state of that shape."""

    layer_name = "GConvGRU"


class PgtGConvLSTM(_Hops, StepwiseForecaster):
    """As `GConvGRU`, with two states."""

    layer_name = "GConvLSTM"
    num_states = 2


class PgtGCLSTM(_Hops, StepwiseForecaster):
    """As `GConvGRU`, with two states."""

    layer_name = "GCLSTM"
    num_states = 2


class PgtA3TGCN(PgtForecaster):
    """Takes [N, C, L]: windows become copies of the graph."""

    layer_name = "A3TGCN"
    config: HiddenConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`A3TGCN(C, D, periods)`."""
        sizes = (self.shape.input_channels, self.config.hidden, self.shape.input_steps)
        layer: nn.Module = layer_class(*sizes)
        return layer

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The steps' states, weighted."""
        batch, _, num_nodes, _ = x.shape
        copies = edges.repeat(batch, num_nodes)
        x_MCL = x.permute(0, 2, 3, 1).flatten(0, 1)
        states_MD: Tensor = self.layer(x_MCL, copies.index, copies.weight)
        return states_MD.view(batch, num_nodes, -1)


class PgtA3TGCN2(PgtForecaster):
    """Takes [B, N, C, L]."""

    layer_name = "A3TGCN2"
    config: HiddenConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`A3TGCN2(C, D, periods, batch_size)`, the last of which it does not use."""
        sizes = (self.shape.input_channels, self.config.hidden, self.shape.input_steps)
        layer: nn.Module = layer_class(*sizes, 1)
        return layer

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The steps' states, weighted."""
        states_BND: Tensor = self.layer(x.permute(0, 2, 3, 1), edges.index, edges.weight)
        return states_BND


def _refuse_division_by_zero(edges: Edges, num_nodes: int) -> None:
    """Refuse graphs of which DCRNN and BatchedDCRNN make infinities; looked at once.

    Raises:
        ConfigError: if edges leave a sensor that none leads to.
    """
    if edges.index in _FINITE:
        return
    sources, targets = edges.index
    entered = torch.zeros(num_nodes, dtype=torch.bool, device=targets.device)
    entered[targets] = True
    only_left = sources[~entered[sources]]
    if len(only_left):
        raise ConfigError(
            f"PGT's DCRNN divides by the weights of the edges that lead to sensor number "
            f"{int(only_left[0])}, and none does: its output would be infinite; use dcrnn, or "
            "pgt-dcrnn, which leaves that term out"
        )
    _FINITE[edges.index] = True
