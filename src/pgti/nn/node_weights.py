"""Separate weights for every node, from an embedding of the node and a pool that all nodes share.

Bai et al., Adaptive Graph Convolutional Recurrent Network, NeurIPS 2020, eq. 4: node n has the
weights W_n = sum_r E_nr P_r, E [N, R] the embeddings and P [R, K, C, O] the pool, a matrix for each
of K terms of a graph convolution.

The matrices of one gate of 11,160 nodes take 750 MB. Those of a small network are computed once;
those of a large one for some nodes at a time, and again in the backward pass. Few rows need none:
x_n W_n = sum_r (E_nr x_n) P_r is one product for all nodes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgti.nn.execution import (
    add_product,
    autocast_dtype,
    checkpointed,
    is_exporting,
    refuse_second_derivative,
    split_rows,
    without_autocast,
)
from pgti.nn.limits import CPU_LIMITS, ChunkLimits
from pgti.nn.linear import linear
from pgti.nn.operators import Operation, Operator

__all__ = ["NodeWeights"]

_FEW_ROWS = 0.4
"""Rows of a node, as a fraction of R, up to which no matrices are computed. With R = 10, on a CPU,
that is twice as fast with 2 rows, slightly faster with 4, and slower with 6."""


class NodeWeights:
    """The matrices W_nk of N nodes and K terms.

    Args:
        embedding_NR: [N, R].
        pool_RKCO: [R, K, C, O].
        limits: `stored_weights` and `node_weights` are used.
    """

    def __init__(
        self, embedding_NR: Tensor, pool_RKCO: Tensor, limits: ChunkLimits = CPU_LIMITS
    ) -> None:
        self._embedding_NR, self._pool_RKCO = embedding_NR, pool_RKCO
        self._limit = limits.node_weights
        self._most_stored = limits.stored_weights // pool_RKCO[0].numel()
        self._weights_NCO: Sequence[Tensor] | None = None
        if not is_exporting() and len(embedding_NR) <= self._most_stored:
            self._weights_NCO = self._store()

    def add_products(self, base_NMO: Tensor, terms_NMC: Sequence[Tensor]) -> Tensor:
        """base_n + sum_k x_kn W_nk for every node n; differentiable.

        Args:
            base_NMO: [N, M, O], M rows for every node; M may be 1 for all.
            terms_NMC: x_k, K tensors [N, M, C].

        Returns:
            [N, M, O], in the precision of the embedding.
        """
        if is_exporting() and self._weights_NCO is None:
            if not self._are_stored_for_export(terms_NMC[0].shape[1]):
                return _add_expanded_products(
                    self._pool_RKCO, base_NMO, self._embedding_NR, *terms_NMC
                )
            self._weights_NCO = self._store()
        if self._weights_NCO is None:
            few_rows = terms_NMC[0].shape[1] <= _FEW_ROWS * len(self._pool_RKCO)
            return (self._add_few if few_rows else self._add_many)(base_NMO, terms_NMC)
        for x_NMC, weight_NCO in zip(terms_NMC, self._weights_NCO, strict=True):
            base_NMO = base_NMO + torch.bmm(x_NMC, weight_NCO)  # autocast would round such a sum
        return base_NMO.to(self._embedding_NR.dtype)

    def _store(self) -> Sequence[Tensor]:
        # Unbound once, so that the gradients of all calls are added before they are stacked.
        return _weights(self._embedding_NR, self._pool_RKCO).unbind(dim=1)

    def _are_stored_for_export(self, num_rows: int) -> bool:
        """Whether an exported program computes weights; it does not know the size of a batch."""
        sizes: tuple[object, ...] = (num_rows, self._embedding_NR.shape[0])
        is_known_rows, is_known_nodes = (isinstance(each, int) for each in sizes)
        if is_known_rows and num_rows <= _FEW_ROWS * len(self._pool_RKCO):
            return False
        return not is_known_nodes or self._embedding_NR.shape[0] <= self._most_stored

    def _add_few(self, base_NMO: Tensor, terms_NMC: Sequence[Tensor]) -> Tensor:
        """`add_products` of few rows, without weights; E_nr x_n of some nodes at a time."""
        nodes = max(1, self._limit // (terms_NMC[0][0].numel() * len(self._pool_RKCO)))
        operands = (base_NMO, self._embedding_NR, *terms_NMC)
        parts = zip(*(torch.split(each, nodes) for each in operands), strict=True)
        sums_nMO = [checkpointed(_add_expanded_products, self._pool_RKCO, *part) for part in parts]
        return torch.cat(sums_nMO).to(self._embedding_NR.dtype)

    def _add_many(self, base_NMO: Tensor, terms_NMC: Sequence[Tensor]) -> Tensor:
        """`add_products` of many rows, with the weights of some nodes at a time."""
        added: Tensor = _add_products(
            base_NMO.expand(-1, terms_NMC[0].shape[1], -1),
            self._embedding_NR,
            self._pool_RKCO,
            autocast_dtype(base_NMO.device) or self._pool_RKCO.dtype,
            self._limit,
            *terms_NMC,
        )
        return added


def _weights(embedding_NR: Tensor, pool_RKCO: Tensor) -> Tensor:
    """[N, K, C, O]."""
    return (embedding_NR @ pool_RKCO.flatten(1)).view(-1, *pool_RKCO.shape[1:])


def _add_expanded_products(
    pool_RKCO: Tensor, base_nMO: Tensor, embedding_nR: Tensor, *terms_nMC: Tensor
) -> Tensor:
    """base_n + sum_k sum_r (E_nr x_kn) P_rk."""
    for x_nMC, pool_RCO in zip(terms_nMC, pool_RKCO.unbind(dim=1), strict=True):
        x_nMRC = embedding_nR[:, None, :, None] * x_nMC.unsqueeze(2)
        base_nMO = base_nMO + linear(x_nMRC.flatten(2), pool_RCO.flatten(0, 1).t(), None)
    return base_nMO


class _AddProducts(Operation):
    """`NodeWeights.add_products`, some nodes at a time; stores the terms and no weights."""

    @staticmethod
    def forward(
        ctx: Any,
        base_NMO: Tensor,
        embedding_NR: Tensor,
        pool_RKCO: Tensor,
        dtype: torch.dtype,
        limit: int,
        *terms_NMC: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(embedding_NR, pool_RKCO, *terms_NMC)
        ctx.options = dtype, limit
        out_NMO = base_NMO.to(embedding_NR.dtype, copy=True).contiguous()
        with without_autocast(base_NMO.device):
            rounded_RKCO = pool_RKCO.to(dtype)
            for nodes in split_rows(len(base_NMO), limit // pool_RKCO[0].numel()):
                weight_nKCO = _weights(embedding_NR[nodes].to(dtype), rounded_RKCO)
                for x_NMC, weight_nCO in zip(terms_NMC, weight_nKCO.unbind(dim=1), strict=True):
                    add_product(out_NMO[nodes], x_NMC[nodes].to(dtype), weight_nCO)
        return out_NMO

    @staticmethod
    def backward(ctx: Any, grad_NMO: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        embedding_NR, pool_RKCO, *terms_NMC = ctx.saved_tensors
        dtype, limit = ctx.options
        grad_terms_NMC = [torch.empty_like(x_NMC) for x_NMC in terms_NMC]
        grad_embedding_NR = torch.empty_like(embedding_NR)
        grad_pool_RP = torch.zeros_like(pool_RKCO).flatten(1)
        with without_autocast(grad_NMO.device):
            rounded_RKCO = pool_RKCO.to(dtype)
            for nodes in split_rows(len(grad_NMO), limit // pool_RKCO[0].numel()):
                embedding_nR, grad_nMO = embedding_NR[nodes].to(dtype), grad_NMO[nodes].to(dtype)
                weight_nKCO = _weights(embedding_nR, rounded_RKCO)
                grad_nKCO = torch.empty_like(weight_nKCO)
                for term, x_NMC in enumerate(terms_NMC):
                    grad_terms_NMC[term][nodes] = grad_nMO @ weight_nKCO[:, term].mT
                    grad_nKCO[:, term] = x_NMC[nodes].to(dtype).mT @ grad_nMO
                grad_embedding_NR[nodes] = (grad_nKCO.flatten(1) @ rounded_RKCO.flatten(1).t()).to(
                    embedding_NR.dtype
                )
                grad_pool_RP += embedding_nR.t() @ grad_nKCO.flatten(1)
        grad_pool_RKCO = grad_pool_RP.view_as(pool_RKCO)
        return grad_NMO, grad_embedding_NR, grad_pool_RKCO, None, None, *grad_terms_NMC

    @staticmethod
    def like(base_NMO: Tensor, embedding_NR: Tensor, *_: Any) -> tuple[Tensor]:
        return (embedding_NR.new_empty(base_NMO.shape),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        embedding_NR, pool_RKCO, *terms_NMC = ctx.saved_tensors
        base_NMO = embedding_NR.new_empty(*terms_NMC[0].shape[:2], pool_RKCO.shape[3])
        return base_NMO, *(torch.empty_like(each) for each in ctx.saved_tensors)


_add_products = Operator(
    _AddProducts,
    "node_products",
    returns=["sum"],
    saves=["embedding_NR", "pool_RKCO", "terms_NMC"],
)
