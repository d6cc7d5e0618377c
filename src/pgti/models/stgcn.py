"""STGCN: gated convolutions over time around Chebyshev filters on the graph."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models.base import AbstractModel, ModelConfig, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import (
    ChunkLimits,
    Supports,
    chebyshev_convolution,
    dropout,
    gated_window_convolution,
    layer_norm,
)
from pgti.shapes import BHNC, BLNC

__all__ = ["STGCN", "STGCNConfig"]

_EPSILON = 1e-6  # of the layer normalization, as in the released code


@dataclass(frozen=True, kw_only=True, slots=True)
class STGCNConfig(ModelConfig):
    """Options of STGCN; the defaults are those of the paper.

    Attributes:
        hidden: channels of the convolutions over time.
        bottleneck: channels of the filters on the graph.
        end_channels: channels of the output block.
        blocks: blocks, each with two convolutions over time and a filter between them.
        kernel: taps K_t of a convolution over time.
        hops: highest order of the Chebyshev polynomials, and so the number of edges that a filter
            reaches; the paper's K_s = 3 is the number of polynomials.
        dropout: fraction of a block's output that is zeroed in training. The released code has the
            layer and trains with 0; PyTorch ports and benchmarks train with 0.5.
        self_loops: keep the graph's self loops in the Laplacian; see `STGCN`.
    """

    hidden: int = 64
    bottleneck: int = 16
    end_channels: int = 128
    blocks: int = 2
    kernel: int = 3
    hops: int = 2
    dropout: float = 0.0
    self_loops: bool = False

    def __post_init__(self) -> None:
        self.check_at_least(hidden=1, bottleneck=1, end_channels=1, blocks=1, kernel=1, hops=1)
        self.check_fractions("dropout")

    @property
    def steps_consumed(self) -> int:
        """Number of steps by which the blocks shorten their input."""
        return self.blocks * 2 * (self.kernel - 1)


class STGCN(AbstractModel):
    """Spatio-Temporal Graph Convolutional Networks (Yu, Yin, Zhu, IJCAI 2018, arXiv 1709.04875).

    As published: blocks of a gated convolution over time (a gated linear unit with a residual
    connection), a Chebyshev filter over the scaled Laplacian of the undirected graph with ReLU, a
    second gated convolution, layer normalization over all nodes and channels of a step, with a
    gain and an offset for each of them, and dropout; then an output block whose gated convolution
    takes all steps that are left.
    As in the released code: the residual connection is added to the linear half before the gate,
    with zeros where there are fewer inputs than outputs; weights of these layers start
    Glorot-uniform, biases 0.

    Where this differs:

    - The paper forecasts one step and feeds it back. This forecasts all H steps of all targets at
      once, as the field's benchmarks do: after its gated convolution (to `end_channels`) and layer
      normalization the output block has a layer with ReLU and an affine map to H * C_out, as in
      the common PyTorch ports, where the released code has a sigmoid layer and an affine map to
      one value.
    - Inputs of fewer than 1 + 2 * blocks * (kernel - 1) steps (9) are padded with zeros on the
      left, the mean of standardized observations.
    - It omits the residual connection from more inputs than outputs, for which the released code
      learns a projection, and the one around a Chebyshev filter, an identity there: the convolution
      already contains them.
    - The graph's self loops are dropped before the Laplacian, which is defined without them. A
      common PyTorch port (hazdzz), BasicTS and Torch-MTS take them with the other edges; on
      METR-LA's `adj_mx`, where every sensor has one of weight 1, that operator differs by 59 %
      (Frobenius norm). `self_loops` keeps them. BasicTS and Torch-MTS have the plain Laplacian of
      the graph as it is directed, not scaled; its polynomials span the same filters where the graph
      is undirected.
    - The last map has one bias for all sensors, where the released code has one each.
    - The second convolution of a block is gated as in the paper; the released code has ReLU.
    - Channels are those of the paper; the released code has others (32 and 128).
    """

    support_kind = "scaled_laplacian"
    can_checkpoint_activations = True
    uses_time_of_day = False
    config: STGCNConfig

    @property
    def shard_refusal(self) -> str | None:
        """None: sensors meet in the filters, and in sums of the layer normalization."""
        return None

    def __init__(self, config: STGCNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        if config.self_loops:
            self.support_kind = "scaled_laplacian_with_loops"
        widths = [shape.input_channels] + [config.hidden] * (config.blocks - 1)
        self.blocks = nn.ModuleList(_Block(width, config, shape.num_nodes) for width in widths)
        steps_left = max(1, shape.input_steps - config.steps_consumed)
        self.temporal = _GatedConvolution(steps_left, config.hidden, config.end_channels)
        self.norm = nn.LayerNorm((shape.num_nodes, config.end_channels), eps=_EPSILON)
        self.end = nn.Linear(config.end_channels, config.end_channels)
        self.regression = Regression(config.end_channels, shape)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`."""
        self.check_supports(supports)
        missing = max(0, 1 + self.config.steps_consumed - x.shape[1])
        x_NBLC = functional.pad(x, (0, 0, 0, 0, missing, 0)).permute(2, 0, 1, 3)
        draws = self.training and self.config.dropout > 0
        for block in self.blocks:
            x_NBLC = self.maybe_checkpoint(block, x_NBLC, supports, self.limits, draws=draws)
        last_BND = self.temporal(x_NBLC, self.limits).squeeze(2).transpose(0, 1)
        state_BND = layer_norm(last_BND, self.norm, supports)
        return self.regression(functional.relu(self.end(state_BND)))


class _Block(nn.Module):
    """Convolution over time, filter on the graph, convolution over time, normalization, dropout."""

    def __init__(self, input_channels: int, config: STGCNConfig, num_nodes: int) -> None:
        super().__init__()
        self._dropout = config.dropout
        self.before = _GatedConvolution(config.kernel, input_channels, config.hidden)
        self.filter = _ChebyshevFilter(config.hops, config.hidden, config.bottleneck)
        self.after = _GatedConvolution(config.kernel, config.bottleneck, config.hidden)
        self.norm = nn.LayerNorm((num_nodes, config.hidden), eps=_EPSILON)

    def forward(self, x_NBLC: Tensor, supports: Supports, limits: ChunkLimits) -> Tensor:
        """[N, B, L - 2 (K_t - 1), D]."""
        y_NBLC = functional.relu(self.filter(self.before(x_NBLC, limits), supports))
        y_BLNC = layer_norm(self.after(y_NBLC, limits).permute(1, 2, 0, 3), self.norm, supports)
        y_BLNC = dropout(y_BLNC, self._dropout if self.training else 0.0)
        return y_BLNC.permute(2, 0, 1, 3)


class _GatedConvolution(nn.Module):
    """(a + x) . sigmoid(b): x the newest step under the kernel, zeros for missing channels."""

    residual: Tensor

    def __init__(self, kernel: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (kernel * (inputs + 2 * outputs)))
        self.weight = nn.Parameter(torch.empty(kernel, inputs, 2 * outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(2 * outputs))
        residual = torch.zeros_like(self.weight)
        if inputs <= outputs:
            residual[-1].fill_diagonal_(1)
        self.register_buffer("residual", residual, persistent=False)

    def forward(self, x_NBLC: Tensor, limits: ChunkLimits) -> Tensor:
        """[N, B, L - kernel + 1, outputs]."""
        # The convolution adds x: a weight of 1 from each channel to itself in the last tap.
        weight = self.weight + self.residual
        return gated_window_convolution(x_NBLC, weight, self.bias, limits=limits)


class _ChebyshevFilter(nn.Module):
    """The weights of a Chebyshev filter."""

    def __init__(self, hops: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / ((1 + hops) * inputs + outputs))
        self.weight = nn.Parameter(torch.empty(1 + hops, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x_NBLC: Tensor, supports: Supports) -> Tensor:
        """[N, B, L, outputs]."""
        return chebyshev_convolution(x_NBLC, self.weight, self.bias, supports)
