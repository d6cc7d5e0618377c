"""Products with an operator of a graph and its powers, for autograd and for the compiler.

The pattern of an operator whose gradient is itself; others are in `pgti.nn.operators`.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from pgti.nn.execution import is_exporting
from pgti.nn.gathered_product import GatheredProduct
from pgti.nn.limits import dense_limits
from pgti.nn.operator_arguments import object_of
from pgti.shapes import NF

if TYPE_CHECKING:
    from pgti.nn.sparse import Supports

__all__ = ["copied_powers", "prepare_export", "sparse_product"]

_EXPORTED_DENSE = 1024
"""N up to which an exported program multiplies by a matrix [N, N], 4 MiB of each operator."""


def sparse_product(x_NF: NF, supports: "Supports", index: int) -> NF:
    """S_index @ x, differentiable repeatedly; see `Supports.multiply`.

    Args:
        x_NF: [N, F], in a precision of `Supports.product`.
        supports: has the operators.
        index: of the operator.
    """
    if is_exporting():
        return _exported_product(x_NF, supports, index)
    if torch.compiler.is_compiling():
        product: Tensor = _operator(x_NF, supports.handle, index, False)
    else:
        product = _Product.apply(x_NF, supports, index, False)  # type: ignore[no-untyped-call]
    return product


def prepare_export(supports: "Supports") -> None:
    """Give the operators the form that an exported program holds, as buffers.

    That is the matrix of a small graph, or of one with a large share of edges, and else a
    `GatheredProduct`: no program holds [N, N] numbers of many sensors.
    """
    limits, num_nodes = dense_limits(torch.device("cpu")), supports.num_nodes
    for index in range(len(supports)):
        rows, columns, values = supports.csr_parts(index)
        is_dense = len(values) >= limits.density * num_nodes**2 and num_nodes <= limits.nodes
        if is_dense or num_nodes <= _EXPORTED_DENSE:
            row_of_value = torch.repeat_interleave(torch.arange(num_nodes), rows.long().diff())
            matrix = values.new_zeros(num_nodes, num_nodes)
            matrix.index_put_((row_of_value, columns.long()), values, accumulate=True)
            supports.register_buffer(f"exported_{index}_matrix", matrix, persistent=False)
        else:
            supports.add_module(f"exported_{index}", GatheredProduct(rows, columns, values))


def _exported_product(x_NF: NF, supports: "Supports", index: int) -> NF:
    """S_index @ x by torch's own operators, for a program that is exported."""
    matrix: Tensor | None = getattr(supports, f"exported_{index}_matrix", None)
    if matrix is not None:
        return matrix @ x_NF
    product: Tensor = supports.get_submodule(f"exported_{index}")(x_NF)
    return product


class _Product(torch.autograd.Function):
    """S @ x; its gradient is the product with the stored transpose, and so on."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x_NF: Tensor, supports: "Supports", index: int, transposed: bool
    ) -> Tensor:
        ctx.options = supports, index, transposed  # type: ignore[attr-defined]
        return supports.product(index, x_NF, transposed=transposed)

    @staticmethod
    def backward(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None, None, None]:
        supports, index, transposed = ctx.options
        grad: Tensor = _Product.apply(grad_NF, supports, index, not transposed)  # type: ignore[no-untyped-call]
        return grad, None, None, None


@torch.library.custom_op("pgti::sparse_product", mutates_args=())
def _operator(x_NF: Tensor, supports: int, index: int, transposed: bool) -> Tensor:
    """`_Product` for the compiler: `supports` is a handle."""
    product: Tensor = object_of(supports).product(index, x_NF, transposed=transposed)
    return product


@_operator.register_fake
def _(x_NF: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x_NF, memory_format=torch.contiguous_format)


def _set_up_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.options = inputs[1:]


def _differentiate(ctx: Any, grad_NF: Tensor) -> tuple[Tensor, None, None, None]:
    supports, index, transposed = ctx.options
    return _operator(grad_NF, supports, index, not transposed), None, None, None


_operator.register_autograd(_differentiate, setup_context=_set_up_context)


def copied_powers(supports: "Supports", hops: int, dtype: torch.dtype, *, identity: bool) -> Tensor:
    """A copy of `Supports.stacked_powers`, where the compiler traces: it may write to it."""
    powers_QN: Tensor = _powers_operator(
        supports.edge_weight, supports.handle, hops, dtype, identity
    )
    return powers_QN


@torch.library.custom_op("pgti::stacked_powers", mutates_args=())
def _powers_operator(
    like: Tensor,  # noqa: ARG001 - it says which device
    supports: int,
    hops: int,
    dtype: torch.dtype,
    identity: bool,
) -> Tensor:
    powers_QN: Tensor = object_of(supports).stacked_powers(hops, dtype, identity=identity)
    return powers_QN.clone()


@_powers_operator.register_fake
def _(like: Tensor, supports: int, hops: int, dtype: torch.dtype, identity: bool) -> Tensor:
    owner = object_of(supports)
    num_powers = len(owner) * hops + (1 if identity else 0)
    return like.new_empty(num_powers * owner.num_nodes, owner.num_nodes, dtype=dtype)
