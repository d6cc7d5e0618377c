"""Recurrent layers of PyTorch Geometric Temporal as forecasters: those with options of their own.

What each layer is, and what is wrong with it, stands in `pgti.interop.pgt.layers.PGT_LAYERS`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.layers.forecaster import PgtForecaster, StepwiseForecaster
from pgti.interop.pgt.layers.recurrent import HiddenConfig
from pgti.models.base import ModelConfig, ModelShape, check_at_least
from pgti.shapes import BLNC

__all__ = [
    "AGCRNConfig",
    "DyGrEncoderConfig",
    "EvolveGCNConfig",
    "MPNNLSTMConfig",
    "PgtAGCRN",
    "PgtDyGrEncoder",
    "PgtEvolveGCNH",
    "PgtEvolveGCNO",
    "PgtLRGCN",
    "PgtMPNNLSTM",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class AGCRNConfig(ModelConfig):
    """Options of AGCRN.

    Attributes:
        hidden: units D; the layer's `out_channels`.
        hops: powers of the learnt graph; the layer's `K` less 1.
        embedding: numbers that describe a sensor, which are learnt.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32
    hops: int = 1
    embedding: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=1, hops=1, embedding=1)


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

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`AGCRN(N, C, D, K, embedding_dimensions)`."""
        config, shape = self.config, self.shape
        sizes = (shape.num_nodes, shape.input_channels, config.hidden)
        layer: nn.Module = layer_class(*sizes, config.hops + 1, config.embedding)
        return layer

    def step(
        self,
        x: Tensor,
        edges: Edges,
        states: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        """The state after one more input."""
        return (self.layer(x, self.embedding, *states),)


class PgtLRGCN(StepwiseForecaster):
    """Takes steps without a batch, and a type of each edge: here all are of one."""

    layer_name = "LRGCN"
    num_states = 2
    knows_batches = False
    config: HiddenConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`LRGCN(C, D, num_relations, num_bases)`."""
        layer: nn.Module = layer_class(self.shape.input_channels, self.config.hidden, 1, 1)
        return layer

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after one more input."""
        made: tuple[Tensor, ...] = self.layer(
            x, edges.index, torch.zeros_like(edges.index[0]), *states
        )
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class DyGrEncoderConfig(ModelConfig):
    """Options of DyGrEncoder.

    Attributes:
        hidden: units D of the recurrent layer, and of the gated convolutions unless the inputs have
            more channels.
        layers: gated graph convolutions before it.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32
    layers: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=2, layers=1)


class PgtDyGrEncoder(StepwiseForecaster):
    """Takes steps without a batch; gives its output twice, then the cell's state."""

    layer_name = "DyGrEncoder"
    knows_autocast = False  # not every processor has an LSTM in bfloat16
    num_states = 2
    knows_batches = False
    config: DyGrEncoderConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`DyGrEncoder(conv channels, conv layers, aggregation, LSTM channels, LSTM layers)`.

        Raises:
            ConfigError: a graph of one node, whose axis the layer drops.
        """
        if self.shape.num_nodes == 1:
            raise ConfigError("num_nodes is 1: DyGrEncoder drops the axis of a single node")
        config = self.config
        convolved = max(config.hidden, self.shape.input_channels)
        layer: nn.Module = layer_class(convolved, config.layers, "add", config.hidden, 1)
        return layer

    @property
    def width(self) -> int:
        """Units of the recurrent layer."""
        width: int = self.layer.lstm_out_channels
        return width

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after one more input."""
        _, *after = self.layer(x, edges.index, edges.weight, *states)
        return tuple(after)


@dataclass(frozen=True, kw_only=True, slots=True)
class MPNNLSTMConfig(ModelConfig):
    """Options of MPNN-LSTM.

    Attributes:
        hidden: units D of every layer.
        dropout: share of convolved features that are dropped in training.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_at_least(self, hidden=1, dropout=0)
        if not self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}: it must be less than 1")


class PgtMPNNLSTM(PgtForecaster):
    """Takes [B * L * N, C], and a copy of the graph for every step of every window."""

    layer_name = "MPNNLSTM"
    knows_autocast = False  # not every processor has an LSTM in bfloat16
    config: MPNNLSTMConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`MPNNLSTM(C, D, N, window, dropout)`."""
        config, shape = self.config, self.shape
        sizes = (shape.input_channels, config.hidden, shape.num_nodes, shape.input_steps)
        layer: nn.Module = layer_class(*sizes, config.dropout)
        return layer

    @property
    def width(self) -> int:
        """Two layers' last states, the first input, and one channel of the others."""
        layer = self.layer
        width: int = 2 * layer.hidden_size + layer.in_channels + layer.window - 1
        return width

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The last states and the inputs."""
        batch, input_steps, num_nodes, _ = x.shape
        copies = edges.repeat(batch * input_steps, num_nodes)
        features_MW: Tensor = self.layer(x.flatten(0, 2), copies.index, copies.weight)
        return features_MW.view(batch, num_nodes, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvolveGCNConfig(ModelConfig):
    """EvolveGCN has no options: it is as wide as its inputs."""


class PgtEvolveGCNO(PgtForecaster):
    """Takes steps of a batch; its weights, which it keeps from call to call, begin every window."""

    layer_name = "EvolveGCNO"
    config: EvolveGCNConfig

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`EvolveGCNO(C)`."""
        layer: nn.Module = layer_class(self.shape.input_channels)
        return layer

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

    def make(self, layer_class: type[Any]) -> nn.Module:
        """`EvolveGCNH(N, C)`.

        Raises:
            ConfigError: sizes of which the layer keeps another number of nodes than it needs.
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
        layer: nn.Module = layer_class(num_nodes, channels)
        return layer

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The outputs of all steps, sample by sample."""
        return torch.stack([self._outputs(sample_LNC, edges) for sample_LNC in x])
