"""MTGNN: inception convolutions over time, mix-hop propagation over a graph that it learns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import (
    ChunkLimits,
    Neighbours,
    Supports,
    draw_as_linear,
    dropout,
    gated_window_convolution,
    mix_hop_convolution,
    nearest,
    without_autocast,
)
from pgti.nn.execution import normalized
from pgti.nn.limits import CPU_LIMITS
from pgti.shapes import BHNC, BLNC

__all__ = ["MTGNN", "MTGNNConfig"]

_KERNELS = (2, 3, 6, 7)
"""Taps of the parallel convolutions: their sums reach the periods of common series."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MTGNNConfig(ModelConfig):
    """Options of MTGNN; the defaults are those of the paper for multi-step forecasts.

    Attributes:
        hidden: D, channels of the convolutions, a multiple of 4.
        skip_channels: channels of the sum over layers.
        end_channels: channels of the layer before the last.
        layers: layers, each with a convolution over time and one over the graph.
        dilation_growth: q of the dilations 1, q, q^2, .. of the layers.
        hops: depth K of a mix-hop propagation.
        beta: fraction of its input in every hop.
        neighbours: k, the most edges from a node.
        embedding: width of the two embeddings of a node.
        alpha: how fast the weights of edges saturate; see `MTGNN` for the effect of the paper's 3.
        dropout: fraction of the units that is zeroed after each convolution over time, and of the
            input of the first skip connection, in training.
    """

    hidden: int = 32
    skip_channels: int = 64
    end_channels: int = 128
    layers: int = 3
    dilation_growth: int = 1
    hops: int = 2
    beta: float = 0.05
    neighbours: int = 20
    embedding: int = 40
    alpha: float = 3.0
    dropout: float = 0.3

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, skip_channels=1, end_channels=1, layers=1)
        self.check_at_least(dilation_growth=1, hops=1, neighbours=1, embedding=1)
        self.check_fractions("beta", "dropout")
        if self.hidden % len(_KERNELS):
            raise ConfigError(f"hidden is {self.hidden}: it must be a multiple of {len(_KERNELS)}")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha is {self.alpha}: it must be positive and finite")

    @property
    def dilations(self) -> list[int]:
        """Dilation of every layer."""
        return [self.dilation_growth**layer for layer in range(self.layers)]

    @property
    def receptive_field(self) -> int:
        """Steps that the last layer's last step depends on."""
        return 1 + (_KERNELS[-1] - 1) * sum(self.dilations)


class _Graph(NamedTuple):
    """The learned graph with a self loop at every node, row-normalized in either direction.

    Attributes:
        neighbours: the edges.
        along_NK: values of D^-1 (A + I).
        against_NK: values of the transpose of D^-1 (A^T + I).
    """

    neighbours: Neighbours
    along_NK: Tensor
    against_NK: Tensor


class MTGNN(AbstractModel):
    """MTGNN (Wu, Pan, Long, Jiang, Chang, Zhang, Connecting the Dots, KDD 2020, arXiv 2005.11650).

    As published: a directed graph learned from two embeddings of every node,
    A = relu(tanh(alpha (M1 M2^T - M2 M1^T))), M = tanh(alpha (E W + b)), of which each row retains
    its k largest; layers of a gated inception of four convolutions over time (2, 3, 6 and 7
    taps), z, and two mix-hop propagations of z, over D^-1 (A + I) and over the same with A^T;
    residual connections around a layer; skip connections from the input, from all steps of every
    layer's z and from the last layer, into two layers that forecast all steps at once. The graph
    of the sensors is not used.
    As in the released code: inputs shorter than the receptive field (19 steps) are padded with
    zeros on the left; normalization over all nodes, steps and channels of a layer, with a gain and
    an offset for each of them; dropout of every z and of the input of its skip connection;
    weights start as those of `torch.nn.Linear` do, embeddings standard normal.

    Where this differs:

    - The k neighbours are those with the largest M1 M2^T - M2 M1^T, of which A is a monotone
      function that rounds to 1 for many of them. The released code takes the k largest of A. Since
      2021 it chooses among equal ones by random noise, drawn anew in every pass, evaluation
      included: at 207 nodes 76 % of the edges, at 325 nodes 84 %, differ from one pass to the next.
      The paper's code, BasicTS and Torch-MTS have no noise. Entries that relu sets to zero are not
      edges.
    - The graph is a sparse matrix in memory and in products, never N x N numbers.
    - Propagation multiplies by the row-normalized matrix, as in the paper's eq. 7; the released
      code did so since October 2020. Its version of the paper, BasicTS and Torch-MTS multiply by
      the transpose.
    - It omits what the released code has and never uses: a map beside the graph convolutions of
      each layer, 3,168 of the 405,452 parameters that it counts on METR-LA.
    - Graph convolutions use float32 under autocast.
    - It omits curriculum learning and training on subgraphs, which belong to training and not to
      the network.

    With the paper's `alpha` of 3 and 40 numbers an embedding, the weights of the chosen edges are 1
    in float32 from the start (at 207 nodes all of them with 29 of 30 seeds, at 303 nodes with all
    30), where the gradient of tanh is 0. Without weight decay, the default of a run, embeddings do
    not move, and the graph stays random. The published weight decay of 1e-4 moves them: Adam makes
    a full step of any gradient that is not 0, however small. After 308 steps at a rate of 3e-3, 7
    to 13 % of the neighbours of 100 stations were still the same. With an `alpha` of 0.5 the
    weights start between 0.2 and 1 and are learned.
    """

    support_kind = "none"
    can_checkpoint_activations = True
    config: MTGNNConfig

    @property
    def shard_refusal(self) -> str | None:
        """It learns a graph by choosing among all sensors."""
        return "it learns a graph by choosing among all sensors"

    def __init__(self, config: MTGNNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        steps = max(shape.input_steps, config.receptive_field)
        self.graph = _GraphLearner(config, shape.num_nodes)
        self.entrance = nn.Linear(shape.input_channels, config.hidden)
        self.first_skip = nn.Linear(steps * shape.input_channels, config.skip_channels)
        self.layers = nn.ModuleList()
        for dilation in config.dilations:
            steps -= (_KERNELS[-1] - 1) * dilation
            self.layers.append(_Layer(config, shape.num_nodes, steps, dilation))
        self.last_skip = nn.Linear(steps * config.hidden, config.skip_channels)
        self.end = nn.Linear(config.skip_channels, config.end_channels)
        self.regression = Regression(config.end_channels, shape)

    def learned_rows(self) -> Callable[[slice], Tensor]:
        """With self loops, rows adding up to 1; see `AbstractModel.learned_rows`."""
        graph = self.graph()
        index_NK, along_NK = graph.neighbours.index_NK, graph.along_NK

        def rows(part: slice) -> Tensor:
            weights_RK = along_NK[part]
            zeros_RN = weights_RK.new_zeros(len(weights_RK), len(along_NK))
            filled_RN: Tensor = zeros_RN.scatter_add_(1, index_NK[part], weights_RK)
            return filled_RN

        return rows

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        graph = self.graph(self.limits)
        missing = max(0, self.config.receptive_field - x.shape[1])
        x_NBLC = functional.pad(x, (0, 0, 0, 0, missing, 0)).permute(2, 0, 1, 3).contiguous()
        rate = self.config.dropout if self.training else 0.0
        skip_NBS = self.first_skip(dropout(x_NBLC, rate).flatten(2))
        h_NBLD = self.entrance(x_NBLC)
        for layer in self.layers:
            h_NBLD, skip = self.maybe_checkpoint(layer, h_NBLD, graph, self.limits, draws=rate > 0)
            skip_NBS = skip_NBS + skip
        skip_NBS = functional.relu(skip_NBS + self.last_skip(h_NBLD.flatten(2)))
        state_BND = functional.relu(self.end(skip_NBS.transpose(0, 1)))
        return self.regression(state_BND)


class _GraphLearner(nn.Module):
    """A sparse directed graph from two embeddings of every node."""

    def __init__(self, config: MTGNNConfig, num_nodes: int) -> None:
        super().__init__()
        self._alpha, self._num_neighbours = config.alpha, config.neighbours
        width = config.embedding
        self.source_embedding = nn.Parameter(torch.randn(num_nodes, width))
        self.target_embedding = nn.Parameter(torch.randn(num_nodes, width))
        self.source = nn.Linear(width, width)
        self.target = nn.Linear(width, width)

    def forward(self, limits: ChunkLimits = CPU_LIMITS) -> _Graph:
        """The graph, in the precision of the embeddings also under autocast."""
        with without_autocast(self.source_embedding.device):
            m1_NR = torch.tanh(self._alpha * self.source(self.source_embedding))
            m2_NR = torch.tanh(self._alpha * self.target(self.target_embedding))
            # Row i of the first times row j of the second: (M1 M2^T - M2 M1^T)_ij.
            left_NR, right_NR = torch.cat([m1_NR, m2_NR], 1), torch.cat([m2_NR, -m1_NR], 1)
            chosen_NK = nearest(left_NR, right_NR, self._num_neighbours, limits)
            itself_N1 = torch.arange(len(chosen_NK), device=chosen_NK.device).unsqueeze(1)
            neighbours = Neighbours(torch.cat([itself_N1, chosen_NK], 1), limits)
            scores_NK = neighbours.sample(left_NR, right_NR)[:, 1:]
            edges_NK = functional.relu(torch.tanh(self._alpha * scores_NK))
            ones_N1 = edges_NK.new_ones(len(edges_NK), 1)
            values_NK = torch.cat([ones_N1, edges_NK], 1)
            column_sums_N1 = neighbours.multiply(values_NK, ones_N1, transposed=True)
            return _Graph(
                neighbours,
                values_NK / values_NK.sum(1, keepdim=True),
                values_NK * neighbours.sample(ones_N1, 1 / column_sums_N1),
            )


class _Layer(nn.Module):
    """Inception over time, two propagations over the graph, residual, normalization; its skip."""

    def __init__(self, config: MTGNNConfig, num_nodes: int, steps: int, dilation: int) -> None:
        super().__init__()
        hidden = config.hidden
        self._dropout, self._beta = config.dropout, config.beta
        self.inception = _Inception(hidden, dilation)
        self.skip = nn.Linear(steps * hidden, config.skip_channels)
        # Along the edges and against them.
        self.hop_weight = nn.Parameter(torch.empty(2, 1 + config.hops, hidden, hidden))
        self.hop_bias = nn.Parameter(torch.empty(2, hidden))
        draw_as_linear((1 + config.hops) * hidden, self.hop_weight, self.hop_bias)
        self.norm = nn.LayerNorm((num_nodes, steps, hidden))

    def forward(self, x_NBLD: Tensor, graph: _Graph, limits: ChunkLimits) -> tuple[Tensor, Tensor]:
        """[N, B, L', D], and the skip connection [N, B, S]."""
        z_NBLD = dropout(self.inception(x_NBLD, limits), self._dropout if self.training else 0.0)
        y_NBLD = mix_hop_convolution(
            z_NBLD,
            self.hop_weight,
            self.hop_bias.sum(0),
            graph.neighbours,
            (graph.along_NK, graph.against_NK),
            self._beta,
        )
        y_NBLD = y_NBLD + x_NBLD[:, :, -y_NBLD.shape[2] :]
        normed_BNLD = normalized(y_NBLD.transpose(0, 1), self.norm)
        return normed_BNLD.transpose(0, 1), self.skip(z_NBLD.flatten(2))


class _Inception(nn.Module):
    """tanh(filter) . sigmoid(gate), each of four parallel convolutions, aligned at the end.

    Computed as one convolution of the longest kernel, with zeros before the shorter ones.
    """

    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self._dilation = dilation
        width = hidden // len(_KERNELS)
        # The last two axes are (filter, gate) and the channels of a kernel.
        self.weights = nn.ParameterList(
            torch.empty(kernel, hidden, 2, width) for kernel in _KERNELS
        )
        self.biases = nn.ParameterList(torch.empty(2, width) for _ in _KERNELS)
        for kernel, weight, bias in zip(_KERNELS, self.weights, self.biases, strict=True):
            draw_as_linear(kernel * hidden, weight, bias)

    def forward(self, x_NBLD: Tensor, limits: ChunkLimits) -> Tensor:
        """[N, B, L - 6 d, D]."""
        longest = _KERNELS[-1]
        padded = [
            functional.pad(weight, (0, 0, 0, 0, 0, 0, longest - len(weight), 0))
            for weight in self.weights
        ]
        weight_KCG = torch.cat(padded, dim=3).flatten(2)
        bias_G = torch.cat(list(self.biases), dim=1).flatten()
        return gated_window_convolution(
            x_NBLD, weight_KCG, bias_G, tanh=True, dilation=self._dilation, limits=limits
        )
