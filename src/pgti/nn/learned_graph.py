"""A sparse graph with learned weights: K neighbours of every node, and products with it.

`nearest` chooses the neighbours by the scores p_i . q_j and never holds N x N scores. `Neighbours`
multiplies with the N x N matrix S(v) that has the value v_ik in row i and column index_ik:

    product:             S(v) x      or with `transposed`  S(v)^T x
    sampled product:     v_ik = p_i . q_{index_ik}

Each of the two is the gradient of the other, so both can be differentiated any number of times.
Products are those of sparse matrices, some features at a time: no [N, K, F] is ever allocated.
"""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor

from pgti.nn import plain
from pgti.nn.csr import csr_matrix, multiply_into
from pgti.nn.execution import without_autocast
from pgti.nn.limits import CPU_LIMITS, ChunkLimits, dense_limits
from pgti.nn.operators import Operation, Operator
from pgti.shapes import NF

__all__ = ["Neighbours", "nearest"]


def nearest(
    p_NR: Tensor, q_NR: Tensor, num_neighbours: int, limits: ChunkLimits = CPU_LIMITS
) -> Tensor:
    """For each i, the j with the largest p_i . q_j; without gradients.

    Args:
        p_NR: [N, R].
        q_NR: [N, R].
        num_neighbours: K; all nodes if there are fewer.
        limits: `scores` is used.

    Returns:
        [N, min(K, N)] int64, each row in ascending order.
    """
    num_nodes = len(p_NR)
    rows = max(1, limits.scores // num_nodes)
    count = min(num_neighbours, num_nodes)
    with torch.no_grad(), without_autocast(p_NR.device):
        chosen = [
            (part_MR @ q_NR.t()).topk(count, dim=1, sorted=False).indices
            for part_MR in torch.split(p_NR, rows)
        ]
        return torch.cat(chosen).sort(dim=1).values


class Neighbours:
    """The sparsity pattern of an N x N matrix with K entries in each row.

    Args:
        index_NK: [N, K] int64, the columns of row i; a column named twice counts twice.
        limits: for products with it.
    """

    part_types = ("Tensor", "Tensor[]", "SymInt[]")

    def __init__(self, index_NK: Tensor, limits: ChunkLimits = CPU_LIMITS) -> None:
        num_nodes, per_row = index_NK.shape
        self.index_NK = index_NK
        self.is_dense = per_row >= dense_limits(index_NK.device).density * num_nodes
        self.limits = limits
        self._sorted: list[Tensor] = []
        if not self.is_dense:
            starts = torch.arange(num_nodes + 1, device=index_NK.device)
            columns, order = index_NK.flatten().sort(stable=True)
            self._sorted = [
                (starts * per_row).int(),
                index_NK.flatten().int(),
                torch.searchsorted(columns, starts).int(),
                (order // per_row).int(),
                order,
            ]

    def parts(self) -> tuple[object, ...]:
        """What operators of the compiler take it apart to."""
        limits = self.limits
        numbers = [limits.graph_features, limits.mix_hop_features, limits.mix_hop_numbers]
        return self.index_NK, self._sorted, numbers

    @classmethod
    def from_parts(cls, index_NK: Tensor, ordered: list[Tensor], numbers: list[int]) -> Self:
        """The same again."""
        neighbours = cls.__new__(cls)
        neighbours.index_NK, neighbours._sorted = index_NK, ordered
        neighbours.is_dense = not ordered
        names = ("graph_features", "mix_hop_features", "mix_hop_numbers")
        neighbours.limits = ChunkLimits(**dict(zip(names, numbers, strict=True)))
        return neighbours

    def multiply(self, values_NK: Tensor, x_NF: NF, *, transposed: bool = False) -> NF:
        """S(v) @ x, or S(v)^T @ x; differentiable in both.

        Args:
            values_NK: [N, K], float32 or float64.
            x_NF: [N, F].
            transposed: multiply by the transpose.

        Returns:
            [N, F] in the precision of the values.
        """
        product: Tensor = _multiply(values_NK, x_NF.to(values_NK.dtype), self, transposed)
        return product

    def sample(self, p_NF: NF, q_NF: NF) -> Tensor:
        """[N, K]: p_i . q_j for each row i and its columns j; differentiable in both.

        Args:
            p_NF: [N, F], float32 or float64.
            q_NF: [N, F], of the same precision.
        """
        values: Tensor = _sample(p_NF, q_NF, self)
        return values

    def matrix(self, values_NK: Tensor, *, transposed: bool = False) -> Tensor:
        """S(v) or its transpose, dense or CSR, whichever torch multiplies faster; no gradients."""
        if self.is_dense:
            size = (len(values_NK), len(values_NK))
            matrix = values_NK.new_zeros(size).scatter_add_(1, self.index_NK, values_NK)
            return matrix.t() if transposed else matrix
        starts, columns, starts_transposed, rows, order = self._sorted
        if transposed:
            return csr_matrix(starts_transposed, rows, values_NK.flatten()[order])
        return csr_matrix(starts, columns, values_NK.flatten())

    def add_sample(self, p_NF: NF, q_NF: NF, into_NK: Tensor) -> Tensor:
        """`into` plus p_i . q_j, without gradients; `into` may be changed and returned."""
        if self.is_dense:
            return into_NK.add_((p_NF @ q_NF.t()).gather(1, self.index_NK))
        starts, columns, *_ = self._sorted
        sampled = csr_matrix(starts, columns, into_NK.flatten())
        for p_part, q_part in self._split(p_NF, q_NF):
            sampled = torch.sparse.sampled_addmm(sampled, p_part, q_part.t())
        return sampled.values().view_as(into_NK)

    def multiply_into(
        self, matrix: Tensor, x_NF: NF, out_NF: NF, *, accumulate: bool = False
    ) -> NF:
        """Write matrix @ x to out, or add it, without gradients.

        Args:
            matrix: from `matrix`.
            x_NF: [N, F].
            out_NF: [N, F], not `x_NF`.
            accumulate: add to `out` instead of overwriting it.
        """
        for x_part, out_part in self._split(x_NF, out_NF):
            multiply_into(out_part, matrix, x_part, accumulate=accumulate)
        return out_NF

    def _split(self, *tensors_NF: NF) -> Iterator[tuple[Tensor, ...]]:
        """Some features of each tensor at a time."""
        size = self.limits.graph_features
        return zip(*(torch.split(each_NF, size, dim=1) for each_NF in tensors_NF), strict=True)


class _Product(Operation):
    """S(v) @ x, or with the transpose."""

    @staticmethod
    def forward(
        ctx: Any, values_NK: Tensor, x_NF: Tensor, neighbours: Neighbours, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(values_NK, x_NF)
        ctx.options = neighbours, transposed
        with without_autocast(x_NF.device):
            matrix = neighbours.matrix(values_NK, transposed=transposed)
            out_NF = torch.empty_like(x_NF, memory_format=torch.contiguous_format)
            return neighbours.multiply_into(matrix, x_NF, out_NF)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor | None, ...]:
        values_NK, x_NF = ctx.saved_tensors
        neighbours, transposed = ctx.options
        grad_values = grad_x = None
        if ctx.needs_input_grad[0]:
            sides = (x_NF, grad_NF) if transposed else (grad_NF, x_NF)
            grad_values = _Sample.apply(*sides, neighbours)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_x = _Product.apply(values_NK, grad_NF, neighbours, not transposed)  # type: ignore[no-untyped-call]
        return grad_values, grad_x, None, None

    @staticmethod
    def like(_values_NK: Tensor, x_NF: Tensor, *_: Any) -> tuple[Tensor]:
        return (torch.empty_like(x_NF, memory_format=torch.contiguous_format),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        return _contiguous_like(*ctx.saved_tensors)


class _Sample(Operation):
    """p_i . q_j at the entries of S."""

    @staticmethod
    def forward(ctx: Any, p_NF: Tensor, q_NF: Tensor, neighbours: Neighbours) -> Tensor:
        ctx.save_for_backward(p_NF, q_NF)
        ctx.options = (neighbours,)
        with without_autocast(p_NF.device):
            zeros_NK = p_NF.new_zeros(neighbours.index_NK.shape)
            return neighbours.add_sample(p_NF, q_NF, zeros_NK)

    @staticmethod
    def backward(ctx: Any, grad_NK: Tensor) -> tuple[Tensor | None, ...]:
        p_NF, q_NF = ctx.saved_tensors
        (neighbours,) = ctx.options
        grad_p = grad_q = None
        if ctx.needs_input_grad[0]:
            grad_p = _Product.apply(grad_NK, q_NF, neighbours, False)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            grad_q = _Product.apply(grad_NK, p_NF, neighbours, True)  # type: ignore[no-untyped-call]
        return grad_p, grad_q, None

    @staticmethod
    def like(p_NF: Tensor, _q_NF: Tensor, neighbours: Neighbours) -> tuple[Tensor]:
        return (p_NF.new_empty(neighbours.index_NK.shape),)

    @staticmethod
    def gradients_like(ctx: Any) -> tuple[Tensor, ...]:
        return _contiguous_like(*ctx.saved_tensors)


def _contiguous_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(each, memory_format=torch.contiguous_format) for each in tensors)


_multiply = Operator(
    _Product,
    "learned_graph_product",
    returns=["product"],
    saves=["values_NK", "x_NF"],
    plain=plain.learned_product,
)
_sample = Operator(
    _Sample,
    "learned_graph_sample",
    returns=["values"],
    saves=["p_NF", "q_NF"],
    plain=plain.learned_sample,
)
