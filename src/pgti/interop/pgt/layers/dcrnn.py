"""PGT's DCRNN as it computes, in sparse products: for checkpoints that were trained with it.

PGT 0.56.2 computes no diffusion convolution, and weights trained with it mean something under its
own arithmetic alone; `pgti.nn.DiffusionGRU` is the layer of the paper. PGT's filter is, over its
operators P of the two directions (`pgt_operators`),

    y = sum_P sum_k T_k(P) x W_Pk,    T_0 = 1,  T_1 = P,  T_k = 2 P T_(k-1) - 1,  k = 2 .. K-1

which are Chebyshev polynomials up to T_2 alone, and learns the identity term twice. A polynomial is
a sum of powers, so the weights are first turned into those of powers; the fast layers of
`pgti.nn.recurrent` do the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from pgti.errors import ConfigError, option
from pgti.graph import SensorGraph
from pgti.graph.sensor_graph import CsrMatrix
from pgti.interop.pgt.layers.recurrent import HopsConfig
from pgti.models.base import AbstractModel, ModelShape, TeacherForcing
from pgti.models.layers import Regression
from pgti.nn import Supports, diffusion_convolution, without_autocast
from pgti.nn.execution import autocast_dtype
from pgti.nn.recurrent import gated_recurrence
from pgti.nn.stacked import read_one_stacked
from pgti.nn.stacked_steps import GatedWeights
from pgti.shapes import BHNC, BLNC, NBD

__all__ = [
    "LegacyDCRNN",
    "LegacyDCRNNConfig",
    "LegacyDiffusionGRU",
    "load_pgt_state_dict",
    "pgt_operators",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyDCRNNConfig(HopsConfig):
    """Options of PGT's DCRNN.

    Attributes:
        head: forecast from the last state by an affine map, which PGT's layer leaves to its user.
            Without it the state after input t is the forecast t, as in PGT's examples.

    Raises:
        ConfigError: an option out of range.
    """

    head: bool = True


class LegacyDCRNN(AbstractModel):
    """The layer `BatchedDCRNN` of PyTorch Geometric Temporal 0.56.2: not DCRNN.

    For old checkpoints only; train `dcrnn`. It computes, in one sparse product for a whole batch,
    what the layer computes: an encoder without a decoder, whose filters are polynomials of its own
    (see this module) in operators that are not diffusion (`pgt_operators`). Its states lie between
    -1 and 1, and without a head so do its forecasts.

    Raises:
        ConfigError: without a head, if input and horizon differ in length, or a target is not among
            the first D channels.
    """

    support_kind = "pgt_legacy"
    can_checkpoint_activations = True
    config: LegacyDCRNNConfig

    def __init__(self, config: LegacyDCRNNConfig, shape: ModelShape) -> None:
        super().__init__(config, shape)
        self.cell = LegacyDiffusionGRU(shape.input_channels, config.hidden, config.hops)
        self.regression = Regression(config.hidden, shape) if config.head else None
        if config.head:
            return
        if shape.input_steps != shape.horizon:
            raise ConfigError(
                f"input_steps is {shape.input_steps} and horizon {shape.horizon}: without a head "
                f"each state is a forecast, so they must be equal; use "
                f"{option('model.head', value=True)}"
            )
        if max(shape.target_indices) >= config.hidden:
            raise ConfigError(
                f"hidden is {config.hidden} and a target is channel {max(shape.target_indices)}: "
                "without a head the states are the forecasts of the first channels, so hidden "
                "must be larger"
            )
        if len(set(shape.target_indices)) < len(shape.target_indices):
            raise ConfigError(
                "without a head a state is one forecast, and quantiles are several of a target: "
                f"use {option('model.head', value=True)}, or another {option('loss')}"
            )

    def build_supports(self, graph: SensorGraph) -> Supports:
        """PGT's operators of `graph`: see `pgt_operators`."""
        return Supports(pgt_operators(graph), graph, self.support_kind)

    def forward(self, x: BLNC, supports: Supports, teacher: TeacherForcing | None = None) -> BHNC:
        """Forecast the targets; see `AbstractModel.forward`.

        Raises:
            ConfigError: the supports are not PGT's on the model's nodes.
        """
        self.check_supports(supports)
        last_NBD: NBD | None = None
        states_LNBD: list[Tensor] = []
        x_LNBC = x.permute(1, 2, 0, 3)
        num_steps, num_nodes, batch, _ = x_LNBC.shape
        steps = self.steps_per_part(num_steps, num_nodes * batch * 3 * self.config.hidden)
        for part_LNBC in torch.split(x_LNBC, steps):
            part_LNBD, last_NBD = self.maybe_checkpoint(self.cell, part_LNBC, last_NBD, supports)
            states_LNBD.append(part_LNBD)
        if self.regression is not None:
            forecast: BHNC = self.regression(states_LNBD[-1][-1].transpose(0, 1))
            return forecast
        channels_LNBD = torch.cat(states_LNBD).unbind(dim=-1)  # a list of indices would be copied
        forecast_LNBC = torch.stack(
            [channels_LNBD[index] for index in self.shape.target_indices], dim=-1
        )
        return forecast_LNBC.permute(2, 0, 1, 3).contiguous()


def load_pgt_state_dict(model: LegacyDCRNN, state_dict: Mapping[str, Tensor]) -> None:
    """Load the weights of a `BatchedDCRNN` or `DCRNN` of PGT into a model of equal sizes.

    The head of the model, if it has one, keeps its weights. PGT learns from readings standardised
    by statistics of the whole series and from a standardised time of day: to forecast as it did, a
    model needs such inputs.

    Args:
        model: whose weights are replaced.
        state_dict: of the layer, or of a network that has one such layer at any depth; everything
            else in it is ignored.

    Raises:
        ConfigError: unless it has exactly one such layer, of the model's sizes.
    """
    own = model.cell.state_dict()
    mark = "conv_x_z.weight"
    prefixes = [key.removesuffix(mark) for key in state_dict if key.endswith(mark)]
    if len(prefixes) != 1:
        raise ConfigError(
            f"the state dict has {len(prefixes)} layers with the parameter {mark!r}: it must be "
            "that of a network with one DCRNN or BatchedDCRNN"
        )
    loaded = {name: state_dict.get(prefixes[0] + name) for name in own}
    for name, tensor in loaded.items():
        shape = None if tensor is None else tuple(tensor.shape)
        if shape != tuple(own[name].shape):
            raise ConfigError(
                f"{prefixes[0]}{name} has the shape {shape} in the state dict and "
                f"{tuple(own[name].shape)} in the model, [2, K, C + D, D]: build the model with "
                "hidden = D, hops = K - 1 and windows of C input channels"
            )
    model.cell.load_state_dict(loaded)


class LegacyDiffusionGRU(nn.Module):
    """PGT's `BatchedDCRNN` and `DCRNN`: L inputs and a state in, L states out.

    Parameters have PGT's names and shapes, `conv_x_{z,r,h}.weight` [2, K, C + D, D] and `.bias`
    [D], so a state dict of either layer loads as it is, and they start as PGT's do.

    Args:
        input_channels: C.
        hidden: D.
        hops: the farthest that one filter reaches: PGT's K less 1.
    """

    powers_of_terms: Tensor

    def __init__(self, input_channels: int, hidden: int, hops: int) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.conv_x_z = _Filter(input_channels + hidden, hidden, hops)
        self.conv_x_r = _Filter(input_channels + hidden, hidden, hops)
        self.conv_x_h = _Filter(input_channels + hidden, hidden, hops)
        self.register_buffer("powers_of_terms", _powers_of_terms(hops), persistent=False)

    def forward(self, x_LNBC: Tensor, h_NBD: NBD | None, supports: Supports) -> tuple[Tensor, NBD]:
        """The states after each of L inputs, and the last of them.

        Args:
            x_LNBC: [L, N, B, C].
            h_NBD: [N, B, D], the state before the first input; None for zeros.
            supports: `LegacyDCRNN.build_supports`, on N nodes.

        Returns:
            [L, N, B, D] and [N, B, D].
        """
        filters = (self.conv_x_r, self.conv_x_z, self.conv_x_h)
        with without_autocast(x_LNBC.device):
            weights = [self._weight_of_powers(each.weight) for each in filters]
        channels = self.input_channels
        weight_input = torch.cat([weight[:, :channels] for weight in weights], dim=-1)
        weight_gates = torch.cat([weight[:, channels:] for weight in weights[:2]], dim=-1)
        bias = torch.cat([each.bias for each in filters])
        weight_candidate = weights[2][:, channels:].contiguous()
        hops = (len(weight_gates) - 1) // len(supports)
        powers_QN = supports.stacked_powers(hops, autocast_dtype(x_LNBC.device))
        if powers_QN is not None:
            layer = GatedWeights(weight_input, weight_gates, weight_candidate, bias)
            return read_one_stacked(x_LNBC, h_NBD, layer, powers_QN)
        inputs_LNBG = diffusion_convolution(x_LNBC, weight_input, bias, supports)
        return gated_recurrence(inputs_LNBG, h_NBD, weight_gates, weight_candidate, supports)

    def _weight_of_powers(self, weight_SKIO: Tensor) -> Tensor:
        """[1 + 2 P, C + D, D]: identity, powers 1 .. P of the forward operator, of the backward."""
        weight_SPIO = torch.einsum("kp,skio->spio", self.powers_of_terms, weight_SKIO)
        identity_1IO = weight_SPIO[:, :1].sum(dim=0)
        return torch.cat([identity_1IO, weight_SPIO[:, 1:].flatten(0, 1)])


class _Filter(nn.Module):
    """Parameters of one of PGT's convolutions, as it draws them."""

    def __init__(self, input_channels: int, output_channels: int, hops: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, hops + 1, input_channels, output_channels))
        self.bias = nn.Parameter(torch.zeros(output_channels))
        nn.init.xavier_uniform_(self.weight)


def _powers_of_terms(hops: int) -> Tensor:
    """[hops + 1, P + 1]: the coefficients of T_k in powers 0 .. P, P at least 1."""
    coefficients = torch.eye(hops + 1, max(hops, 1) + 1)
    for term in range(2, hops + 1):
        coefficients[term, 0] = -1
        coefficients[term, 1:] = 2 * coefficients[term - 1, :-1]
    return coefficients


def pgt_operators(graph: SensorGraph) -> tuple[CsrMatrix, CsrMatrix]:
    """The operators of `DConv` and `BatchedDConv` of PGT 0.56.2, in place of two random walks.

    For networks trained with them; diffusion convolution has `dual_random_walk`. With the
    edges (r_i, c_i), i = 0 .. E-1, in the order of PGT's loaders (by source, then target), on which
    the backward operator depends, and D the weighted degrees:

        forward    y[c_i] += x[r_i] / D_out[r_i]
        backward   y[r'_i] += x[c'_i] / D_in[r_i]     (r'_i, c'_i) the edges by target, then source

    So no weight is in a numerator, and the backward operator divides an edge by the degree of
    another edge's source. Neither conserves what it spreads: columns do not sum to 1.

    Where a degree is 0, PGT divides by it (of a sensor that edges leave and none leads to) and its
    output is infinite or NaN; here the term is 0.

    Returns:
        Two [N, N] CSR operators, float32 (computed in float64).
    """
    sources, targets = graph.adjacency.tocoo().coords
    weights: CsrMatrix = graph.adjacency.astype(np.float64)
    out_degree, in_degree = (np.asarray(weights.sum(axis=axis), np.float64) for axis in (1, 0))
    by_target = np.lexsort((sources, targets))
    size = (graph.num_nodes, graph.num_nodes)
    forward: CsrMatrix = sparse.csr_array((_inverse(out_degree)[sources], (targets, sources)), size)
    backward: CsrMatrix = sparse.csr_array(
        (_inverse(in_degree)[sources], (sources[by_target], targets[by_target])), size
    )
    for operator in (forward, backward):
        operator.eliminate_zeros()
        operator.sort_indices()
    return forward.astype(np.float32), backward.astype(np.float32)


def _inverse(degree: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / degree, and 0 where that is 0."""
    inverse: npt.NDArray[np.float64] = np.zeros_like(degree)
    return np.divide(1.0, degree, out=inverse, where=degree > 0)
