"""An adjacency learned from embeddings of the nodes, and products with it.

Graph WaveNet (Wu et al., IJCAI 2019, eq. 5) and AGCRN (Bai et al., NeurIPS 2020, eq. 5) learn

    A = softmax(relu(E1 E2^T)),  E1, E2 [N, R],  the softmax over each row.

That takes N^2 numbers, and as many products with every feature. For large networks a matrix of
rank R replaces it, in time and memory linear in N:

    A = softmax(E1) softmax(E2)^T,  the first over the R columns of E1, the second over its N rows.

Each column of E2 says which nodes a group pools, each row of E1 which groups a node reads (Shen et
al., Efficient Attention: Attention with Linear Complexities, WACV 2021, eq. 4, arXiv 1812.01243).
Both matrices are positive and their rows sum to 1, so that `A @ x` averages x; the second does not
approximate the first, but is another function of the same parameters.
"""

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from pgti.errors import ConfigError
from pgti.nn import plain
from pgti.nn.execution import (
    add_product,
    autocast_dtype,
    refuse_second_derivative,
    without_autocast,
)
from pgti.nn.linear import linear
from pgti.nn.operators import Operation, Operator
from pgti.nn.sparse import Supports
from pgti.shapes import NF

__all__ = [
    "DENSE_UP_TO_NODES",
    "AdaptiveAdjacency",
    "AdjacencyForm",
    "adaptive_adjacency",
    "adaptive_convolution",
    "check_adjacency_form",
    "is_dense",
]

AdjacencyForm = Literal["auto", "dense", "low-rank"]
"""Form of a learned adjacency; auto is dense up to `DENSE_UP_TO_NODES`."""

DENSE_UP_TO_NODES = 4096
"""A dense matrix of 4,096 nodes takes 64 MiB, and so do its gradient and each of its powers."""


class AdaptiveAdjacency(NamedTuple):
    """A learned N x N operator, A = read_NR @ pool_RN, stored as its factors; or a batch of them.

    Where sensors are split over ranks, the factors are those of this rank's sensors, and what is
    pooled is summed over the ranks.

    Attributes:
        read_NR: [N, R] or [B, N, R]; in the dense form A itself, R = N.
        pool_RN: [R, N] or [B, R, N]; in the dense form None, for the identity.
        supports: whose sensors these are; None for all of them.
    """

    read_NR: Tensor
    pool_RN: Tensor | None
    supports: Supports | None = None

    def multiply(self, x_NF: NF) -> NF:
        """A @ x, differentiable; of operators and features with leading axes, each pair's."""
        pooled_RF = self._pool(x_NF)
        if self.read_NR.ndim == pooled_RF.ndim == 2:
            return linear(self.read_NR, pooled_RF.t(), None)
        return self.read_NR @ pooled_RF

    def rows(self, part: slice) -> Tensor:
        """Rows of A, [rows, N]; of a single operator of all nodes."""
        read_NR = self.read_NR[part]
        return read_NR if self.pool_RN is None else read_NR @ self.pool_RN

    def propagate(self, x_NMC: Tensor) -> Tensor:
        """A @ x of a state with nodes first, [N, .., C], in its shape; of a single operator."""
        return self.multiply(x_NMC.flatten(1)).view(x_NMC.shape)

    def powers(self, hops: int) -> Tensor:
        """[N, hops * R]: the left factors of A, A^2, .., A^hops side by side.

        (read pool)^k = (read pool)^(k-1) read . pool: all powers share the right factor, `pool_RN`.
        """
        with without_autocast(self.read_NR.device):
            powers_NR = [self.read_NR]
            for _ in range(hops - 1):
                powers_NR.append(self.read_NR @ self._pool(powers_NR[-1]))
            return torch.cat(powers_NR, dim=1)

    def _pool(self, x_NF: NF) -> Tensor:
        """[R, F]."""
        if self.pool_RN is None:
            return x_NF
        pooled_RF = self.pool_RN @ x_NF
        return pooled_RF if self.supports is None else self.supports.sum_over_ranks(pooled_RF)


def check_adjacency_form(form: str) -> None:
    """Raise ConfigError, with the forms, unless `form` is an `AdjacencyForm`."""
    if form not in get_args(AdjacencyForm):
        raise ConfigError(
            f"adjacency is {form!r}: choose one of {', '.join(get_args(AdjacencyForm))}"
        )


def is_dense(form: str, num_nodes: int) -> bool:
    """Whether an adjacency of this form holds a number for each pair of N nodes."""
    return form == "dense" or (form == "auto" and num_nodes <= DENSE_UP_TO_NODES)


def adaptive_adjacency(
    source_NR: Tensor, target_NR: Tensor, form: str, supports: Supports | None = None
) -> AdaptiveAdjacency:
    """The operator of two embeddings, or of each pair in a batch; differentiable, as precise.

    Args:
        source_NR: [N, R] or [B, N, R], E1: of the nodes that read.
        target_NR: likewise, E2: of the nodes that are read.
        form: an `AdjacencyForm`, or ConfigError is raised.
        supports: say which nodes are this rank's, if their sensors are split over ranks.
    """
    check_adjacency_form(form)
    if is_dense(form, source_NR.shape[-2]):
        with without_autocast(source_NR.device):
            scores_NN = functional.relu(source_NR @ target_NR.mT)
        return AdaptiveAdjacency(functional.softmax(scores_NN, dim=-1), None)
    read_NR, pool_NR = functional.softmax(source_NR, dim=-1), functional.softmax(target_NR, dim=-2)
    if supports is None or not supports.is_sharded:
        return AdaptiveAdjacency(read_NR, pool_NR.mT)
    # Every rank has the embeddings of all nodes: the softmax over nodes needs no exchange.
    read_NR, pool_NR = supports.local(read_NR), supports.local(pool_NR)
    return AdaptiveAdjacency(read_NR, pool_NR.t(), supports)


def adaptive_convolution(
    x_LNBC: Tensor, weight_KCO: Tensor, adjacency: AdaptiveAdjacency, powers_NP: Tensor
) -> Tensor:
    """sum_k A^k x W_k, k = 1 .. K, of L independent states.

    Weights come before the adjacency, (A^k) (x W_k), so that all powers are one product and no
    diffused state is stored. Differentiable once.

    Args:
        x_LNBC: [L, N, B, C].
        weight_KCO: [K, C, O], a matrix per power.
        adjacency: A.
        powers_NP: `adjacency.powers(K)`, which several convolutions may share.

    Returns:
        [L, N, B, O], contiguous, in the precision of the adjacency.
    """
    output: Tensor = _convolve(
        x_LNBC.contiguous(),
        weight_KCO,
        powers_NP,
        adjacency.pool_RN,
        autocast_dtype(x_LNBC.device) or powers_NP.dtype,
        adjacency.supports,
    )
    return output.to(powers_NP.dtype)


class _Convolution(Operation):
    """`adaptive_convolution`, one state at a time, so that its data stay in cache.

    Products are in `dtype`; sums over states are in the precision of the parameters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_LNBC: Tensor,
        weight_KCO: Tensor,
        powers_NP: Tensor,
        pool_RN: Tensor | None,
        dtype: torch.dtype,
        supports: Supports | None,
    ) -> Tensor:
        ctx.save_for_backward(x_LNBC, weight_KCO, powers_NP, pool_RN)
        ctx.options = dtype, supports
        num_steps, num_nodes, batch, _ = x_LNBC.shape
        out_LNF = powers_NP.new_empty(
            num_steps, num_nodes, batch * weight_KCO.shape[2], dtype=dtype
        )
        with without_autocast(x_LNBC.device):
            step = _Step(x_LNBC, weight_KCO, powers_NP, pool_RN, dtype, supports)
            for x_NBC, out_NF in zip(x_LNBC, out_LNF, strict=True):
                torch.mm(step.powers_NP, step.apply_weights(step.pool(x_NBC)), out=out_NF)
        return out_LNF.view(num_steps, num_nodes, batch, -1)

    @staticmethod
    def backward(ctx: Any, grad_LNBO: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x_LNBC, weight_KCO, powers_NP, pool_RN = ctx.saved_tensors
        dtype, supports = ctx.options
        grad_x_LNBC = torch.empty_like(x_LNBC)
        grad_weight_KCO, grad_powers_NP = torch.zeros_like(weight_KCO), torch.zeros_like(powers_NP)
        grad_pool_RN = None if pool_RN is None else torch.zeros_like(pool_RN)
        with without_autocast(x_LNBC.device):
            step = _Step(x_LNBC, weight_KCO, powers_NP, pool_RN, dtype, supports)
            grad_KMO = torch.empty_like(step.weighted_KMO)
            grad_pooled_MC = step.powers_NP.new_empty(grad_KMO.shape[1], x_LNBC.shape[3])
            for x_NBC, grad_NBO, into_NBC in zip(x_LNBC, grad_LNBO, grad_x_LNBC, strict=True):
                grad_NF = grad_NBO.to(dtype).flatten(1)
                pooled_MC = step.pool(x_NBC)
                add_product(grad_powers_NP, grad_NF, step.apply_weights(pooled_MC).t())
                torch.mm(step.powers_NP.t(), grad_NF, out=grad_KMO.view(-1, grad_NF.shape[1]))
                grad_pooled_MC.zero_()
                terms = zip(grad_weight_KCO, grad_KMO, step.weight_KCO, strict=True)
                for into_CO, grad_MO, weight_CO in terms:
                    add_product(into_CO, pooled_MC.t(), grad_MO)
                    grad_pooled_MC.addmm_(grad_MO, weight_CO.t())
                if step.pool_RN is None or grad_pool_RN is None:
                    into_NBC.copy_(grad_pooled_MC.view_as(into_NBC))
                else:
                    grad_pooled_RF = step.total(grad_pooled_MC).view(len(pool_RN), -1)
                    add_product(grad_pool_RN, grad_pooled_RF, x_NBC.to(dtype).flatten(1).t())
                    into_NBC.copy_((step.pool_RN.t() @ grad_pooled_RF).view_as(into_NBC))
        return grad_x_LNBC, grad_weight_KCO, grad_powers_NP, grad_pool_RN, None, None

    @staticmethod
    def like(
        x_LNBC: Tensor,
        weight_KCO: Tensor,
        powers_NP: Tensor,
        _pool_RN: Tensor | None,
        dtype: torch.dtype,
        _supports: Supports | None,
    ) -> tuple[Tensor]:
        return (powers_NP.new_empty(*x_LNBC.shape[:3], weight_KCO.shape[2], dtype=dtype),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        *tensors, pool_RN = ctx.saved_tensors
        return tuple(
            torch.empty_like(each)
            for each in (*tensors, tensors[0] if pool_RN is None else pool_RN)
        )


_convolve = Operator(
    _Convolution,
    "adaptive_convolution",
    returns=["output"],
    saves=["x_LNBC", "weight_KCO", "powers_NP", "pool_RN"],
    plain=plain.adaptive_convolution,
)


class _Step:
    """Products of one state, in memory that the next state reuses.

    The pooled state has M = R * B rows; F = B * O, P = K * R.
    """

    def __init__(
        self,
        x_LNBC: Tensor,
        weight_KCO: Tensor,
        powers_NP: Tensor,
        pool_RN: Tensor | None,
        dtype: torch.dtype,
        supports: Supports | None,
    ) -> None:
        self._supports = supports
        self.powers_NP, self.weight_KCO = powers_NP.to(dtype), weight_KCO.to(dtype)
        self.pool_RN = None if pool_RN is None else pool_RN.to(dtype)
        hops, _, outputs = weight_KCO.shape
        rows = powers_NP.shape[1] // hops * x_LNBC.shape[2]
        self.weighted_KMO = self.powers_NP.new_empty(hops, rows, outputs)

    def pool(self, x_NBC: Tensor) -> Tensor:
        """[M, C]: pool @ x."""
        x_NBC = x_NBC.to(self.powers_NP.dtype)
        if self.pool_RN is None:
            return x_NBC.flatten(0, 1)
        return self.total(self.pool_RN @ x_NBC.flatten(1)).view(-1, x_NBC.shape[2])

    def total(self, part: Tensor) -> Tensor:
        """The sum over the ranks that the sensors are split over."""
        return part if self._supports is None else self._supports.sum_over_ranks(part)

    def apply_weights(self, pooled_MC: Tensor) -> Tensor:
        """[P, F]: pool @ x W_k of all powers, one below the other."""
        for weight_CO, out_MO in zip(self.weight_KCO, self.weighted_KMO, strict=True):
            torch.mm(pooled_MC, weight_CO, out=out_MO)
        return self.weighted_KMO.view(self.powers_NP.shape[1], -1)
