"""Convolutional layers of PGT, and encoders that end in an LSTM, as forecasters.

`models.PGT_LAYERS` says what is known to be wrong with each layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.interop.pgt.edges import Edges
from pgti.interop.pgt.layers.forecaster import (
    LayerClass,
    PgtForecaster,
    StepwiseForecaster,
    WholeForecaster,
)
from pgti.interop.pgt.layers.recurrent import HiddenConfig, HopsConfig
from pgti.models.base import ModelConfig
from pgti.shapes import BLNC


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
        self.check_at_least(hidden=2, layers=1)


class PgtDyGrEncoder(StepwiseForecaster):
    """Takes steps without a batch; gives its output twice, then the cell's state."""

    layer_name = "DyGrEncoder"
    width_attribute = "lstm_out_channels"
    supports_autocast = False  # not every processor has an LSTM in bfloat16
    num_states = 2
    takes_batches = False
    config: DyGrEncoderConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`DyGrEncoder(conv channels, conv layers, aggregation, LSTM channels, LSTM layers)`.

        Raises:
            ConfigError: a graph of one node, whose axis the layer drops.
        """
        if self.shape.num_nodes == 1:
            raise ConfigError("num_nodes is 1: DyGrEncoder drops the axis of a single node")
        config = self.config
        convolved = max(config.hidden, self.shape.input_channels)
        return layer_class(convolved, config.layers, "add", config.hidden, 1)

    def step(self, x: Tensor, edges: Edges, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after one more input."""
        _, *after = self.layer(x, edges.index, edges.weight, *states)
        return tuple(after)


@dataclass(frozen=True, kw_only=True, slots=True)
class MPNNLSTMConfig(HiddenConfig):
    """Options of MPNN-LSTM.

    Attributes:
        dropout: fraction of convolved features that are dropped in training.

    Raises:
        ConfigError: an option out of range.
    """

    dropout: float = 0.5

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1)
        self.check_fractions("dropout")


class PgtMPNNLSTM(PgtForecaster):
    """Takes [B * L * N, C], and a copy of the graph for every step of every window."""

    layer_name = "MPNNLSTM"
    supports_autocast = False  # not every processor has an LSTM in bfloat16
    config: MPNNLSTMConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`MPNNLSTM(C, D, N, window, dropout)`."""
        config, shape = self.config, self.shape
        sizes = (shape.input_channels, config.hidden, shape.num_nodes, shape.input_steps)
        return layer_class(*sizes, config.dropout)

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
class STConvConfig(HopsConfig):
    """Options of STConv, one block of STGCN, whose convolutions all have D units.

    Attributes:
        kernel: steps that a convolution over time spans; two of them shorten the window by
            2 (kernel - 1) steps.

    Raises:
        ConfigError: an option out of range.
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, kernel=1, hops=0)


class PgtSTConv(PgtForecaster):
    """Takes windows as they are; the features are the steps that are left, side by side."""

    layer_name = "STConv"
    config: STConvConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`STConv(N, C, D, D, kernel_size, K)`.

        Raises:
            ConfigError: a window that the convolutions over time use up.
        """
        config, shape = self.config, self.shape
        if shape.input_steps < 2 * config.kernel - 1:
            raise ConfigError(
                f"input_steps is {shape.input_steps} and kernel {config.kernel}: STConv needs at "
                f"least {2 * config.kernel - 1} steps"
            )
        return layer_class(
            shape.num_nodes,
            shape.input_channels,
            config.hidden,
            config.hidden,
            config.kernel,
            config.hops + 1,
        )

    @property
    def width(self) -> int:
        """Units of the steps that are left."""
        steps = self.shape.input_steps - 2 * (self.layer.kernel_size - 1)
        width: int = steps * self.layer.out_channels
        return width

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The steps that are left, side by side."""
        states_BLND: Tensor = self.layer(x, edges.index, edges.weight)
        return states_BLND.transpose(1, 2).flatten(2)


@dataclass(frozen=True, kw_only=True, slots=True)
class AAGCNConfig(HiddenConfig):
    """Options of AAGCN.

    Attributes:
        attention: weigh sensors, steps and channels.

    Raises:
        ConfigError: an option out of range.
    """

    attention: bool = True

    def __post_init__(self) -> None:
        self.check_at_least(hidden=2)


class PgtAAGCN(PgtForecaster):
    """Takes [B, C, L, N], contiguous, and its graph when it is built.

    A model is built before its graph is known, so the layer is built on a graph of self loops and
    gets the true one at every call. Hence `adaptive=False`: an adaptive layer starts to learn its
    graph from the one that it was built on. A given layer that is adaptive keeps its graph.
    """

    layer_name = "AAGCN"
    config: AAGCNConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`AAGCN(C, D, edge_index, N, adaptive=False)`."""
        config, shape = self.config, self.shape
        loops = torch.arange(shape.num_nodes, device="cpu").expand(2, -1)
        return layer_class(
            shape.input_channels,
            config.hidden,
            loops,
            shape.num_nodes,
            adaptive=False,
            attention=config.attention,
        )

    @property
    def width(self) -> int:
        """Units of all steps."""
        stride = self.layer.tcn1.conv.stride[0]
        width: int = -(-self.shape.input_steps // stride) * self.layer.gcn1.out_c
        return width

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """All steps, side by side."""
        if not self.layer.gcn1.adaptive:
            self.layer.gcn1.A = _three_graphs(edges, x)
        states_BDLN: Tensor = self.layer(x.permute(0, 3, 1, 2).contiguous())
        return states_BDLN.permute(0, 3, 2, 1).flatten(2)


@dataclass(frozen=True, kw_only=True, slots=True)
class MTGNNConfig(ModelConfig):
    """Options of MTGNN; everything else is as in the paper on METR-LA.

    Attributes:
        hidden: channels of convolutions and residuals, a multiple of 4; the skips have twice, and
            the layer before the last four times as many.
        layers: of both convolutions.
        hops: steps of a propagation.
        dropout: fraction of channels that are dropped in training.
        learned_graph: learn the graph, in place of the store's.
        neighbours: edges of each sensor in the learned graph, at most.
        embedding: width of the learned vector of each sensor.

    Raises:
        ConfigError: an option out of range.
    """

    hidden: int = 32
    layers: int = 3
    hops: int = 2
    dropout: float = 0.3
    learned_graph: bool = True
    neighbours: int = 20
    embedding: int = 40

    def __post_init__(self) -> None:
        self.check_at_least(hidden=4, layers=1, hops=1, neighbours=1, embedding=1)
        self.check_fractions("dropout")
        if self.hidden % 4:
            raise ConfigError(f"hidden is {self.hidden}: it must be a multiple of 4, one a kernel")


class PgtMTGNN(WholeForecaster):
    """Takes [B, C, N, L], and an N x N matrix unless it learns one."""

    layer_name = "MTGNN"
    width_attribute = "_end_conv_2.out_channels"
    supports_autocast = False  # the mask of its graph is in float32
    config: MTGNNConfig

    def build(self, layer_class: LayerClass) -> nn.Module:
        """`MTGNN(...)`, with kernels of 2, 3, 6 and 7 steps."""
        config, shape = self.config, self.shape
        return layer_class(
            gcn_true=True,
            build_adj=config.learned_graph,
            gcn_depth=config.hops,
            num_nodes=shape.num_nodes,
            kernel_set=[2, 3, 6, 7],
            kernel_size=7,
            dropout=config.dropout,
            subgraph_size=min(config.neighbours, shape.num_nodes),
            node_dim=config.embedding,
            dilation_exponential=1,
            conv_channels=config.hidden,
            residual_channels=config.hidden,
            skip_channels=2 * config.hidden,
            end_channels=4 * config.hidden,
            seq_length=shape.input_steps,
            in_dim=shape.input_channels,
            out_dim=shape.horizon * shape.target_channels,
            layers=config.layers,
            propalpha=0.05,
            tanhalpha=3,
            layer_norm_affline=True,
        )

    def features(self, x: BLNC, edges: Edges) -> Tensor:
        """The forecasts."""
        graph_NN = None
        if self.layer._gcn_true and not self.layer._build_adj_true:
            graph_NN = edges.to_matrix(x.shape[2])
        forecast_BKN1: Tensor = self.layer(x.permute(0, 3, 2, 1), graph_NN)
        return forecast_BKN1.squeeze(3).transpose(1, 2)


def _three_graphs(edges: Edges, x: BLNC) -> Tensor:
    """AAGCN's graphs [3, N, N]: self loops, and edges both ways, normalised over each column.

    PGT's own `GraphAAGCN` fails where the last sensor has no edge.
    """
    num_nodes = x.shape[2]
    linked = Edges(edges.index, torch.ones_like(edges.weight, dtype=x.dtype))
    along_NN = linked.to_matrix(num_nodes)
    loops_NN = torch.eye(num_nodes, dtype=x.dtype, device=x.device)
    both_ways = [functional.normalize(each, p=1, dim=0) for each in (along_NN, along_NN.t())]
    return torch.stack([loops_NN, *both_ways])
