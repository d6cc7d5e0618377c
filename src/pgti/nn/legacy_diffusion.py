"""The arithmetic of PyTorch Geometric Temporal's DCRNN: not diffusion convolution.

For networks that were trained with PGT 0.56.2, whose weights mean something under this arithmetic
alone; `DiffusionGRU` is the layer of the paper. PGT's filter is, over its operators P of the two
directions (`pgti.graph.pgt_legacy_operators`),

    y = sum_P sum_k T_k(P) x W_Pk,    T_0 = 1,  T_1 = P,  T_k = 2 P T_(k-1) - 1,  k = 2 .. K-1

which are Chebyshev polynomials up to T_2 alone, and learns the identity term twice. A polynomial is
a sum of powers, so the weights are first turned into those of powers; the fast layers of
`pgti.nn.recurrent` do the rest.
"""

import torch
from torch import Tensor, nn

from pgti.nn.diffusion import diffusion_convolution
from pgti.nn.execution import compiler_disabled, without_autocast
from pgti.nn.recurrent import gated_recurrence
from pgti.nn.sparse import Supports
from pgti.shapes import NBD

__all__ = ["LegacyDiffusionGRU"]


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

    @compiler_disabled
    def forward(self, x_LNBC: Tensor, h_NBD: NBD | None, supports: Supports) -> tuple[Tensor, NBD]:
        """The states after each of L inputs, and the last of them.

        Args:
            x_LNBC: [L, N, B, C].
            h_NBD: [N, B, D], the state before the first input; None for zeros.
            supports: of the kind `pgt_legacy`, on N nodes.

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
        inputs_LNBG = diffusion_convolution(x_LNBC, weight_input, bias, supports)
        weight_candidate = weights[2][:, channels:].contiguous()
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
    coefficients = torch.zeros(hops + 1, max(hops, 1) + 1)
    coefficients[0, 0] = 1
    if hops:
        coefficients[1, 1] = 1
    for term in range(2, hops + 1):
        coefficients[term, 1:] = 2 * coefficients[term - 1, :-1]
        coefficients[term, 0] -= 1
    return coefficients
