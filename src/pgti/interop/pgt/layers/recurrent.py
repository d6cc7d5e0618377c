"""Recurrent layers of PGT as forecasters.

`models.PGT_LAYERS` says what is known to be wrong with each layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pgti.errors import ConfigError
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.layers.forecaster import LayerClass, PgtForecaster, StepwiseForecaster
from pgti.models.base import ModelConfig, ModelShape
from pgti.shapes import BLNC


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
        self.check_at_least(hidden=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HopsConfig(HiddenConfig):
    """Options of layers with a width and a filter.

    Attributes:
        hops: how far one filter reaches; the layer's `K` less 1.

    Raises:
        ConfigError: an option out of range.
    """

    hops: int = 2

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, hops=0)


class _Hops(PgtForecaster):
    """A layer that is built from its channels and the terms of its filters."""

    config: HopsConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`LAYER(C, D, K)`."""
        config = self.config
        return layer_class(self.shape.input_channels, config.hidden, K=config.hops + 1)


class PgtBatchedDCRNN(_Hops):
    """Takes windows as they are; the state after the last step is the feature."""

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
    """Takes one step of one sample: it builds an N x N matrix at every call, so no copies."""

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


class PgtTGCN(StepwiseForecaster):
    """Takes steps without a batch."""

    layer_name = "TGCN"
    takes_batches = False
    config: HiddenConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`TGCN(C, D)`."""
        return layer_class(self.shape.input_channels, self.config.hidden)


class PgtTGCN2(StepwiseForecaster):
    """Takes steps of a batch; its argument `batch_size` has no effect."""

    layer_name = "TGCN2"
    config: HiddenConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`TGCN2(C, D, batch_size)`."""
        return layer_class(self.shape.input_channels, self.config.hidden, 1)


class PgtGConvGRU(_Hops, StepwiseForecaster):
    """Takes steps of a batch, given a state of that shape."""

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

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`A3TGCN(C, D, periods)`."""
        shape = self.shape
        return layer_class(shape.input_channels, self.config.hidden, shape.input_steps)

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The weighted sum of the steps' states."""
        batch, _, num_nodes, _ = x.shape
        copies = edges.repeat(batch, num_nodes)
        x_MCL = x.permute(0, 2, 3, 1).flatten(0, 1)
        states_MD: Tensor = self.layer(x_MCL, copies.index, copies.weight)
        return states_MD.view(batch, num_nodes, -1)


class PgtA3TGCN2(PgtForecaster):
    """Takes [B, N, C, L]; its argument `batch_size` has no effect."""

    layer_name = "A3TGCN2"
    config: HiddenConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`A3TGCN2(C, D, periods, batch_size)`."""
        shape = self.shape
        return layer_class(shape.input_channels, self.config.hidden, shape.input_steps, 1)

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The weighted sum of the steps' states."""
        states_BND: Tensor = self.layer(x.permute(0, 2, 3, 1), edges.index, edges.weight)
        return states_BND


@dataclass(frozen=True, kw_only=True, slots=True)
class AGCRNConfig(HiddenConfig):
    """Options of AGCRN.

    Attributes:
        hops: powers of the learned graph; the layer's `K` less 1.
        embedding: width of the learned vector of each sensor.

    Raises:
        ConfigError: an option out of range.
    """

    hops: int = 1
    embedding: int = 10

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, hops=1, embedding=1)


class PgtAGCRN(StepwiseForecaster):
    """Takes steps of a batch and embeddings of the sensors, which are parameters here."""

    layer_name = "AGCRN"
    config: AGCRNConfig

    def __init__(
        self, config: ModelConfig, shape: ModelShape, layer: nn.Module | None = None
    ) -> None:
        super().__init__(config, shape, layer)
        size = (shape.num_nodes, self.layer.embedding_dimensions)
        self.embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(size)))

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`AGCRN(N, C, D, K, embedding_dimensions)`."""
        config, shape = self.config, self.shape
        sizes = (shape.num_nodes, shape.input_channels, config.hidden)
        return layer_class(*sizes, config.hops + 1, config.embedding)

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The state after one more input."""
        return (self.layer(x, self.embedding, *states),)


class PgtLRGCN(StepwiseForecaster):
    """Takes steps without a batch, and a type of each edge: here all are of one."""

    layer_name = "LRGCN"
    num_states = 2
    takes_batches = False
    config: HiddenConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`LRGCN(C, D, num_relations, num_bases)`."""
        return layer_class(self.shape.input_channels, self.config.hidden, 1, 1)

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after one more input."""
        after: tuple[Tensor, ...] = self.layer(
            x, edges.index, torch.zeros_like(edges.index[0]), *states
        )
        return after


class PgtEvolveGCNO(PgtForecaster):
    """Takes steps of a batch; its weights, which it keeps from call to call, begin every window."""

    layer_name = "EvolveGCNO"
    config: ModelConfig  # without options: the layer is as wide as its inputs

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`EvolveGCNO(C)`."""
        return layer_class(self.shape.input_channels)

    @property
    def width(self) -> int:
        """The outputs of all steps: of the last one alone, earlier inputs would have no part."""
        return self.shape.input_steps * self.shape.input_channels

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The outputs of all steps."""
        return self._outputs(x.transpose(0, 1), edges)

    def _outputs(self, steps: Tensor, edges: Edges) -> Tensor:
        self.layer.reinitialize_weight()
        outputs = [self.layer(step, edges.index, edges.weight) for step in steps]
        self.layer.reinitialize_weight()
        return torch.cat(outputs, dim=-1)


class PgtEvolveGCNH(PgtEvolveGCNO):
    """Takes steps of one sample, from whose nodes its weights evolve."""

    layer_name = "EvolveGCNH"

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`EvolveGCNH(N, C)`.

        Raises:
            ConfigError: sizes for which the layer pools another number of nodes than it needs.
        """
        num_nodes, channels = self.shape.num_nodes, self.shape.input_channels
        # It keeps a share C / N of the nodes, which is rounded in float32 and means all if it is 1.
        share = channels / num_nodes
        kept = np.ceil(np.float32(share) * np.float32(num_nodes)) if share < 1 else 0
        if kept != channels:
            raise ConfigError(
                f"input_channels is {channels} and num_nodes {num_nodes}: EvolveGCNH needs as many "
                f"nodes as channels, and keeps ceil({channels} / {num_nodes} * {num_nodes}) = "
                f"{kept:.0f}; use EvolveGCNO"
            )
        return layer_class(num_nodes, channels)

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The outputs of all steps, sample by sample."""
        return torch.stack([self._outputs(sample_LNC, edges) for sample_LNC in x])


_CHECKED = WeakIdKeyDictionary()  # edges without division by zero, as long as they are alive


def _refuse_division_by_zero(edges: Edges, num_nodes: int) -> None:
    """Refuse graphs for which DCRNN and BatchedDCRNN compute infinities; checked once.

    Raises:
        ConfigError: if edges lead away from a sensor to which none leads.
    """
    if edges.index in _CHECKED:
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
    _CHECKED[edges.index] = True
