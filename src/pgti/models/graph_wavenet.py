"""Graph WaveNet: gated convolutions over time, diffusion over a given graph and a learned one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.errors import ConfigError, option
from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import (
    NUM_SUPPORTS,
    AdaptiveAdjacency,
    ChunkLimits,
    Supports,
    adaptive_adjacency,
    adaptive_convolution,
    batch_norm,
    check_adjacency_form,
    diffusion_convolution,
    draw_as_linear,
    dropout_add,
    gated_convolution,
    is_dense,
    without_autocast,
)
from pgti.nn.execution import autocast_dtype
from pgti.nn.stacked_convolution import stacked_gated_convolution, stacked_graph_convolution
from pgti.shapes import BHNC, BLNC

__all__ = ["GraphWaveNet", "GraphWaveNetConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphWaveNetConfig(ModelConfig):
    """Options of Graph WaveNet; the defaults are those of its released code.

    Attributes:
        hidden: D, channels of the convolutions over time and over the graph.
        skip_channels: channels of the sum over layers.
        end_channels: channels of the layer before the last.
        blocks: repetitions of the dilations 1, 2, 4, ..
        layers: layers of a block, with the dilations 1, 2, .., 2^(layers - 1).
        kernel: taps of a convolution over time.
        hops: powers K of each random walk and of the learned adjacency.
        embedding: R, width of the two embeddings of a node that give the learned adjacency.
        adjacency: `dense`, `low-rank`, or `auto`: dense up to 4,096 nodes.
        dropout: fraction of the units of a graph convolution that is zeroed in training.
    """

    hidden: int = 32
    skip_channels: int = 256
    end_channels: int = 512
    blocks: int = 4
    layers: int = 2
    kernel: int = 2
    hops: int = 2
    embedding: int = 10
    adjacency: str = "auto"
    dropout: float = 0.3

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, skip_channels=1, end_channels=1, blocks=1, layers=1)
        self.check_at_least(kernel=2, hops=1, embedding=1)
        self.check_fractions("dropout")
        check_adjacency_form(self.adjacency)
        if len(self.dilations) == 1:
            raise ConfigError(
                "blocks and layers are 1: of a single layer only the convolution over time reaches "
                "the forecast; use two layers or more"
            )

    @property
    def dilations(self) -> list[int]:
        """Dilation of every layer."""
        return [2**layer for layer in range(self.layers)] * self.blocks

    @property
    def receptive_field(self) -> int:
        """Input rows that a forecast depends on."""
        return 1 + (self.kernel - 1) * sum(self.dilations)


class GraphWaveNet(AbstractModel):
    """Graph WaveNet (Wu, Pan, Long, Jiang, Zhang, IJCAI 2019, arXiv 1906.00121).

    As published: an affine map of the input channels; layers of a gated, dilated, causal
    convolution over time, z, and a diffusion convolution over both random walks and an adjacency
    learned from two embeddings of every node, softmax(relu(E1 E2^T)); residual connections around
    them; and from every layer's last step of z a skip connection into two affine maps that
    forecast all steps at once. Inputs shorter than the receptive field (13 rows) are padded with
    zeros on the left; of longer ones it sees the last rows only, so use more blocks or layers.
    As in the released code: batch normalization ends every layer, dropout follows the graph
    convolution, the receptive field of 13 comes from 4 blocks of dilations 1 and 2, weights start
    as those of `torch.nn.Linear` do, embeddings standard normal.

    Batch normalization takes its statistics from a rank's part of the batch, so training depends on
    the number of ranks; running statistics are those of rank 0.

    Where this differs:

    - The released code multiplies by the transposes of the walks and of the learned adjacency, the
      paper's eq. 6 by none. This has the code's transposes of the walks, so that a node receives
      along its edges, and the paper's learned adjacency: its rows sum to 1, so what a node receives
      is an average. As a whole it is that of neither.
    - Above 4,096 nodes the learned adjacency has another form, of rank R and linear in N (see
      `pgti.nn.adaptive`), unless the option `adjacency` says otherwise.
    - It omits what the released code has and never uses: the residual maps beside the graph
      convolutions, and the graph convolution and normalization after the last z. That is 15,712
      of the 309,400 parameters that it counts on METR-LA.
    - The released code convolves all steps of the skip connections and then takes the last.
    """

    can_checkpoint_activations = True
    config: GraphWaveNetConfig

    @property
    def needs_edges(self) -> bool:
        """False: it learns an adjacency of its own."""
        return False

    @property
    def shard_refusal(self) -> str | None:
        """The dense learned adjacency joins all pairs of sensors; one of low rank takes sums."""
        if not is_dense(self.config.adjacency, self.shape.num_nodes):
            return None
        return (
            "its learned adjacency joins every pair of sensors: use "
            f"{option('model.adjacency', 'low-rank')}, which takes sums over sensors in its place"
        )

    def __init__(self, config: GraphWaveNetConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        hidden, num_nodes = config.hidden, shape.num_nodes
        between = len(config.dilations) - 1
        self.source_embedding = nn.Parameter(torch.randn(num_nodes, config.embedding))
        self.target_embedding = nn.Parameter(torch.randn(num_nodes, config.embedding))
        self.entrance = nn.Linear(shape.input_channels, hidden)
        self.temporal = nn.ModuleList(
            _GatedConvolution(config, dilation) for dilation in config.dilations
        )
        self.spatial = nn.ModuleList(
            _GraphConvolution(config, NUM_SUPPORTS[self.support_kind]) for _ in range(between)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(between))
        self.skips = nn.ModuleList(
            nn.Linear(hidden, config.skip_channels) for _ in config.dilations
        )
        self.end = nn.Linear(config.skip_channels, config.end_channels)
        self.regression = Regression(config.end_channels, shape)

    def learned_rows(self) -> Callable[[slice], Tensor]:
        """See `AbstractModel.learned_rows`."""
        return adaptive_adjacency(
            self.source_embedding, self.target_embedding, self.config.adjacency
        ).rows

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        adjacency = adaptive_adjacency(
            self.source_embedding, self.target_embedding, self.config.adjacency, supports
        )
        powers_NP = adjacency.powers(self.config.hops)
        fixed_QN = supports.stacked_powers(self.config.hops, autocast_dtype(x.device))
        if fixed_QN is not None and adjacency.pool_RN is None:
            return self._forward_stacked(x, fixed_QN.view(len(powers_NP), -1), powers_NP)
        with without_autocast(x.device):
            x_LNBD = self.entrance(self._receptive(x).permute(1, 2, 0, 3))
        dropout = self.config.dropout if self.training else 0.0
        last_NBD: list[Tensor] = []
        for layer, norm in enumerate(self.norms):
            args = (layer, x_LNBD, supports, adjacency, powers_NP)
            y_LNBD, z_NBD = self.maybe_checkpoint(self._convolve, *args, draws=dropout > 0)
            last_NBD.append(z_NBD)
            # Never checkpointed: it would count a batch twice in its running statistics.
            x_LNBD = batch_norm(
                y_LNBD.flatten(0, 2), cast("nn.BatchNorm1d", norm), supports
            ).view_as(y_LNBD)
        last_NBD.append(self.temporal[-1](x_LNBD, self.limits)[1])
        return self._end(last_NBD)

    def _forward_stacked(self, x: BLNC, fixed_NQ: Tensor, learned_NP: Tensor) -> BHNC:
        """`forward` over a small graph on a GPU; see `pgti.nn.stacked_convolution`."""
        powers_NQ = torch.cat([fixed_NQ, learned_NP.detach().to(fixed_NQ.dtype)], dim=1)
        with without_autocast(x.device):
            x_NLBD = self.entrance(self._receptive(x).permute(2, 1, 0, 3))
        dropout = self.config.dropout if self.training else 0.0
        last_NBD: list[Tensor] = []
        for layer, norm in enumerate(self.norms):
            args = (layer, x_NLBD, powers_NQ, learned_NP)
            y_NLBD, z_NBD = self.maybe_checkpoint(self._convolve_stacked, *args, draws=dropout > 0)
            last_NBD.append(z_NBD)
            x_NLBD = norm(y_NLBD.flatten(0, 2)).view_as(y_NLBD)
        last_NBD.append(cast(_GatedConvolution, self.temporal[-1]).stacked(x_NLBD)[1])
        return self._end(last_NBD)

    def _convolve_stacked(
        self, layer: int, x_NLBD: Tensor, powers_NQ: Tensor, learned_NP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`_convolve` of states with the nodes first."""
        temporal = cast(_GatedConvolution, self.temporal[layer])
        spatial = cast(_GraphConvolution, self.spatial[layer])
        z_NLBD, z_NBD = temporal.stacked(x_NLBD)
        branch_NLBD = spatial.stacked(z_NLBD, powers_NQ, learned_NP)
        dropout = self.config.dropout if self.training else 0.0
        residual_NLBD = x_NLBD[:, -z_NLBD.shape[1] :]
        return residual_NLBD + functional.dropout(branch_NLBD, dropout), z_NBD

    def _end(self, last_NBD: list[Tensor]) -> BHNC:
        """The forecast from the last steps of all layers."""
        skip_BNS = functional.relu(self._skip(last_NBD))
        return self.regression(functional.relu(self.end(skip_BNS)))

    def _receptive(self, x: BLNC) -> Tensor:
        """The last rows of the input that a forecast depends on, padded if there are fewer."""
        rows = self.config.receptive_field
        return functional.pad(x[:, -rows:], (0, 0, 0, 0, max(0, rows - x.shape[1]), 0))

    def _convolve(
        self,
        layer: int,
        x_LNBD: Tensor,
        supports: Supports,
        adjacency: AdaptiveAdjacency,
        powers_NP: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The output of a layer before normalization, and the last step of its z."""
        z_LNBD, z_NBD = self.temporal[layer](x_LNBD, self.limits)
        branch_LNBD = self.spatial[layer](z_LNBD, supports, adjacency, powers_NP)
        dropout = self.config.dropout if self.training else 0.0
        return dropout_add(x_LNBD[-len(z_LNBD) :], branch_LNBD, dropout), z_NBD

    def _skip(self, last_NBD: list[Tensor]) -> Tensor:
        """[B, N, skip channels]: the sum of all layers' skip connections as one product."""
        last_BNK = torch.cat([z_NBD.transpose(0, 1) for z_NBD in last_NBD], dim=2)
        parameters = [tuple(skip.parameters()) for skip in self.skips]
        weight_SK = torch.cat([weight_SD for weight_SD, _ in parameters], dim=1)
        # Not a stack: the gradients of its parts would be one piece of memory, which a step would
        # scale and clip once for each of them.
        bias_S = (
            torch.cat([bias_S for _, bias_S in parameters]).view(len(parameters), -1).sum(dim=0)
        )
        return functional.linear(last_BNK, weight_SK, bias_S)


class _GatedConvolution(nn.Module):
    """The weights of a gated convolution over time."""

    def __init__(self, config: GraphWaveNetConfig, dilation: int) -> None:
        super().__init__()
        self._dilation = dilation
        kernel, hidden = config.kernel, config.hidden
        self.weight = nn.Parameter(torch.empty(kernel, hidden, 2 * hidden))
        self.bias = nn.Parameter(torch.empty(2 * hidden))
        draw_as_linear(kernel * hidden, self.weight, self.bias)

    def forward(self, x_LNBD: Tensor, limits: ChunkLimits) -> tuple[Tensor, Tensor]:
        """z, and again its last step."""
        return gated_convolution(x_LNBD, self.weight, self.bias, self._dilation, limits)

    def stacked(self, x_NLBD: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of states with the nodes first."""
        return stacked_gated_convolution(x_NLBD, self.weight, self.bias, self._dilation)


class _GraphConvolution(nn.Module):
    """The weights of a diffusion convolution over random walks and the learned adjacency."""

    def __init__(self, config: GraphWaveNetConfig, num_walks: int) -> None:
        super().__init__()
        hidden, hops = config.hidden, config.hops
        self.weight_walks = nn.Parameter(torch.empty(1 + num_walks * hops, hidden, hidden))
        self.weight_adaptive = nn.Parameter(torch.empty(hops, hidden, hidden))
        self.bias = nn.Parameter(torch.empty(hidden))
        fan_in = (1 + (num_walks + 1) * hops) * hidden
        draw_as_linear(fan_in, self.weight_walks, self.weight_adaptive, self.bias)

    def forward(
        self,
        z_LNBD: Tensor,
        supports: Supports,
        adjacency: AdaptiveAdjacency,
        powers_NP: Tensor,
    ) -> Tensor:
        """sum_k W_k^T z over the walks' powers, identity included, and the adjacency's."""
        diffused = diffusion_convolution(z_LNBD, self.weight_walks, self.bias, supports)
        return diffused + adaptive_convolution(z_LNBD, self.weight_adaptive, adjacency, powers_NP)

    def stacked(self, z_NLBD: Tensor, powers_NQ: Tensor, learned_NP: Tensor) -> Tensor:
        """`forward` of states with the nodes first."""
        weight_HDD = torch.cat([self.weight_walks, self.weight_adaptive])
        return stacked_graph_convolution(z_NLBD, weight_HDD, self.bias, powers_NQ, learned_NP)
