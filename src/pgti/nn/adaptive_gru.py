"""The recurrent layer of AGCRN: a GRU whose products are graph convolutions of a learned graph.

Bai et al., Adaptive Graph Convolutional Recurrent Network, NeurIPS 2020, eq. 6, in the form of its
released code; A is the learned adjacency, W_n and b_n the weights of node n:

    [z, r] = sigmoid([x, h] * W_zr + b_zr)     c = tanh([x, z . h] * W_c + b_c)
    h' = r . h + (1 - r) . c                   (s * W)_n = sum_k (T_k(A) s)_n W_kn

T_k are Chebyshev polynomials: T_0 s = s, T_1 s = A s, T_k s = 2 A T_{k-1} s - T_{k-2} s. Without a
change of the function, the part of the inputs is computed for many time steps at once, because the
convolution is linear, and the weights of z and r, which see the same s, are one matrix.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pgti.nn.adaptive import AdaptiveAdjacency
from pgti.nn.execution import without_autocast
from pgti.nn.limits import CPU_LIMITS, ChunkLimits
from pgti.nn.node_weights import NodeWeights
from pgti.shapes import NBD

__all__ = ["AdaptiveGRU", "AdaptiveGRUWeights"]


class AdaptiveGRUWeights(NamedTuple):
    """The weights of all nodes in a layer.

    Attributes:
        inputs: of the inputs, for z, r and c.
        gates: of the state, for z and r.
        candidate: of the reset state, for c.
        bias_N1G: [N, 1, 3 D].
    """

    inputs: NodeWeights
    gates: NodeWeights
    candidate: NodeWeights
    bias_N1G: Tensor


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
        adjacency: AdaptiveAdjacency,
    ) -> Tensor:
        """The states after each input.

        Args:
            x_NLBC: [N, L, B, C]: nodes first, because each has its own weights.
            state_NBD: [N, B, D], before the first input.
            weights: from `weights` of this layer.
            adjacency: A.

        Returns:
            [N, L, B, D].
        """
        terms_NMC = self._polynomials(x_NLBC.flatten(1, 2), adjacency)
        inputs_NMG = weights.inputs.add_products(weights.bias_N1G, terms_NMC)
        inputs_NLBG = inputs_NMG.view(*x_NLBC.shape[:3], -1)
        states_NBD = []
        for inputs_NBG in inputs_NLBG.unbind(dim=1):
            into_gates_NBG, into_c_NBD = inputs_NBG.tensor_split([2 * self.hidden], dim=2)
            terms_NBD = self._polynomials(state_NBD, adjacency)
            gates_NBG = torch.sigmoid(weights.gates.add_products(into_gates_NBG, terms_NBD))
            z_NBD, r_NBD = gates_NBG.chunk(2, dim=2)
            terms_NBD = self._polynomials(z_NBD * state_NBD, adjacency)
            c_NBD = torch.tanh(weights.candidate.add_products(into_c_NBD, terms_NBD))
            state_NBD = torch.lerp(c_NBD, state_NBD, r_NBD)  # c + r (h - c)
            states_NBD.append(state_NBD)
        return torch.stack(states_NBD, dim=1)

    def _polynomials(self, s_NMC: Tensor, adjacency: AdaptiveAdjacency) -> list[Tensor]:
        """T_0 s .. T_{K-1} s."""
        terms_NF = [s_NMC.flatten(1)]
        for term in range(1, self._order):
            next_NF = adjacency.multiply(terms_NF[-1])
            terms_NF.append(next_NF if term == 1 else 2 * next_NF - terms_NF[-2])
        return [term_NF.view(s_NMC.shape) for term_NF in terms_NF]
