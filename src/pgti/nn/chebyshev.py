"""Chebyshev filters on a graph.

Defferrard et al., Convolutional Neural Networks on Graphs with Fast Localized Spectral Filtering,
NeurIPS 2016, eq. 4:

    y = sum_k T_k(S) x W_k,   T_0 = I,  T_1 = S,  T_k = 2 S T_{k-1} - T_{k-2}

with an operator S whose eigenvalues lie in [-1, 1], the scaled Laplacian.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pgti.nn.sparse import Supports

__all__ = ["chebyshev_convolution"]


def chebyshev_convolution(
    x_NBLC: Tensor, weight_KCO: Tensor, bias_O: Tensor, supports: Supports
) -> Tensor:
    """The filter of K - 1 orders on every batch entry and step, differentiable.

    The weights come first and then the polynomials, by Clenshaw's recurrence b_k = x W_k +
    2 S b_{k+1} - b_{k+2}: the same number of products with S, of O channels instead of C.

    Args:
        x_NBLC: [N, B, L, C].
        weight_KCO: [K, C, O], a matrix per order, from 0 on.
        bias_O: [O].
        supports: one operator on N nodes.

    Returns:
        [N, B, L, O], in the precision of the supports.
    """
    num_terms, _, width = weight_KCO.shape
    num_nodes = x_NBLC.shape[0]
    weight_QC = weight_KCO.transpose(1, 2).flatten(0, 1)
    bias_Q = functional.pad(bias_O, (0, (num_terms - 1) * width))
    products_NBLQ = functional.linear(x_NBLC, weight_QC, bias_Q)
    terms_KNF = [
        term_NBLO.reshape(num_nodes, -1).to(supports.dtype)
        for term_NBLO in torch.tensor_split(products_NBLQ, num_terms, dim=-1)
    ]
    latest_NF, before_NF = terms_KNF[-1], None
    for order in range(num_terms - 2, -1, -1):
        product_NF = supports.multiply(0, latest_NF)
        # In the last step S counts once.
        state_NF = torch.add(terms_KNF[order], product_NF, alpha=2 if order else 1)
        if before_NF is not None:
            state_NF = state_NF - before_NF
        latest_NF, before_NF = state_NF, latest_NF
    return latest_NF.view(*x_NBLC.shape[:3], width)
