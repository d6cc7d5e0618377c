"""A GRU whose products are graph convolutions of a learned graph, with weights from embeddings.

Bai et al., Adaptive Graph Convolutional Recurrent Network, NeurIPS 2020, eq. 6, in the form of its
released code; A is the learned adjacency, W_n and b_n the weights of node n (of HimNet also those
of a window, or of a node in a window):

    [z, r] = sigmoid([x, h] * W_zr + b_zr)     c = tanh([x, z . h] * W_c + b_c)
    h' = r . h + (1 - r) . c                   (s * W)_n = sum_k (T_k(A) s)_n W_kn

T_k are Chebyshev polynomials: T_0 s = s, T_1 s = A s, T_k s = 2 A T_{k-1} s - T_{k-2} s. Without a
change of the function, the part of the inputs is computed for many time steps at once, because the
convolution is linear, and the weights of z and r, which see the same s, are one matrix.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pgti.nn.execution import without_autocast
from pgti.nn.limits import CPU_LIMITS, ChunkLimits
from pgti.nn.node_weights import NodeWeights
from pgti.shapes import NBD

__all__ = ["AdaptiveGRU", "AdaptiveGRUWeights", "adaptive_recurrence", "chebyshev_terms"]


class TermWeights(Protocol):
    """The matrices of the terms of a graph convolution."""

    def add_products(self, base_NMO: Tensor, terms_NMC: Sequence[Tensor]) -> Tensor:
        """`base` plus each term times its matrix, [N, M, O]."""


class AdaptiveGRUWeights(NamedTuple):
    """The weights of all nodes in a layer.

    Attributes:
        inputs: of the inputs, for z, r and c.
        gates: of the state, for z and r.
        candidate: of the reset state, for c.
        bias_N1G: [N, 1, 3 D], or [1, 1, 3 D] for all.
    """

    inputs: TermWeights
    gates: TermWeights
    candidate: TermWeights
    bias_N1G: Tensor


def adaptive_recurrence(
    x_NLMC: Tensor,
    state_NMD: Tensor,
    weights: AdaptiveGRUWeights,
    terms_of: Callable[[Tensor], list[Tensor]],
) -> Tensor:
    """The states after each of L inputs.

    Args:
        x_NLMC: [N, L, M, C]: first what has weights of its own (such as the nodes), and M rows of
            each (such as the windows of a batch).
        state_NMD: [N, M, D], before the first input.
        weights: of the layer.
        terms_of: the terms of a graph convolution of [N, M, C] or [N, L, M, C], in its shape.

    Returns:
        [N, L, M, D].
    """
    hidden = state_NMD.shape[2]
    terms_NMC = [term.flatten(1, 2) for term in terms_of(x_NLMC)]
    inputs_NMG = weights.inputs.add_products(weights.bias_N1G, terms_NMC)
    inputs_NLMG = inputs_NMG.view(*x_NLMC.shape[:3], -1)
    states_NMD = []
    for inputs_NMG in inputs_NLMG.unbind(dim=1):
        into_gates_NMG, into_c_NMD = inputs_NMG.tensor_split([2 * hidden], dim=2)
        gates_NMG = weights.gates.add_products(into_gates_NMG, terms_of(state_NMD))
        z_NMD, r_NMD = torch.sigmoid(gates_NMG).chunk(2, dim=2)
        c_NMD = weights.candidate.add_products(into_c_NMD, terms_of(z_NMD * state_NMD))
        state_NMD = torch.lerp(torch.tanh(c_NMD), state_NMD, r_NMD)  # c + r (h - c)
        states_NMD.append(state_NMD)
    return torch.stack(states_NMD, dim=1)


def chebyshev_terms(
    state: Tensor, order: int, propagate: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """T_0 s .. T_{K-1} s of a state s; `propagate` multiplies it by the operator."""
    terms = [state.view_as(state)]  # gradients of the terms are added before those of the state
    for term in range(1, order):
        following = propagate(terms[-1])
        terms.append(following if term == 1 else 2 * following - terms[-2])
    return terms


class AdaptiveGRU(nn.Module):
    """One recurrent layer: L inputs and a state in, L states out.

    Pools start Glorot-uniform as in the released code, where the weights of inputs and state are
    one tensor [R, K, C + D, O].

    Args:
        input_channels: C.
        hidden: D.
        embedding: R, width of a node's embedding.
        order: K, Chebyshev polynomials T_0 .. T_{K-1}.
    """

    def __init__(self, input_channels: int, hidden: int, embedding: int, order: int) -> None:
        super().__init__()
        self.hidden, self._order = hidden, order
        # The last axis of pool_input and pool_bias is (z, r, c), that of pool_gates (z, r).
        self.pool_input = nn.Parameter(torch.empty(embedding, order, input_channels, 3 * hidden))
        self.pool_gates = nn.Parameter(torch.empty(embedding, order, hidden, 2 * hidden))
        self.pool_candidate = nn.Parameter(torch.empty(embedding, order, hidden, hidden))
        self.pool_bias = nn.Parameter(torch.empty(embedding, 3 * hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial pools from torch's generator."""
        embedding, split = len(self.pool_bias), 2 * self.hidden
        channels = self.pool_input.shape[2] + self.hidden
        fans = (embedding + self._order) * channels
        gate_bound, candidate_bound = (math.sqrt(6 / (fans * n)) for n in (split, self.hidden))
        with torch.no_grad():
            self.pool_input[..., :split].uniform_(-gate_bound, gate_bound)
            self.pool_input[..., split:].uniform_(-candidate_bound, candidate_bound)
            self.pool_gates.uniform_(-gate_bound, gate_bound)
            self.pool_candidate.uniform_(-candidate_bound, candidate_bound)
            nn.init.xavier_uniform_(self.pool_bias[:, :split])
            nn.init.xavier_uniform_(self.pool_bias[:, split:])

    def weights(self, embedding_NR: Tensor, limits: ChunkLimits = CPU_LIMITS) -> AdaptiveGRUWeights:
        """The weights of all nodes with embeddings [N, R], for any number of calls."""
        with without_autocast(embedding_NR.device):
            bias_NG = embedding_NR @ self.pool_bias
        return AdaptiveGRUWeights(
            inputs=NodeWeights(embedding_NR, self.pool_input, limits),
            gates=NodeWeights(embedding_NR, self.pool_gates, limits),
            candidate=NodeWeights(embedding_NR, self.pool_candidate, limits),
            bias_N1G=bias_NG.unsqueeze(1),
        )

    def forward(
        self,
        x_NLBC: Tensor,
        state_NBD: NBD,
        weights: AdaptiveGRUWeights,
        propagate: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The states after each input.

        Args:
            x_NLBC: [N, L, B, C]: nodes first, because each has its own weights; likewise whatever
                else the embeddings are those of.
            state_NBD: [N, B, D], before the first input.
            weights: from `weights` of this layer.
            propagate: multiplies [N, B, C] and [N, L, B, C] by A: `AdaptiveAdjacency.propagate`.

        Returns:
            [N, L, B, D].
        """
        terms_of = partial(chebyshev_terms, order=self._order, propagate=propagate)
        return adaptive_recurrence(x_NLBC, state_NBD, weights, terms_of)
